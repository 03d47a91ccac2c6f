"""Watches one run of a network and follows its filters through every operation."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from threading import get_ident
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from . import layers, moves  # noqa: F401 - they add their rules
from .layout import Event, UnsupportedModel
from .operations import Op
from .reading import Reads
from .rules import Numbers, answers, rule_for
from .uniting import classes


class Watch(TorchDispatchMode):
    """A mode under which a network runs once: every position of every dimension of every weight
    gets a number.

    Numbers count from 1 in the order of the weights; 0 belongs to no filter. ``choices``: event ->
    which of the possible readings to take, where a new shape has several (see ``choose``).
    """

    def __init__(self, model: nn.Module, images: int = 1, choices: dict[Event, int] | None = None):
        super().__init__()
        self.model, self.images, self.choices = model, images, choices or {}
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.names = {id(m): name for name, m in reversed(self.modules.items())}
        self.stack: list[str] = [""]  # the modules that are running
        self.places: dict[int, tuple[Tensor, list[tuple[str, str]]]] = {}
        for name, module in self.modules.items():
            for key, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is not None:
                    self.places.setdefault(id(tensor), (tensor, []))[1].append((name, key))
        # of weights and what is computed from them alone: the (first) weight
        self.constants = {key: key for key in self.places}
        self.held: list[Tensor] = []  # what is computed from weights, so that ids stay theirs
        self.known: dict[int, tuple[weakref.ref[Tensor], Numbers]] = {}
        self.count_numbers = 1
        for key, (tensor, _) in self.places.items():
            vectors = {d: self.fresh(n) for d, n in enumerate(tensor.shape) if n > 1}
            self.known[key] = (weakref.ref(tensor), vectors)
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []  # filters that leave together
        self.frozen: list[tuple[np.ndarray, str]] = []  # filters that stay, and why
        # two sizes that forward compares with each other, and where
        self.compared: list[tuple[np.ndarray, np.ndarray, str]] = []
        self.producers: list[tuple[str, np.ndarray]] = []  # in the order of the run
        self.readers: list[tuple[str, np.ndarray]] = []
        self.calls: list[tuple[str, np.ndarray | None, np.ndarray | None, int, int]] = []
        self.counts: dict[tuple[str, str, int | None], tuple[np.ndarray, int]] = {}
        # where a reading was chosen: the kind of place, and the filters concerned
        self.events: dict[Event, tuple[str, np.ndarray]] = {}
        self.notes: dict[str, int] = {}  # what else a reader of the layout should know

    def fresh(self, n: int) -> np.ndarray:
        """So many new numbers."""
        self.count_numbers += n
        return np.arange(self.count_numbers - n, self.count_numbers)

    # ---- what rules call -------------------------------------------------------------------
    def numbers(self, tensor: Tensor) -> Numbers:
        """Dimension -> the number of each position along it, for the dimensions along which filters
        lie."""
        known, numbers = self.known.get(id(tensor), (None, {}))
        return numbers if known and known() is tensor else {}  # not of one that is gone

    def constant(self, tensor: Tensor) -> bool:
        """Whether a tensor is a weight, or computed from weights alone: no image changes it."""
        return id(tensor) in self.constants

    def unite(self, a: np.ndarray, b: np.ndarray) -> None:
        """Filters a[i] and b[i] leave together; one number may stand against many."""
        if a is not b:
            self.pairs.append((a, b))

    def meet(self, a: np.ndarray | None, b: np.ndarray | None, op: Op) -> np.ndarray | None:
        """Unites two dimensions that must have the same size; where one holds no filters, those of
        the other stay."""
        if a is not None and b is not None:
            self.unite(a, b)
        else:
            self.freeze(b if a is None else a, f"{op} meets a tensor of fixed width")
        return b if a is None else a

    def freeze(self, vector: np.ndarray | None, why: str) -> None:
        """These filters stay, whatever the genome; the first reason is the one that is told."""
        if vector is not None:
            self.frozen.append((vector, why))

    def choose(self, op: Op, vector: np.ndarray, options: list[tuple[int, Any]]) -> Any:
        """One of several possible readings, given as (filters left to choose from, reading); None
        when all were refused.

        The one that leaves most to choose from, unless the proof found it wrong and asks for the
        next.
        """
        place = self.stack[-1]
        event = next(e for n in count() if (e := (place, op.name, n)) not in self.events)
        self.events[event] = (f"{op.name} in {type(self.modules[place]).__name__}", vector)
        turn = self.choices.get(event, 0)
        ranked = sorted(options, key=lambda option: -option[0])
        return ranked[turn][1] if turn < len(ranked) else None

    def where(self, what: str) -> str:
        """What happens, with the module whose forward is running."""
        return f"{what} in {self.stack[-1]}" if self.stack[-1] else what

    def layer_of(self, weight: Tensor) -> str:
        """The name of the layer that a weight works in: the running module, else the one that holds
        it, or the weight's own."""
        places = self.places[self.constants[id(weight)]][1] if self.constant(weight) else []
        if not places or (self.stack[-1], "weight") in places:
            return self.stack[-1]
        module, key = places[0]
        return module if key == "weight" and module else f"{module}.{key}".strip(".")

    def produce(self, name: str, outs: np.ndarray, ins: np.ndarray | None) -> None:
        """A layer computes these filters from those."""
        self.producers.append((name, outs))
        if ins is not None:
            self.readers.append((name, ins))

    def call(
        self, op: Op, name: str, outs: np.ndarray | None = None, ins: np.ndarray | None = None
    ) -> None:
        """The MACs of a product, which grow with the kept ones of ``outs`` and of ``ins``."""
        each = op.out.numel() // (1 if outs is None else len(outs)) // self.images
        macs = flop_registry[op.func.overloadpacket](*op.args, **op.kwargs, out_val=op.out) // 2
        self.calls.append((name, outs, ins, macs, each))

    def count(
        self, attribute: str, vector: np.ndarray | None, divisor: int = 1, layer: str | None = None
    ) -> None:
        """An attribute of a layer, or of the running module, counts these filters."""
        place = self.stack[-1] if layer is None else layer
        value = getattr(self.modules.get(place), attribute, None)
        if vector is not None and isinstance(value, int) and value == len(vector) // divisor:
            self.counts.setdefault((place, attribute, None), (vector, divisor))

    def held_as(self, sizes: Sequence[int]) -> str | None:
        """The attribute of the running module that is a list or a tuple of these sizes."""
        for attribute, value in vars(self.modules[self.stack[-1]]).items():
            if type(value) in (list, tuple) and len(value) == len(sizes):
                if all(type(n) is int and n == size for n, size in zip(value, sizes, strict=True)):
                    return attribute
        return None

    def settle(self, op: Op, image: np.ndarray) -> Numbers:
        """Where numbers lie after a move: {dimension: number of each position}, from the number of
        each element.

        Where they vary along several dimensions, one is left to choose from and what lies across it
        leaves together.
        """
        sizes = enumerate(image.shape)
        varying = [d for d, n in sizes if n > 1 and (image != image.take([0], d)).any()]
        image = image[tuple(slice(None if d in varying else 1) for d in range(image.ndim))]
        rows = {d: np.moveaxis(image, d, 0).reshape(image.shape[d], -1) for d in varying}
        if not varying:
            self.freeze(np.unique(image), f"{op} repeats a single filter")
            return {}
        dim = varying[0]
        if len(varying) > 1:
            options = [(classes(rows[d]), d) for d in reversed(varying)]
            dim = self.choose(op, np.unique(image), options)
            if dim is None:
                self.freeze(np.unique(image), f"{op} gives channels a fixed shape")
                return {}
            self.unite(rows[dim][:, :1], rows[dim])
        return {dim: rows[dim][:, 0]}

    # ---- the run ---------------------------------------------------------------------------
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        op = Op(func, args, kwargs or {}, out, self.stack[-1])
        if op.tensors and op.outputs and all(id(t) in self.constants for t in op.tensors):
            self.constants |= dict.fromkeys(map(id, op.outputs), self.constants[id(op.tensors[0])])
            self.held += op.outputs
        calls = len(self.calls)
        if any(self.numbers(t) for t in op.tensors):
            for tensor, found in zip(op.outputs, self.followed(op), strict=False):
                found = {d: v for d, v in found.items() if tensor.shape[d] > 1}
                self.known[id(tensor)] = (weakref.ref(tensor), found)
        if len(self.calls) == calls and func.overloadpacket in flop_registry:
            self.call(op, str(op))
        self.see(op)
        return out

    def followed(self, op: Op) -> Sequence[Numbers]:
        """The numbers of an operation's outputs."""
        if not (follow := rule_for(op)):
            return self.unknown(op)
        found: Any = follow(self, op)
        found = [found] if isinstance(found, dict) else found
        if not answers(found, op, self.count_numbers):
            wanted = "must return {dimension: number of each position}, or a list of such"
            raise UnsupportedModel(f"the rule of {op.name} {wanted}, one for each output")
        return found

    def unknown(self, op: Op) -> Sequence[Numbers]:
        """Whatever no rule knows: all filters that go in stay, so the operation sees what it always
        saw."""
        why = "has no rule" + ", as it writes into what it is given" * op.func._schema.is_mutable
        for tensor in op.tensors:
            for vector in self.numbers(tensor).values():
                self.freeze(vector, f"{op} {why}")
        return [{}] * len(op.outputs)

    def see(self, op: Op) -> None:
        """Called after every operation; ``mask`` silences some of its outputs there."""

    def left(self, *_: Any) -> None:
        """A module has run."""
        if get_ident() == self.thread:
            self.stack.pop()

    def entered(self, module: nn.Module, _: Any) -> None:
        """A module is about to run; hooks are those of all threads."""
        if get_ident() == self.thread:
            self.stack.append(self.names.get(id(module), self.stack[-1]))

    def __enter__(self) -> Watch:
        self.exits, self.thread = ExitStack(), get_ident()
        enter = register_module_forward_pre_hook(self.entered)
        leave = register_module_forward_hook(self.left, always_call=True)
        self.exits.callback(enter.remove)
        self.exits.callback(leave.remove)
        self.exits.enter_context(Reads(self))
        return super().__enter__()

    def __exit__(self, *problem: Any) -> None:
        super().__exit__(*problem)
        self.exits.close()
