"""Filters ranked by their weights: knowledge that the plain strategy does without, for variants and
rivals only."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from .layout import KEPT, Layout
from .network import tensors_of


@torch.no_grad()
def l1_norms(model: nn.Module, layout: Layout) -> np.ndarray:
    """Float64 [n_bits]: the L1 norm of each filter, summed over the layers that are coupled in its
    bit.

    Only weights that compute the filter count (convolution and linear, by their output dimension).
    Source: Li et al. 2017, summed over coupled layers as usual since.
    """
    norms = np.zeros(layout.n_bits)
    for owned, tensor in zip(layout.tensors, tensors_of(model, layout.tensors), strict=True):
        bits = dict(owned.cuts).get(0)
        if bits is not None and owned.places[0][1] == "weight" and tensor.ndim > 1:
            sums = tensor.double().abs().flatten(1).sum(1).cpu().numpy()
            np.add.at(norms, bits[bits != KEPT], sums[bits != KEPT])
    return norms


@torch.no_grad()
def group_norms(model: nn.Module, layout: Layout) -> np.ndarray:
    """Float64 [n_bits]: the L2 norm of all weights that leave with a bit: those that compute its
    filters, those that read them, and the scales of their norms.

    Source: Fang et al. 2023; Torch-Pruning orders the filters of a group alike, but leaves out
    depthwise weights.
    """
    squares = np.zeros(layout.n_bits)
    for owned, tensor in zip(layout.tensors, tensors_of(model, layout.tensors), strict=True):
        if not owned.places[0][1].endswith("weight"):
            continue
        for dim, bits in owned.cuts:
            sums = tensor.double().square().movedim(dim, 0).reshape(len(bits), -1).sum(1)
            np.add.at(squares, bits[bits != KEPT], sums.cpu().numpy()[bits != KEPT])
    return np.sqrt(squares)


def ranking(groups: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """int [..., n_bits]: each filter's place in its group by falling score, 0 = highest; equal
    scores by their order.

    groups: int [n_bits], the group of each bit, ascending. scores: float [..., n_bits].
    """
    order = np.lexsort((-scores, np.broadcast_to(groups, scores.shape)), axis=-1)
    place = np.arange(len(groups)) - np.searchsorted(groups, groups)
    rank = np.empty(scores.shape, dtype=int)
    np.put_along_axis(rank, order, np.broadcast_to(place, scores.shape), axis=-1)
    return rank
