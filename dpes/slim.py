"""A genome applied to a network: filters removed (``slim``) or only silenced (``mask``), and slim networks on disk."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import fx, nn

from .channels import trace
from .config import DpesError
from .layout import KEPT, Layout, kept

FORMAT = "dpes slim network 1"


class FileError(DpesError):
    """A file of a slim network that cannot be read or belongs to another model."""


def slim(model: nn.Module, layout: Layout, genome: Any) -> nn.Module:
    """A new, physically smaller network without the filters that ``genome`` removes; ``model`` stays as it is.

    genome: bool [layout.n_bits], 1 = kept. The result is of the same class as ``model``, shares no memory with it and computes
    what ``mask`` computes. Raises ``GenomeError`` for a genome that does not fit. Source: ours.
    """
    keep = layout.keep(genome)
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}  # not copied, since ``cut`` puts its own in their place
    return cut(copy.deepcopy(model, shared), model, layout, keep)


def cut(target: nn.Module, model: nn.Module, layout: Layout, keep: np.ndarray) -> nn.Module:
    """Turn ``target``, a copy of ``model`` at whatever widths, into the slim network of a checked genome; returns it.

    This is all that a candidate costs: its tensors are selected from those of ``model``, the module tree is used again.
    """
    modules = dict(target.named_modules(remove_duplicate=False))
    originals = dict(model.named_modules(remove_duplicate=False))
    found: dict[int, torch.Tensor | None] = {}
    device, stays = next(model.parameters()).device, np.append(keep, True)  # KEPT = -1 is the appended last one

    def positions(bits: np.ndarray) -> torch.Tensor | None:
        """The kept positions, or None where nothing leaves; found once for all tensors that share ``bits``."""
        if id(bits) not in found:
            (index,) = stays[bits].nonzero()
            found[id(bits)] = None if len(index) == len(bits) else torch.from_numpy(index).to(device)
        return found[id(bits)]

    for owned in layout.tensors:
        module, name = owned.places[0]
        original = (originals[module]._parameters if owned.is_parameter else originals[module]._buffers)[name]
        tensor = original.detach()
        kernels = tensor.ndim > 3 and tensor.is_contiguous() and all(dim < 2 for dim, _ in owned.cuts)
        if kernels:
            tensor = tensor.flatten(2)  # whole kernels move faster than their pixels
        for dim, bits in owned.cuts:
            if (index := positions(bits)) is not None:
                tensor = tensor.index_select(dim, index)
        if kernels:
            tensor = tensor.unflatten(2, original.shape[2:])
        if tensor.data_ptr() == original.data_ptr():
            tensor = tensor.clone()
        if owned.is_parameter:
            tensor = nn.Parameter(tensor, requires_grad=original.requires_grad)
        for module, name in owned.places:
            (modules[module]._parameters if owned.is_parameter else modules[module]._buffers)[name] = tensor
    for w in layout.widths:
        index = positions(w.bits)
        setattr(modules[w.module], w.attribute, (len(w.bits) if index is None else len(index)) // w.divisor)
    return target


def mask(model: nn.Module, layout: Layout, genome: Any) -> fx.GraphModule:
    """The full-size network with removed filters silenced wherever they could speak: the function ``slim`` must equal.

    After every operation whose output carries removed filters, these are multiplied by zero, so a shift of batch norm or an
    offset of an activation cannot wake them. genome: bool [layout.n_bits]. For checks and teaching: it saves nothing, and shares
    its weights with ``model``. Source: ours.
    """
    keep = layout.keep(genome)
    graph, like = fx.Graph(), next(model.parameters())
    parts: dict[str, Any] = {n.target: _attribute(model, n.target) for n in layout.graph.nodes if n.op in ("call_module", "get_attr")}
    renamed: dict[fx.Node, fx.Node] = {}
    for node in layout.graph.nodes:
        new = renamed[node] = graph.node_copy(node, lambda n: renamed[n])
        dim, bits = layout.spaces.get(node.name, (0, np.full(1, KEPT)))
        stays = kept(bits, keep)
        if not stays.all():
            name = f"mask_{node.name}"
            shape = [1] * layout.ndim[node.name]
            shape[dim] = -1
            parts[name] = torch.as_tensor(stays, dtype=like.dtype, device=like.device).reshape(shape)
            renamed[node] = graph.call_function(torch.mul, (new, graph.get_attr(name)))
    return fx.GraphModule(parts, graph).train(model.training)


def _attribute(model: nn.Module, path: str) -> Any:
    for name in path.split("."):
        model = getattr(model, name)
    return model


def to_hex(genome: np.ndarray) -> str:
    """bool [n] -> hexadecimal text, first bit first, zero bits behind the last."""
    return np.packbits(genome).tobytes().hex()


def from_hex(text: str, n_bits: int) -> np.ndarray:
    """The inverse of ``to_hex``; raises ``ValueError`` if the text is too short."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))
    if len(bits) < n_bits:
        raise ValueError(f"{len(bits)} bits, not {n_bits}")
    return bits[:n_bits].astype(bool)


