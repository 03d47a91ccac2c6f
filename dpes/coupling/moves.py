"""Rules of operations that move positions: the same operation is applied to the numbers of filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from .operations import Op
from .rules import Numbers, rule

if TYPE_CHECKING:
    from .watching import Watch


@rule("view", "_unsafe_view", "_reshape_alias", "reshape", "permute", "transpose", "t", "expand", "slice", "select", "split")
@rule("split_with_sizes", "chunk", "unbind", "cat", "stack", "squeeze", "unsqueeze", "repeat", "unfold", "narrow", "diagonal")
@rule("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "movedim", "tile")
def moved(watch: Watch, op: Op) -> list[Numbers]:
    """Positions that move take their numbers along; what a new shape cannot hold apart leaves together."""
    found: list[Numbers] = [{} for _ in op.outputs]
    if op.outputs[0].dtype != op.tensors[0].dtype:  # bytes read as other numbers
        return watch.unknown(op)
    for dim in sorted({d for t in op.tensors for d in watch.numbers(t)}):
        vectors = [watch.numbers(t).get(dim) for t in op.tensors]
        images = [
            torch.from_numpy(np.zeros(1, int) if v is None else v).view([-1 if d == dim else 1 for d in range(t.ndim)]).expand(t.shape)
            for t, v in zip(op.tensors, vectors, strict=True)
        ]
        for layers, image in zip(found, op.again(images), strict=True):
            landed = watch.settle(op, image.numpy())
            for vector in vectors:
                whole_or_chunks(watch, op, vector, image.numpy())
            for where, vector in landed.items():
                if where in layers:
                    watch.freeze(np.concatenate([vector, layers[where]]), f"{op} lays two kinds of filters along one dimension")
                layers[where] = vector
    return found


def whole_or_chunks(watch: Watch, op: Op, vector: np.ndarray | None, image: np.ndarray) -> None:
    """A part of the channels was taken: one of several equal chunks, which then lose the same, or else all stay."""
    if vector is None or (there := np.isin(vector, image)).all():
        return
    taken = np.flatnonzero(there)
    size, chunked = len(taken), False
    if size:
        chunked = taken[-1] - taken[0] == size - 1 and taken[0] % size == 0 and len(vector) % size == 0
    if chunked and watch.choose(vector, [(size, "chunks")]):
        watch.unite(np.tile(vector[:size], len(vector) // size), vector)
    else:
        watch.freeze(vector, f"{op} takes some of the channels")


@rule("index", "index_select", "gather", "roll", "flip", "take_along_dim")
def picked(watch: Watch, op: Op) -> Numbers:
    """Positions picked by number: right along other dimensions than those of filters."""
    x, found = op.tensors[0], {}
    for dim, vector in watch.numbers(x).items():
        image = torch.from_numpy(vector).view([-1 if d == dim else 1 for d in range(x.ndim)]).expand(x.shape)
        landed = watch.settle(op, op.again([image, *op.tensors[1:]])[0].numpy())
        if len(landed) == 1 and np.array_equal(*landed.values(), vector):
            found |= landed
        else:
            watch.freeze(vector, f"{op} picks channels by their number")
    return found


@rule("glu")
def glu(watch: Watch, op: Op) -> Numbers:
    """The first half of the channels, each gated by its partner of the second."""
    found, dim = dict(watch.numbers(op.args[0])), op.argument("dim") % op.args[0].ndim
    if dim in found:
        found[dim], gates = np.split(found[dim], 2)
        watch.unite(found[dim], gates)
    return found

