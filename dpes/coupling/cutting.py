"""A genome applied to a network: filters removed (``slim``) or only silenced (``mask``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .cloning import clone
from .evaluating import evaluating
from .layout import Layout, UnsupportedModel, stays
from .network import misfit, plain, table
from .operations import Op
from .watching import Watch


@torch.inference_mode(False)
def slim(model: nn.Module, layout: Layout, genome: Any) -> nn.Module:
    """A new, physically smaller network without the filters that ``genome`` removes; ``model``
    stays as it is.

    genome: bool [layout.n_bits], 1 = kept. The result is of the same class as ``model``, shares no
    memory with it and computes what ``mask`` computes. Raises ``GenomeError`` for a genome that
    does not fit. Source: ours.
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
    originals = dict(model.named_modules(remove_duplicate=False))
    found: dict[int, Tensor | None] = {}
    kept = np.append(keep, True)  # KEPT = -1 is the appended last one

    def positions(bits: np.ndarray, device: torch.device) -> Tensor | None:
        """The kept positions, or None where nothing leaves; found once for all tensors that share
        ``bits``."""
        if id(bits) not in found:
            (index,) = kept[bits].nonzero()
            found[id(bits)] = (
                None if len(index) == len(bits) else torch.from_numpy(index).to(device)
            )
        return found[id(bits)]

    for owned in layout.tensors:
        module, name = owned.places[0]
        original = table(originals[module], name)[name]
        assert original is not None
        tensor = original.detach()
        kernels = (
            tensor.ndim > 3 and tensor.is_contiguous() and all(dim < 2 for dim, _ in owned.cuts)
        )
        if kernels:
            tensor = tensor.flatten(2)  # whole kernels move faster than their pixels
        for dim, bits in owned.cuts:
            if (index := positions(bits, tensor.device)) is not None:
                tensor = tensor.index_select(dim, index)
        if kernels:
            tensor = tensor.unflatten(2, original.shape[2:])
        if tensor.data_ptr() == original.data_ptr():
            tensor = tensor.clone()
        cut_one = table(modules[module], name)[name]  # the same under every name that it has
        cut_one.grad, cut_one.data = None, tensor
    for w in layout.widths:
        index = positions(w.bits, torch.device("cpu"))
        width = len(w.bits) if index is None else len(index)
        setattr(modules[w.module], w.attribute, width // w.divisor)
    return target


def mask(model: nn.Module, layout: Layout, genome: Any) -> nn.Module:
    """The full-size network with removed filters silenced wherever they could speak: the function
    ``slim`` must equal.

    The output of every operation that carries removed filters is zero there, so a shift of batch
    norm or an offset of an activation cannot wake them. genome: bool [layout.n_bits]. For checks
    and teaching: it saves nothing, shares its weights with ``model``, and computes in evaluation
    mode without gradients. Source: ours.
    """
    model, keep = fitting(model, layout, genome)
    return Masked(model, layout, keep)


class Masked(nn.Module):
    """See ``mask``."""

    def __init__(self, model: nn.Module, layout: Layout, keep: np.ndarray):
        super().__init__()
        self.model, self.choices, self.speaks = (
            model,
            dict(layout.choices),
            stays(layout.bit_of, keep),
        )
        self.eval()

    def forward(self, *inputs: Tensor) -> Any:
        with evaluating(self.model), Silence(self.model, self.speaks, self.choices):
            return self.model(*inputs)


class Silence(Watch):
    """Follows the filters through a run and puts zeros in place of the outputs of removed ones."""

    def __init__(self, model: nn.Module, speaks: np.ndarray, choices: dict[int, int]):
        super().__init__(model, choices=choices)
        self.speaks = speaks

    def see(self, op: Op) -> None:
        if op.is_view:
            return  # of values that are silent already
        for tensor in op.outputs:
            if not self.constant(tensor):  # which no image reaches
                self.silence(tensor)

    def silence(self, tensor: Tensor) -> None:
        for dim, vector in self.numbers(tensor).items():
            if (silent := ~self.speaks[vector]).any():
                shape = [-1 if d == dim else 1 for d in range(tensor.ndim)]
                # not multiplied by zero, which leaves what is not a number: x / |x| of a silenced x
                tensor.masked_fill_(torch.from_numpy(silent).to(tensor.device).view(shape), 0)