def save(path: str | Path, small: nn.Module, layout: Layout, genome: Any, model: str = "", **metrics: float) -> None:
    """Write a slim network as safetensors with a JSON header: class or name, genome, coupled groups, metrics. No pickle.

    model: a name to remember it by (its class path when empty). metrics: numbers to keep with it, such as ``error=0.08``.
    """
    header = {
        "format": FORMAT,
        "model": model or f"{type(small).__module__}.{type(small).__qualname__}",
        "genome": to_hex(layout.keep(genome)),
        "groups": [[g.name, g.size] for g in layout.groups],
        "input": list(layout.example),
        "metrics": metrics,
    }
    partial = Path(path).with_name(Path(path).name + ".part")
    tensors = {place: t for t, (place, *_) in _tensors(small, layout)}
    # not save_file: its files only their owner can read, and a full disk is no OSError to it
    partial.write_bytes(to_bytes({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, {"dpes": json.dumps(header)}))
    os.replace(partial, path)


def read_header(path: str | Path) -> dict[str, Any]:
    """The header of a slim network's file: model, genome (hex), groups, input (image shape), metrics."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise FileError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise FileError(f"{path}: damaged ({error}); write it again with dpes.save") from None
    try:
        header = json.loads(metadata.get("dpes", "{}"))  # one entry, since the order of several is not reproducible
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise FileError(f"{path}: damaged (its header is no JSON object); write it again with dpes.save") from None
    if header.get("format") != FORMAT:
        raise FileError(f"{path}: not a slim network of dpes, or of another version ({header.get('format', 'no format in its header')})")
    if missing := {"model", "genome", "groups", "input"} - set(header):
        raise FileError(f"{path}: damaged (no {min(missing)!r} in its header); write it again with dpes.save")
    return header


def load(path: str | Path, model: nn.Module) -> nn.Module:
    """The slim network of a file, built from a full-size ``model`` of the same architecture (its weights do not matter).

    Raises ``FileError`` for a damaged file, and for another architecture, naming the first difference.
    """
    header = read_header(path)
    device = next(model.parameters()).device
    layout = trace(model, torch.zeros(1, *header["input"], device=device))
    mine = [[g.name, g.size] for g in layout.groups]
    for i, (theirs, ours) in enumerate(zip(header["groups"], mine, strict=False)):
        if theirs != ours:
            raise FileError(
                f"{path}: made from {header['model']}, not from this {type(model).__name__}: "
                f"group {i} is {theirs[0]} with {theirs[1]} filters there, {ours[0]} with {ours[1]} here"
            )
    if len(header["groups"]) != len(mine):
        raise FileError(
            f"{path}: made from {header['model']} with {len(header['groups'])} coupled groups; this {type(model).__name__} has {len(mine)}"
        )
    try:
        genome = from_hex(header["genome"], layout.n_bits)
    except (TypeError, ValueError) as error:
        raise FileError(f"{path}: damaged (its genome: {error}); write it again with dpes.save") from None
    small = slim(model, layout, genome)
    with safe_open(path, framework="pt", device=str(device)) as file:
        stored = set(file.keys())
        for tensor, (place, *_) in _tensors(small, layout):
            if place not in stored:
                raise FileError(f"{path}: has no tensor {place!r}; made from another version of {header['model']}?")
            value = file.get_tensor(place)
            if value.shape != tensor.shape:
                raise FileError(f"{path}: {place} is {list(value.shape)} there, {list(tensor.shape)} here")
            with torch.no_grad():
                tensor.copy_(value)
    return small.eval()


def _tensors(small: nn.Module, layout: Layout) -> list[tuple[torch.Tensor, list[str]]]:
    """Every tensor of a slim network once, with all of its names."""
    modules = dict(small.named_modules(remove_duplicate=False))
    return [(getattr(modules[o.places[0][0]], o.places[0][1]), [".".join(p).lstrip(".") for p in o.places]) for o in layout.tensors]
