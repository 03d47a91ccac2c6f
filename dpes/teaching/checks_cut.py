"""Checks of the exercises on what a filter costs and on cutting it by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import dpes
from dpes.disk import digest

from . import lessons
from .exercises import Hint, call, compare, equal, exercise, number


@exercise("chain-macs")
def chain_macs(answer: Any) -> str:
    twice = "Twice too much: one multiply-add is one MAC, not two."
    linear = "The linear layer is missing: 10 classes read the last convolution's filters."
    for widths in ((16, 32, 32), (3, 5, 7), (8, 8)):
        mine = dpes.macs(lessons.plain(widths), lessons.EXAMPLE)
        mistakes = [(2 * mine, twice), (mine - 10 * widths[-1], linear)]
        compare(answer, (widths,), mine, f"widths {widths}", mistakes)
    return "It agrees with dpes.macs on three networks."


@exercise("share-for-half")
def share_for_half(answer: Any) -> str:
    share = number(answer)
    if abs(share - 0.5) < 0.01:
        raise Hint(
            "Half of the filters leave a quarter of the MACs: each layer has half the "
            "filters and half the inputs."
        )
    if abs(share**2 - 0.5) > 0.01:
        raise Hint(
            f"{share:g} of the filters leave {share**2:.3f} of the MACs of a layer inside the "
            "chain."
        )
    return "A filter is paid for twice, where it is computed and where it is read."


def chain() -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.Conv2d, torch.Tensor]:
    """A convolution, a batch norm that has learned something, a reader, and images."""
    draw = torch.Generator().manual_seed(0)
    conv, reader = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
    norm = nn.BatchNorm2d(6).eval()
    with torch.no_grad():
        for p in (*conv.parameters(), *reader.parameters()):
            p.normal_(0, 0.3, generator=draw)
        norm.weight.uniform_(0.5, 1.5, generator=draw)
        norm.bias.uniform_(0.5, 1.5, generator=draw)  # above zero: a silenced filter would be heard
        mean, variance, _ = norm.buffers()
        mean.normal_(0, 0.3, generator=draw)
        variance.uniform_(0.5, 1.5, generator=draw)
    return conv, norm, reader, torch.randn(2, 3, 8, 8, generator=draw)


@torch.no_grad()
def silenced(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, reader: nn.Conv2d, x: torch.Tensor, i: int
) -> torch.Tensor:
    """What the reader says when channel ``i`` is zero where it reads."""
    y = F.relu(norm(conv(x)))
    y[:, i] = 0
    return reader(y)


@exercise("cut-a-filter")
@torch.no_grad()
def cut_a_filter(answer: Any) -> str:
    layers = "the convolution", "the batch norm", "the reader"
    shapes = [(0, "weight", [5, 3, 3, 3]), (0, "bias", [5]), (2, "weight", [4, 5, 3, 3])]
    shapes[2:2] = [(1, n, [5]) for n in ("weight", "bias", "running_mean", "running_var")]
    for i in (0, 3, 5):
        conv, norm, reader, x = chain()
        given = nn.ModuleList([conv, norm, reader])
        before = digest(given.state_dict())
        small = call(answer, conv, norm, reader, i)
        if digest(given.state_dict()) != before:
            raise Hint("The layers that were given have changed. Make new ones.")
        if not isinstance(small, tuple) or len(small) != 3:
            raise Hint(f"Return three layers: {', '.join(layers)}.")
        for k, name, shape in shapes:
            if (found := list(getattr(small[k], name).shape)) != shape:
                raise Hint(f"{name} of {layers[k]} has shape {found}, wanted is {shape}.")
        found = small[2](F.relu(small[1].eval()(small[0](x))))
        equal(found, silenced(conv, norm, reader, x, i), f"filter {i} removed", 1e-5)
    return (
        "Seven tensors lost a slice, and the output is that of the network with this "
        "channel silent."
    )


@exercise("flat-columns")
def flat_columns(answer: Any) -> str:
    for i, h, w in ((0, 4, 4), (3, 2, 2), (2, 3, 5)):
        x = torch.zeros(1, 6, h, w)
        x[0, i] = 1
        mine = x.flatten(1)[0].nonzero().flatten().tolist()
        if sorted(int(c) for c in call(answer, i, h, w)) != mine:
            raise Hint(
                f"Channel {i} of maps of {h} x {w} pixels lies elsewhere. Flatten a small tensor "
                "and look."
            )
    return "One channel is a run of columns, as many as its maps have pixels."


@exercise("cut-a-block")
@torch.no_grad()
def cut_a_block(answer: Any) -> str:
    if not isinstance(answer, dict):
        raise Hint(
            "A dictionary is wanted: name of a tensor -> dimension along which it loses a slice."
        )
    whole = randomised(lessons.residual(8, 12, blocks=1))
    names, i = whole.state_dict(), 3
    if unknown := set(answer) - set(names):
        raise Hint(f"{min(unknown)!r} is no tensor of the network.")
    small = lessons.residual(7, 12, blocks=1)
    for name, tensor in small.state_dict().items():
        cut = names[name]
        if name in answer:
            if not 0 <= int(answer[name]) < cut.ndim:
                raise Hint(f"{name} has no dimension {answer[name]}.")
            rest = [c for c in range(cut.shape[answer[name]]) if c != i]
            cut = cut.index_select(int(answer[name]), torch.tensor(rest))
        if cut.shape != tensor.shape:
            raise Hint(
                f"{name} is {list(cut.shape)} then, and must be {list(tensor.shape)}: follow the "
                "addition."
            )
        tensor.copy_(cut)
    genome = np.ones(20, dtype=bool)
    genome[i] = False
    layout = dpes.trace(whole, lessons.EXAMPLE)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    equal(small.eval()(x), dpes.mask(whole, layout, genome)(x), "the cut network", 1e-4)
    return f"{len(answer)} tensors lose a slice with one filter of the residual stage."


def randomised(model: nn.Module) -> nn.Module:
    """The model in evaluation mode with batch norms that have learned something."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                _, variance, _ = module.buffers()
                for t in (module.weight, module.bias, variance):
                    t.uniform_(0.5, 1.5, generator=draw)
    return model.eval()
