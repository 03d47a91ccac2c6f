"""The strategy in parts: a variant says how genomes are encoded, where the search starts, who has
offspring, and who is evaluated.

A strategy is any function (space, history, seed) -> genomes bool [n, n_bits] to evaluate next, none
when it has no more to say. It remembers nothing: whatever it needs it finds in the history, so a
search resumes from its list of candidates alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import es, learned, parents, starts, surrogate
from .history import History
from .space import Space, narrowness, order_of


@dataclass(frozen=True)
class Variant:
    """The parts of one search; calling it proposes the next generation."""

    encoding: str = "widths"  # widths: how many filters each group keeps; bits: which ones
    # of a group's filters (widths): one of the space, random (by the seed), learned
    order: str = "l1"
    start: str = "spread"  # spread, uniform, unpruned
    parents: str = "archive"  # archive: non-dominated set by crowding; three: heavy, knee, light
    proposals: str = "mutation"  # mutation; surrogate: screened by it; sample: no selection at all
    p_mutation: float = 0.3  # of changing a group's width, or of flipping a bit
    population: int = 15
    first: int = 30  # candidates of the start
    pool: int = 2000  # that the surrogate chooses from
    evaluations: int = 150  # without that of the unpruned network
    least: float | None = None  # share that offspring keep of every group (widths): no bottlenecks
    # price of bottlenecks, added to an error: so much for each 1 that 1 / (share of a group that is
    # kept) is over 1 in the mean of all groups
    bottleneck: float | None = None
    fitness: str | None = None  # of its candidates; the tournament's own when unset
    # orders that a learned order begins with; none when unset
    criteria: tuple[str, ...] | None = None
    ceiling: float | None = None  # error above which a candidate of the archive has no offspring
    steps: str | None = None  # history: of a group (widths) as the archive disagrees on it

    @property
    def knowledge(self) -> bool:
        """Whether it has looked at the weights."""
        if self.order == "learned":
            return bool(self.criteria)
        return self.encoding == "widths" and self.order != "random"

    def rank(self, space: Space, seed: int) -> np.ndarray | None:
        """int [n_bits]: the order of the filters, or None where every set of them can come up."""
        if self.order == "learned":
            return space.orders[self.criteria[0]] if self.criteria else None
        return order_of(space, self.order, seed) if self.encoding == "widths" else None

    def toll(self, space: Space, genomes: np.ndarray) -> np.ndarray:
        """float [n]: what it adds to the error of each genome for its bottlenecks, because
        fine-tuning may bring back less of what narrow groups lost.
        """
        return (self.bottleneck or 0.0) * narrowness(space.shares(genomes))

    def seen(self, space: Space, history: History) -> History:
        """The history with the errors that it goes by."""
        if not self.bottleneck:
            return history
        pairs = zip(history.candidates, self.toll(space, history.genomes), strict=True)
        candidates = [replace(c, error=c.error + toll) for c, toll in pairs]
        return History(candidates, n_bits=history.n_bits, whole=history.whole)

    def __call__(self, space: Space, history: History, seed: int) -> np.ndarray:
        rank, first = self.rank(space, seed), 1 if self.start == "unpruned" else self.first
        if self.proposals == "sample":
            return starts.spread(space, seed, rank, len(history), self.population)
        if not len(history):
            return self.begin(space, rank, seed)
        rng = np.random.default_rng([seed, (len(history) - first) // self.population])
        if self.parents == "three":
            three = parents.three(space, history, first, self.population)
            drawn = three[rng.integers(3, size=self.population)]
            return self.mutated(space, history, drawn, rank, rng)
        if self.proposals == "surrogate":
            return self.screened(space, history, rank, rng)
        judged = self.seen(space, history)
        drawn = parents.archive(judged, rng, 4 * self.population, self.ceiling)
        new = self.mutated(space, history, drawn, rank, rng)
        return surrogate.unseen(new, history.genomes)[: self.population]

    def screened(
        self, space: Space, history: History, rank: np.ndarray | None, rng: np.random.Generator
    ) -> np.ndarray:
        """What the surrogate likes best of offspring of the archive and as many fresh samples."""
        if self.order == "learned":
            widths = learned.widths_to_try(space, history, self.p_mutation, self.pool, rng)
            names = self.criteria or ()
            return learned.propose(space, history, widths, self.population, rng, names)
        judged = self.seen(space, history)
        drawn = parents.archive(judged, rng, self.pool // 2, self.ceiling)
        old = self.mutated(space, history, drawn, rank, rng)
        new = starts.spread(space, int(rng.integers(2**32)), rank, 0, self.pool // 2)
        pool = np.concatenate([old, new])
        if self.least is not None and rank is not None:
            floor = np.ceil(self.least * space.sizes).astype(int)
            pool = space.genomes(np.maximum(space.widths(pool), floor), rank)
        return surrogate.screen(space, history, pool, self.population, rng, self.toll)

    def begin(self, space: Space, rank: np.ndarray | None, seed: int) -> np.ndarray:
        """The first generation."""
        if self.start == "unpruned":
            return starts.unpruned(space)
        if self.start == "uniform":
            return starts.uniform(space, seed, rank, self.first)
        if self.order == "learned":
            rank = learned.first_ranks(space, seed, 0, self.first, self.criteria or ())
        return starts.spread(space, seed, rank, 0, self.first)

    def mutated(
        self,
        space: Space,
        history: History,
        genomes: np.ndarray,
        rank: np.ndarray | None,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Offspring of the given parents, one each."""
        if rank is None:
            flips = rng.random(genomes.shape) < self.p_mutation
            return es.repair(genomes ^ flips, space.groups, space.least)
        scale = parents.disagreement(space, history) if self.steps == "history" else 1.0
        return es.mutate_widths(
            genomes, rng, self.p_mutation, space.groups, rank, space.least, scale
        )


# what won the tournament: the study's "surrogate-toll-group"
SURROGATE = Variant(proposals="surrogate", order="group", least=0.3, bottleneck=0.1)
