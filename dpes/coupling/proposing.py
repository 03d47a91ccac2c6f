"""A proposal: what one watched run of a network says about its filters, read as a layout."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from ..errors import first_line
from .evaluating import evaluating
from .layout import KEPT, Call, Event, Group, Layout, Owned, UnsupportedModel, Width
from .operations import leaves
from .uniting import components
from .watching import Watch


class Proposal:
    """What one watched run says about a network, read as a layout; the proof narrows it down.

    whole: (layer, position) -> why that filter must stay. choices: see ``Watch``.
    """

    def __init__(self, model: nn.Module, example: Tensor, keep: tuple[str, ...] = ()):
        self.model, self.example, self.keep = model, example, keep
        self.whole: dict[tuple[str, int], str] = {}
        self.choices: dict[Event, int] = {}

    def watched(self) -> Watch:
        """One run of one image; of the whole example where the model takes no single one."""
        for x in (self.example[:1], self.example):
            watch = Watch(self.model, len(x), self.choices)
            try:
                with evaluating(self.model), watch:
                    out = self.model(x)
                self.example = x
            except UnsupportedModel:
                raise
            except Exception as error:
                if len(x) < len(self.example):
                    continue
                where = f"{type(self.model).__name__}: the example does not run through it"
                raise UnsupportedModel(
                    f"{where} ({first_line(error)}); does its shape fit the model?"
                ) from error
            break
        if not (outputs := list(leaves(out))):
            raise UnsupportedModel(
                f"{type(self.model).__name__}: its output holds no tensor that could be followed; "
                "let forward return tensors, in lists, dictionaries or objects"
            )
        for tensor in outputs:
            for vector in watch.numbers(tensor).values():
                watch.freeze(vector, "reaches the output")
        return watch

    def layout(self) -> Layout:
        """The layout that the run, the choices and what must stay whole leave."""
        watch = self.watch = self.watched()
        self.freeze_what_is_asked(watch)
        root = components(watch.count_numbers, watch.pairs)
        for one, other, where in watch.compared:
            if not np.array_equal(np.sort(root[one]), np.sort(root[other])):
                for vector in (one, other):  # they need not change together
                    watch.freeze(vector, f"{where} with that of filters that leave without it")
        why: dict[int, str] = {0: "meets positions that are kept"}
        for vector, reason in watch.frozen:
            for number in np.unique(root[vector]).tolist():
                why.setdefault(number, reason)
        kept: dict[tuple[str, str], set[int]] = {}
        members: dict[int, dict[tuple[str, int], None]] = {}  # filter -> where it is produced
        for name, outs in watch.producers:
            for position, number in enumerate(root[outs].tolist()):
                if number in why:
                    kept.setdefault((name, why[number]), set()).add(position)
                else:
                    members.setdefault(number, {})[name, position] = None
        groups = self.grouped(members, kept, root)
        if not groups:
            reason = next((reason for _, reason in kept), "it has no convolution or linear layer")
            raise UnsupportedModel(
                f"{type(self.model).__name__}: nothing can be pruned safely ({reason})"
            )
        return self.assembled(groups, kept)

    def freeze_what_is_asked(self, watch: Watch) -> None:
        """Layers that the user keeps, and filters that the proof found must stay."""
        for name, outs in watch.producers:
            if any(name == k or name.startswith(f"{k}.") or k == "" for k in self.keep):
                watch.freeze(outs, "asked to be kept")
            for (layer, position), reason in self.whole.items():
                if layer == name:
                    watch.freeze(outs[position : position + 1], reason)

    def grouped(
        self,
        members: dict[int, dict[tuple[str, int], None]],
        kept: dict[tuple[str, str], set[int]],
        root: np.ndarray,
    ) -> tuple[Group, ...]:
        """Filters that the same layers produce and the same read are a group, a bit each; numbers
        the bits."""
        by_layers: dict[tuple[tuple[str, ...], int], list[int]] = {}
        part = self.parts(root)
        for number, places in members.items():
            layers = tuple(dict.fromkeys(n for n, _ in places))
            by_layers.setdefault((layers, int(part[number])), []).append(number)
        bit, groups = np.full(len(root), KEPT), []
        self.first: list[tuple[str, int]] = []  # of each bit: a layer that produces it, and where
        for (layers, _), heads in by_layers.items():
            if len(heads) == 1:  # it could never leave
                kept.setdefault((layers[0], "a single filter"), set()).add(0)
                continue
            start, inside = len(self.first), set(heads)
            bit[heads] = np.arange(start, start + len(heads))
            readers = [n for n, ins in self.watch.readers if inside & set(root[ins].tolist())]
            group = Group(layers[0], start, len(heads), layers, tuple(dict.fromkeys(readers)))
            groups.append(group)
            self.first += [next(iter(members[head])) for head in heads]
        self.bit_of = bit[root]
        return tuple(groups)

    def parts(self, root: np.ndarray) -> np.ndarray:
        """int [numbers], alike for filters that the same layers and attributes count.

        Where a layer reads a part of what another produces, that part may not be emptied, so it is
        a group of its own.
        """
        counted = [ins for _, ins in self.watch.readers]
        counted += [vector for vector, _ in self.watch.counts.values()]
        alike, draw = np.zeros(len(root), np.int64), np.random.default_rng(0)
        for vector in counted:
            alike[np.unique(root[vector])] ^= draw.integers(2**62)
        return alike

    def assembled(self, groups: tuple[Group, ...], kept: dict[tuple[str, str], set[int]]) -> Layout:
        """The layout with its tensors, widths and calls, from the bit of each number."""
        watch = self.watch
        shared: dict[bytes, np.ndarray] = {}

        def bits(numbers: np.ndarray | None) -> np.ndarray:
            """Bits of numbers; equal vectors are one object, so that their kept positions are found
            once."""
            vector = self.bit_of[np.zeros(1, int) if numbers is None else numbers]
            return shared.setdefault(vector.tobytes(), vector)

        tensors = []
        for t, places in watch.places.values():
            found = [(dim, bits(vector)) for dim, vector in watch.numbers(t).items()]
            cuts = tuple((dim, vector) for dim, vector in found if (vector != KEPT).any())
            is_parameter = isinstance(t, nn.Parameter)
            tensors.append(Owned(tuple(places), tuple(t.shape), is_parameter, cuts))
        widths = [Width(*key, bits(v), divisor) for key, (v, divisor) in watch.counts.items()]
        calls = []
        for name, outs, ins, total, positions in watch.calls:
            size = (1 if outs is None else len(outs)) * (1 if ins is None else len(ins))
            read = None if ins is None else bits(ins)
            factor = total // size // watch.images
            calls.append(Call(name, bits(outs), read, factor, positions))
        x = self.example
        return Layout(
            groups=groups,
            tensors=tuple(tensors),
            widths=tuple(w for w in widths if (w.bits != KEPT).any()),
            calls=tuple(calls),
            kept=tuple((name, len(positions), why) for (name, why), positions in kept.items()),
            example=tuple(x.shape[1:]),
            integers=not (x.is_floating_point() or x.is_complex()),
            bit_of=self.bit_of,
            keep=self.keep,
            choices=tuple(self.choices.items()),
            notes=tuple(watch.notes),
        )
