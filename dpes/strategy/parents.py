"""Who has offspring: the paper's three solutions, or the whole archive of non-dominated candidates,
the lonely ones more often.
"""

from __future__ import annotations

import numpy as np

from . import es, pareto
from .history import History
from .space import Space


def three(space: Space, history: History, first: int, population: int) -> np.ndarray:
    """bool [3, n_bits]: heavy, knee and light after all generations of the history, each selected
    as the paper does.

    first: how many candidates the start has; after them come generations of ``population``. The
    unpruned network does not compete with its children.
    """
    genomes, F = history.genomes, history.F
    if genomes[:first].all():
        state = es.start(F[0], space.n_bits)
    else:
        rows = list(es.select(F[:first]))
        state = es.State(0, genomes[rows], F[rows])
    for i in range(first, len(history), population):
        state = es.tell(state, genomes[i : i + population], F[i : i + population])
    return state.parents


def archive(
    history: History, rng: np.random.Generator, n: int, ceiling: float | None = None
) -> np.ndarray:
    """bool [n, n_bits]: n members of the non-dominated set, each the lonelier of two drawn at
    random (Deb et al. 2002).

    ceiling: members that err on more have no offspring while others err on less.
    """
    front = pareto.front(F := history.F)
    if ceiling is not None and (F[front, 0] <= ceiling).any():
        front = front[F[front, 0] <= ceiling]
    distance = crowding(F[front])
    pairs = rng.integers(len(front), size=(n, 2))
    winner = np.where(distance[pairs[:, 0]] >= distance[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    return history.genomes[front[winner]]


def disagreement(space: Space, history: History) -> np.ndarray:
    """float [n_groups], of mean 1: how far the non-dominated candidates differ in each group.

    A step is as long as they disagree on the group's width, as in evolution strategies whose steps
    adapt (Hansen 2016); a group on which they agree still takes a fifth of the mean step.
    """
    widths = space.shares(history.genomes[pareto.front(history.F)])
    deviation = widths.std(axis=0)
    scale = deviation / deviation.mean() if deviation.any() else np.ones_like(deviation)
    scale = np.maximum(scale, 0.2)
    return scale / scale.mean()


def crowding(F: np.ndarray) -> np.ndarray:
    """float [n]: crowding distance of the rows of a front that is sorted by error; the two ends are
    infinitely lonely.
    """
    distance = np.full(len(F), np.inf)
    if len(F) > 2:
        scale = F.max(axis=0) - F.min(axis=0)
        gaps = np.abs(F[2:] - F[:-2]) / np.where(scale > 0, scale, 1)
        distance[1:-1] = gaps.sum(axis=1)
    return distance
