"""Genomes: which filters stay, as bits, as hexadecimal text, and repaired so that no group is
empty."""

from __future__ import annotations

import numpy as np

from .layout import GenomeError, as_array, as_bits


def repair(genomes: np.ndarray, groups: np.ndarray, least: np.ndarray | int = 1) -> np.ndarray:
    """Genomes in which every group keeps enough filters: the first pruned ones of a poorer group
    return. Source: authors' later code, which has ``least`` = 1.

    Parameters
    ----------
    genomes
        Bool [n, n_bits], or one genome [n_bits].
    groups
        Int [n_bits], the group of each bit, ascending (``Layout.group_of_bit``).
    least
        How many filters each group keeps, int [n_groups] (``Layout.least``) or one number.

    Raises
    ------
    GenomeError
        Groups or least numbers that do not fit the genomes.
    """
    genomes, groups, least = as_bits(genomes), as_array(groups), as_array(least)
    n = genomes.shape[-1:]
    if (
        groups.dtype.kind not in "iu"
        or groups.ndim != 1
        or groups.shape != n
        or (np.diff(groups) < 0).any()
    ):
        wanted = "must be as many numbers, ascending (Layout.group_of_bit is)"
        raise GenomeError(f"groups of {sum(n)} bits: {wanted}")
    _, starts, sizes = np.unique(groups, return_index=True, return_counts=True)
    if least.dtype.kind not in "iu" or least.shape not in ((), starts.shape) or (least < 1).any():
        raise GenomeError("least: must be a whole number of at least 1, or one for each group")
    left = np.add.reduceat(genomes, starts, axis=-1, dtype=int)  # [..., n_groups]
    lacking = np.minimum(least, sizes) - left
    # the number of each pruned filter, counted through all groups, and within its own, from 1
    pruned = np.cumsum(~genomes, axis=-1)
    number = pruned - np.repeat((pruned - ~genomes)[..., starts], sizes, axis=-1)
    return genomes | (number <= np.repeat(lacking, sizes, axis=-1))


def to_hex(genome: np.ndarray) -> str:
    """Bool [n] -> hexadecimal text, first bit first, zero bits behind the last."""
    return np.packbits(genome).tobytes().hex()


def from_hex(text: str, n_bits: int) -> np.ndarray:
    """The inverse of ``to_hex``; raises ``ValueError`` if the text is too short."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))
    if len(bits) < n_bits:
        raise ValueError(f"{len(bits)} bits, not {n_bits}")
    return bits[:n_bits].astype(bool)
