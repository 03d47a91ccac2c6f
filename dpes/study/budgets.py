"""Genomes of a given number of MACs that no search has chosen: random, uniform, in proportion."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..coupling import importance
from ..coupling.genome import repair
from ..coupling.layout import Layout
from ..strategy.starts import rounding


def random_mask(layout: Layout, macs: float, seed: int) -> np.ndarray:
    """Keeps each filter with the same probability; bool [n_bits], at most ``macs`` (ours)."""
    draws = np.random.default_rng(seed).random(layout.n_bits)
    return largest(layout.macs, macs, lambda share: repair(draws < share, layout.group_of_bit))


def uniform(layout: Layout, macs: float, scores: np.ndarray) -> np.ndarray:
    """Keeps the same share of every group, its filters of highest score; at most ``macs``.

    scores: [n_bits], for example ``importance.l1_norms`` (uniform L1, Li et al. 2017).
    """
    return in_proportion(layout, macs, scores, np.full(len(layout.groups), 0.5))


def in_proportion(
    layout: Layout, macs: float, scores: np.ndarray, shares: np.ndarray
) -> np.ndarray:
    """Keeps the proportions of given widths, the filters of highest score; at most ``macs``.

    Source: ours.

    Parameters
    ----------
    shares
        [n_groups] in (0, 1], what each group keeps of its filters in the network whose proportions
        count; all are raised to one power, so that a whole group stays whole and a narrower one
        stays narrower.
    """
    rank = importance.ranking(layout.group_of_bit, scores)
    sizes = np.array([g.size for g in layout.groups])
    shift = rounding(len(sizes))

    def genome_of(size: float) -> np.ndarray:
        kept = shares ** ((1 - size) / max(size, 1e-9)) * sizes
        return rank < np.maximum(1, np.floor(kept + shift))[layout.group_of_bit]

    return largest(layout.macs, macs, genome_of)


def largest(
    cost: Callable[[np.ndarray], float], limit: float, genome_of: Callable[[float], np.ndarray]
) -> np.ndarray:
    """The largest genome of a family that costs at most ``limit``, or its smallest; by bisection.

    genome_of: size in [0, 1] -> genome, which must not shrink as the size grows.
    """
    low, high = 0.0, 1.0
    if cost(genome_of(high)) <= limit:
        return genome_of(high)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(genome_of(middle)) <= limit else (low, middle)
    return genome_of(low)
