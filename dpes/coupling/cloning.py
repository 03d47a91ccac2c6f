"""A module tree built anew around the same tensors."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


def clone(model: nn.Module) -> nn.Module:
    """The module tree built anew around the same parameters and buffers, which ``cut`` replaces.

    Containers, partials, closures and bound methods that hold parts of it are built anew with it,
    tensors that no module has registered are copied; all else is shared. Unlike ``copy.deepcopy``
    it takes no time for weights, and no offence at locks, files and whatever else cannot be copied.
    """
    tables = [t for m in model.modules() for t in (m._parameters, m._buffers)]
    return again(model, {id(t): t for table in tables for t in table.values()})


def again(value: Any, known: dict[int, Any]) -> Any:
    """A part of the tree built anew; known: what has been, by the identity of the original."""
    if id(value) in known:
        return known[id(value)]

    def several(values: Iterable[Any]) -> list[Any]:
        return [again(v, known) for v in values]

    new: Any = value
    if isinstance(value, nn.Module):
        new = known[id(value)] = object.__new__(type(value))
        new.__dict__.update({k: again(v, known) for k, v in vars(value).items()})
    elif isinstance(value, Tensor):
        new = value.detach().clone().requires_grad_(value.requires_grad)
        new = nn.Parameter(new, value.requires_grad) if isinstance(value, nn.Parameter) else new
    elif isinstance(value, dict):
        new = known[id(value)] = value.__class__.__new__(value.__class__)
        new.update(zip(value, several(value.values()), strict=True))
    elif type(value) is list:
        new = known[id(value)] = []
        new.extend(several(value))
    elif type(value) is set:
        new = set(several(value))
    elif isinstance(value, tuple):
        new = getattr(value, "_make", type(value))(several(value))
    elif isinstance(value, types.MethodType):
        new = types.MethodType(value.__func__, again(value.__self__, known))
    elif isinstance(value, functools.partial):
        function, *arguments = several([value.func, *value.args])
        new = functools.partial(function, *arguments, **again(value.keywords, known))
    elif isinstance(value, types.FunctionType) and reaches(value):
        cells = [types.CellType() for _ in value.__closure__ or ()]
        new = types.FunctionType(
            value.__code__, value.__globals__, value.__name__, None, tuple(cells) or None
        )
        known[id(value)] = new
        new.__dict__.update(value.__dict__)
        new.__defaults__ = again(value.__defaults__, known)
        new.__kwdefaults__ = again(value.__kwdefaults__, known)
        for cell, old in zip(cells, value.__closure__ or (), strict=True):
            cell.cell_contents = again(old.cell_contents, known)
    known[id(value)] = new
    return new


def reaches(function: types.FunctionType) -> bool:
    """Whether a function holds something in its closure or its defaults that may be a part of the
    network."""
    try:
        held = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # a cell that is still empty
        return False
    plain = (int, float, str, bytes, type, types.ModuleType, type(None))
    held += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return not all(isinstance(h, plain) for h in held)
