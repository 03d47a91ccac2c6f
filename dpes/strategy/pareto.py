"""Trade-offs between two minimised objectives: which rows of F no other row beats, and which of
those stand out.

F is float [n, 2] with columns (error, cost), any units. Every function looks at the non-dominated
rows alone, so F may hold dominated, equal and failed (NaN, infinite) rows. Of equal rows the first
counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DpesError, suggest

# weights of (error, cost); mmd: paper, win: authors' later code
KNEES = {"mmd": (1, 1), "win": (2 / 3, 1 / 3)}


class FrontError(DpesError):
    """Objective vectors of another shape, without one finite row, or a knee or reference that does
    not exist.
    """


def dominates(a: ArrayLike, b: ArrayLike) -> bool:
    """Whether a is at least as good as b in every objective and better in one.

    a, b: [2], minimised. Equal vectors do not dominate each other; NaN neither dominates nor is
    dominated.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    return bool((a <= b).all() and (a < b).any())


def front(F: ArrayLike) -> np.ndarray:
    """Indices of the non-dominated rows, by rising error and therefore by falling cost; empty if
    every row failed.
    """
    F = _objectives(F)
    order = np.lexsort((F[:, 1], F[:, 0]))  # by error, equal errors by cost, equal rows by index
    order = order[np.isfinite(F[order]).all(axis=1)]
    cost = F[order, 1]
    # among the rows before this one: none has more error
    cheapest_so_far = np.minimum.accumulate(np.append(np.inf, cost))[:-1]
    return order[cost < cheapest_so_far]


def non_dominated(F: ArrayLike) -> np.ndarray:
    """bool [n]: the rows that no other row dominates; of equal rows only the first."""
    mask = np.zeros(len(_objectives(F)), dtype=bool)
    mask[front(F)] = True
    return mask


def ideal(F: ArrayLike) -> np.ndarray:
    """[2]: the least error and the least cost on the front, which one point seldom has both of."""
    return _objectives(F)[_some(front(F))].min(axis=0)


def nadir(F: ArrayLike) -> np.ndarray:
    """[2]: the most error and the most cost on the front; dominated rows do not move it."""
    return _objectives(F)[_some(front(F))].max(axis=0)


def boundaries(F: ArrayLike) -> tuple[int, int]:
    """(heavy, light): the rows of least error and of least cost, one row twice if it has both.

    Equal errors are decided by cost, equal costs by error. Source: paper.
    """
    order = _some(front(F))
    return int(order[0]), int(order[-1])


def knee(F: ArrayLike, how: str = "mmd") -> int:
    """The row between the boundaries that is nearest to the ideal point when ideal and nadir are
    scaled to (0, 0) and (1, 1).

    how: ``mmd`` is the plain Manhattan distance (paper; Chiu, Yen & Juan, arXiv 1705.01705),
    ``win`` weighs error 2/3 and cost 1/3 (authors' later code). Equal distances go to the lower
    error. On a front of one or two points the knee is the heavy boundary (ours).
    Raises ``FrontError`` for an unknown ``how`` or if every row failed.
    """
    if how not in KNEES:
        raise FrontError(f"unknown knee {how!r}: {suggest(how, KNEES)}")
    F, order = _objectives(F), _some(front(F))
    # scaled to (0, 1) and (1, 0): mmd is a tie, which the lower error decides, and win prefers
    # heavy
    if len(order) < 3:
        return int(order[0])
    # both boundaries have Manhattan distance 1: on a front that bulges away from the ideal point
    # they would beat all between
    between = order[1:-1]
    error, cost = ((F[between] - ideal(F)) / (nadir(F) - ideal(F))).T
    w_error, w_cost = KNEES[how]
    return int(between[np.argmin(w_error * error + w_cost * cost)])


def hypervolume(F: ArrayLike, reference: Sequence[float] | np.ndarray) -> float:
    """The area that the front dominates up to a reference point, exact; in units of error x cost.

    reference: [2], finite. Rows that are not better than it in both objectives add nothing; no such
    row at all: 0.0.
    """
    corner = np.asarray(reference, dtype=float)
    if corner.shape != (2,) or not np.isfinite(corner).all():
        raise FrontError(f"reference = {reference!r}: must be two finite numbers (error, cost)")
    F = _objectives(F)
    F = F[(F < corner).all(axis=1)]
    error, cost = F[front(F)].T
    # each point owns the strip up to the next point's error
    widths = np.diff(error, append=corner[0])
    return float((widths * (corner[1] - cost)).sum())


def _objectives(F: ArrayLike) -> np.ndarray:
    F = np.asarray(F, dtype=float)
    if F.ndim != 2 or F.shape[1] != 2:
        raise FrontError(
            f"objectives of shape {F.shape}: must be [n, 2] with columns error and cost"
        )
    return F


def _some(order: np.ndarray) -> np.ndarray:
    if len(order) == 0:
        why = "every evaluation failed, there is no front to choose from"
        raise FrontError(f"no row with finite objectives: {why}")
    return order
