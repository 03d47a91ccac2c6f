"""Checks of the exercises on criteria, claims and sensitivity."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import torch
from torch import nn

from .exercises import Hint, call, compare, equal, exercise, number


# ---- ways to choose ----
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
                "A filter of large negative weights was removed. Take absolute values before you "
                "add."
            )
        equal(theirs, mine, f"{n} of {filters} filters")
    return "The filters of largest L1 norm stay."


@exercise("rescale")
@torch.no_grad()
def rescale(answer: Any) -> str:
    draw = torch.Generator().manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4).eval()
    conv.weight.normal_(0, 1, generator=draw)
    mean, variance, _ = norm.buffers()
    mean.normal_(0, 1, generator=draw)
    variance.uniform_(0.5, 2, generator=draw)
    norm.bias.normal_(0, 1, generator=draw)
    x = torch.randn(4, 3, 8, 8, generator=draw)
    before, norms = norm(conv(x)), conv.weight.abs().sum((1, 2, 3))
    answer(conv, norm, 2, 10.0)
    wanted = norms * torch.tensor([1, 1, 10, 1])
    equal(conv.weight.abs().sum((1, 2, 3)), wanted, "L1 norms of the four filters", 1e-3)
    if not torch.allclose(norm(conv(x)), before, atol=1e-3):
        raise Hint(
            "The norm is right, but the output changed. Batch norm divides by the square "
            "root of running_var."
        )
    return (
        "The same function, another L1 norm: where batch norm follows, a norm is not a "
        "property of the function."
    )


@exercise("taylor")
def taylor(answer: Any) -> str:
    draw = torch.Generator().manual_seed(0)
    hint = "Add over the pixels first, then take the absolute value: within one image changes may "
    hint += "cancel."
    for shape in ((5, 3, 4, 4), (2, 6, 3, 3)):
        a, g = torch.randn(2, *shape, generator=draw)
        wrong, mine = (a * g).abs().sum((2, 3)).mean(0), (a * g).sum((2, 3)).abs().mean(0)
        compare(answer, (a, g), mine, f"activations {list(shape)}", [(wrong, hint)], 1e-5)
    return "A first-order estimate of what the loss would change if the channel were zero."


@exercise("rank-p")
def rank_p(answer: Any) -> str:
    hint = "Your own network is one of the draws, too: there are one more places than masks."
    for masks, ahead in ((3, 0), (19, 0), (9, 1), (99, 4)):
        of = f"{masks} masks, {ahead} of them at least as good"
        compare(answer, (masks, ahead), (ahead + 1) / (masks + 1), of, [(ahead / masks, hint)])
    return "With no better mask among n, luck alone does as well once in n + 1 times."


@exercise("how-many-masks")
def how_many_masks(answer: Any) -> str:
    n = number(answer)
    if n == 19:
        raise Hint("19 masks give p = 1/20, which is not below .05 but equal to it.")
    if n != int(n) or 1 / (n + 1) >= 0.05 or 1 / n < 0.05:
        raise Hint(
            f"With {n:g} masks, none of them as good, p is {1 / (n + 1):.4f}. The least "
            "number with p below .05 is wanted."
        )
    return "And all of them must be worse than the network that is claimed to be better."


# ---- sensitivity ----
@exercise("tolerance")
def tolerance(answer: Any) -> str:
    shares = np.array([1.0, 0.8, 0.6, 0.4, 0.2])
    errors = np.array(
        [[0.1, 0.1, 0.11, 0.2, 0.6], [0.1, 0.3, 0.5, 0.7, 0.9], [0.1, 0.12, 0.10, 0.12, 0.11]]
    )
    for limit, mine in ((0.12, [0.6, 1.0, 0.2]), (0.3, [0.4, 0.8, 0.2]), (0.05, [1.0, 1.0, 1.0])):
        theirs = np.asarray(call(answer, shares, errors, limit), dtype=float)
        if theirs.shape != (3,):
            raise Hint("Return one share for each of the layers.")
        for layer, (share, right) in enumerate(zip(theirs, mine, strict=True)):
            if share > right:
                raise Hint(f"limit {limit}, layer {layer}: a share below {share:g} is within it.")
            if share < right:
                raise Hint(f"limit {limit}, layer {layer}: at {share:g} the error is above it.")
    return "Each layer keeps the smallest share that stays within the limit, or all of it."


# ---- claims ----
@exercise("flaws")
def flaws(answer: Any) -> str:
    theirs = {int(n) for n in answer}
    if theirs & {1, 7, 8}:
        raise Hint(f"Sentence {min(theirs & {1, 7, 8})} is as it should be, or only a claim.")
    if missing := {2, 3, 4, 5, 6} - theirs:
        raise Hint(f"{len(missing)} more of them would be asked about.")
    return "Five of eight sentences, and none of them is a lie."


@exercise("sign-test")
def sign_test(answer: Any) -> str:
    hint = "That is one side. Either network might have been the better one."
    for a, b in ((0, 11), (1, 9), (5, 5), (335, 311), (7, 2)):
        tail = sum(comb(a + b, k) for k in range(min(a, b) + 1)) / 2 ** (a + b)
        compare(answer, (a, b), min(1.0, 2 * tail), f"{a} against {b}", [(tail, hint)], 1e-4)
    return "scipy.stats.binomtest(a, a + b) says the same."


@exercise("best-of-n")
def best_of_n(answer: Any) -> str:
    rng = np.random.default_rng(0)
    errors = rng.normal(2.0, 0.3, 20)
    hint = "That is the least of all errors. With n = 1 nothing is chosen."
    for n in (1, 3, 10):
        mine = rng.choice(errors, (200_000, n)).min(1).mean()
        of = f"best of {n} (200,000 times drawn)"
        compare(answer, (errors, n), mine, of, [(errors.min(), hint)], 5e-3)
    return "The more often one tries, the better the best."
