"""Slim networks on disk: safetensors with a JSON header, never a pickle."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..disk import digest, path_of, verify, write_tensors
from ..errors import DpesError
from .cloning import clone
from .cutting import cut
from .genome import from_hex, to_hex
from .layout import GenomeError, Layout, as_array
from .network import misfit, plain, tensors_of
from .tracing import trace

FORMAT = "dpes slim network 1"
CURE = "write it again with dpes.save"


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
    """Write a slim network as safetensors with a JSON header, never a pickle. Source: ours.

    Parameters
    ----------
    path
        Of the file, in a folder that is there.
    small, layout, genome
        A network, and what ``slim`` made it with.
    model
        A name to remember it by (its class path when empty).
    metrics
        Numbers to keep with it, such as ``error=0.08``.

    Raises
    ------
    FileError
        The network was not cut by this genome, or an argument is wrong.
    """
    small, path = plain(small), path_of(path, "path")
    keep = layout.checked(genome) if isinstance(layout, Layout) else np.zeros(0, bool)
    if wrong := misfit(small, layout, keep):
        raise FileError(f"nothing is written: {wrong}; give the layout and genome it was cut by")
    if path.is_dir() or not path.parent.is_dir():
        raise FileError(f"{path}: cannot be written; name a file in a folder that is there")
    if isinstance(model, str) and not model:
        model = f"{type(small).__module__}.{type(small).__qualname__}"
    header = header_of(layout, keep, model, metrics)
    tensors = named(small, layout)
    header["sha256"] = digest(tensors, json.dumps(header))
    write_tensors(path, tensors, {"dpes": json.dumps(header)})


def header_of(layout: Layout, keep: np.ndarray, model: Any, metrics: dict) -> dict[str, Any]:
    """What a file says of its network, in this order."""
    numbers = {k: as_array(v).tolist() for k, v in metrics.items() if getattr(v, "ndim", 1) == 0}
    header: dict[str, Any] = {
        "format": FORMAT,
        "model": model,
        "genome": to_hex(keep),
        "groups": [[g.name, g.size] for g in layout.groups],
        "input": list(layout.example),
        "metrics": metrics | numbers,
    }
    header |= {"integers": True} if layout.integers else {}
    header |= {"keep": list(layout.keep)} if layout.keep else {}
    if wrong := flaw(header):
        raise FileError(f"nothing is written: {wrong}")
    return header


def read_header(path: str | Path) -> dict[str, Any]:
    """The header of a slim network's file.

    Parameters
    ----------
    path
        Of a file that ``save`` wrote.

    Returns
    -------
    ``model``, ``genome`` (hexadecimal), ``groups``, ``input`` (shape of one image), ``metrics``.

    Raises
    ------
    FileError
        The file is damaged, or none of these.
    """
    return read(path_of(path, "path"))[0]


MOST = 2**24  # values of an input: a network is run on one of that size when its file is read


def all_are(value: Any, *kinds: type) -> bool:
    return isinstance(value, list) and all(type(v) in kinds for v in value)


# entry of a header -> what it must be, in words
ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "format": (lambda v: v == FORMAT, "that of this version"),
    "model": (lambda v: isinstance(v, str), "a text"),
    "genome": (lambda v: isinstance(v, str), "a text"),
    "groups": (
        lambda v: all_are(v, list) and all([type(e) for e in g] == [str, int] for g in v),
        "names with numbers",
    ),
    "input": (
        lambda v: all_are(v, int) and 0 < len(v) < 9 and min(v) > 0 and math.prod(v) <= MOST,
        f"a shape of at most {MOST} values",
    ),
    "metrics": (lambda v: isinstance(v, dict) and all_are([*v.values()], int, float), "numbers"),
    "integers": (lambda v: type(v) is bool, "true or false"),
    "keep": (lambda v: all_are(v, str), "names"),
}  # fmt: skip


def flaw(header: Any) -> str:
    """What is wrong with a header, or nothing."""
    if not isinstance(header, dict):
        return "its header is no JSON object"
    if missing := {"model", "genome", "groups", "input"} - set(header):
        return f"no {min(missing)!r} in its header"
    for name, (fits, words) in ENTRIES.items():
        if name in header and not fits(header[name]):
            return f"{name} is {reprlib.repr(header[name])}, not {words}"
    return ""


def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and tensors of a slim network's file, compared with its checksum."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except FileNotFoundError:
        raise FileError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise FileError(f"{path}: damaged ({error}); {CURE}") from None
    try:
        # one entry, since the order of several is not reproducible
        header = json.loads(metadata.get("dpes", "{}"))
    except (ValueError, RecursionError):
        header = None
    if isinstance(header, dict) and header.get("format") != FORMAT:
        found = header.get("format", "no format in its header")
        raise FileError(f"{path}: not a slim network of dpes, or of another version ({found})")
    if wrong := flaw(header):
        raise FileError(f"{path}: damaged ({wrong}); {CURE}")
    check_sum(path, header, tensors)
    return header, tensors


def check_sum(path: Path, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Refuses a checksum that differs (older files have none), and weights that are not finite."""
    wanted = header.pop("sha256", None)
    if wanted is None and header.keys() <= ENTRIES.keys():
        verify(path, path.read_bytes())
    elif wanted != digest(tensors, json.dumps(header)):
        raise FileError(f"{path}: damaged (its checksum differs); {CURE}")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            cure = "train it again at a lower learning rate"
            raise FileError(f"{path}: {name} has values that are not finite; {cure}")


