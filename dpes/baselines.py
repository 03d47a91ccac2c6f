"""Rivals of the strategy under the same budget: networks of the same MACs that no search has chosen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import cost, importance
from .channels import Layout
from .es import repair


def random_mask(layout: Layout, macs: float, seed: int) -> np.ndarray:
    """A genome that keeps each filter with the same probability, nearest to ``macs`` from below: bool [n_bits]."""
    draws = np.random.default_rng(seed).random(layout.n_bits)
    return nearest(layout, macs, lambda share: repair(draws < share, layout.group_of_bit))


def uniform(layout: Layout, macs: float, scores: np.ndarray) -> np.ndarray:
    """A genome that keeps the same share of every group, its filters of highest score, nearest to ``macs`` from below.

    scores: [n_bits], for example ``importance.l1_norms`` (uniform L1, Li et al. 2017).
    """
    rank = importance.ranks(layout, scores)
    sizes = np.concatenate([np.full(g.size, g.size) for g in layout.groups])
    return nearest(layout, macs, lambda share: rank < np.maximum(1, np.rint(share * sizes)))


def nearest(layout: Layout, macs: float, genome_of: Callable[[float], np.ndarray]) -> np.ndarray:
    """The largest genome of a family that costs at most ``macs``, by bisection over its share of kept filters in [0, 1].

    genome_of: share -> genome, which must not shrink as the share grows. Where even the smallest one costs more, that one.
    """
    low, high = 0.0, 1.0
    if cost.macs(layout, genome_of(high)) <= macs:
        return genome_of(high)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if cost.macs(layout, genome_of(middle)) <= macs else (low, middle)
    return genome_of(low)
