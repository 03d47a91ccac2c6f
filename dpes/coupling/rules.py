"""What each operation does to the numbers of filters: a table from its name to a rule, open to
operations of your own.

A tensor's *numbers* say, for each dimension along which filters lie, which filter each position
belongs to: {dimension: int [size]}. 0 stands for a position that is always kept. A rule looks at
one operation that has just run and returns the numbers of its output, or a list of them for several
outputs. On the way it unites filters that can only leave together (``watch.unite``, ``watch.meet``)
and freezes those that must stay (``watch.freeze``). What has no rule freezes all it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from ..errors import SettingsError
from .operations import Op

if TYPE_CHECKING:
    from .watching import Watch

Numbers = dict[int, np.ndarray]
Rule = Callable[["Watch", Op], Numbers | Sequence[Numbers]]
R = TypeVar("R", bound=Rule)
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[R], R]:
    """Registers a rule for operations of one's own, as a decorator; the last one counts. Source:
    ours.

    The rule is called as ``rule(watch, op)``; ``op.args``, ``op.argument("dim")``, ``op.out`` are
    those of the call, and ``watch.numbers(tensor)`` what is known of a tensor.

    Parameters
    ----------
    names
        Of the operations, such as ``mylib::gate`` or ``aten::convolution``.

    Raises
    ------
    SettingsError
        A name that is no text, or a rule that cannot be called.
    """
    if not names or not all(isinstance(name, str) for name in names):
        raise SettingsError('rule needs names of operations: @rule("mylib::gate")')

    def register(function: R) -> R:
        if not callable(function):
            raise SettingsError(f"rule of {names[0]} must be a function of (watch, op)")
        for name in " ".join(names).split():
            RULES[name if "::" in name else f"aten::{name}"] = function
        return function

    return register


def rule_for(op: Op) -> Rule | None:
    """The rule of an operation; torch itself marks those that work element by element."""
    if any(argument.is_out for argument in op.func._schema.arguments):
        return None
    return RULES.get(op.name) or (pointwise if torch.Tag.pointwise in op.func.tags else None)


def answers(found: Any, op: Op, numbers: int) -> bool:
    """Whether what a rule returned are so many numbers, of positions of an operation's outputs."""
    return isinstance(found, (list, tuple)) and all(
        isinstance(each, dict)
        and all(
            dim in range(tensor.ndim)
            and getattr(vector, "dtype", None) == np.int64
            and vector.shape == (tensor.shape[dim],)
            and ((0 <= vector) & (vector < numbers)).all()
            for dim, vector in each.items()
        )
        for each, tensor in zip(found, op.outputs, strict=False)
    )


# ---- element by element -------------------------------------------------------------------
@rule(
    "copy_ fill_ zero_ masked_fill masked_fill_ rsub dropout native_dropout hardswish hardswish_ "
    "gelu_ mish_ threshold_ log_sigmoid_forward"
)
def pointwise(watch: Watch, op: Op) -> Numbers:
    """Filters that meet at one position leave together; a value shared by all of them stays."""
    found: Numbers = {}
    for dim, size in enumerate(op.outputs[0].shape):
        back = dim - op.outputs[0].ndim  # shapes are aligned from the right
        here = [t for t in op.tensors if t.ndim >= -back and t.shape[back] == size > 1]
        here = [t for t in here if t.stride(back) or t.layout != torch.strided]  # not repeated
        vectors = [watch.numbers(t).get(back + t.ndim) for t in here]
        known = [v for v in vectors if v is not None]
        for vector in known[1:]:
            watch.unite(known[0], vector)
        if known and len(known) < len(vectors):
            watch.freeze(known[0], f"{op} meets a tensor of fixed width")
        if known:
            found[dim] = known[0]
    return found


@rule("new_zeros new_ones new_empty new_full new_empty_strided")
def new(watch: Watch, op: Op) -> Numbers:
    """A tensor of its own, whose size is written down somewhere."""
    return {}


@rule(
    "clone alias detach _to_copy lift_fresh contiguous zeros_like ones_like empty_like full_like "
    "rand_like randn_like bernoulli"
)
def same(watch: Watch, op: Op) -> Numbers:
    """Every position stays where it is."""
    return watch.numbers(op.tensors[0])


@rule("as_strided as_strided_")
def strided(watch: Watch, op: Op) -> Numbers | Sequence[Numbers]:
    """Known where there are no pixels, so that only strides of size 1 can differ: a pool of
    channels-last images writes such."""
    found, size = watch.numbers(op.args[0]), op.args[1]
    pixels = [n for d, n in enumerate(size) if n > 1 and d > 0 and d not in found]
    if pixels or any(size[d : d + 1] != [len(v)] for d, v in found.items()):
        return watch.unknown(op)
    return found
