"""The evolution strategy: three parents ask for offspring and are told how good these are.

It knows bits and objective vectors, no network. Genomes are bool [n, n_bits], 1 = filter kept; F is
float64 [n, 2] with columns (error, cost), both minimised. A search reads::

    state = start(F_of_the_unpruned_network, n_bits)
    for generation in range(generations):
        genomes, parent_of = ask(state, np.random.default_rng([seed, generation]), settings, groups)
        state = tell(state, genomes, evaluate(genomes), settings)

Source: Fernandes & Yen 2021 and, where that is silent, the authors' later code; every departure
from them is marked ours.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ..coupling.genome import repair
from ..disk import verify, write_arrays
from ..errors import DpesError
from . import pareto
from .settings import Search

ROLES = ("heavy", "knee", "light")  # order of the parents: least error, best compromise, least cost


class StrategyError(DpesError):
    """Input the strategy cannot work with: a damaged state, groups out of order, genomes without
    objectives.
    """


@dataclass(frozen=True, eq=False)
class State:
    """All that the strategy remembers between generations.

    generation: how many were told. parents: bool [3, n_bits], in the order of ``ROLES``. F: float64
    [3, 2], their objectives.
    """

    generation: int
    parents: np.ndarray
    F: np.ndarray

    @property
    def coincident(self) -> tuple[tuple[str, str], ...]:
        """Pairs of roles played by one and the same genome: a front of fewer than three points
        cannot fill three roles.
        """
        return tuple(
            (ROLES[a], ROLES[b])
            for a, b in combinations(range(3), 2)
            if (self.parents[a] == self.parents[b]).all()
        )

    def same(self, other: State) -> bool:
        """Whether all of it is equal to the bit."""
        pairs = (self.parents, other.parents), (self.F, other.F)
        return self.generation == other.generation and all(np.array_equal(*p) for p in pairs)

    def save(self, path: str | Path) -> None:
        """Write an npz file, whole or not at all."""
        write_arrays(Path(path), generation=self.generation, parents=self.parents, F=self.F)

    @classmethod
    def load(cls, path: str | Path) -> State:
        """Read what ``save`` wrote; raises ``StrategyError`` if it is missing, damaged or something
        else. Never unpickles.
        """
        cure = "delete this file: it is made again from the history"
        try:
            raw = Path(path).read_bytes()
            verify(Path(path), raw)
            with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
                generation, parents, F = int(arrays["generation"]), arrays["parents"], arrays["F"]
        except Exception as error:  # a damaged zip file fails in a dozen ways
            raise StrategyError(
                f"{path}: not a saved state of the search ({type(error).__name__}); {cure}"
            ) from None
        found = parents.dtype, parents.shape[:-1], F.dtype, F.shape
        if found != (bool, (len(ROLES),), float, (len(ROLES), 2)):
            raise StrategyError(f"{path}: not a saved state of the search (wrong shapes); {cure}")
        return cls(generation, parents, F)


def start(F: ArrayLike, n_bits: int) -> State:
    """Generation 0: the unpruned network, evaluated once, thrice parent.

    Source: authors' later code.

    Parameters
    ----------
    F
        [2], its error and cost.

    Raises
    ------
    StrategyError
        They are not finite.
    """
    F = np.asarray(F, dtype=float)
    if F.shape != (2,) or not np.isfinite(F).all():
        raise StrategyError(
            f"the unpruned network has objectives {F.tolist()}: it must evaluate to a finite error "
            "and cost"
        )
    return State(0, np.ones((len(ROLES), n_bits), dtype=bool), np.tile(F, (len(ROLES), 1)))


def ask(
    state: State,
    rng: np.random.Generator,
    settings: Search,
    groups: np.ndarray,
    rank: np.ndarray | None = None,
    least: np.ndarray | int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Offspring: for each one a parent drawn uniformly, each of its bits flipped with a
    probability, then repaired.

    A pruned filter can so return, and without selection the kept fraction drifts towards one half.

    Source: paper, authors' later code.

    Parameters
    ----------
    settings
        ``population`` and ``p_mutation`` count here.
    groups
        int [n_bits], the group of each bit, ascending.
    rank
        int [n_bits], each filter's place in its group, 0 = the last to go; given, the widths of the
        groups mutate instead (ours, see ``mutate_widths``).
    least
        int [n_groups] or one number, how many filters each group keeps.

    Returns
    -------
    genomes, parents
        bool [population, n_bits], and the parent of each, int [population], an index into
        ``ROLES``.
    """
    parent_of = rng.integers(len(ROLES), size=settings.population)
    if rank is not None:
        return mutate_widths(
            state.parents[parent_of], rng, settings.p_mutation, groups, rank, least
        ), parent_of
    flips = rng.random((settings.population, state.parents.shape[1])) < settings.p_mutation
    return repair(state.parents[parent_of] ^ flips, groups, least), parent_of


