"""What a genome costs: MACs, parameters and activations in closed form, without a forward pass."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from .layout import Layout, kept


def costs(layout: Layout, genomes: np.ndarray, which: str = "macs") -> np.ndarray:
    """Costs of many genomes: bool [n, n_bits] -> int64 [n]; ``which`` is ``macs``, ``params`` or ``activations``."""
    return np.array([COSTS[which](layout, genome) for genome in np.atleast_2d(genomes)], dtype=np.int64)


def macs(layout: Layout, genome: np.ndarray) -> int:
    """Multiply-adds of convolution and linear layers for one image; batch norm and activations are not counted."""
    width = _Widths(layout.keep(genome))
    return sum(w.factor * width(w.out_bits) * (1 if w.in_bits is None else width(w.in_bits)) for w in layout.work)


def activations(layout: Layout, genome: np.ndarray) -> int:
    """Values written by convolution and linear layers for one image (Radosavovic et al. 2020 call these activations)."""
    width = _Widths(layout.keep(genome))
    return sum(w.positions * width(w.out_bits) for w in layout.work)


def params(layout: Layout, genome: np.ndarray) -> int:
    """Parameters of the slim network, weights and biases, batch norm included, running statistics not."""
    width = _Widths(layout.keep(genome))
    total = 0
    for tensor in layout.tensors:
        if tensor.is_parameter:
            sizes = list(tensor.shape)
            for dim, bits in tensor.cuts:
                sizes[dim] = width(bits)
            total += math.prod(sizes)
    return total


COSTS: dict[str, Callable[[Layout, np.ndarray], int]] = {"macs": macs, "params": params, "activations": activations}


class _Widths:
    """Counts the kept positions of bit vectors, each distinct vector once."""

    def __init__(self, keep: np.ndarray):
        self.keep, self.known = keep, {}

    def __call__(self, bits: np.ndarray) -> int:
        if id(bits) not in self.known:
            self.known[id(bits)] = int(kept(bits, self.keep).sum())
        return self.known[id(bits)]


@torch.no_grad()
def latency(models: dict[str, nn.Module], x: Tensor, rounds: int = 15) -> dict[str, list[float]]:
    """Seconds per forward pass of several networks, measured in turn so that a busy machine slows all alike.

    x: one batch, float. Returns ``rounds`` timings by name; compare their medians as ratios. Source: ours.
    """
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 2):
        for name, model in models.items():
            model.eval()
            _wait(x)
            start = time.perf_counter()
            model(x)
            _wait(x)
            if turn >= 2:  # the first two warm caches and kernels up
                seconds[name].append(time.perf_counter() - start)
    return seconds


def latency_ratios(seconds: dict[str, list[float]], reference: str) -> dict[str, float]:
    """Median over rounds of (network / reference), both timed in the same round."""
    return {name: statistics.median(t / r for t, r in zip(times, seconds[reference], strict=True)) for name, times in seconds.items()}


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
