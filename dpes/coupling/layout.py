"""A layout: the genome's bits, their coupled groups, and which slices of which tensors each bit
owns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DpesError

Event = tuple[str, str, int]  # a module, an operation in it, and which one of several
KEPT = -1  # in place of a bit: this position belongs to no prunable filter


class UnsupportedModel(DpesError):
    """The model cannot be run or cut as asked, or nothing in it can be pruned; the message says
    why."""


class GenomeError(DpesError):
    """A genome that does not fit its layout."""


def as_array(value: Any) -> np.ndarray:
    """A caller's numbers, whatever holds them; a single object where they make no array."""
    try:  # numpy has no bfloat16, so tensors go by lists
        return np.asarray(value.detach().tolist() if hasattr(value, "detach") else value)
    except (ValueError, TypeError, RuntimeError):  # rows of different lengths, no dense values
        return np.asarray(None)


def as_bits(genome: Any) -> np.ndarray:
    """A caller's genome, or several, as bool; raises ``GenomeError`` for other values than 0 and
    1."""
    bits = as_array(genome)
    if bits.dtype != bool and not (bits.size and np.isin(bits, (0, 1)).all()):
        found = f"a {type(genome).__name__} of {bits.dtype}"
        raise GenomeError(f"genome is {found}: bits must be 0 (removed) or 1 (kept)")
    return bits.astype(bool, copy=False)


@dataclass(frozen=True)
class Group:
    """A coupled group: filters of one or several layers that are kept or removed together, one bit
    each."""

    name: str  # the first layer that produces these filters
    start: int  # first bit in the genome
    size: int  # number of bits
    members: tuple[str, ...]  # all layers that produce them
    readers: tuple[str, ...]  # layers whose inputs shrink with them
    least: int = 1  # so many filters stay, whatever the genome

    @property
    def bits(self) -> slice:
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True)
class Owned:
    """A tensor of the network: ``cuts`` holds (dimension, bit or ``KEPT`` of each position along
    it)."""

    places: tuple[tuple[str, str], ...]  # (module, parameter or buffer) under every name it has
    shape: tuple[int, ...]
    is_parameter: bool
    cuts: tuple[tuple[int, np.ndarray], ...]


@dataclass(frozen=True)
class Width:
    """A module attribute that counts channels: it becomes ``kept positions of bits // divisor``."""

    module: str
    attribute: str
    index: int | None  # of an attribute that is a list or a tuple
    bits: np.ndarray
    divisor: int = 1

    def read(self, module: Any) -> int:
        """The number that a module holds."""
        value = getattr(module, self.attribute)
        return value if self.index is None else value[self.index]

    def write(self, module: Any, number: int) -> None:
        """Has a module hold another number."""
        value: Any = number
        if self.index is not None:
            held = getattr(module, self.attribute)
            value = type(held)(number if k == self.index else n for k, n in enumerate(held))
        setattr(module, self.attribute, value)


@dataclass(frozen=True)
class Call:
    """One product of a layer: MACs of an image = ``factor`` x kept outputs x kept inputs."""

    module: str
    out_bits: np.ndarray
    in_bits: np.ndarray | None  # None: inputs per output are fixed, inside ``factor``
    factor: int
    positions: int  # output values per image and channel