STEP = 0.15  # of a group's size: standard deviation of a change of its width


def mutate_widths(
    genomes: np.ndarray,
    rng: np.random.Generator,
    p_mutation: float,
    groups: np.ndarray,
    rank: np.ndarray,
    least: np.ndarray | int = 1,
    scale: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Each group's width changed with probability ``p_mutation`` by a normal step.

    Source: ours.

    Parameters
    ----------
    genomes
        bool [n, n_bits].
    groups, rank, least
        See ``ask``; a group keeps its filters of least rank.
    scale
        Of the steps: one for all groups, or float [n_groups].

    Returns
    -------
    Genomes, bool [n, n_bits].
    """
    _, starts, sizes = np.unique(groups, return_index=True, return_counts=True)
    widths = np.add.reduceat(genomes, starts, axis=-1, dtype=int)
    widths = np.clip(
        stepped(widths, rng, p_mutation, sizes, scale), np.minimum(least, sizes), sizes
    )
    return rank < np.repeat(widths, sizes, axis=-1)


def stepped(
    widths: np.ndarray,
    rng: np.random.Generator,
    p_mutation: float,
    sizes: np.ndarray,
    scale: np.ndarray | float = 1.0,
) -> np.ndarray:
    """int [n, n_groups]: widths, each changed with a probability by a normal step, not clipped."""
    steps = np.rint(rng.normal(0, STEP, widths.shape) * scale * sizes).astype(int)
    return widths + steps * (rng.random(widths.shape) < p_mutation)


def select(
    F: np.ndarray, knee: str = "mmd", error_ceiling: float | None = None
) -> tuple[int, int, int]:
    """(heavy, knee, light): the three rows of F that become parents; one row may play several
    roles.

    error_ceiling (ours): constraint domination. A row at or below it dominates each one above it,
    and of two above it the one with less error dominates. Raises ``FrontError`` if no row is
    finite. Source: paper.
    """
    F = np.array(F, dtype=float)
    if error_ceiling is not None:
        least = F[np.isfinite(F).all(axis=1), 0].min(initial=np.inf)
        # when all are above, only those of least error are left
        F[F[:, 0] > max(error_ceiling, least)] = np.inf
    heavy, light = pareto.boundaries(F)
    return heavy, pareto.knee(F, knee), light


def tell(state: State, genomes: np.ndarray, F: ArrayLike, settings: Search = Search()) -> State:  # noqa: B008 - it is frozen
    """The next generation's state: heavy, knee and light among the parents and their evaluated
    offspring.

    The unpruned genome competes only with ``keep_unpruned``, whoever bore it: otherwise heavy would
    nearly always be the network that was to be pruned. If nothing competes, the parents stay. Of
    equal objectives the parent's, then the earlier offspring's genome stays.

    Source: paper, authors' later code.

    Parameters
    ----------
    F
        [n, 2], the objectives of the genomes; failed evaluations carry NaN or infinity and never
        become parents.
    settings
        ``knee``, ``keep_unpruned`` and ``error_ceiling`` count here.

    Raises
    ------
    StrategyError
        Genomes or objectives of another shape.
    """
    F = np.asarray(F, dtype=float)
    if genomes.shape[1:] != state.parents.shape[1:] or F.shape != (len(genomes), 2):
        raise StrategyError(
            f"genomes {genomes.shape} with objectives {F.shape}: must be [n, "
            f"{state.parents.shape[1]}] and [n, 2]"
        )
    genomes = np.concatenate([state.parents, genomes.astype(bool)])
    objectives = np.concatenate([state.F, F])
    competing = np.isfinite(objectives).all(axis=1)
    competing &= settings.keep_unpruned | ~genomes.all(axis=1)
    if not competing.any():
        return replace(state, generation=state.generation + 1)
    genomes, objectives = genomes[competing], objectives[competing]
    chosen = list(select(objectives, settings.knee, settings.error_ceiling))
    return State(state.generation + 1, genomes[chosen], objectives[chosen])
