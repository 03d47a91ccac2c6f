"""Where a search begins: a sample that is spread over the whole useful range, uniform fractions, or
the unpruned network.

The n-th candidate of a sample depends on (seed, n) alone. So every variant of one seed starts at
the same networks, random search is nothing but the same sample going on, and differences between
variants are paired.
"""

from __future__ import annotations

import numpy as np

from ..coupling.importance import ranking
from .space import Space

GOLDEN = (5**0.5 - 1) / 2
RANGE = (0.6, 1.02)  # of the mean share of filters kept: some .35 to .97 of the MACs
SPREAD = 0.12  # standard deviation of a group's share about that mean


def rounding(groups: int) -> np.ndarray:
    """float [groups] in [0, 1): what is added before widths are rounded down.

    If all groups of a DenseNet rounded at once, its MACs would go in steps of a tenth; so each
    rounds at another point, spread evenly, as are those of neighbours.
    """
    return np.arange(groups) * GOLDEN % 1


def spread_widths(space: Space, seed: int, first: int, n: int) -> np.ndarray:
    """int [n, n_groups]: widths number ``first`` .. of the spread sample; any stretch of it covers
    the range evenly (golden ratio).
    """
    shift = np.random.default_rng([seed, 0]).random()
    rows = []
    for i in range(first, first + n):
        mean = RANGE[0] + (RANGE[1] - RANGE[0]) * ((i * GOLDEN + shift) % 1)
        drawn = np.random.default_rng([seed, 1, i]).standard_normal(len(space.sizes))
        rows.append(mean + SPREAD * drawn)
    return np.clip(np.rint(np.reshape(rows, (n, -1)) * space.sizes), 1, space.sizes).astype(int)


def fresh_ranks(space: Space, seed: int, first: int, n: int) -> np.ndarray:
    """int [n, n_bits]: a random order of its own for each candidate of the sample, so that any set
    of filters can come up.
    """
    numbers = range(first, first + n)
    scores = [np.random.default_rng([seed, 2, i]).random(space.n_bits) for i in numbers]
    return ranking(space.groups, np.reshape(scores, (n, -1)))


def spread(space: Space, seed: int, rank: np.ndarray | None, first: int, n: int) -> np.ndarray:
    """bool [n, n_bits]: the spread sample; without a rank the same widths, of filters drawn anew
    for each candidate.
    """
    rank = fresh_ranks(space, seed, first, n) if rank is None else rank
    return space.genomes(spread_widths(space, seed, first, n), rank)


def uniform(space: Space, seed: int, rank: np.ndarray | None, n: int) -> np.ndarray:
    """bool [n, n_bits]: the same share of every group, n shares evenly over the range; no group
    rounds where another does.
    """
    shares = np.linspace(RANGE[1], RANGE[0], n + 1, endpoint=False)[1:]
    exact = np.minimum(shares, 1)[:, None] * space.sizes
    widths = np.floor(exact + rounding(len(space.sizes))).astype(int)
    return space.genomes(widths, fresh_ranks(space, seed, 0, n) if rank is None else rank)


def unpruned(space: Space) -> np.ndarray:
    """bool [1, n_bits]: every filter kept."""
    return np.ones((1, space.n_bits), dtype=bool)
