"""A genome applied to a network: filters removed (``slim``) or only silenced (``mask``)."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from .layout import KEPT, Layout, kept


def slim(model: nn.Module, layout: Layout, genome: Any) -> nn.Module:
    """A new, physically smaller network without the filters that ``genome`` removes; ``model`` stays as it is.

    genome: bool [layout.n_bits], 1 = kept. The result is of the same class as ``model``, shares no memory with it and computes
    what ``mask`` computes. Raises ``GenomeError`` for a genome that does not fit. Source: ours.
    """
    keep = layout.keep(genome)
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}  # not copied, since ``cut`` puts its own in their place
    return cut(copy.deepcopy(model, shared), model, layout, keep)


def cut(target: nn.Module, model: nn.Module, layout: Layout, keep: np.ndarray) -> nn.Module:
    """Turn ``target``, a copy of ``model`` at whatever widths, into the slim network of a checked genome; returns it.

    This is all that a candidate costs: its tensors are selected from those of ``model``, the module tree is used again.
    """
    modules = dict(target.named_modules(remove_duplicate=False))
    originals = dict(model.named_modules(remove_duplicate=False))
    found: dict[int, torch.Tensor | None] = {}
    device, stays = next(model.parameters()).device, np.append(keep, True)  # KEPT = -1 is the appended last one

    def positions(bits: np.ndarray) -> torch.Tensor | None:
        """The kept positions, or None where nothing leaves; found once for all tensors that share ``bits``."""
        if id(bits) not in found:
            (index,) = stays[bits].nonzero()
            found[id(bits)] = None if len(index) == len(bits) else torch.from_numpy(index).to(device)
        return found[id(bits)]

    for owned in layout.tensors:
        module, name = owned.places[0]
        original = (originals[module]._parameters if owned.is_parameter else originals[module]._buffers)[name]
        tensor = original.detach()
        kernels = tensor.ndim > 3 and tensor.is_contiguous() and all(dim < 2 for dim, _ in owned.cuts)
        if kernels:
            tensor = tensor.flatten(2)  # whole kernels move faster than their pixels
        for dim, bits in owned.cuts:
            if (index := positions(bits)) is not None:
                tensor = tensor.index_select(dim, index)
        if kernels:
            tensor = tensor.unflatten(2, original.shape[2:])
        if tensor.data_ptr() == original.data_ptr():
            tensor = tensor.clone()
        if owned.is_parameter:
            tensor = nn.Parameter(tensor, requires_grad=original.requires_grad)
        for module, name in owned.places:
            (modules[module]._parameters if owned.is_parameter else modules[module]._buffers)[name] = tensor
    for w in layout.widths:
        index = positions(w.bits)
        setattr(modules[w.module], w.attribute, (len(w.bits) if index is None else len(index)) // w.divisor)
    return target


def mask(model: nn.Module, layout: Layout, genome: Any) -> fx.GraphModule:
    """The full-size network with removed filters silenced wherever they could speak: the function ``slim`` must equal.

    After every operation whose output carries removed filters, these are multiplied by zero, so a shift of batch norm or an
    offset of an activation cannot wake them. genome: bool [layout.n_bits]. For checks and teaching: it saves nothing, and shares
    its weights with ``model``. Source: ours.
    """
    keep = layout.keep(genome)
    graph, like = fx.Graph(), next(model.parameters())
    parts: dict[str, Any] = {n.target: _attribute(model, n.target) for n in layout.graph.nodes if n.op in ("call_module", "get_attr")}
    renamed: dict[fx.Node, fx.Node] = {}
    for node in layout.graph.nodes:
        new = renamed[node] = graph.node_copy(node, lambda n: renamed[n])
        dim, bits = layout.spaces.get(node.name, (0, np.full(1, KEPT)))
        stays = kept(bits, keep)
        if not stays.all():
            name = f"mask_{node.name}"
            shape = [1] * layout.ndim[node.name]
            shape[dim] = -1
            parts[name] = torch.as_tensor(stays, dtype=like.dtype, device=like.device).reshape(shape)
            renamed[node] = graph.call_function(torch.mul, (new, graph.get_attr(name)))
    return fx.GraphModule(parts, graph).train(model.training)


def _attribute(model: nn.Module, path: str) -> Any:
    for name in path.split("."):
        model = getattr(model, name)
    return model
