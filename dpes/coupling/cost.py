"""What genomes cost: in closed form by name, or as measured time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from .layout import Layout


def costs(layout: Layout, genomes: np.ndarray, which: str = "macs") -> np.ndarray:
    """Costs of many genomes: bool [n, n_bits] -> int64 [n]; ``which`` is ``macs``, ``params`` or
    ``activations``."""
    return np.array(
        [COSTS[which](layout, genome) for genome in np.atleast_2d(genomes)], dtype=np.int64
    )


COSTS: dict[str, Callable[[Layout, np.ndarray], int]] = {
    "macs": Layout.macs, "params": Layout.params, "activations": Layout.activations
}  # fmt: skip


@torch.no_grad()
def latency(models: dict[str, nn.Module], x: Tensor, rounds: int = 15) -> dict[str, list[float]]:
    """Seconds per forward pass of several networks, measured in turn so that a busy machine slows
    all alike.

    x: one batch, float. Returns ``rounds`` timings by name; compare their medians as ratios.
    Source: ours.
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
    return {
        name: statistics.median(t / r for t, r in zip(times, seconds[reference], strict=True))
        for name, times in seconds.items()
    }


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
