"""``trace``: proposes a layout from one watched run of a network, and has it proved."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import shown, suggest
from .layout import Layout, UnsupportedModel
from .network import batch, plain
from .proof import proved
from .proposing import Proposal


@torch.inference_mode(False)
def trace(
    model: nn.Module,
    example: Tensor,
    *,
    keep: str | Iterable[str] = (),
    min_filters: int = 1,
    min_share: float = 0.0,
    prove: bool = True,
) -> Layout:
    """Find the coupled groups of a network, and prove that they can be cut. Source: ours.

    Parameters
    ----------
    model
        Maps one tensor to one or several. It is left as it is, but for buffers that its forward
        writes; wrappers of ``torch.compile`` and data parallelism are taken off.
    example
        A batch of inputs, [n, ...]; only shapes matter, n = 1 is enough.
    keep
        Layers, or modules that hold them, by name, whose filters all stay.
    min_filters, min_share
        What every group keeps at least: a number, and a share of its filters.
    prove
        Compare with the masked network (see ``dpes.coupling.proof``); what does not hold stays.
        Without it, a width that is written into the code passes unnoticed.

    Raises
    ------
    UnsupportedModel
        The model does not run, nothing in it can be pruned, or an option is out of range.
    """
    check_options(min_filters, min_share, prove)
    inner = plain(model)
    proposal = Proposal(inner, batch(example), layers(inner, keep))
    layout = proved(proposal) if prove else proposal.layout()
    return finished(layout, inner is not model, min_filters, min_share)


def layers(model: nn.Module, keep: Any) -> tuple[str, ...]:
    """The names that a caller wants kept; each must be one of the network's."""
    known = [name for name, _ in model.named_modules()]
    try:
        names = (keep,) if isinstance(keep, str) else tuple(keep)
    except TypeError:
        names = (keep,)
    for name in names:
        if not isinstance(name, str) or name not in known:
            near = get_close_matches(str(name), known, 5, cutoff=0)
            raise UnsupportedModel(
                f"keep names {shown(name)}, which is no layer: {suggest(str(name), near)}"
            )
    return names


def check_options(min_filters: Any, min_share: Any, prove: Any) -> None:
    whole = isinstance(min_filters, Integral) and not isinstance(min_filters, bool)
    share = isinstance(min_share, Real) and not isinstance(min_share, bool)
    for name, value, right, wanted in (
        ("min_filters", min_filters, whole and min_filters >= 1, "a whole number of at least 1"),
        ("min_share", min_share, share and 0 <= min_share <= 1, "a share from 0 to 1"),
        ("prove", prove, isinstance(prove, bool), "True or False"),
    ):
        if not right:
            raise UnsupportedModel(f"{name} = {shown(value)}: must be {wanted}")


def finished(layout: Layout, unwrapped: bool, min_filters: int, min_share: float) -> Layout:
    """The layout with the number of filters that each group keeps, whatever the genome."""
    least = [max(g.least, min_filters, math.ceil(min_share * g.size)) for g in layout.groups]
    pairs = zip(layout.groups, least, strict=True)
    groups = tuple(replace(g, least=min(g.size, n)) for g, n in pairs)
    note = "without what is wrapped around it, and with computed weights as plain ones"
    return replace(layout, groups=groups, notes=layout.notes + (note,) * unwrapped)


def macs(model: nn.Module, example: Tensor) -> int:
    """MACs of one image through convolutions, linear layers and products (FLOPs as some count them:
    twice that).

    Parameters
    ----------
    model, example
        Any network, and a batch [n, ...] that it runs on.

    Raises
    ------
    UnsupportedModel
        The model does not run.
    """
    watch = Proposal(plain(model), batch(example)).watched()
    return sum(call[3] for call in watch.calls) // watch.images
