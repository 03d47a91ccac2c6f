"""What Python code reads of tensors and layers while a network runs, which no operation shows."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from .layout import Layout
    from .watching import Watch


class Spied(int):
    """A number that notices when Python compares it; ``strict``: or computes with it.

    What is computed from it is spied as well. ``lies``: the watch, and the filters that it counts,
    where it is a size as it was read. Two such sizes may be compared: those of coupled filters
    change together, and of others the watch takes note.
    """

    notices: tuple[Callable[[], object], ...]
    strict: bool
    lies: tuple[Watch, np.ndarray] | None


def spied(
    value: int,
    *notices: Callable[[], object],
    strict: bool = False,
    lies: tuple[Watch, np.ndarray] | None = None,
) -> Spied:
    number = Spied(value)
    number.notices, number.strict, number.lies = notices, strict, lies
    return number


def by_torch() -> bool:
    """Whether torch's own code asks, such as a layer that checks what it is given."""
    return str(sys._getframe(2).f_globals.get("__name__")).split(".")[0] == "torch"


def _method(name: str, asks: bool) -> Callable[..., Any]:
    def method(self: Spied, *others: Any) -> Any:
        spies = [self, *(o for o in others if isinstance(o, Spied))]
        sizes = [s.lies for s in spies if s.lies]
        told = () if by_torch() else [s for s in spies if asks or s.strict]
        if told and asks and len(sizes) == 2:
            (watch, one), (_, other) = sizes
            watch.compared.append((one, other, watch.where("forward compares its number")))
        else:
            for notice in (n for s in told for n in s.notices):
                notice()
        value = getattr(int, name)(self, *others)
        left = [n for s in spies if not s.strict for n in s.notices]
        return value if asks or not left or type(value) is not int else spied(value, *left)

    return method


for _name in "eq ne lt le gt ge bool hash str repr format int float".split():
    setattr(Spied, f"__{_name}__", _method(f"__{_name}__", asks=True))
for _name in "add sub mul floordiv radd rsub rmul rfloordiv truediv mod pow divmod neg".split():
    setattr(Spied, f"__{_name}__", _method(f"__{_name}__", asks=False))

ELEMENTS = ("tolist", "numpy", "__array__", "data_ptr", "__iter__", "__reversed__")
VALUES = ("item", "__bool__", "__int__", "__float__", "__index__", *ELEMENTS[:3])


class Reads(TorchFunctionMode):
    """Hands out spied sizes of dimensions along which filters lie; what Python reads elements of
    stays whole."""

    def __init__(self, watch: Watch):
        super().__init__()
        self.watch = watch

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out, name = func(*args, **(kwargs or {})), getattr(func, "__name__", "")
        if isinstance(out, torch.Size) and args and isinstance(args[0], Tensor):
            return torch.Size(self.size(args[0], dim, n) for dim, n in enumerate(out))
        if name == "size" and isinstance(out, int):
            dim = args[1] if len(args) > 1 else (kwargs or {})["dim"]
            return self.size(args[0], dim % args[0].ndim, out)
        if name in ("numel", "nelement", "__len__"):
            dims = range(1 if name == "__len__" else args[0].ndim)
            number = math.prod(self.size(args[0], dim, args[0].shape[dim]) for dim in dims)
            return number if name != "__len__" else int(number)  # which asks
        where = self.watch.where(name.strip("_"))
        if name in ELEMENTS:
            for vector in self.watch.numbers(args[0]).values():
                self.watch.freeze(vector, f"{where} reads elements")
        if name in VALUES and not self.watch.constant(args[0]):
            self.watch.notes[f"{where} reads values: what forward does at others is not proved"] = 1
        return out

    def size(self, tensor: Tensor, dim: int, n: int) -> int:
        """The size of a dimension, spied where filters lie along it."""
        vector = self.watch.numbers(tensor).get(dim)
        if vector is None:
            return n
        why = f"forward compares its number with another{self.watch.where('')}"
        return spied(n, lambda: self.watch.freeze(vector, why), lies=(self.watch, vector))


def computed_with(model: nn.Module, run: Callable[[], object], layout: Layout) -> dict[int, str]:
    """Bits of widths that forward itself computes with, or branches on, and why they must stay.

    A branch may differ at a single width, which no genome that is tried need have.
    """
    noticed: dict[int, str] = {}
    modules = dict(model.named_modules(remove_duplicate=False))
    values = [w.read(modules[w.module]) for w in layout.widths]
    for w, value in zip(layout.widths, values, strict=True):
        why = f"forward computes with {w.module}.{w.attribute}"
        bits = dict.fromkeys((b for b in w.bits.tolist() if b >= 0), why)
        w.write(modules[w.module], spied(value, partial(noticed.update, bits), strict=True))
    try:
        run()
    finally:
        for w, value in zip(layout.widths, values, strict=True):
            w.write(modules[w.module], value)
    return noticed
