"""What a search knows of its problem: the coupled groups, and what a genome costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..coupling.importance import ranking


@dataclass(frozen=True, eq=False)
class Space:
    """The genomes of one network; no weights, no framework.

    groups: int [n_bits], the coupled group of each bit, ascending. cost: genomes bool [n, n_bits]
    -> the share of the MACs that each has left, float [n]. orders: name -> rank int [n_bits], each
    filter's place in its group, 0 = the last to go; an order that was computed from weights is
    knowledge, and variants that use one say so. scores: name -> float [n_bits], what an order was
    made from. least: how many filters each group keeps, int [n_groups] or one number.
    """

    groups: np.ndarray
    cost: Callable[[np.ndarray], np.ndarray]
    orders: Mapping[str, np.ndarray] = field(default_factory=dict)
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    least: np.ndarray | int = 1

    @property
    def n_bits(self) -> int:
        return len(self.groups)

    @property
    def starts(self) -> np.ndarray:
        """int [n_groups]: the first bit of each group."""
        return np.unique(self.groups, return_index=True)[1]

    @property
    def sizes(self) -> np.ndarray:
        """int [n_groups]: how many filters each group has."""
        return np.bincount(self.groups)

    def share(self, genome: np.ndarray) -> float:
        """Of the MACs, that one genome has left."""
        return float(self.cost(genome[None])[0])

    def widths(self, genomes: np.ndarray) -> np.ndarray:
        """int [..., n_groups]: how many filters of each group are kept."""
        return np.add.reduceat(genomes, self.starts, axis=-1, dtype=int)

    def shares(self, genomes: np.ndarray) -> np.ndarray:
        """float [..., n_groups] in (0, 1]: which part of each group is kept."""
        return self.widths(genomes) / self.sizes

    def genomes(self, widths: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """bool [..., n_bits]: of each group so many filters, those of least rank; widths are
        clipped to least .. size.

        rank: int [n_bits], or one for each row of widths.
        """
        widths = np.clip(widths, np.minimum(self.least, self.sizes), self.sizes)
        return rank < widths[..., self.groups]


def narrowness(shares: np.ndarray) -> np.ndarray:
    """float [...]: how far the mean of 1 / share is over 1; 0 for a whole network, 1 for half of
    each group, 1 as well for a tenth of one group of nine.

    shares: float [..., n_groups], which part of each group is kept.
    """
    return (1 / shares - 1).mean(axis=-1)


def order_of(space: Space, name: str, seed: int) -> np.ndarray:
    """int [n_bits]: the rank of each filter by an order of the space, or, named random, by one that
    is drawn from the seed.
    """
    if name == "random":
        return ranking(space.groups, np.random.default_rng([seed, 3]).random(space.n_bits))
    return space.orders[name]
