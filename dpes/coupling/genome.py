"""Genomes: which filters stay, as bits, as hexadecimal text, and repaired so that no group is
empty."""

from __future__ import annotations

import numpy as np

from .layout import GenomeError


def repair(genomes: np.ndarray, groups: np.ndarray, least: np.ndarray | int = 1) -> np.ndarray:
    """Genomes in which every group keeps enough filters: the first pruned ones of a poorer group
    return.

    genomes: bool [n, n_bits], or one genome [n_bits]. groups: int [n_bits], the group of each bit,
    ascending (``Layout.group_of_bit``). least: how many filters each group keeps, int [n_groups]
    (``Layout.least``) or one number. Raises ``GenomeError`` for groups that do not fit. Source:
    authors' later code, which has ``least`` = 1.
    """
    if len(groups) != genomes.shape[-1] or (np.diff(groups) < 0).any():
        raise GenomeError(
            f"groups of {genomes.shape[-1]} bits: must be as many numbers, ascending "
            "(Layout.group_of_bit is)"
        )
    _, starts, sizes = np.unique(groups, return_index=True, return_counts=True)
    lacking = np.minimum(least, sizes) - np.add.reduceat(
        genomes, starts, axis=-1, dtype=int
    )  # [..., n_groups]
    pruned = np.cumsum(
        ~genomes, axis=-1
    )  # number of each pruned filter, counted through all groups ...
    number = pruned - np.repeat(
        (pruned - ~genomes)[..., starts], sizes, axis=-1
    )  # ... and within its own, from 1
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
