"""Rules of layers: they produce filters, and read those before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from .operations import Op
from .rules import Numbers, pointwise, rule

if TYPE_CHECKING:
    from .watching import Watch


@rule("convolution")
def convolution(watch: Watch, op: Op) -> Numbers:
    """Inputs leave with the weight's reading dimension, outputs with its producing one."""
    x, weight, bias, *_, transposed, _, groups = op.args
    for t, along in ((x, {1}), (weight, {0, 1})):
        for dim in watch.numbers(t).keys() - along:
            watch.freeze(watch.numbers(t)[dim], f"{op} mixes positions")
    name, w, ins = watch.layer_of(weight), watch.numbers(weight), watch.numbers(x).get(1)
    if groups == 1:
        ins, outs = watch.meet(w.get(int(not transposed)), ins, op), w.get(int(transposed))
        watch.call(op, name, outs, ins)
    else:
        outs, inside = grouped(watch, op, ins, w, name)
        watch.call(op, name, outs, inside)
    if isinstance(bias, Tensor):
        outs = watch.meet(outs, watch.numbers(bias).get(0), op)
    watch.count("in_channels", ins, layer=name)
    watch.count("out_channels", outs, layer=name)
    if outs is None:
        return {}
    watch.produce(name, outs, ins)
    return {1: outs}


def grouped(
    watch: Watch, op: Op, ins: np.ndarray | None, w: Numbers, name: str
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Numbers of the outputs of a grouped convolution, and those that the MACs of each output grow
    with.

    Either a channel group leaves as a whole (depthwise convolution: one channel each), or all
    groups lose the same of their channels; whichever leaves more to choose from, unless the proof
    found it wrong.
    """
    transposed, groups = op.args[6], op.args[8]
    per_in, per_out = op.args[0].shape[1] // groups, op.out.shape[1] // groups
    # outputs and inputs of a group; transposed: inputs and outputs
    first, second = w.get(0), w.get(1)
    if ins is None or first is None:
        for vector in (ins, first, second):
            watch.freeze(vector, f"{op} has channel groups that begin at the input")
        return first if not transposed else None, None
    outs = np.repeat(first[::per_in], per_out) if transposed else first
    options = [(groups, "whole"), (min(per_in, per_out), "inside")]
    if transposed or min(per_in, per_out) == 1:
        options.pop()
    way = watch.choose(op, np.concatenate([ins, first]), options)
    if way is None:
        for vector in (ins, first, second):
            watch.freeze(vector, f"channel groups of {name}")
        return outs, None
    if way == "inside":
        watch.unite(np.tile(ins[:per_in], groups), ins)
        watch.unite(np.tile(outs[:per_out], groups), outs)
        return outs, watch.meet(second, ins[:per_in], op)
    for vector, size in ((ins, per_in), (outs, per_out)):
        watch.unite(np.repeat(ins[::per_in], size), vector)
    if transposed:
        watch.unite(ins, first)
    watch.freeze(second, f"inside a channel group of {name}")
    watch.count("groups", ins, per_in)
    return outs, None


@rule("mm bmm addmm baddbmm")
def product(watch: Watch, op: Op) -> Numbers:
    """Matrix products; linear layers are some.

    What is summed over leaves on both sides.
    """
    *shift, a, b = [t for t in op.args if isinstance(t, Tensor)]
    na, nb, last = watch.numbers(a), watch.numbers(b), op.out.ndim - 1
    for batch in [n[0] for n in (na, nb) if last == 2 and 0 in n]:
        watch.freeze(batch, f"{op} works on each by itself")
    inner = watch.meet(na.get(last), nb.get(last - 1), op)
    found = {last - 1: na.get(last - 1), last: nb.get(last)}
    for t in shift:
        for dim, vector in watch.numbers(t).items():
            dim += op.out.ndim - t.ndim
            found[dim] = watch.meet(found.get(dim), vector, op)
    side = last - 1 if watch.constant(a) and not watch.constant(b) else last
    weight, outs, others = a if side < last else b, found[side], found[2 * last - 1 - side]
    if inner is not None and outs is not None and others is not None:
        watch.freeze(found[last - 1], f"{op} has filters in all of its dimensions")
    name = watch.layer_of(weight)
    watch.call(op, name, outs, others if inner is None else inner)
    if outs is not None and watch.constant(weight):
        watch.produce(name, outs, inner)
        watch.count("in_features", inner, layer=name)
        watch.count("out_features", outs, layer=name)
    return {dim: v for dim, v in found.items() if v is not None}


@rule("embedding")
def embedding(watch: Watch, op: Op) -> Numbers:
    """Each row of the table is a word's; columns are filters."""
    table, name = watch.numbers(op.args[0]), watch.layer_of(op.args[0])
    watch.freeze(table.get(0), f"words of {name}")
    watch.produce(name, table[1], None)
    watch.count("embedding_dim", table[1])
    return {op.out.ndim - 1: table[1]}


# ---- norms --------------------------------------------------------------------------------
@rule(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "_batch_norm_no_update cudnn_batch_norm miopen_batch_norm _batch_norm_with_update"
)
def batch_norm(watch: Watch, op: Op) -> Numbers:
    """Each channel by itself, with parameters of its own."""
    found = normed(watch, op, op.args[1:5], op.argument("training"))
    watch.count("num_features", found.get(1))
    return found


@rule("native_group_norm")
def group_norm(watch: Watch, op: Op) -> Numbers:
    """Statistics run over a group of channels, so it leaves as a whole."""
    found, groups = normed(watch, op, op.args[1:3], True), op.argument("group")
    vector = found.get(1)
    watch.count("num_channels", vector)
    if vector is not None and groups == 1:
        watch.freeze(vector, f"{op} takes statistics over all channels")
    elif vector is not None:
        size = len(vector) // groups
        watch.unite(np.repeat(vector[::size], size), vector)
        watch.count("num_groups", vector, size)
    return found


def normed(watch: Watch, op: Op, affine: Sequence[Tensor | None], mixes: bool) -> Numbers:
    """Channels leave with their parameters; those that lie among pixels stay, where statistics mix
    these."""
    found = dict(watch.numbers(op.args[0]))
    for dim in found.keys() - {1} if mixes else ():
        watch.freeze(found[dim], f"{op} takes statistics over all of them")
    for t in affine:
        if t is not None:
            channels = watch.meet(found.get(1), watch.numbers(t).get(0), op)
            found |= {} if channels is None else {1: channels}
    return found


@rule("native_layer_norm _fused_rms_norm")
def layer_norm(watch: Watch, op: Op) -> Numbers:
    """Statistics run over the last dimensions, whose mean would change if a part of them left."""
    outside = op.args[0].ndim - len(op.args[1])
    for t in op.tensors:
        for dim, vector in watch.numbers(t).items():
            if t is not op.args[0] or dim >= outside:
                watch.freeze(vector, f"{op} takes statistics over all channels")
    return {d: v for d, v in watch.numbers(op.args[0]).items() if d < outside}


@rule("_prelu_kernel")
def prelu(watch: Watch, op: Op) -> Numbers:
    """Element by element, with a slope for each channel."""
    found = pointwise(watch, op)
    watch.count("num_parameters", found.get(1))
    return found
