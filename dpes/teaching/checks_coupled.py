"""Checks of the exercises on coupling, on masks and on what was kept."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import dpes

from . import lessons
from .checks_cut import chain, silenced
from .exercises import Hint, call, compare, equal, exercise


@exercise("bits-of-a-resnet")
def bits_of_a_resnet(answer: Any) -> str:
    hint = "You gave every block two groups. The second convolutions of a stage share one."
    for depth in (20, 56, 110):
        blocks = (depth - 2) // 6
        mine = sum(width + blocks * width for width in (16, 32, 64))
        compare(answer, (depth,), mine, f"depth {depth}", [(2 * blocks * 112, hint)])
    return "One group for each stage, one for the first convolution of each block."


@exercise("who-leaves")
def who_leaves(answer: Any) -> str:
    layout = dpes.trace(lessons.residual(8, 12, blocks=2), lessons.EXAMPLE)
    group = next(g for g in layout.groups if g.name == "0")
    if not isinstance(answer, dict) or set(answer) != {"producers", "readers"}:
        raise Hint(
            "A dictionary with 'producers' and 'readers' is wanted, each a set of names of layers."
        )
    for role, mine in (("producers", set(group.members)), ("readers", set(group.readers))):
        theirs = set(answer[role])
        if theirs - mine:
            raise Hint(f"{min(theirs - mine)} is none of the {role} of these filters.")
        if mine - theirs:
            raise Hint(f"{len(mine - theirs)} of the {role} are missing.")
    return "dpes.trace finds the same layers."


@exercise("build-coupled")
def build_coupled(answer: Any) -> str:
    if not isinstance(answer, nn.Module):
        raise Hint("A network (an nn.Module) is wanted, not its class.")
    layout = dpes.trace(answer, torch.zeros(1, 3, 8, 8))
    sizes = [g.size for g in layout.groups]
    if sizes != [6]:
        raise Hint(f"Its groups have {sizes or 'no'} bits. Wanted is one group of 6.")
    if len(layout.groups[0].members) < 2:
        raise Hint("One group of 6 bits, but only one layer produces it. Couple two layers.")
    return f"{' and '.join(layout.groups[0].members)} share six bits."


@exercise("watch-flip")
def watch_flip(answer: Any) -> str:
    x, numbers = torch.zeros(1, 4, 8, 8), np.array([7, 3, 5, 9])
    watch, op = SimpleNamespace(numbers=lambda tensor: {1: numbers}), SimpleNamespace(args=(x,))
    theirs = call(answer, watch, op)
    if not isinstance(theirs, dict) or set(theirs) != {1}:
        raise Hint("Return a dictionary: filters lie along dimension 1 of the output.")
    if np.array_equal(theirs[1], numbers):
        raise Hint("These numbers lie where they lay in the input. The values have moved.")
    equal(theirs[1], numbers[::-1], "channels with the numbers 7, 3, 5 and 9")
    return "A move is applied to the numbers as to the values."


@exercise("silent-value")
def silent_value(answer: Any) -> str:
    drawn = np.random.default_rng(0).uniform(0.3, 2, (3, 4))
    hint = "ReLU comes after batch norm: nothing below zero reaches the next layer."
    for case in [(1, 0.2, 0.5, 1), (1, 0.2, -0.5, 1), *drawn, (-1, 0.1, 2, 0.5)]:
        gamma, beta, mu, sigma = case
        normed = beta - gamma * mu / sigma
        of = f"gamma {gamma:g}, beta {beta:g}, mu {mu:g}, sigma {sigma:g}"
        compare(answer, tuple(case), max(0, normed), of, [(normed, hint)])
    return "A filter of zeros still says this value at every pixel."


@exercise("mask-after-norm")
@torch.no_grad()
def mask_after_norm(answer: Any) -> str:
    conv, norm, reader, x = chain()
    hint = "You silenced the convolution. Batch norm turns its zeros into something else again."
    for i in (1, 4):
        given = *copy.deepcopy((conv, norm, reader)), x.clone(), i
        zeroed = copy.deepcopy(conv)
        for p in zeroed.parameters():
            p[i] = 0
        mistakes = [(reader(F.relu(norm(zeroed(x)))), hint)]
        compare(answer, given, silenced(conv, norm, reader, x, i), f"filter {i}", mistakes, 1e-5)
    return "Masked after batch norm, the network is the one from which the filter was removed."


@exercise("overlap")
def overlap(answer: Any) -> str:
    rng = np.random.default_rng(0)
    hint = "That counts filters that both have removed, too. Only kept ones are wanted."
    for share in (0.3, 0.6, 0.9):
        a, b = rng.random((2, 40)) < share
        mine, of = (a & b).sum() / (a | b).sum(), f"two masks that keep {share:.0%}"
        compare(answer, (a, b), mine, of, [((a == b).mean(), hint)])
    return "1 for equal sets, 0 for sets that share nothing."


@exercise("chance-overlap")
def chance_overlap(answer: Any) -> str:
    rng = np.random.default_rng(0)
    hint = "That is the share which both keep. Divide by the share that at least one of them keeps."
    for share in (0.3, 0.5, 0.8):
        a, b = rng.random((2, 400_000)) < share
        of = f"share {share} (two masks of 400,000 bits were drawn)"
        mine = (a & b).sum() / (a | b).sum()
        compare(answer, (share,), mine, of, [(share**2, hint)], 5e-3)
    return "This is what an overlap has to be compared with."
