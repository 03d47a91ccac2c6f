"""A genome applied to a network: filters removed (``slim``) or only silenced (``mask``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .cloning import clone
from .evaluating import evaluating
from .layout import Layout, UnsupportedModel, stays
from .network import misfit, plain, tensors_of
from .operations import Op, laid, shares
from .watching import Watch


@torch.inference_mode(False)
def slim(model: nn.Module, layout: Layout, genome: Any) -> nn.Module:
    """A new, physically smaller network without the filters that ``genome`` removes. Source: ours.

    It is of the same class as ``model``, which stays as it is, shares no memory with it and
    computes what ``mask`` computes.

    Parameters
    ----------
    model, layout
        A network, and the layout that ``trace`` found in it.
    genome
        Bool [layout.n_bits], 1 = kept.

    Raises
    ------
    UnsupportedModel
        The layout is that of another network.
    GenomeError
        The genome does not fit.
    """
    model, keep = fitting(model, layout, genome)
    return cut(clone(model), model, layout, keep)


def fitting(model: nn.Module, layout: Layout, genome: Any) -> tuple[nn.Module, np.ndarray]:
    """The plain network of a layout and a checked genome; what does not fit is refused."""
    model = plain(model)
    if problem := misfit(model, layout):
        raise UnsupportedModel(f"{problem}: give the layout that trace found in this model")
    return model, layout.checked(genome)


def cut(target: nn.Module, model: nn.Module, layout: Layout, keep: np.ndarray) -> nn.Module:
    """Turn ``target``, a clone of ``model`` at whatever widths, into the slim network of a checked
    genome; returns it.

    This is all that a candidate costs: its tensors are selected from those of ``model``, the module
    tree is used again.
    """
    modules = dict(target.named_modules(remove_duplicate=False))
    originals, ours = tensors_of(model, layout.tensors), tensors_of(modules, layout.tensors)
    found: dict[int, Tensor | None] = {}  # kept positions, once for all that share ``bits``
    kept = np.append(keep, True)  # KEPT = -1 is the appended last one
    device = originals[0].device

    def positions(bits: np.ndarray) -> Tensor | None:
        """The kept positions, or None where nothing leaves."""
        if id(bits) not in found:
            here = kept[bits]
            found[id(bits)] = None if here.all() else torch.from_numpy(here.nonzero()[0]).to(device)
        return found[id(bits)]

    for owned, original, cut_one in zip(layout.tensors, originals, ours, strict=True):
        indices = {dim: positions(bits) for dim, bits in owned.cuts}
        cut_one.grad, cut_one.data = None, selected(original.detach(), indices)
    for w in layout.widths:
        here = positions(w.bits)
        w.write(modules[w.module], len(w.bits if here is None else here) // w.divisor)
    return target


def selected(tensor: Tensor, indices: dict[int, Tensor | None]) -> Tensor:
    """A copy of the positions of a tensor that stay: all along dimensions without an index."""
    left = {dim: index for dim, index in indices.items() if index is not None}
    if not left:
        return tensor.clone()
    shape = tensor.shape[2:]
    kernels = len(shape) > 1 and tensor.is_contiguous() and max(left) < 2
    if kernels:
        tensor = tensor.flatten(2)  # whole kernels move faster than their pixels
    for dim, index in left.items():
        tensor = tensor.index_select(dim, index)
    return tensor.unflatten(2, shape) if kernels else tensor


def mask(model: nn.Module, layout: Layout, genome: Any) -> nn.Module:
    """The full-size network with removed filters silenced wherever they could speak: the function
    ``slim`` must equal.

    The output of every operation that carries removed filters is zero there, so a shift of batch
    norm or an offset of an activation cannot wake them. For checks and teaching: it saves nothing,
    shares its weights with ``model``, and computes in evaluation mode without gradients. Source:
    ours.

    Parameters
    ----------
    model, layout, genome
        As those of ``slim``, which tells what is raised.
    """
    model, keep = fitting(model, layout, genome)
    return Masked(model, layout, keep)


class Masked(nn.Module):
    """See ``mask``."""

    def __init__(self, model: nn.Module, layout: Layout, keep: np.ndarray):
        super().__init__()
        self.model, self.layout, self.kept = model, layout, keep
        self.eval()

    def forward(self, *inputs: Tensor) -> Any:
        with evaluating(self.model), Silence(self.model, self.layout, self.kept):
            return self.model(*inputs)


class Silence(Watch):
    """Follows the filters through a run and puts zeros in place of the outputs of removed ones."""

    def __init__(self, model: nn.Module, layout: Layout, keep: np.ndarray):
        super().__init__(model, choices=dict(layout.choices))
        self.layout, self.speaks = layout, stays(layout.bit_of, keep)

    def gone(self, tensor: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Along which dimensions removed filters lie, and where: bool, with a size along it."""
        for dim, vector in self.numbers(tensor).items():
            if (silent := ~self.speaks[vector]).any():
                yield dim, laid(torch.from_numpy(silent).to(tensor.device), dim, tensor.ndim)

    def see(self, op: Op) -> None:
        if shares(op.func):
            return  # of values that are silent already
        for tensor in op.outputs:
            if not self.constant(tensor):  # which no image reaches
                for _, gone in self.gone(tensor):
                    # not multiplied by zero, which leaves what is not a number: x / |x| of such x
                    tensor.masked_fill_(gone, 0)
