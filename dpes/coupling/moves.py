"""Rules of operations that move positions, pool them or sum over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .operations import Op, laid
from .rules import Numbers, rule

if TYPE_CHECKING:
    from .watching import Watch


@rule(
    "sum mean amax amin max min var std var_mean std_mean prod norm linalg_vector_norm logsumexp "
    "any all argmax argmin median nansum nanmean aminmax"
)
def reduced(watch: Watch, op: Op) -> list[Numbers]:
    """Dimensions that are no longer there; a removed filter is a zero to a sum, but not to a mean
    or a maximum."""
    x, dims = op.tensors[0], op.argument("dim")
    dims = [dims] if isinstance(dims, int) else dims or range(x.ndim)
    gone, found = {d % x.ndim for d in dims}, {}
    zeros_do_nothing = not watch.constant(x) and (
        op.name == "aten::sum" or op.name == "aten::linalg_vector_norm" and op.argument("ord") >= 0
    )
    for dim, vector in watch.numbers(x).items():
        if dim not in gone:
            found[dim if op.argument("keepdim") else dim - sum(d < dim for d in gone)] = vector
        elif not zeros_do_nothing:
            watch.freeze(vector, f"{op} runs over all channels")
    return [found] * len(op.outputs)


@rule("_softmax _log_softmax cumsum sort logcumsumexp cumprod cummax")
def along(watch: Watch, op: Op) -> list[Numbers]:
    """Positions along one dimension depend on each other, so filters may lie along others only."""
    x = op.tensors[0]
    dim = op.argument("dim") % x.ndim
    watch.freeze(watch.numbers(x).get(dim), f"{op} runs over all channels")
    return [watch.numbers(x)] * len(op.outputs)


@rule(
    "avg_pool2d avg_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices "
    "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d fractional_max_pool2d reflection_pad1d reflection_pad2d reflection_pad3d "
    "replication_pad1d replication_pad2d replication_pad3d upsample_nearest1d upsample_nearest2d "
    "upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d "
    "upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
    "_upsample_nearest_exact2d grid_sampler_2d"
)
def spatial(watch: Watch, op: Op) -> Numbers:
    """Pixels of each channel by themselves; how many dimensions they have is in the name."""
    x, found, pixels = op.args[0], {}, int(next(filter(str.isdigit, op.name)))
    for t in op.tensors:
        for dim, vector in watch.numbers(t).items():
            if t is x and dim < x.ndim - pixels:
                found[dim] = vector
            else:
                watch.freeze(vector, f"{op} mixes positions")
    return found


@rule("constant_pad_nd")
def padded(watch: Watch, op: Op) -> Numbers:
    """Padded channels are no filters: always kept."""
    x, pads, found = op.args[0], op.args[1], dict(watch.numbers(op.args[0]))
    for k in range(len(pads) // 2):
        dim, (low, high) = x.ndim - 1 - k, pads[2 * k : 2 * k + 2]
        if dim in found and min(low, high) < 0:
            watch.freeze(found.pop(dim), f"{op} crops channels")
        elif dim in found:
            found[dim] = np.pad(found[dim], (low, high))
    return found


# ---- moves: the same operation is applied to the numbers ----------------------------------
@rule(
    "view _unsafe_view _reshape_alias reshape permute transpose t expand slice select split "
    "chunk unbind cat stack squeeze unsqueeze repeat unfold narrow diagonal "
    "pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle movedim tile"
)
def moved(watch: Watch, op: Op) -> Sequence[Numbers]:
    """Positions that move take their numbers along; what a new shape cannot hold apart leaves
    together."""
    found: list[Numbers] = [{} for _ in op.outputs]
    if op.outputs[0].dtype != op.tensors[0].dtype:  # bytes read as other numbers
        return watch.unknown(op)
    for dim in sorted({d for t in op.tensors for d in watch.numbers(t)}):
        vectors = [watch.numbers(t).get(dim) for t in op.tensors]
        images = [spread(t, dim, v) for t, v in zip(op.tensors, vectors, strict=True)]
        for layers, image in zip(found, map(distinct, op.again(images)), strict=True):
            landed = watch.settle(op, image)
            for vector in vectors:
                whole_or_chunks(watch, op, vector, image)
            for where, vector in landed.items():
                if where in layers:
                    watch.freeze(
                        np.concatenate([vector, layers[where]]),
                        f"{op} lays two kinds of filters along one dimension",
                    )
                layers[where] = vector
    return found


@rule("split_with_sizes")
def split(watch: Watch, op: Op) -> Sequence[Numbers]:
    """Parts whose sizes the module holds in a list lose filters each by itself; others move."""
    x, sizes, dim = op.args[0], op.args[1], op.argument("dim") % op.args[0].ndim
    if (vector := watch.numbers(x).get(dim)) is not None:
        parts = np.split(vector, np.cumsum(sizes)[:-1])
        if watch.choose(op, vector, [(len(vector), "each")]) and watch.count_each(parts):
            return [watch.numbers(x) | {dim: part} for part in parts]
    return moved(watch, op)


def spread(tensor: Tensor, dim: int, vector: np.ndarray | None) -> Tensor:
    """The number of each element of a tensor along whose dimension these filters lie."""
    numbers = torch.from_numpy(np.zeros(1, int) if vector is None else vector)
    return laid(numbers, dim, tensor.ndim).expand(tensor.shape)


def distinct(image: Tensor) -> np.ndarray:
    """Without the repetition along dimensions that were never written out, which have no stride."""
    for dim, stride in enumerate(image.stride()):
        image = image.narrow(dim, 0, 1) if stride == 0 and image.shape[dim] else image
    return image.numpy()


def whole_or_chunks(watch: Watch, op: Op, vector: np.ndarray | None, image: np.ndarray) -> None:
    """A part of the channels was taken: one of several equal chunks, which then lose the same, or
    else all stay."""
    if vector is None:
        return
    landed = np.zeros(watch.count_numbers, bool)  # faster than ``isin`` for large images
    landed[image] = True
    if (there := landed[vector]).all():
        return
    taken = np.flatnonzero(there)
    size, chunked = len(taken), False
    if size:
        chunked = (
            taken[-1] - taken[0] == size - 1 and taken[0] % size == 0 and len(vector) % size == 0
        )
    if chunked and watch.choose(op, vector, [(size, "chunks")]):
        watch.unite(np.tile(vector[:size], len(vector) // size), vector)
    else:
        watch.freeze(vector, f"{op} takes some of the channels")


@rule("index index_select roll flip")
def picked(watch: Watch, op: Op) -> Numbers:
    """Positions picked by number: right along other dimensions than those of filters."""
    x, *places = op.tensors
    found: Numbers = {}
    for vector in (v for t in places for v in watch.numbers(t).values()):
        watch.freeze(vector, f"{op} picks by what filters say")
    for dim, vector in watch.numbers(x).items():
        landed = watch.settle(op, distinct(op.again([spread(x, dim, vector), *places])[0]))
        if len(landed) == 1 and np.array_equal(next(iter(landed.values())), vector):
            found |= landed
        else:
            watch.freeze(vector, f"{op} picks channels by their number")
    return found


@rule("gather")
def gathered(watch: Watch, op: Op) -> Numbers:
    """Each filter's own positions of another dimension."""
    x, index = op.tensors
    found: Numbers = {}
    for dim in watch.numbers(x).keys() | watch.numbers(index).keys():
        vector, other = watch.numbers(x).get(dim), watch.numbers(index).get(dim)
        if dim == op.argument("dim") % x.ndim or x.shape[dim] != index.shape[dim]:
            watch.freeze(vector, f"{op} picks channels by their number")
            watch.freeze(other, f"{op} picks channels by their number")
        elif (met := watch.meet(vector, other, op)) is not None:
            found[dim] = met
    return found


@rule("glu")
def glu(watch: Watch, op: Op) -> Numbers:
    """The first half of the channels, each gated by its partner of the second."""
    found, dim = dict(watch.numbers(op.args[0])), op.argument("dim") % op.args[0].ndim
    if dim in found:
        found[dim], gates = np.split(found[dim], 2)
        watch.unite(found[dim], gates)
    return found
