"""Networks that no search has chosen: thinned uniformly, or by one criterion over all layers, at
the same shares of the MACs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..coupling.importance import ranking
from ..strategy.history import History
from ..strategy.space import Space, order_of
from ..strategy.starts import rounding
from .budgets import largest

CUTS = tuple(round(0.95 - 0.05 * i, 2) for i in range(15))  # .95, .90, ... .25 of the MACs


def at_cuts(space: Space, known: int, genome_of: Callable[[float], np.ndarray]) -> np.ndarray:
    """bool [n, n_bits]: the largest genomes of a family at ``CUTS``, but the first ``known``."""
    found = [largest(space.share, cut, genome_of) for cut in CUTS[known:]]
    return np.array(found, dtype=bool).reshape(-1, space.n_bits)


@dataclass(frozen=True)
class Uniform:
    """The same share of every group (Li et al. 2017 with L1), once at each of ``CUTS``; order
    random: drawn from the seed.
    """

    order: str = "l1"

    @property
    def knowledge(self) -> bool:
        return self.order != "random"

    @property
    def evaluations(self) -> int:
        return len(CUTS)

    def rank(self, space: Space, seed: int) -> np.ndarray:
        return order_of(space, self.order, seed)

    def __call__(self, space: Space, history: History, seed: int) -> np.ndarray:
        rank, shift = self.rank(space, seed), rounding(len(space.sizes))

        def genome_of(t: float) -> np.ndarray:
            return space.genomes(np.floor(t * space.sizes + shift).astype(int), rank)

        return at_cuts(space, len(history), genome_of)


@dataclass(frozen=True, eq=False)
class Global:
    """The filters of highest score over all groups at once, each group's best one always kept, once
    at each of ``CUTS``.
    """

    order: str = "l2"

    knowledge = True
    evaluations = len(CUTS)

    def rank(self, space: Space, seed: int) -> np.ndarray:
        return order_of(space, self.order, seed)

    def __call__(self, space: Space, history: History, seed: int) -> np.ndarray:
        scores = space.scores[self.order]
        falling = np.sort(scores)[::-1]
        best = ranking(space.groups, scores) < np.minimum(space.least, space.sizes)[space.groups]

        def genome_of(t: float) -> np.ndarray:
            n = int(round(t * len(scores)))
            return best | (scores >= falling[n - 1] if n else np.zeros(len(scores), dtype=bool))

        return at_cuts(space, len(history), genome_of)


@dataclass(frozen=True)
class Reference:
    """No method, but what its network is measured by: the unpruned network under the same training,
    or, ``of`` a method, its network with weights that are drawn anew (Liu et al. 2019).
    """

    of: str | None = None
    knowledge = True
    evaluations = 0

    def rank(self, space: Space, seed: int) -> None:
        return None

    def __call__(self, space: Space, history: History, seed: int) -> np.ndarray:
        return np.zeros((0, space.n_bits), dtype=bool)


def grown(space: Space, genome: np.ndarray, share: float, rank: np.ndarray) -> np.ndarray:
    """The genome brought to a share of the MACs: every group regains the same part of what it lost,
    in the given order.

    Kept filters stay. What is left of the share then goes to single filters, one for each group
    that has room, in the order of the groups. rank: int [n_bits].
    """
    order = np.where(genome, -1, rank)  # what is kept comes first
    place = ranking(space.groups, -order.astype(float))
    widths, shift = space.widths(genome), rounding(len(space.sizes))
    lost = space.sizes - widths

    def genome_of(t: float) -> np.ndarray:
        regained = np.floor(np.minimum(t * lost + shift * (t > 0), lost)).astype(int)
        return genome | (place < (widths + regained)[space.groups])

    result = largest(space.share, share, genome_of)
    for group, width in enumerate(space.widths(result)):
        one_more = result | ((space.groups == group) & (place == width))
        if space.share(one_more) <= share:
            result = one_more
    return result
