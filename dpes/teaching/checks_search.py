"""Checks of the exercises on fronts, knees and the evolution strategy."""

from __future__ import annotations

from typing import Any

import numpy as np

from .exercises import Hint, call, compare, exercise, number


# ---- trade-offs and knees ----
@exercise("dominates")
def dominates(answer: Any) -> str:
    cases = (
        ((1, 1), (2, 2), True),
        ((1, 2), (2, 1), False),
        ((1, 1), (1, 1), False),
        ((1, 1), (1, 2), True),
        ((2, 2), (1, 1), False),
    )
    for a, b, mine in cases:
        theirs = call(answer, np.array(a), np.array(b))
        if np.ndim(theirs):
            raise Hint("Return one truth value, not one for each objective.")
        if bool(theirs) != mine:
            raise Hint(f"{a} {'dominates' if mine else 'does not dominate'} {b}.")
    return "Nowhere worse and somewhere better."


def on_front(F: np.ndarray) -> list[int]:
    """Indices of the rows that no other row dominates."""
    return [i for i, a in enumerate(F) if not any((b <= a).all() and (b < a).any() for b in F)]


@exercise("front")
def front(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for n in (1, 5, 40):
        F = rng.random((n, 2))
        theirs = sorted(int(i) for i in call(answer, F))
        if set(on_front(F)) - set(theirs):
            raise Hint(f"{n} points: one that nobody dominates is missing.")
        if theirs != on_front(F):
            raise Hint(f"{n} points: one of yours is dominated by another, or named twice.")
    return "No point of it is dominated, no other such point is missing."


def distances(F: np.ndarray) -> np.ndarray:
    """Manhattan distances to the ideal point, objectives scaled to 0 (best) and 1 (worst)."""
    return ((F - F.min(0)) / (F.max(0) - F.min(0))).sum(1)


def knee_of(F: np.ndarray) -> int:
    """The row of a front, boundaries apart, of least Manhattan distance."""
    between = [i for i in range(len(F)) if i not in (F[:, 0].argmin(), F[:, 1].argmin())]
    return min(between, key=lambda i: distances(F)[i])


FIVE = np.array(
    [[0.10, 100], [0.12, 80], [0.20, 50], [0.30, 40], [0.50, 20]]
)  # A to E of the chapter: error, MACs (M)


@exercise("knee")
def knee(answer: Any) -> str:
    rng = np.random.default_rng(1)
    for k in range(4):
        error, macs = np.sort(rng.random(7)), -np.sort(-rng.random(7)) * 100
        F = FIVE if not k else np.column_stack([error, macs])
        if int(call(answer, F)) != knee_of(F):
            raise Hint(
                "Another point between the boundaries is nearer to the ideal point. Did you "
                "scale both objectives to 0 and 1?"
            )
    return "Least distance to the ideal point, the two boundaries apart."


@exercise("knee-moves")
def knee_moves(answer: Any) -> str:
    F = FIVE.copy()
    F[2, 0] = 0.28
    if str(answer).strip().upper() != "ABCDE"[knee_of(F)]:
        raise Hint("Compute the scaled distances again, with C at an error of .28.")
    return "A small change of one point made another one the knee."


@exercise("move-the-knee")
def move_the_knee(answer: Any) -> str:
    point = np.asarray(answer, dtype=float)
    if point.shape != (2,):
        raise Hint("Two numbers are wanted: error and MACs (M).")
    F = np.vstack([FIVE, point])
    if on_front(F) != list(range(6)):
        raise Hint("With your point, one of the six is dominated. All six must lie on the front.")
    if knee_of(F) == 5:
        raise Hint("Your point is the knee itself. Move the knee from C to another of the five.")
    if knee_of(F) == 2:
        raise Hint("C is still the knee. What changes when a boundary moves far away?")
    return f"The knee is {'ABCDE'[knee_of(F)]} now: a boundary moved, and with it the scale."


# ---- the strategy ----
@exercise("drift")
def drift(answer: Any) -> str:
    rng = np.random.default_rng(0)
    hint = "A removed filter can come back: a bit is flipped, not cleared."
    for p, generations in ((0.05, 1), (0.1, 10), (0.2, 3)):
        bits = np.ones(400_000, dtype=bool)
        for _ in range(generations):
            bits ^= rng.random(len(bits)) < p
        of = f"p = {p}, {generations} generations (400,000 bits were flipped)"
        mistakes = [((1 - p) ** generations, hint)]
        compare(answer, (p, generations), bits.mean(), of, mistakes, 5e-3)
    return "It goes to one half, whatever p is."


@exercise("largest-p")
def largest_p(answer: Any) -> str:
    p = number(answer)
    if (1 - p) ** 2 < 0.9 - 1e-3:
        raise Hint(f"With p = {p:g} the children keep {(1 - p) ** 2:.3f} of the MACs: too few.")
    if (1 - p - 0.003) ** 2 > 0.9:
        raise Hint(f"p = {p:g} is allowed, but a larger one is, too.")
    return "About one bit in twenty."


@exercise("repair")
def repair(answer: Any) -> str:
    groups = np.array([0, 0, 0, 1, 1, 2])
    cases = ("111111", "111111"), ("000110", "100111"), ("010001", "010101"), ("000000", "100101")
    for before, after in cases:
        genome = np.array([c == "1" for c in before])
        theirs = np.asarray(call(answer, genome.copy(), groups)).astype(int)
        if "".join(map(str, theirs)) != after:
            raise Hint(
                f"Groups 000112, genome {before}: a group without a kept filter gets its first "
                "one back, all else stays."
            )
    return "No layer is ever closed."


@exercise("mutate")
def mutate(answer: Any) -> str:
    parents = np.random.default_rng(0).random((3, 3000)) < np.array([[1.0], [0.6], [0.2]])
    before = parents.copy()
    children = np.asarray(call(answer, parents, 300, 0.1, np.random.default_rng(1)))
    if children.shape != (300, 3000) or children.dtype != bool:
        raise Hint("300 children of 3,000 truth values are wanted.")
    if not (parents == before).all():
        raise Hint("The parents have changed. Copy before you flip.")
    flips = np.stack([(children ^ p).mean(1) for p in parents])
    nearest = flips.min(0)
    if abs(nearest.mean() - 0.1) > 0.01:
        raise Hint(
            f"{nearest.mean():.1%} of a child's bits differ from its parent's, wanted are 10 %."
        )
    born = np.bincount(flips.argmin(0), minlength=3)
    if born.min() < 60:
        raise Hint(
            f"The three parents have {born.tolist()} children. Each child draws its parent at "
            "random."
        )
    if not (children & ~parents[flips.argmin(0)]).any():
        raise Hint("No removed filter has come back. Flip bits, do not clear them.")
    return "Uniform parents, flipped bits, nothing else."
