"""A module tree built anew around the same tensors."""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

ATOMS = {type(None), bool, int, float, str, bytes, type}  # which hold no part of a network


@torch.inference_mode(False)
def clone(model: nn.Module) -> nn.Module:
    """The module tree built anew, with parameters and buffers of its own that share their memory
    with the model's until ``cut`` puts other values into them.

    Containers, partials, closures, bound methods and objects that hold parts of it are built anew
    with it, tensors that no module has registered are copied; all else is shared. Unlike
    ``copy.deepcopy`` it takes no time for weights, and no offence at locks, files and whatever else
    cannot be copied.
    """
    known: dict[int, Any] = {}
    for module in model.modules():
        for t in [*module._parameters.values(), *module._buffers.values()]:
            if t is not None:
                alias = t.clone() if t.is_inference() else t.detach()
                is_parameter = isinstance(t, nn.Parameter)
                known[id(t)] = nn.Parameter(alias, t.requires_grad) if is_parameter else alias
    return again(model, known)


def again(value: Any, known: dict[int, Any]) -> Any:
    """A part of the tree built anew; known: what has been, by the identity of the original."""
    if type(value) in ATOMS:
        return value
    if id(value) in known:
        return known[id(value)]
    new: Any = value
    if isinstance(value, dict):
        new = known[id(value)] = type(value).__new__(type(value))
        if value:
            new.update(zip(value, several(value.values(), known), strict=True))
    elif type(value) is list:
        new = known[id(value)] = []
        new.extend(several(value, known))
    elif type(value) is set:
        new = set(several(value, known))
    elif isinstance(value, tuple):
        new = getattr(value, "_make", type(value))(several(value, known))
    elif isinstance(value, nn.Module) or holds_layers(value):
        new = known[id(value)] = object.__new__(type(value))
        new.__dict__.update(zip(vars(value), several(vars(value).values(), known), strict=True))
    elif isinstance(value, Tensor):
        new = value.detach().clone().requires_grad_(value.requires_grad)
        new = nn.Parameter(new, value.requires_grad) if isinstance(value, nn.Parameter) else new
    elif isinstance(value, weakref.ref) and isinstance(value(), nn.Module):
        new = weakref.ref(again(value(), known))
    elif callable(value):
        new = function_again(value, known)
    known[id(value)] = new
    return new


def function_again(value: Any, known: dict[int, Any]) -> Any:
    """A bound method, a partial or a function built anew around the parts that it holds."""
    if isinstance(value, types.MethodType):
        return types.MethodType(value.__func__, again(value.__self__, known))
    if isinstance(value, functools.partial):
        function, *arguments = several([value.func, *value.args], known)
        return functools.partial(function, *arguments, **again(value.keywords, known))
    if not isinstance(value, types.FunctionType) or not reaches(value):
        return value
    cells = tuple(types.CellType() for _ in value.__closure__ or ())
    code, space = value.__code__, value.__globals__
    new = types.FunctionType(code, space, value.__name__, None, cells or None)
    known[id(value)] = new
    new.__dict__.update(value.__dict__)
    new.__defaults__ = again(value.__defaults__, known)
    new.__kwdefaults__ = again(value.__kwdefaults__, known)
    for cell, old in zip(cells, value.__closure__ or (), strict=True):
        cell.cell_contents = again(old.cell_contents, known)
    return new


def several(values: Iterable[Any], known: dict[int, Any]) -> list[Any]:
    return [v if type(v) in ATOMS else again(v, known) for v in values]


def holds_layers(value: Any) -> bool:
    """Whether an object of a class of one's own has layers, or their methods, as attributes."""
    if isinstance(value, (Tensor, type, types.ModuleType, types.FunctionType)):
        return False
    held = getattr(value, "__dict__", {}).values()
    return any(isinstance(getattr(h, "__self__", h), nn.Module) for h in held)


def reaches(function: types.FunctionType) -> bool:
    """Whether a function holds something in its closure or its defaults that may be a part of the
    network."""
    try:
        held = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # a cell that is still empty
        return False
    held += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return not all(type(h) in ATOMS or isinstance(h, (type, types.ModuleType)) for h in held)
