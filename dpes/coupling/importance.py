"""Filters ranked by their weights: knowledge that the plain strategy does without, for variants and
rivals only."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from .layout import KEPT, Layout


@torch.no_grad()
def l1_norms(model: nn.Module, layout: Layout) -> np.ndarray:
    """Float64 [n_bits]: the L1 norm of each filter, summed over the layers that are coupled in its
    bit.

    Only weights that compute the filter count (convolution and linear, by their output dimension).
    Source: Li et al. 2017, summed over coupled layers as usual since.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    norms = np.zeros(layout.n_bits)
    for owned in layout.tensors:
        module, name = owned.places[0]
        bits = dict(owned.cuts).get(0)
        if bits is None or name != "weight" or len(owned.shape) < 2:
            continue
        sums = (
            getattr(modules[module], name).detach().double().abs().flatten(1).sum(1).cpu().numpy()
        )
        prunable = bits != KEPT
        np.add.at(norms, bits[prunable], sums[prunable])
    return norms


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
