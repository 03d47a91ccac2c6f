"""Slim networks on disk: safetensors with a JSON header, never a pickle."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..disk import digest, path_of, verify, write_tensors
from ..errors import DpesError
from .cutting import plain, slim
from .genome import from_hex, to_hex
from .layout import Layout
from .tracing import trace

FORMAT = "dpes slim network 1"


class FileError(DpesError):
    """A file of a slim network that cannot be read or belongs to another model."""


def save(
    path: str | Path,
    small: nn.Module,
    layout: Layout,
    genome: Any,
    model: str = "",
    **metrics: float,
) -> None:
    """Write a slim network as safetensors with a JSON header: class or name, genome, coupled
    groups, metrics.

    No pickle.
    model: a name to remember it by (its class path when empty). metrics: numbers to keep with it,
    such as ``error=0.08``.
    """
    header: dict[str, Any] = {
        "format": FORMAT,
        "model": model or f"{type(small).__module__}.{type(small).__qualname__}",
        "genome": to_hex(layout.checked(genome)),
        "groups": [[g.name, g.size] for g in layout.groups],
        "input": list(layout.example),
        "metrics": {
            name: float(value) if hasattr(value, "item") else value
            for name, value in metrics.items()
        },
    }
    if layout.integers:
        header["integers"] = True
    if layout.keep:
        header["keep"] = list(layout.keep)
    small = plain(small)
    tensors = {place: t for t, (place, *_) in _tensors(small, layout)}
    header["sha256"] = digest(tensors, json.dumps(header))
    write_tensors(path_of(path, "path"), tensors, {"dpes": json.dumps(header)})


def read_header(path: str | Path) -> dict[str, Any]:
    """The header of a slim network's file: model, genome (hex), groups, input (image shape),
    metrics.
    """
    return read(path_of(path, "path"))[0]


MOST = 2**24  # values of an input: a network is run on one of that size when its file is read


def all_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is kind for v in value)


# entry of a header -> what it must be, in words
ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "format": (lambda v: isinstance(v, str), "a text"),
    "model": (lambda v: isinstance(v, str), "a text"),
    "genome": (lambda v: isinstance(v, str), "a text"),
    "groups": (
        lambda v: isinstance(v, list) and all(
            isinstance(g, list) and [type(e) for e in g] == [str, int] for g in v
        ),
        "names with numbers",
    ),
    "input": (
        lambda v: all_of(int, v) and 0 < len(v) < 9 and min(v) > 0 and math.prod(v) <= MOST,
        f"a shape of at most {MOST} values",
    ),
    "metrics": (lambda v: isinstance(v, dict), "names with numbers"),
    "integers": (lambda v: type(v) is bool, "true or false"),
    "keep": (lambda v: all_of(str, v), "names"),
}  # fmt: skip


def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and tensors of a slim network's file, compared with its checksum."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except FileNotFoundError:
        raise FileError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise FileError(f"{path}: damaged ({error}); write it again with dpes.save") from None
    try:
        # one entry, since the order of several is not reproducible
        header = json.loads(metadata.get("dpes", "{}"))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise FileError(
            f"{path}: damaged (its header is no JSON object); write it again with dpes.save"
        ) from None
    if header.get("format") != FORMAT:
        raise FileError(
            f"{path}: not a slim network of dpes, or of another version "
            f"({header.get('format', 'no format in its header')})"
        )
    if missing := {"model", "genome", "groups", "input"} - set(header):
        raise FileError(
            f"{path}: damaged (no {min(missing)!r} in its header); write it again with dpes.save"
        )
    for name, (fits, words) in ENTRIES.items():
        if name in header and not fits(header[name]):
            found = reprlib.repr(header[name])
            raise FileError(f"{path}: damaged ({name} is {found}, not {words}); do not trust it")
    check_sum(path, header, tensors)
    return header, tensors


def check_sum(path: Path, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Raises ``FileError`` if a checksum differs (older files have none), or a weight is not
    finite.
    """
    wanted = header.pop("sha256", None)
    if wanted is None and header.keys() <= ENTRIES.keys():
        verify(path, path.read_bytes())
    elif wanted != digest(tensors, json.dumps(header)):
        raise FileError(f"{path}: damaged (its checksum differs); write it again with dpes.save")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            cure = "train it again at a lower learning rate"
            raise FileError(f"{path}: {name} has values that are not finite; {cure}")


def load(path: str | Path, model: nn.Module) -> nn.Module:
    """The slim network of a file, built from a full-size ``model`` of the same architecture (its
    weights do not matter).

    Raises ``FileError`` for a damaged file, and for another architecture, naming the first
    difference.
    """
    path = path_of(path, "path")
    header, stored = read(path)
    model = plain(model)
    like = next(model.parameters())
    device, dtype = like.device, torch.int64 if header.get("integers") else like.dtype
    example = torch.zeros(1, *header["input"], device=device, dtype=dtype)
    keep = header.get("keep", ())
    layout = trace(model, example, keep=keep, prove=False)
    mine = [[g.name, g.size] for g in layout.groups]
    if mine != header["groups"]:  # perhaps since a proof kept some of them whole
        layout = trace(model, example, keep=keep)
        mine = [[g.name, g.size] for g in layout.groups]
    for i, (theirs, ours) in enumerate(zip(header["groups"], mine, strict=False)):
        if theirs != ours:
            raise FileError(
                f"{path}: made from {header['model']}, not from this {type(model).__name__}: "
                f"group {i} is {theirs[0]} with {theirs[1]} filters there, "
                f"{ours[0]} with {ours[1]} here"
            )
    if len(header["groups"]) != len(mine):
        raise FileError(
            f"{path}: made from {header['model']} with {len(header['groups'])} coupled groups; "
            f"this {type(model).__name__} has {len(mine)}"
        )
    try:
        genome = from_hex(header["genome"], layout.n_bits)
    except (TypeError, ValueError) as error:
        raise FileError(
            f"{path}: damaged (its genome: {error}); write it again with dpes.save"
        ) from None
    small = slim(model, layout, genome)
    for tensor, (place, *_) in _tensors(small, layout):
        if place not in stored:
            raise FileError(
                f"{path}: has no tensor {place!r}; made from another version of {header['model']}?"
            )
        if (value := stored[place]).shape != tensor.shape:
            raise FileError(
                f"{path}: {place} is {list(value.shape)} there, {list(tensor.shape)} here"
            )
        with torch.no_grad():
            tensor.copy_(value)
    return small.eval()


def _tensors(small: nn.Module, layout: Layout) -> list[tuple[torch.Tensor, list[str]]]:
    """Every tensor of a slim network once, with all of its names."""
    modules = dict(small.named_modules(remove_duplicate=False))
    return [
        (
            getattr(modules[o.places[0][0]], o.places[0][1]),
            [".".join(p).lstrip(".") for p in o.places],
        )
        for o in layout.tensors
    ]
