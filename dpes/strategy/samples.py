"""Images and labels in whatever form they come: read once, kept as tensors."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DpesError, SettingsError, first_line

Name = str | int  # of an entry in a batch: a key of a dictionary, or a place in a tuple
FORMS = "(x, y), a Dataset, a DataLoader or batches of pairs"
PICTURES = "make tensors of them, by transforms.ToTensor() for example"


class SamplesError(SettingsError):
    """Images or labels that do not fit the network, or each other."""


@dataclass(frozen=True)
class Samples:
    """The images that were read, as the network takes them, and their labels if there are any."""

    x: Tensor  # [n, ...], of the type and on the device of the example
    y: Tensor | None  # int64 [n]

    def parts(self, size: int) -> list[Samples]:
        """As few batches of at most so many images as there can be, of equal size but for one."""
        count = -(-len(self.x) // size)
        xs = self.x.tensor_split(count)
        ys = [None] * count if self.y is None else self.y.tensor_split(count)
        return [Samples(x, y) for x, y in zip(xs, ys, strict=True)]


@dataclass(frozen=True)
class Reader:
    """Reads samples for a network that takes what ``example`` is.

    input, label: where they stand in a batch: places in a tuple, or keys of a dictionary.
    """

    example: Tensor
    input: Name = 0
    label: Name = 1

    def read(self, source: Any, limit: int, what: str, labelled: bool) -> Samples:
        """The first ``limit`` images of a source in any form, batches or single samples; raises
        ``SamplesError``, which calls it ``what``.
        """
        try:
            batches = first(self.pairs(opened(source, what), what, labelled), limit)
            pairs = [(x, y) for x, y in batches if len(x)]
            if not pairs:
                cure = "an iterator that was read before is empty"
                raise SamplesError(f"{what} has no images; {cure}")
            x = self.images(joined([x for x, _ in pairs], what), what)
            return Samples(x, joined([y for _, y in pairs], what) if labelled else None)
        except DpesError:
            raise
        except Exception as error:  # whatever a user's own data set raises
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise SamplesError(f"{what} cannot be read ({reason}); it must be {FORMS}") from error

    def pairs(self, source: Any, what: str, labelled: bool) -> Iterator[tuple[Tensor, Any]]:
        """Batches of images and labels, labels None unless asked for."""
        if is_array(source):
            if labelled:
                raise SamplesError(f"{what} is images without labels; it must be {FORMS}")
            source = [source]
        elif isinstance(source, Mapping) or self.is_pair(source, labelled):
            source = [source]
        for batch in source:
            x, y = self.entries(batch, what, labelled)
            single = x.ndim == self.example.ndim - 1
            x = x.unsqueeze(0) if single else x
            if labelled:
                y = tensor(y, f"labels of {what}", "number the classes from 0")
                y = y.unsqueeze(0) if single else y
                if y.ndim == 0 or len(x) != len(y):
                    found = f"{len(x)} images and {len(y) if y.ndim else 'one'} labels"
                    raise SamplesError(f"{what} has {found}: they must be as many")
            yield x, y

    def is_pair(self, source: Any, labelled: bool) -> bool:
        """Whether these are images and their labels; as calibration, two arrays of as many
        dimensions are two batches.
        """
        if not isinstance(source, (tuple, list)) or len(source) != 2:
            return False
        x, y = source
        if is_array(x):
            return labelled or (is_array(y) and y.ndim < x.ndim == self.example.ndim)
        # a list of images, and as many labels
        listed = isinstance(x, (list, tuple)) and len(x) > 0 and is_array(x[0])
        flat = is_array(y) or (isinstance(y, (list, tuple)) and not any(map(is_image, y)))
        return listed and x[0].ndim == self.example.ndim - 1 and flat and len(x) == len(y)

    def entries(self, batch: Any, what: str, labelled: bool) -> tuple[Tensor, Any]:
        """The images of a batch or sample, and its labels."""
        if is_array(batch) and not labelled:
            return tensor(batch, what), None
        if isinstance(batch, Mapping):
            names, kind = list(batch), "dictionaries of"
        elif isinstance(batch, (tuple, list)):
            names, kind = list(range(len(batch))), "tuples of places"
        else:
            found = f"its batches are of {type(batch).__name__}"
            raise SamplesError(f"{what} cannot be read ({found}); it must be {FORMS}")
        for name in (self.input, self.label)[: 1 + labelled]:
            if name not in names:
                cure = f"name the entries: input={names[:1]}, label={names[1:2]}, for example"
                if len(names) < 2 and labelled:
                    cure = "labels are missing; give evaluate= if there are none"
                raise SamplesError(f"{what} gives {kind} {names}, not {name!r}: {cure}")
        return tensor(batch[self.input], what), batch[self.label] if labelled else None

    def images(self, x: Tensor, what: str) -> Tensor:
        """Images of the example's type, on its device; raises ``SamplesError`` for other kinds."""
        whole = not self.example.is_floating_point()
        if whole == x.is_floating_point():
            kinds = f"{x.dtype} and the example {self.example.dtype}".replace("torch.", "")
            cure = "convert and scale them as in training"
            raise SamplesError(f"{what} has images of {kinds}; {cure}")
        if x.ndim != self.example.ndim:
            shapes = f"{list(x.shape)} and the example {list(self.example.shape)}"
            raise SamplesError(f"{what} has images of shape {shapes}: they must be batches alike")
        if not x.isfinite().all():
            raise SamplesError(f"{what} has images with values that are not finite; leave them out")
        return x.to(self.example.device, self.example.dtype)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Meanwhile the global random numbers of Python, numpy and torch follow from a seed.

    Shuffled or augmented images are then the same in a call that continues a search.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def is_array(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray))


