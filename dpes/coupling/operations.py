"""One operation of a run: its name, its arguments, its outputs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor, nn


class Op:
    """One operation that has just run; ``str`` names it with the module whose forward called it."""

    def __init__(self, func: Any, args: tuple, kwargs: dict[str, Any], out: Any, module: str):
        self.func, self.args, self.kwargs, self.out, self.module = func, args, kwargs, out, module
        self.name = func._schema.name
        self.tensors = list(leaves([args, kwargs]))
        self.outputs = list(leaves(out))

    def __str__(self) -> str:
        name = self.name.removeprefix("aten::").strip("_")
        return f"{name} in {self.module}" if self.module else name

    def argument(self, name: str) -> Any:
        """An argument by its name in the schema, or its default; None where it has none."""
        for place, argument in enumerate(self.func._schema.arguments):
            if argument.name == name:
                return (
                    self.args[place]
                    if place < len(self.args)
                    else self.kwargs.get(name, argument.default_value)
                )
        return None

    def again(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of the same operation on other tensors, such as numbers of filters."""
        if "view" in self.name or "reshape" in self.name:
            tensors = [t.contiguous() for t in tensors]
        left = iter(tensors)

        def swap(value: Any) -> Any:
            if isinstance(value, Tensor):
                return next(left)
            return type(value)(map(swap, value)) if isinstance(value, (list, tuple)) else value

        args = swap(list(self.args))
        return list(leaves(self.func(*args, **{k: swap(v) for k, v in self.kwargs.items()})))

    @cached_property
    def is_view(self) -> bool:
        """Whether the output shares its memory with an input and writes nothing."""
        info = self.func._schema.returns[0].alias_info if self.func._schema.returns else None
        return info is not None and not info.is_write


def leaves(value: Any) -> Iterator[Tensor]:
    """All tensors within lists, tuples, dictionaries and objects, in their order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, dict):
        yield from leaves(list(value.values()))
    elif hasattr(value, "__slots__") and not isinstance(value, type):
        for name in value.__slots__:
            yield from leaves(getattr(value, name, None))
    elif hasattr(value, "__dict__") and not isinstance(value, (type, nn.Module)):
        yield from leaves(vars(value))
