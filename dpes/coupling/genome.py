"""A genome as text."""

from __future__ import annotations

import numpy as np


def to_hex(genome: np.ndarray) -> str:
    """bool [n] -> hexadecimal text, first bit first, zero bits behind the last."""
    return np.packbits(genome).tobytes().hex()


def from_hex(text: str, n_bits: int) -> np.ndarray:
    """The inverse of ``to_hex``; raises ``ValueError`` if the text is too short."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))
    if len(bits) < n_bits:
        raise ValueError(f"{len(bits)} bits, not {n_bits}")
    return bits[:n_bits].astype(bool)