def is_image(value: Any) -> bool:
    return is_array(value) and value.ndim > 0


def tensor(value: Any, what: str, cure: str = PICTURES) -> Tensor:
    """A tensor of what numpy understands; pictures of PIL and texts are refused."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, Tensor) for v in value):
        return joined([v.detach().unsqueeze(0) for v in value], what)
    if hasattr(value, "__array__") or isinstance(value, (int, float, list, tuple, range)):
        try:
            array = np.asarray(value)
            # torch knows one order of bytes and no steps backwards, and warns of what is read-only
            own = np.require(array, array.dtype.newbyteorder("="), ["C", "W"])
            return torch.as_tensor(own)
        except (TypeError, ValueError):
            pass
    kind = type(value).__name__
    raise SamplesError(f"{what} has entries of type {kind}, not arrays of numbers; {cure}")


def opened(source: Any, what: str) -> Any:
    """An iterable of what a user gave: a data set without ``__iter__`` by its indices."""
    text = isinstance(source, (str, bytes))
    if not text and hasattr(source, "__getitem__") and not isinstance(source, Iterable):
        return (source[i] for i in range(len(source)))
    if text or hasattr(source, "columns") or not (is_array(source) or isinstance(source, Iterable)):
        raise SamplesError(f"{what} is of type {type(source).__name__}; it must be {FORMS}")
    return source


def first(pairs: Iterable[tuple[Tensor, Any]], limit: int) -> Iterator[tuple[Tensor, Any]]:
    """At most so many images in all."""
    for x, y in pairs:
        yield x[:limit], y if y is None else y[:limit]
        if (limit := limit - len(x)) <= 0:
            return


def joined(batches: list[Tensor], what: str) -> Tensor:
    """Batches as one tensor; raises ``SamplesError`` where they have other shapes."""
    if len(batches) == 1:
        return batches[0]
    shapes = sorted({tuple(b.shape[1:]) for b in batches})
    if len(shapes) > 1:
        differ = f"{list(shapes[0])} and {list(shapes[1])}"
        raise SamplesError(f"{what} has entries of different shapes, {differ}; use evaluate=")
    return torch.cat(batches)