@dataclass(frozen=True, eq=False)
class Layout:
    """What ``trace`` finds in a network.

    ``print`` it to see what is coupled, and what is kept whole and why.
    """

    groups: tuple[Group, ...]
    tensors: tuple[Owned, ...]  # all parameters and buffers, cut or not
    widths: tuple[Width, ...]
    calls: tuple[Call, ...]
    kept: tuple[tuple[str, int, str], ...]  # (layer, filters kept whole, reason)
    example: tuple[int, ...]  # shape of one input
    integers: bool = False  # whether inputs are whole numbers, as those of an embedding
    keep: tuple[str, ...] = ()  # layers that were asked to be kept
    notes: tuple[str, ...] = ()  # what else a reader should know, such as a wrapper taken off
    # for ``mask``, which follows the network's filters once more:
    bit_of: np.ndarray = field(repr=False, default_factory=lambda: np.zeros(0, int))
    choices: tuple[tuple[Event, int], ...] = field(repr=False, default=())

    @property
    def n_bits(self) -> int:
        """Length of a genome."""
        return sum(g.size for g in self.groups)

    @property
    def group_of_bit(self) -> np.ndarray:
        """Int64 [n_bits]: the index of the group that each bit belongs to, ascending."""
        return np.repeat(np.arange(len(self.groups)), [g.size for g in self.groups])

    @property
    def least(self) -> np.ndarray:
        """Int64 [n_groups]: how many filters each group must keep (``min_filters``, ``min_share``;
        at least 1)."""
        return np.array([g.least for g in self.groups])

    def checked(self, genome: Any) -> np.ndarray:
        """The genome as bool [n_bits].

        Parameters
        ----------
        genome
            Zeros and ones [n_bits], whatever holds them.

        Raises
        ------
        GenomeError
            It has another length, other values, or leaves a group without enough filters.
        """
        keep = as_bits(genome)
        if keep.shape != (self.n_bits,):
            bits = f"this layout has {self.n_bits} bits, one per prunable filter"
            raise GenomeError(f"genome of shape {list(keep.shape)}: {bits}")
        for group in self.groups:
            if (left := int(keep[group.bits].sum())) < group.least:
                what = f"leaves {left} filters" if left else "removes every filter"
                cure = f"keep at least {group.least}, or apply dpes.repair"
                raise GenomeError(f"genome {what} of group {group.name!r}: {cure}")
        return keep

    def macs(self, genome: Any) -> int:
        """Multiply-adds of convolutions, linear layers and products for one image; norms and
        activations do not count."""
        width = widths(self.checked(genome))
        return sum(
            c.factor * width(c.out_bits) * (1 if c.in_bits is None else width(c.in_bits))
            for c in self.calls
        )

    def params(self, genome: Any) -> int:
        """Parameters of the slim network, weights and biases, batch norm included, running
        statistics not."""
        width, total = widths(self.checked(genome)), 0
        for tensor in self.tensors:
            if tensor.is_parameter:
                cut = {dim: width(bits) for dim, bits in tensor.cuts}
                total += math.prod(cut.get(dim, size) for dim, size in enumerate(tensor.shape))
        return total

    def activations(self, genome: Any) -> int:
        """Values that layers write for one image, called activations by Radosavovic et al. 2020."""
        width = widths(self.checked(genome))
        return sum(c.positions * width(c.out_bits) for c in self.calls)

    def __str__(self) -> str:
        rows = [f"{self.n_bits} bits in {len(self.groups)} coupled groups"]
        for g in self.groups:
            least = f" (at least {g.least} stay)" if g.least > 1 else ""
            rows.append(
                f"  {g.start:6d} {g.size:5d} x {_short(g.members)}  ->  {_short(g.readers)}{least}"
            )
        if self.kept:
            rows.append("kept whole:")
            rows += [f"         {size:5d} x {name}: {reason}" for name, size, reason in self.kept]
        return "\n".join([*rows, *self.notes])


def stays(bits: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Which positions of a bit vector stay: bool, as long as ``bits``; keep: a genome, bool
    [n_bits]."""
    return np.append(keep, True)[bits]  # KEPT = -1 is the appended last one


def widths(keep: np.ndarray) -> Callable[[np.ndarray], int]:
    """Counts the kept positions of bit vectors, each distinct vector once; keep: a genome."""
    known: dict[int, int] = {}

    def width(bits: np.ndarray) -> int:
        if id(bits) not in known:
            known[id(bits)] = int(stays(bits, keep).sum())
        return known[id(bits)]

    return width


def _short(names: tuple[str, ...]) -> str:
    return (
        ", ".join(names)
        if len(names) <= 3
        else f"{names[0]}, {names[1]} ... {names[-1]} ({len(names)})"
    )
