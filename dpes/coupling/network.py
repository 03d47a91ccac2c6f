"""A network as a caller hands it in: checked, out of its wrappers, its computed weights as plain
ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

from .cloning import clone
from .layout import Layout, Owned, UnsupportedModel, widths

NORMS = {WeightNorm: remove_weight_norm, SpectralNorm: remove_spectral_norm}  # those that are hooks


def plain(model: Any) -> nn.Module:
    """The network within wrappers of ``torch.compile`` and data parallelism, with the weights that
    it computes as weights.

    Weight norm and spectral norm compute a layer's weights from others, and would compute others
    where inputs are missing: their last result takes their place, in a clone. A model without
    either is returned as it is. Raises ``UnsupportedModel`` for what is no network.
    """
    while isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)) or (
        isinstance(model, nn.Module) and hasattr(model, "_orig_mod")
    ):
        model = getattr(model, "_orig_mod", None) or model.module
    refuse_what_is_no_network(model)
    made_in_inference_mode = any(t.is_inference() for t in model.parameters())
    compiled = any(m._compiled_call_impl is not None for m in model.modules())
    if compiled or made_in_inference_mode or any(map(computed, model.modules())):
        model = clone(model)
        for module in model.modules():
            module._compiled_call_impl = None
        for module in filter(computed, list(model.modules())):
            fix_weights(module)
    return model


def refuse_what_is_no_network(model: Any) -> None:
    """Raises ``UnsupportedModel`` for it, and for layers without tensors that could be cut."""
    if not isinstance(model, nn.Module):
        cure = "build it first" if isinstance(model, type) else "mind the order of the arguments"
        found = f"model must be a torch.nn.Module, not a {type(model).__name__}"
        raise UnsupportedModel(f"{found}: {cure}")
    for name, module in model.named_modules():
        if problem := without_tensors(module):
            raise UnsupportedModel(
                f"{name or type(model).__name__} is a {type(module).__name__}{problem}"
            )


def without_tensors(module: nn.Module) -> str:
    """Why no clone of a layer could hold its weights in another size, or nothing."""
    tensors = [*module._parameters.values(), *module._buffers.values()]
    if any(t is not None and (is_lazy(t) or t.is_meta) for t in tensors):
        return " without weights yet: load them, or run the network once"
    if isinstance(module, torch.jit.ScriptModule):
        return ": trace the network that it was made from"
    return ": prune before quantisation" if "quantized" in type(module).__module__ else ""


def batch(example: Any) -> Tensor:
    """A caller's example, as a tensor that no inference mode has made."""
    if not isinstance(example, Tensor) or example.ndim < 2 or not len(example):
        found = list(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise UnsupportedModel(
            f"example must be an example batch, one tensor of shape [images, ...], not {found}"
        )
    if example.layout != torch.strided or example.is_meta:
        raise UnsupportedModel("example holds no dense values: give a plain tensor, such as zeros")
    # what is computed from one of inference mode would be followed in other pieces
    return example.clone() if example.is_inference() else example


def computed(module: nn.Module) -> bool:
    """Whether a module computes its weights from others."""
    return "parametrizations" in module._modules or any(
        type(h) in NORMS for h in module._forward_pre_hooks.values()
    )


def fix_weights(module: nn.Module) -> None:
    """Puts the last result of a module's computed weights in their place."""
    if "parametrizations" in module._modules:
        computing: Any = module.parametrizations
        computing.eval()  # spectral norm would go on with its estimate
        values = {name: getattr(module, name).detach().clone() for name in computing}
        del module._modules["parametrizations"]
        # torch derives a class for each parametrised module
        module.__class__ = type(module).__bases__[0]
        for name, value in values.items():
            module.register_parameter(name, nn.Parameter(value))
    hooks: list[Any] = list(module._forward_pre_hooks.values())
    for hook in hooks:
        if type(hook) in NORMS:
            NORMS[type(hook)](module, hook.name)


def table(module: nn.Module, name: str) -> dict[str, Any]:
    """Where a module holds a tensor: among its parameters or its buffers."""
    return module._parameters if name in module._parameters else module._buffers


def tensors_of(model: nn.Module | dict[str, nn.Module], owned: Iterable[Owned]) -> list[Tensor]:
    """The tensors of a layout, of a network or of its modules by name."""
    if isinstance(model, nn.Module):
        model = dict(model.named_modules(remove_duplicate=False))
    modules = model
    return [table(modules[o.places[0][0]], o.places[0][1])[o.places[0][1]] for o in owned]


def misfit(model: nn.Module, layout: Any, keep: np.ndarray | None = None) -> str:
    """The first tensor that tells a network from the one of a layout, cut by a checked genome if
    there is one; nothing where none does."""
    if not isinstance(layout, Layout):
        return f"layout must be a Layout, not a {type(layout).__name__}"
    width = None if keep is None else widths(keep)
    modules = dict(model.named_modules(remove_duplicate=False))
    known = set()
    for owned in layout.tensors:
        module, name = owned.places[0]
        tensor = table(modules[module], name).get(name) if module in modules else None
        shape = list(owned.shape)
        if width:
            for dim, bits in owned.cuts:
                shape[dim] = width(bits)
        if tensor is None or list(tensor.shape) != shape:
            found = "missing" if tensor is None else list(tensor.shape)
            return f"{f'{module}.{name}'.lstrip('.')} is {found}, not {shape}"
        known.add(id(tensor))
    more = (name for name, p in model.named_parameters() if id(p) not in known)
    return next((f"{name} is none of its weights" for name in more), "")