def load(path: str | Path, model: nn.Module) -> nn.Module:
    """The slim network of a file. Source: ours.

    Parameters
    ----------
    path
        Of a file that ``save`` wrote.
    model
        A full-size network of the same architecture; its weights do not matter.

    Raises
    ------
    FileError
        A damaged file, or another architecture; the first difference is named.
    """
    path, model = path_of(path, "path"), plain(model)
    header, stored = read(path)
    layout = layout_of(path, header, model)
    try:
        genome = layout.checked(from_hex(header["genome"], layout.n_bits))
    except (ValueError, GenomeError) as error:
        raise FileError(f"{path}: damaged (its genome: {error}); {CURE}") from None
    small = cut(clone(model), model, layout, genome)
    for place, tensor in named(small, layout).items():
        if (value := stored.get(place)) is None:
            cure = f"made from another version of {header['model']}?"
            raise FileError(f"{path}: has no tensor {place!r}; {cure}")
        if value.shape != tensor.shape:
            there, here = list(value.shape), list(tensor.shape)
            raise FileError(f"{path}: {place} is {there} there, {here} here")
        with torch.no_grad():
            tensor.copy_(value)
    return small.eval()


def layout_of(path: Path, header: dict[str, Any], model: nn.Module) -> Layout:
    """The layout of a model that has the groups of a file; the first that differs is named."""
    if (like := next(model.parameters(), None)) is None:
        raise FileError(f"{path}: this {type(model).__name__} has no weights to cut")
    dtype = torch.int64 if header.get("integers") else like.dtype
    example = torch.zeros(1, *header["input"], device=like.device, dtype=dtype)
    for prove in (False, True):  # perhaps a proof kept some groups whole
        layout = trace(model, example, keep=header.get("keep", ()), prove=prove)
        mine = [[g.name, g.size] for g in layout.groups]
        if mine == header["groups"]:
            return layout
    here = f"not from this {type(model).__name__}"
    for i, (theirs, ours) in enumerate(zip(header["groups"], mine, strict=False)):
        if theirs != ours:
            raise FileError(
                f"{path}: made from {header['model']}, {here}: group {i} is {theirs[0]} with "
                f"{theirs[1]} filters there, {ours[0]} with {ours[1]} here"
            )
    raise FileError(
        f"{path}: made from {header['model']} with {len(header['groups'])} coupled groups; "
        f"this {type(model).__name__} has {len(mine)}"
    )


def named(small: nn.Module, layout: Layout) -> dict[str, torch.Tensor]:
    """Every tensor of a slim network once, by its first name."""
    names = [".".join(owned.places[0]).lstrip(".") for owned in layout.tensors]
    return dict(zip(names, tensors_of(small, layout.tensors), strict=True))
