"""Traces which filters of a network are coupled and which slices of which tensors each of them owns.

The network is traced with torch.fx and walked once. Every tensor between two operations carries a *channel space*: which of
its dimensions holds channels, and which filter each position along it belongs to. A convolution or linear layer opens new
filters, an addition unites the filters of its operands, a concatenation strings them together, flattening repeats each one
once per pixel. What the walk does not know keeps all of its channels: freezing is always right, only less generous.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from ..errors import DpesError
from .layout import KEPT, Group, Layout, Owned, Width, Work


class UnsupportedModel(DpesError):
    """The model cannot be traced, or not understood; the message names node, module and reason."""


def trace(model: nn.Module, example: Tensor) -> Layout:
    """Find the coupled groups of a classifier.

    model: any ``nn.Module`` that torch.fx can trace and that maps one tensor to one tensor; it is left unchanged.
    example: a batch of inputs, float [n, channels, ...]; only shapes matter, n = 1 is enough.
    Raises ``UnsupportedModel`` where the model cannot be traced or nothing in it can be pruned. Source: ours.
    """
    if not isinstance(model, nn.Module):
        raise UnsupportedModel(f"trace needs a torch.nn.Module, not {type(model).__name__}")
    if not isinstance(example, Tensor) or example.ndim < 2:
        raise UnsupportedModel("trace needs an example batch: one float tensor of shape [images, channels, ...]")
    training = {m: m.training for m in model.modules()}
    model.eval()
    try:
        try:
            graph = fx.Tracer().trace(model)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UnsupportedModel(
                f"{type(model).__name__}: torch.fx cannot trace it ({reason}); make its forward free of data-dependent control flow"
            ) from error
        inputs = [n for n in graph.nodes if n.op == "placeholder"]
        if len(inputs) != 1:
            inputs_without_default = [n for n in inputs if not n.args]
            if len(inputs_without_default) != 1:
                raise UnsupportedModel(
                    f"{type(model).__name__}: forward takes {len(inputs_without_default)} inputs "
                    f"({', '.join(n.name for n in inputs_without_default)}); wrap it so that it takes one image tensor"
                )
        walk = Walk(model, graph)
        try:
            with torch.no_grad(), walk.counter:
                walk.run(example)
        except UnsupportedModel as error:
            raise UnsupportedModel(str(error).splitlines()[0]) from None  # torch.fx appends its own trace of the graph
        layout = walk.layout()
        refuse_computed_widths(model, layout.widths)
        return layout
    finally:
        for module, mode in training.items():
            module.training = mode


class OffLimits:
    """Stands in for a width while forward is traced once more: any use of it raises ``UnsupportedModel``."""

    def __init__(self, name: str):
        self.name = name

    def refuse(self, *_: Any) -> Any:
        raise UnsupportedModel(
            f"{self.name}: forward computes with this width, which pruning changes; "
            "read it off the tensor (x.shape[1]), or keep a copy of the number in an attribute of your own"
        )


COMPARISONS = {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"}
for _method in {*dir(int)} - {*dir(object)} | COMPARISONS | {"__format__", "__fx_create_arg__"}:
    setattr(OffLimits, _method, OffLimits.refuse)


def refuse_computed_widths(model: nn.Module, widths: tuple[Width, ...]) -> None:
    """Raises ``UnsupportedModel`` where forward computes with a width such as ``conv.out_channels``, or branches on one.

    The traced graph holds the number that it had, the slim network has another: they would differ without a word.
    """
    modules, attributes = dict(model.named_modules(remove_duplicate=False)), set(vars(model))
    before = [(modules[w.module], w.attribute, getattr(modules[w.module], w.attribute)) for w in widths]
    try:
        for w in widths:
            setattr(modules[w.module], w.attribute, OffLimits(f"{w.module}.{w.attribute}"))
        fx.Tracer().trace(model)
    except UnsupportedModel:
        raise
    except Exception as error:  # torch hides the reason where a width was the size of a new tensor
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnsupportedModel(f"{type(model).__name__}: forward computes with the width of a layer ({reason})") from None
    finally:
        for module, attribute, width in before:
            setattr(module, attribute, width)
        for name in set(vars(model)) - attributes:
            delattr(model, name)  # constants of that trace


def macs(model: nn.Module, example: Tensor) -> int:
    """MACs of one image through the convolution and linear layers of ``model`` (FLOPs as some count them: twice that)."""
    return sum(w.factor * len(w.out_bits) * (1 if w.in_bits is None else len(w.in_bits)) for w in trace(model, example).work)


@dataclass
class Space:
    """The channel space of a tensor: along dimension ``dim``, position ``i`` belongs to filter ``atoms[i]``."""

    dim: int
    atoms: np.ndarray


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
SPATIAL = {  # modules that treat every channel alike, and the number of dimensions behind the channels
    nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3, nn.AvgPool1d: 1, nn.AvgPool2d: 2, nn.AvgPool3d: 3,
    nn.AdaptiveAvgPool1d: 1, nn.AdaptiveAvgPool2d: 2, nn.AdaptiveAvgPool3d: 3,
    nn.AdaptiveMaxPool1d: 1, nn.AdaptiveMaxPool2d: 2, nn.AdaptiveMaxPool3d: 3,
    nn.ZeroPad2d: 2, nn.ReflectionPad2d: 2, nn.ReplicationPad2d: 2, nn.Upsample: None,
}  # fmt: skip
ELEMENTWISE = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.LogSigmoid, nn.Threshold, nn.Identity,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
)  # fmt: skip
SPATIAL_CALLS = {
    F.max_pool1d: 1, F.max_pool2d: 2, F.max_pool3d: 3, F.avg_pool1d: 1, F.avg_pool2d: 2, F.avg_pool3d: 3,
    torch.max_pool2d: 2, torch.avg_pool1d: 1, torch.adaptive_avg_pool1d: 1,
    F.adaptive_avg_pool1d: 1, F.adaptive_avg_pool2d: 2, F.adaptive_avg_pool3d: 3,
    F.adaptive_max_pool1d: 1, F.adaptive_max_pool2d: 2, F.adaptive_max_pool3d: 3, F.interpolate: None,
}  # fmt: skip
ELEMENTWISE_CALLS = {  # named, not identified: F.relu, torch.relu and Tensor.relu_ are one operation
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "tanh", "softplus", "softsign",
    "hardswish", "hardsigmoid", "hardtanh", "logsigmoid", "threshold", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
    "clamp", "abs", "neg", "exp", "sqrt", "rsqrt", "square", "pow",
    "contiguous", "clone", "detach", "float", "double", "half", "stochastic_depth",
}  # fmt: skip
ARITHMETIC = {
    operator.add, operator.iadd, operator.sub, operator.isub, operator.mul, operator.imul, operator.truediv, operator.itruediv,
    torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.minimum,
    "add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "maximum", "minimum",
}  # fmt: skip


class Walk(fx.Interpreter):
    """Runs the traced graph once on the example and follows the filters through every node."""

    def __init__(self, model: nn.Module, graph: fx.Graph):
        super().__init__(fx.GraphModule(model, graph))
        self.model = model
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.places: dict[int, tuple[Tensor, list[tuple[str, str]]]] = {}
        for name, module in self.modules.items():
            for table in (module._parameters, module._buffers):
                for key, tensor in table.items():
                    if tensor is not None:
                        self.places.setdefault(id(tensor), (tensor, []))[1].append((name, key))
        self.parent = np.zeros(0, dtype=np.int64)  # union-find over filters
        self.why: dict[int, str] = {}  # filter -> reason it is kept for good
        self.layer: list[str] = []  # filter -> layer that opened it
        self.owned: dict[tuple[int, int], np.ndarray] = {}  # (id of tensor, dimension) -> filters
        self.read: dict[int, str] = {}  # id of tensor -> why it stays whole: an operation of forward reads it by itself
        self.width: dict[tuple[str, str], tuple[np.ndarray, int]] = {}
        self.calls: list[tuple[str, np.ndarray, np.ndarray | None, int, int]] = []
        self.counter = FlopCounterMode(display=False)
        self.readers: list[tuple[str, np.ndarray]] = []
        self.space: dict[fx.Node, Any] = {}  # Space of a tensor; for a size taken from a tensor, the filters it counts
        self.value: dict[fx.Node, Any] = {}

    # ---- filters ------------------------------------------------------------------------------------------------------------
    def open(self, n: int, layer: str, why: str | None = None) -> np.ndarray:
        """New filters; with a reason, ones that are kept for good."""
        atoms = np.arange(len(self.parent), len(self.parent) + n)
        self.parent = np.append(self.parent, atoms)
        self.layer += [layer] * n
        if why:
            self.freeze(atoms, why)
        return atoms

    def find(self, atom: int) -> int:
        while self.parent[atom] != atom:
            self.parent[atom] = atom = self.parent[self.parent[atom]]
        return int(atom)

    def unite(self, a: np.ndarray, b: np.ndarray) -> None:
        for i, j in zip(a.tolist(), b.tolist(), strict=True):
            i, j = self.find(i), self.find(j)
            self.parent[max(i, j)] = min(i, j)

    def freeze(self, atoms: np.ndarray, why: str) -> None:
        for atom in np.unique(atoms).tolist():
            self.why.setdefault(atom, why)

    def own(self, tensor: Tensor | None, dim: int, atoms: np.ndarray) -> None:
        """Position i of the tensor's dimension leaves with filter ``atoms[i]``; a tensor used twice unites its two uses."""
        if tensor is None:
            return
        first = self.owned.setdefault((id(tensor), dim), atoms)
        self.unite(first, atoms)

    def count(self, name: str, attribute: str, atoms: np.ndarray, divisor: int = 1) -> None:
        self.width.setdefault((name, attribute), (atoms, divisor))

    # ---- the walk -----------------------------------------------------------------------------------------------------------
    def run_node(self, n: fx.Node) -> Any:
        try:
            before = self.counter.get_total_flops()
            result = super().run_node(n)
        except UnsupportedModel:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UnsupportedModel(
                f"{describe(n)}: the example does not run through it ({reason}); does its shape fit the model?"
            ) from None
        self.value[n] = result
        flops, counted = self.counter.get_total_flops() - before, len(self.calls)
        self.space[n] = self.follow(n, result)
        if flops and len(self.calls) == counted:  # an operation that is kept whole, such as a matrix product, costs the same forever
            self.calls.append((describe(n), self.open(1, "", "kept whole"), None, flops // 2 // self.images, 0))
        return result

    def follow(self, n: fx.Node, result: Any) -> Any:
        if n.op == "placeholder":
            if not isinstance(result, Tensor):
                return None
            self.images, *self.example = result.shape
            return Space(1, self.open(result.shape[1], "input", "input channels"))
        if n.op == "output":
            for source in n.all_input_nodes:
                if isinstance(self.space.get(source), Space):
                    self.freeze(self.space[source].atoms, "reaches the output")
            return None
        if n.op == "get_attr":
            return None
        handler = self.handler(n)
        space = handler(n, result) if handler else None
        return self.unknown(n, result) if space is None else space

    def handler(self, n: fx.Node) -> Any:
        """The rule for a node, or None; a rule returns None where it does not apply after all."""
        if n.op == "call_module":
            module = self.modules[n.target]
            kind = type(module)
            if kind in CONVOLUTIONS:
                return self.convolution
            if kind is nn.Linear:
                return self.linear
            if hooked(module):
                return None
            if kind in BATCH_NORMS:
                return self.batch_norm
            if kind is nn.GroupNorm:
                return self.group_norm
            if kind is nn.PReLU:
                return self.prelu
            if kind is nn.Flatten:
                return self.reshape
            if kind in SPATIAL:
                return self.spatial
            if kind in ELEMENTWISE:
                return self.elementwise
            return None
        name = n.target if isinstance(n.target, str) else getattr(n.target, "__name__", "")
        if n.target in ARITHMETIC:
            return self.arithmetic
        if name.strip("_") in ELEMENTWISE_CALLS:
            return self.elementwise
        if n.op == "call_function" and n.target in SPATIAL_CALLS:
            return self.spatial
        if n.target in (torch.cat, torch.concat, torch.concatenate):
            return self.concat
        if name in ("flatten", "reshape", "view"):
            return self.reshape
        if name in ("mean", "sum", "amax"):
            return self.reduce
        if name in ("permute", "transpose", "squeeze", "unsqueeze"):
            return self.move
        if name in ("size", "getattr", "dim") or n.target is operator.getitem:
            return self.pick
        if not isinstance(self.value[n], Tensor) and n.op == "call_function":
            return self.number
        return None

    def unknown(self, n: fx.Node, result: Any) -> Any:
        """Whatever the walk does not know: all channels that go in stay, so the operation sees what it always saw."""
        for source in n.all_input_nodes:
            self.freeze(self.atoms_of(source), f"feeds {describe(n)}")
            self.keep_whole(source, n)
        space, x = self.source(n)
        if space is not None and isinstance(result, Tensor) and result.shape == x.shape:
            return space  # the channels still lie where they lay
        return self.whole(n, result)

    def keep_whole(self, source: fx.Node, n: fx.Node) -> None:
        """A parameter that an operation reads by itself stays whole, though a layer may own it, before or after."""
        if source.op == "get_attr" and isinstance(self.value[source], Tensor):
            self.read.setdefault(id(self.value[source]), f"{describe(n)} reads {source.target}")

    def whole(self, n: fx.Node, result: Any) -> Any:
        if isinstance(result, Tensor) and result.ndim > 1:
            return Space(1, self.open(result.shape[1], str(n.target), f"comes out of {describe(n)}"))
        if isinstance(result, (tuple, list)):
            return [self.whole(n, r) for r in result]
        return np.zeros(0, dtype=np.int64)  # a number that counts no prunable filter

    def atoms_of(self, node: fx.Node) -> np.ndarray:
        """All filters that a node's value depends on by shape."""
        stack, found = [self.space.get(node)], [np.zeros(0, dtype=np.int64)]
        while stack:
            item = stack.pop()
            if isinstance(item, Space):
                found.append(item.atoms)
            elif isinstance(item, np.ndarray):
                found.append(item)
            elif isinstance(item, list):
                stack += item
        return np.concatenate(found)

    def source(self, n: fx.Node) -> tuple[Space | None, Tensor | None]:
        """The channel space and value of a node's first argument, once no other argument is a size counting filters."""
        first = n.args[0] if n.args else n.kwargs.get("input")
        if not isinstance(first, fx.Node) or not isinstance(self.space.get(first), Space):
            return None, None
        if any(len(self.atoms_of(other)) for other in n.all_input_nodes if other is not first):
            return None, None
        return self.space[first], self.value[first]

    def along(self, space: Space | None, x: Tensor | None, dim: int) -> Space | None:
        """The channel space along a dimension; one that is kept whole may be read along any."""
        if space is None or x is None or space.dim == dim:
            return space
        if all(a in self.why for a in space.atoms.tolist()):
            return Space(dim, self.open(x.shape[dim], "", "belongs to a tensor that is kept whole"))
        return None

    # ---- layers that open, own or read filters --------------------------------------------------------------------------------
    def convolution(self, n: fx.Node, result: Tensor) -> Space | None:
        space, x = self.source(n)
        conv, name = self.modules[n.target], n.target
        space = self.along(space, x, 1)
        if space is None or x.ndim != conv.weight.ndim:
            return None
        out = self.open(conv.out_channels, name)
        kernel, positions = math.prod(conv.kernel_size), result[0, 0].numel()
        if conv.groups == 1:
            self.own(conv.weight, 1, space.atoms)
            self.calls.append((name, out, space.atoms, kernel * positions, positions))
        else:
            # a channel group of a grouped convolution leaves as a whole; depthwise convolution is the case of one channel each
            for ins, outs in zip(np.split(space.atoms, conv.groups), np.split(out, conv.groups), strict=True):
                leader = ins[:1]
                self.unite(np.repeat(leader, len(ins)), ins)
                self.unite(np.repeat(leader, len(outs)), outs)
            self.count(name, "groups", space.atoms, conv.in_channels // conv.groups)
            self.calls.append((name, out, None, kernel * positions * (conv.in_channels // conv.groups), positions))
        if hooked(conv):
            self.freeze(np.concatenate([space.atoms, out]), f"a hook sees {name}")
        self.own(conv.weight, 0, out)
        self.own(conv.bias, 0, out)
        self.count(name, "in_channels", space.atoms)
        self.count(name, "out_channels", out)
        self.readers.append((name, space.atoms))
        return Space(1, out)

    def linear(self, n: fx.Node, result: Tensor) -> Space | None:
        space, x = self.source(n)
        layer, name = self.modules[n.target], n.target
        space = self.along(space, x, x.ndim - 1 if x is not None else 0)
        if space is None:
            return None
        out, positions = self.open(layer.out_features, name), result[0, ..., 0].numel()
        if hooked(layer):
            self.freeze(np.concatenate([space.atoms, out]), f"a hook sees {name}")
        self.own(layer.weight, 1, space.atoms)
        self.own(layer.weight, 0, out)
        self.own(layer.bias, 0, out)
        self.count(name, "in_features", space.atoms)
        self.count(name, "out_features", out)
        self.calls.append((name, out, space.atoms, positions, positions))
        self.readers.append((name, space.atoms))
        return Space(space.dim, out)

    def batch_norm(self, n: fx.Node, result: Tensor) -> Space | None:
        space, _ = self.source(n)
        norm = self.modules[n.target]
        if space is None or space.dim != 1:
            return None
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            self.own(tensor, 0, space.atoms)
        self.count(n.target, "num_features", space.atoms)
        return space

    def group_norm(self, n: fx.Node, result: Tensor) -> Space | None:
        space, _ = self.source(n)
        norm = self.modules[n.target]
        if space is None or space.dim != 1 or norm.num_groups == 1:
            return None
        # statistics run over a group of channels, so the group leaves as a whole
        for atoms in np.split(space.atoms, norm.num_groups):
            self.unite(np.repeat(atoms[:1], len(atoms)), atoms)
        self.own(norm.weight, 0, space.atoms)
        self.own(norm.bias, 0, space.atoms)
        self.count(n.target, "num_channels", space.atoms)
        self.count(n.target, "num_groups", space.atoms, norm.num_channels // norm.num_groups)
        return space

    def prelu(self, n: fx.Node, result: Tensor) -> Space | None:
        space, _ = self.source(n)
        module = self.modules[n.target]
        if space is None or space.dim != 1:
            return None
        if module.num_parameters > 1:
            self.own(module.weight, 0, space.atoms)
            self.count(n.target, "num_parameters", space.atoms)
        return space

    # ---- operations that pass filters on --------------------------------------------------------------------------------------
    def elementwise(self, n: fx.Node, result: Tensor) -> Space | None:
        space, x = self.source(n)
        if space is None or result.shape != x.shape or any(isinstance(self.value[other], Tensor) for other in n.all_input_nodes[1:]):
            return None
        return space

    def spatial(self, n: fx.Node, result: Any) -> Space | None:
        space, x = self.source(n)
        spatial = SPATIAL[type(self.modules[n.target])] if n.op == "call_module" else SPATIAL_CALLS[n.target]
        if space is None or not isinstance(result, Tensor) or space.dim != 1 or x.ndim != result.ndim:
            return None
        return space if spatial is None or x.ndim == spatial + 2 else None

    def arithmetic(self, n: fx.Node, result: Tensor) -> Any:
        if not isinstance(result, Tensor):
            return self.number(n, result)
        operands = [a for a in (*n.args, *n.kwargs.values()) if isinstance(a, fx.Node)]
        spaces = [self.space.get(a) for a in operands]
        main = next(
            (s for a, s in zip(operands, spaces, strict=True) if isinstance(s, Space) and self.value[a].shape == result.shape), None
        )
        if main is None:
            return None
        depth = result.ndim - main.dim  # broadcasting aligns dimensions from the right
        joined: list[tuple[Any, ...]] = []
        for node, space in zip(operands, spaces, strict=True):
            value = self.value[node]
            if not isinstance(value, Tensor):
                if len(self.atoms_of(node)):
                    return None
                continue
            size = value.shape[-depth] if value.ndim >= depth else 1
            if isinstance(space, Space):
                if value.ndim - space.dim == depth and size == len(main.atoms):
                    joined.append((self.unite, main.atoms, space.atoms))
                elif value.ndim - space.dim == depth and size == 1:
                    joined.append((self.freeze, space.atoms, f"broadcast over the channels of {describe(n)}"))
                else:
                    return None
            elif id(value) in self.places and size == len(main.atoms) and size > 1:  # a constant inside forward is not there
                joined.append((self.own, value, value.ndim - depth, main.atoms))
            elif value.numel() != 1 and size != 1:
                return None
        for do, *arguments in joined:
            do(*arguments)
        for node in operands:
            if not any(do == self.own and arguments[0] is self.value[node] for do, *arguments in joined):
                self.keep_whole(node, n)
        return main

    def concat(self, n: fx.Node, result: Tensor) -> Space | None:
        tensors = n.args[0] if n.args else n.kwargs.get("tensors")
        dim = (n.args[1] if len(n.args) > 1 else n.kwargs.get("dim", n.kwargs.get("axis", 0))) % result.ndim
        if isinstance(tensors, fx.Node):
            spaces = self.space.get(tensors)
        else:
            spaces = [self.space.get(t) for t in tensors]
        if not spaces or not all(isinstance(s, Space) and s.dim == spaces[0].dim for s in spaces):
            return None
        if dim == spaces[0].dim:
            return Space(dim, np.concatenate([s.atoms for s in spaces]))
        for other in spaces[1:]:
            self.unite(spaces[0].atoms, other.atoms)
        return spaces[0]

    def reshape(self, n: fx.Node, result: Tensor) -> Space | None:
        """[n, channels, ...] -> [n, everything], where each filter owns a run of columns, or -> [n, channels, pixels]."""
        first = n.args[0] if n.args else n.kwargs.get("input")
        space = self.space.get(first) if isinstance(first, fx.Node) else None
        if not isinstance(space, Space) or space.dim == 0:
            return None
        x = self.value[first]
        if result.ndim > space.dim + 1 and result.shape[: space.dim + 1] == x.shape[: space.dim + 1] and self.is_flatten(n):
            return space  # only pixels were strung together
        if result.ndim != 2:
            return None
        if result.shape[0] != x.shape[0]:
            return None
        if not self.is_flatten(n):
            sizes = n.args[1:] if len(n.args) != 2 or isinstance(n.args[1], (fx.Node, int)) else n.args[1]
            # a width written as a number would silently regroup images once channels are gone; so would a batch size of -1
            if len(sizes) != 2 or sizes[0] == -1 or not (sizes[1] == -1 or self.counts(sizes[1], space)):
                return None
        shape = [1] * (x.ndim - 1)
        shape[space.dim - 1] = len(space.atoms)
        return Space(1, np.broadcast_to(space.atoms.reshape(shape), x.shape[1:]).reshape(-1))

    def is_flatten(self, n: fx.Node) -> bool:
        return n.op == "call_module" or getattr(n.target, "__name__", n.target) == "flatten"

    def counts(self, size: Any, space: Space) -> bool:
        """Whether a size is computed from the very channels that it must count."""
        return isinstance(size, fx.Node) and np.array_equal(np.unique(self.atoms_of(size)), np.unique(space.atoms))

    def reduce(self, n: fx.Node, result: Tensor) -> Space | None:
        space, x = self.source(n)
        dims = n.args[1] if len(n.args) > 1 else n.kwargs.get("dim", n.kwargs.get("axis"))
        if space is None or dims is None:
            return None
        dims = {d % x.ndim for d in ([dims] if isinstance(dims, int) else dims)}
        if space.dim in dims or 0 in dims:
            return None  # over channels the divisor would change with the cut
        keepdim = result.ndim == x.ndim
        return Space(space.dim - (0 if keepdim else sum(d < space.dim for d in dims)), space.atoms)

    def move(self, n: fx.Node, result: Tensor) -> Space | None:
        space, x = self.source(n)
        if space is None:
            return None
        if any(isinstance(a, fx.Node) for a in (*n.args[1:], *n.kwargs.values())):
            return None
        # where the channels land is read off a shape in which only they are 2
        marker = torch.empty([2 if i == space.dim else 1 if size == 1 else 3 for i, size in enumerate(x.shape)], device="meta")
        method = n.target if isinstance(n.target, str) else n.target.__name__
        shape = list(getattr(marker, method)(*n.args[1:], **{k: v for k, v in n.kwargs.items() if k != "input"}).shape)
        clear = shape.count(2) == 1 and shape.index(2) > 0 and len(shape) == result.ndim
        return Space(shape.index(2), space.atoms) if clear else None

    # ---- sizes and numbers ----------------------------------------------------------------------------------------------------
    def pick(self, n: fx.Node, result: Any) -> Any:
        """``x.shape``, ``x.size(i)``, ``x.shape[i]``, and items of tuples or tensors."""
        first = n.args[0]
        space = self.space.get(first)
        name = getattr(n.target, "__name__", n.target)
        none = np.zeros(0, dtype=np.int64)
        if name == "dim" or (name == "getattr" and n.args[1] in ("ndim", "device", "dtype")):
            return none
        if isinstance(space, Space) and (name == "size" or (name == "getattr" and n.args[1] == "shape")):
            sizes: list[Any] = [none] * self.value[first].ndim
            sizes[space.dim] = space.atoms
            index = n.args[1] if len(n.args) > 1 and name == "size" else n.kwargs.get("dim")
            return sizes if index is None else sizes[index]
        if n.target is operator.getitem and isinstance(space, list):
            picked = space[n.args[1]] if isinstance(n.args[1], (int, slice)) else None
            return picked
        if n.target is operator.getitem and isinstance(space, Space) and isinstance(result, Tensor):
            index = n.args[1] if isinstance(n.args[1], tuple) else (n.args[1],)
            plain = all(isinstance(i, slice) and not any(isinstance(s, fx.Node) for s in (i.start, i.stop, i.step)) for i in index)
            if plain and (len(index) <= space.dim or index[space.dim] == slice(None)):
                return space
        return None

    def number(self, n: fx.Node, result: Any) -> Any:
        """Arithmetic on sizes counts whatever its operands count."""
        if isinstance(result, (int, float, bool)):
            return np.concatenate([np.zeros(0, dtype=np.int64), *(self.atoms_of(a) for a in n.all_input_nodes)])
        return None

    # ---- the result -----------------------------------------------------------------------------------------------------------
    def layout(self) -> Layout:
        for (tensor, _), atoms in self.owned.items():
            if tensor in self.read:
                self.freeze(atoms, self.read[tensor])
        roots = np.array([self.find(a) for a in range(len(self.parent))], dtype=np.int64)
        frozen = {int(roots[a]): why for a, why in sorted(self.why.items(), reverse=True)}
        members: dict[int, dict[str, None]] = {}
        for atom, root in enumerate(roots.tolist()):
            members.setdefault(root, {})[self.layer[atom]] = None
        grouped: dict[tuple[str, ...], list[int]] = {}
        kept_whole: dict[tuple[str, str], int] = {}
        for root, layers in members.items():
            if root not in frozen:
                grouped.setdefault(tuple(layers), []).append(root)
            else:
                for layer in layers:
                    if layer in self.modules and layer != "":
                        kept_whole[layer, frozen[root]] = kept_whole.get((layer, frozen[root]), 0) + 1
        bit = np.full(len(roots) + 1, KEPT)
        groups: list[Group] = []
        start = 0
        for layers, heads in grouped.items():
            bit[heads] = np.arange(start, start + len(heads))
            inside = set(heads)
            readers = tuple(dict.fromkeys(name for name, atoms in self.readers if inside & set(roots[atoms].tolist())))
            groups.append(Group(layers[0], start, len(heads), layers, readers))
            start += len(heads)
        if not groups:
            why = next(iter(frozen.values()), "it has no convolution or linear layer")
            raise UnsupportedModel(f"{type(self.model).__name__}: nothing can be pruned safely ({why})")

        shared: dict[bytes, np.ndarray] = {}

        def bits(atoms: np.ndarray) -> np.ndarray:
            """The bit of each position; equal vectors are one object, so that their kept positions are found once."""
            vector = bit[roots[atoms]]
            return shared.setdefault(vector.tobytes(), vector)

        def cuts(tensor: Tensor) -> tuple[tuple[int, np.ndarray], ...]:
            owners = [(dim, bits(self.owned[id(tensor), dim])) for dim in range(tensor.ndim) if (id(tensor), dim) in self.owned]
            return tuple((dim, vector) for dim, vector in owners if (vector != KEPT).any())

        return Layout(
            groups=tuple(groups),
            tensors=tuple(Owned(tuple(places), tuple(t.shape), isinstance(t, nn.Parameter), cuts(t)) for t, places in self.places.values()),
            widths=tuple(Width(*key, bits(a), divisor) for key, (a, divisor) in self.width.items() if (bits(a) != KEPT).any()),
            work=tuple(Work(name, bits(o), None if i is None else bits(i), f, p) for name, o, i, f, p in self.calls),
            frozen=tuple((name, size, why) for (name, why), size in kept_whole.items()),
            spaces={n.name: (s.dim, bits(s.atoms)) for n, s in self.space.items() if isinstance(s, Space)},
            ndim={n.name: v.ndim for n, v in self.value.items() if isinstance(v, Tensor)},
            graph=self.module.graph,
            example=tuple(self.example),
        )


def hooked(module: nn.Module) -> bool:
    """Whether a forward hook may compute with all channels of a module; weight norm of the old kind is one."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def describe(n: fx.Node) -> str:
    """A node for messages: its module path, or the operation and the module whose forward calls it."""
    if n.op == "call_module":
        return str(n.target)
    name = n.target if isinstance(n.target, str) else getattr(n.target, "__name__", str(n.target))
    stack = n.meta.get("nn_module_stack") or {}
    inside = next(reversed(stack), "") if stack else ""
    return f"{name} in {inside}" if inside else str(name)
