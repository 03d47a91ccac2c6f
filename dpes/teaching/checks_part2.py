"""Checks of the exercises of part 2 and 4: criteria, sensitivity, fronts and knees, the strategy, claims."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from .exercises import Hint, call, equal, exercise, number


# ---- ways to choose -----------------------------------------------------------------------------------------------------------
@exercise("keep-by-l1")
def keep_by_l1(answer: Any) -> str:
    draw = torch.Generator().manual_seed(0)
    for filters, n in ((6, 2), (9, 5)):
        weight = torch.randn(filters, 4, 3, 3, generator=draw)
        weight[0] *= -3  # the largest norm, the least sum
        norms = weight.abs().sum((1, 2, 3)).numpy()
        mine = np.isin(np.arange(filters), np.argsort(-norms)[:n])
        theirs = np.asarray(call(answer, weight, n))
        if theirs.shape != (filters,) or theirs.dtype != bool:
            raise Hint(f"Return {filters} truth values, one for each filter.")
        if theirs.sum() != n:
            raise Hint(f"{theirs.sum()} filters are kept, not {n}.")
        if not theirs[0]:
            raise Hint(
                "A filter of large negative weights was removed. Take absolute values before you add."
            )
        equal(theirs, mine, f"{n} of {filters} filters")
    return "The filters of largest L1 norm stay."


@exercise("rescale")
@torch.no_grad()
def rescale(answer: Any) -> str:
    draw = torch.Generator().manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4).eval()
    conv.weight.normal_(0, 1, generator=draw)
    norm.running_mean.normal_(0, 1, generator=draw)
    norm.running_var.uniform_(0.5, 2, generator=draw)
    norm.bias.normal_(0, 1, generator=draw)
    x = torch.randn(4, 3, 8, 8, generator=draw)
    before, norms = norm(conv(x)), conv.weight.abs().sum((1, 2, 3))
    answer(conv, norm, 2, 10.0)
    wanted = norms * torch.tensor([1, 1, 10, 1])
    equal(conv.weight.abs().sum((1, 2, 3)), wanted, "L1 norms of the four filters", 1e-3)
    if not torch.allclose(norm(conv(x)), before, atol=1e-3):
        raise Hint(
            "The norm is right, but the output changed. Batch norm divides by the square root of running_var."
        )
    return "The same function, another L1 norm: where batch norm follows, a norm is not a property of the function."


@exercise("taylor")
def taylor(answer: Any) -> str:
    draw = torch.Generator().manual_seed(0)
    for shape in ((5, 3, 4, 4), (2, 6, 3, 3)):
        a, g = torch.randn(2, *shape, generator=draw)
        theirs = torch.as_tensor(call(answer, a, g))
        if theirs.shape == (shape[1],) and torch.allclose(
            theirs, (a * g).abs().sum((2, 3)).mean(0)
        ):
            raise Hint(
                "Add over the pixels first, then take the absolute value: within one image changes may cancel."
            )
        equal(theirs, (a * g).sum((2, 3)).abs().mean(0), f"activations {list(shape)}", 1e-5)
    return "A first-order estimate of what the loss would change if the channel were zero."


@exercise("rank-p")
def rank_p(answer: Any) -> str:
    for masks, ahead in ((3, 0), (19, 0), (9, 1), (99, 4)):
        theirs = call(answer, masks, ahead)
        if np.isclose(theirs, ahead / masks):
            raise Hint(
                "Your own network is one of the draws, too: there are one more places than masks."
            )
        equal(theirs, (ahead + 1) / (masks + 1), f"{masks} masks, {ahead} of them at least as good")
    return "With no better mask among n, luck alone does as well once in n + 1 times."


@exercise("how-many-masks")
def how_many_masks(answer: Any) -> str:
    n = number(answer)
    if n == 19:
        raise Hint("19 masks give p = 1/20, which is not below .05 but equal to it.")
    if n != int(n) or 1 / (n + 1) >= 0.05 or 1 / n < 0.05:
        raise Hint(
            f"With {n:g} masks, none of them as good, p is {1 / (n + 1):.4f}. The least number with p below .05 is wanted."
        )
    return "And all of them must be worse than the network that is claimed to be better."


# ---- sensitivity ---------------------------------------------------------------------------------------------------------------
@exercise("tolerance")
def tolerance(answer: Any) -> str:
    shares = np.array([1.0, 0.8, 0.6, 0.4, 0.2])
    errors = np.array(
        [[0.1, 0.1, 0.11, 0.2, 0.6], [0.1, 0.3, 0.5, 0.7, 0.9], [0.1, 0.12, 0.10, 0.12, 0.11]]
    )
    for limit, mine in ((0.12, [0.6, 1.0, 0.2]), (0.3, [0.4, 0.8, 0.2]), (0.05, [1.0, 1.0, 1.0])):
        equal(call(answer, shares, errors, limit), mine, f"limit {limit}")
    return "Each layer keeps the smallest share that stays within the limit, or all of it."


# ---- trade-offs and knees ------------------------------------------------------------------------------------------------------
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
                "Another point between the boundaries is nearer to the ideal point. Did you scale both objectives to 0 and 1?"
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


# ---- the strategy --------------------------------------------------------------------------------------------------------------
@exercise("drift")
def drift(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for p, generations in ((0.05, 1), (0.1, 10), (0.2, 3)):
        bits = np.ones(400_000, dtype=bool)
        for _ in range(generations):
            bits ^= rng.random(len(bits)) < p
        theirs = call(answer, p, generations)
        if np.isclose(theirs, (1 - p) ** generations, atol=1e-3) and generations > 1:
            raise Hint("A removed filter can come back: a bit is flipped, not cleared.")
        equal(
            theirs,
            bits.mean(),
            f"p = {p}, {generations} generations (400,000 bits were flipped)",
            5e-3,
        )
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
                f"Groups 000112, genome {before}: a group without a kept filter gets its first one back, all else stays."
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
            f"The three parents have {born.tolist()} children. Each child draws its parent at random."
        )
    if not (children & ~parents[flips.argmin(0)]).any():
        raise Hint("No removed filter has come back. Flip bits, do not clear them.")
    return "Uniform parents, flipped bits, nothing else."
