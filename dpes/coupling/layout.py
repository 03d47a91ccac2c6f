"""What tracing finds in a network: the genome's bits, the groups of coupled filters, and which slices of which tensors each bit owns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import fx

from ..errors import DpesError

KEPT = -1  # in place of a bit: this position belongs to no prunable filter


@dataclass(frozen=True)
class Group:
    """A coupled group: filters of one or several layers that are kept or removed together, one bit each."""

    name: str  # the first layer that produces these filters
    start: int  # first bit in the genome
    size: int  # number of bits
    members: tuple[str, ...]  # all layers that produce them
    readers: tuple[str, ...]  # layers whose inputs shrink with them

    @property
    def bits(self) -> slice:
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True)
class Owned:
    """A tensor of the network and who owns it: ``cuts`` holds (dimension, bit or ``KEPT`` of each position along it)."""

    places: tuple[tuple[str, str], ...]  # (module, parameter or buffer) under every name the tensor has
    shape: tuple[int, ...]
    is_parameter: bool
    cuts: tuple[tuple[int, np.ndarray], ...]


@dataclass(frozen=True)
class Width:
    """A module attribute that counts channels: it becomes ``kept positions of bits // divisor``."""

    module: str
    attribute: str
    bits: np.ndarray
    divisor: int = 1


@dataclass(frozen=True)
class Work:
    """One call of a convolution, linear layer or product: MACs per image = ``factor`` x kept outputs x kept inputs."""

    module: str
    out_bits: np.ndarray
    in_bits: np.ndarray | None  # None: inputs per output are fixed (grouped and depthwise convolution), inside ``factor``
    factor: int
    positions: int  # output values per image and channel


@dataclass(frozen=True)
class Layout:
    """What ``trace`` found: the genome's bits, their groups and everything each bit owns. ``print`` it to see the coupling."""

    groups: tuple[Group, ...]
    tensors: tuple[Owned, ...]  # all parameters and buffers, cut or not
    widths: tuple[Width, ...]
    work: tuple[Work, ...]
    frozen: tuple[tuple[str, int, str], ...]  # (layer, filters kept for good, reason)
    spaces: dict[str, tuple[int, np.ndarray]] = field(repr=False)  # graph node -> (channel dimension, bit of each channel)
    ndim: dict[str, int] = field(repr=False)  # graph node -> number of dimensions
    graph: fx.Graph = field(repr=False)
    example: tuple[int, ...] = ()  # shape of one input image

    @property
    def n_bits(self) -> int:
        return sum(g.size for g in self.groups)

    @property
    def group_of_bit(self) -> np.ndarray:
        """int64 [n_bits]: the index of the group that each bit belongs to, ascending."""
        return np.repeat(np.arange(len(self.groups)), [g.size for g in self.groups])

    def keep(self, genome: Any) -> np.ndarray:
        """The genome as checked bool [n_bits]; raises ``GenomeError`` for a wrong length or a group without a kept filter."""
        keep = np.asarray(genome)
        if keep.shape != (self.n_bits,):
            raise GenomeError(f"genome of shape {list(keep.shape)}: this layout has {self.n_bits} bits, one per prunable filter")
        if keep.dtype != bool:
            if not np.isin(keep, (0, 1)).all():
                raise GenomeError(f"genome of {keep.dtype}: bits must be 0 (removed) or 1 (kept)")
            keep = keep.astype(bool)
        for group in self.groups:
            if not keep[group.bits].any():
                raise GenomeError(f"genome removes every filter of group {group.name!r}: keep at least one (dpes.strategy.es.repair does)")
        return keep

    def __str__(self) -> str:
        rows = [f"{self.n_bits} bits in {len(self.groups)} coupled groups"]
        rows += [f"  {g.start:6d} {g.size:5d} x {_shorten(g.members)}  ->  {_shorten(g.readers)}" for g in self.groups]
        if self.frozen:
            rows.append("kept whole:")
            rows += [f"         {size:5d} x {name}: {reason}" for name, size, reason in self.frozen]
        return "\n".join(rows)


class GenomeError(DpesError):
    """A genome that does not fit its layout."""


def kept(bits: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Which positions of a bit vector stay: bool, same length as ``bits``; ``keep`` is a genome, bool [n_bits]."""
    return np.append(keep, True)[bits]  # KEPT = -1 is the appended last one


def _shorten(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]}, {names[1]} ... {names[-1]} ({len(names)})"
