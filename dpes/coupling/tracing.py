"""``trace``: proposes a layout from one watched run of a network, and has it proved."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import suggest
from .cutting import plain
from .evaluating import evaluating
from .layout import Layout
from .proof import proved
from .proposing import Proposal, UnsupportedModel
from .watching import Watch


@torch.inference_mode(False)
def trace(
    model: nn.Module,
    example: Tensor,
    *,
    keep: Iterable[str] = (),
    min_filters: int = 1,
    min_share: float = 0.0,
    prove: bool = True,
) -> Layout:
    """Find the coupled groups of a network, and prove that they can be cut.

    model: any ``nn.Module`` that maps one tensor to one or several; it is left unchanged,
    but for buffers that its own forward writes. Wrappers of ``torch.compile`` and data parallelism
    are taken off.
    example: a batch of inputs, [n, ...]; only shapes matter, n = 1 is enough.
    keep: names of layers (or of modules that hold them) whose filters all stay. min_filters,
    min_share: what every group keeps at least, as a number and as a share of its filters.
    prove: cut it at random and compare with the masked network (see ``dpes.coupling.proof``); what
    does not hold is kept whole. Without it, a width that is written into the code passes unnoticed.
    Raises ``UnsupportedModel`` where the model does not run or nothing in it can be pruned. Source:
    ours.
    """
    if not isinstance(model, nn.Module):
        raise UnsupportedModel(f"trace needs a torch.nn.Module, not {type(model).__name__}")
    if not isinstance(example, Tensor) or example.ndim < 2:
        raise UnsupportedModel("trace needs an example batch: one tensor of shape [images, ...]")
    refuse_what_has_no_tensors(model)
    inner = plain(model)
    names = [name for name, _ in inner.named_modules()]
    if unknown := [k for k in keep if k not in names]:
        raise UnsupportedModel(
            f"keep names {unknown[0]!r}, which is no layer: {suggest(unknown[0], names)}"
        )
    if min_filters < 1 or not 0 <= min_share <= 1:
        limits = "must be at least 1, and a share from 0 to 1"
        raise UnsupportedModel(f"min_filters = {min_filters}, min_share = {min_share}: {limits}")
    if example.is_inference():  # what is computed from it would be followed in other pieces
        example = example.clone()
    proposal = Proposal(inner, example, tuple(keep))
    layout = proposal.layout()
    if prove:
        layout = proved(inner, proposal, layout)
    notes = layout.notes
    if inner is not model:
        notes += ("without what is wrapped around it, and with computed weights as plain ones",)
    least = [
        min(g.size, max(g.least, min_filters, math.ceil(min_share * g.size))) for g in layout.groups
    ]
    groups = tuple(replace(g, least=n) for g, n in zip(layout.groups, least, strict=True))
    return replace(layout, groups=groups, notes=notes)


def refuse_what_has_no_tensors(model: nn.Module) -> None:
    """Layers whose weights no clone of them could hold in another size."""
    for name, module in model.named_modules():
        tensors = [*module._parameters.values(), *module._buffers.values()]
        where = f"{name or type(model).__name__} is a {type(module).__name__}"
        if any(t is not None and (is_lazy(t) or t.is_meta) for t in tensors):
            raise UnsupportedModel(
                f"{where} without weights yet: load them, or run the network once"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedModel(f"{where}: trace the network that it was made from")
        if "quantized" in type(module).__module__:
            raise UnsupportedModel(f"{where}: prune before quantisation")


def macs(model: nn.Module, example: Tensor) -> int:
    """MACs of one image through convolutions, linear layers and products (FLOPs as some count them:
    twice that)."""
    model = plain(model)
    with evaluating(model), Watch(model) as watch:
        model(example[:1])
    return sum(call[3] for call in watch.calls)
