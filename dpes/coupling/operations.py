"""One operation of a run: its name, its arguments, its outputs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
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

    @property
    def creates(self) -> bool:
        """Whether its outputs are new tensors that no input decides the values of."""
        name = self.name.removeprefix("aten::")
        return not self.tensors or name.startswith(("new_", "empty"))


def shares(func: Any) -> bool:
    """Whether an operation's output shares its memory with an input, and it writes nothing."""
    info = func._schema.returns[0].alias_info if func._schema.returns else None
    return info is not None and not info.is_write


def laid(vector: Tensor, dim: int, ndim: int) -> Tensor:
    """A vector laid along one of so many dimensions."""
    return vector.view([-1 if d == dim else 1 for d in range(ndim)])


def leaves(value: Any, seen: set[int] | None = None) -> Iterator[Tensor]:
    """All tensors within lists, tuples, dictionaries and objects, in their order."""
    seen = set() if seen is None else seen
    if isinstance(value, Tensor):
        yield value
        return
    if id(value) in seen or isinstance(value, (type, nn.Module)):
        return
    parts: Iterable[Any] = ()
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        parts = value
    elif isinstance(value, dict):
        parts = value.values()
    elif hasattr(value, "__slots__"):
        slots = value.__slots__
        parts = [getattr(value, n, None) for n in ([slots] if isinstance(slots, str) else slots)]
    elif hasattr(value, "__dict__"):
        parts = vars(value).values()
    seen = seen | {id(value)}  # of those around it: a cycle ends, a tensor in two places is two
    for part in parts:
        yield from leaves(part, seen)
