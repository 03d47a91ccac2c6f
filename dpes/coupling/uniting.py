"""Numbers that are united in pairs, and the classes that they form."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def classes(rows: np.ndarray) -> int:
    """How many filters are left to choose from when those of a row leave together."""
    _, number = np.unique(rows, return_inverse=True)
    number = number.reshape(rows.shape)
    root = components(number.max() + 1, [(number[:, :1], number)])
    return len(np.unique(root[number[:, 0]]))


def components(n: int, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Int [n]: the least number that each number is connected with through the pairs."""
    root, pairs = np.arange(n), list(pairs)
    if not pairs:
        return root
    a, b = (
        np.concatenate([np.ravel(side) for side in sides])
        for sides in zip(*(np.broadcast_arrays(*p) for p in pairs), strict=True)
    )
    while True:
        ra, rb = root[a], root[b]
        if (ra == rb).all():
            return root
        least = np.minimum(ra, rb)
        np.minimum.at(root, ra, least)
        np.minimum.at(root, rb, least)
        while (root[root] != root).any():
            root = root[root]
