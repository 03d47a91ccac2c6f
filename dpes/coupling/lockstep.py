"""A slim network and the masked one, run in lock step: each operation must compute the same.

Compared at the outputs only, an end that saturates (a clamp, a softmax, a dead ReLU) would hide a
wrong cut. Where an operation differs, the masked network goes on with the slim one's values, so
that one run finds all that is wrong by itself.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ..errors import first_line
from .cutting import Silence, clone, cut
from .evaluating import evaluating
from .layout import Layout
from .operations import Op, leaves, shares
from .subject import Subject, trains

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}  # of the largest output
ELSE = "computes something else"
COPIES = ("aten::clone", "aten::contiguous", "aten::_unsafe_view", "aten::_reshape_alias")


@dataclass(frozen=True)
class Fault:
    """What is wrong with a cut, the removed bits that meet there, none where no place is known, and
    the operation."""

    reason: str
    bits: np.ndarray
    op: str = ""


def faults(subject: Subject, layout: Layout, genome: np.ndarray, thorough: bool) -> list[Fault]:
    """What is wrong with a genome's slim network; thorough: on two images, in training and in its
    MACs, too."""
    nowhere, x = np.zeros(0, int), subject.pair if thorough else subject.x
    small, heard = cut(clone(subject.model), subject.model, layout, genome), Heard()
    counter = FlopCounterMode(display=False)
    out, problem = [], ""
    try:
        with evaluating(small), counter if thorough else nullcontext(), heard:
            out = list(leaves(small(x)))
    except Exception as error:
        problem = first_line(error)
    both = LockStep(subject.model, layout, genome, heard.ops, problem)
    with evaluating(subject.model), both:
        wanted = list(leaves(subject.model(x)))
    if both.faults:
        return both.faults
    if problem:
        return [Fault(f"the rest does not run without it ({problem})", nowhere)]
    if len(out) != len(wanted) or not all(map(alike, out, wanted)):
        return [Fault(f"without it the rest {ELSE}", nowhere)]
    if thorough and counter.get_total_flops() != 2 * len(x) * layout.macs(genome):
        return [Fault("without it the MACs are not those in closed form", nowhere)]
    if thorough and subject.trains and not trains(small, subject.x):
        return [Fault("without it the network does not train", nowhere)]
    return []


class Heard(TorchDispatchMode):
    """Keeps what each operation of the slim network puts out; nothing for one that failed, which is
    the last."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[tuple[str, list[Tensor] | None]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = func._schema.name
        self.ops.append((name, None))
        out = func(*args, **(kwargs or {}))
        self.ops.pop()
        if not moves(func):
            self.ops.append((name, [t.clone() for t in leaves(out)]))
        return out


def moves(func: Any) -> bool:
    """Whether values only change places; views and copies take turns, as strides allow."""
    return shares(func) or func._schema.name in COPIES


class LockStep(Silence):
    """The masked network beside what was heard of the slim one."""

    def __init__(
        self,
        model: torch.nn.Module,
        layout: Layout,
        genome: np.ndarray,
        heard: list[tuple[str, list[Tensor] | None]],
        problem: str,
    ):
        super().__init__(model, layout, genome)
        self.removed, self.problem = ~genome, problem
        self.heard = iter([*heard, ("", None)])
        self.next = next(self.heard)
        self.faults: list[Fault] = []

    def see(self, op: Op) -> None:
        super().see(op)
        name, theirs = self.next
        if name != op.name:
            if not moves(op.func):  # the ways part here, perhaps rightly
                self.next = ("", None)
        elif theirs is None:
            self.blame(op, f"does not run ({self.problem})")
            self.next = ("", None)
        elif not moves(op.func):
            self.next = next(self.heard)
            if not op.creates:
                for mine, other in zip(op.outputs, theirs, strict=True):
                    self.compare(op, mine, other)

    def compare(self, op: Op, mine: Tensor, other: Tensor) -> None:
        """Compares the positions that stay; goes on with the slim network's values where they
        differ."""
        kept, here = mine, torch.ones((), dtype=torch.bool, device=mine.device)
        for dim, gone in self.gone(mine):
            kept, here = kept.index_select(dim, (~gone).flatten().nonzero()[:, 0]), here & ~gone
        if kept.shape != other.shape and any(self.numbers(t) for t in op.outputs if t is not mine):
            return  # a by-product beside an output that is followed, such as a pool's indices
        if kept.shape != other.shape:
            self.blame(op, "has another shape")
            self.next = ("", None)
        elif (kept.is_floating_point() or kept.is_complex()) and not alike(other, kept, op):
            # whole numbers follow from values that were compared, and may hang on rounding
            self.blame(op, ELSE)
            if id(mine) in self.places:  # a weight, which is not to be changed
                self.next = ("", None)
            else:
                mine.masked_scatter_(here, other)

    def blame(self, op: Op, why: str) -> None:
        vectors = [v for t in [*op.tensors, *op.outputs] for v in self.numbers(t).values()]
        bits = np.unique(
            np.concatenate([np.zeros(0, int), *(self.layout.bit_of[v] for v in vectors)])
        )
        bits = bits[bits >= 0]
        self.faults.append(Fault(f"without it {op} {why}", bits[self.removed[bits]], op.name))


def alike(a: Tensor, b: Tensor, op: Op | None = None) -> bool:
    """Whether two tensors agree up to rounding, that of the inputs of ``op`` included."""
    if a.shape != b.shape or not b.numel():
        return a.shape == b.shape
    if not b.is_floating_point() and not b.is_complex():
        return torch.equal(a, b)
    tolerance = TOLERANCE.get(b.dtype, 1e-2)
    if (a - b).abs().max() <= tolerance * b.abs().max():
        return True
    finite = b.abs()[b.isfinite()]
    limit = tolerance * float(finite.max()) if len(finite) else 0.0
    for t in op.tensors if op else ():
        if t.is_floating_point() and t.numel() and t.isfinite().all():
            limit = max(limit, 1e4 * torch.finfo(t.dtype).eps * float(t.abs().max()))
    return torch.allclose(a, b, rtol=0, atol=limit, equal_nan=True)
