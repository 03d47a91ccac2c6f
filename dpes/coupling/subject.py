"""The subject of a proof: a clone of a network with random weights, and images for it."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..errors import first_line
from .cloning import clone
from .evaluating import evaluating, restored
from .layout import UnsupportedModel
from .operations import leaves


@dataclass
class Subject:
    """A clone with random weights, and inputs for it."""

    model: nn.Module
    x: Tensor
    pair: Tensor  # two images, where the network takes several
    trains: bool  # whether the unpruned network runs in training mode

    @classmethod
    def of(cls, model: nn.Module, example: Tensor) -> Subject:
        """In float64 if the network runs in it, else in its own precision."""
        problem = "its outputs are no numbers"
        for dtype in (torch.float64, None):
            twin, x = randomised(model, dtype), example
            pair = torch.cat([x, x])[:2] if len(x) == 1 else x
            if x.is_floating_point():
                generator = torch.Generator().manual_seed(0)
                x = torch.randn(x.shape, generator=generator).to(x.device, dtype or x.dtype)
                pair = torch.randn(pair.shape, generator=generator).to(x.device, x.dtype)
            try:
                calm(twin, x)
                if not all(t.isnan().all() for t in outputs(twin, x)):
                    return cls(twin, x, pair if outputs(twin, pair) else x, trains(twin, x))
            except Exception as error:
                problem = first_line(error)
        raise UnsupportedModel(
            f"{type(model).__name__}: cannot be proved, {problem} with random weights; "
            "prove=False skips the proof"
        )


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    with evaluating(model):
        return list(leaves(model(x)))


@torch.no_grad()
def calm(model: nn.Module, x: Tensor) -> None:
    """Gives norms the statistics of a batch, so that signals are neither large nor small.

    A softmax or a sigmoid that is saturated would hide that a width which is written into the code
    scales what goes in.
    """
    if x.is_floating_point():
        generator = torch.Generator().manual_seed(1)
        shape = (4, *x.shape[1:])
        x = torch.randn(shape, generator=generator, dtype=x.dtype).to(x.device)
    for norm in model.modules():
        if isinstance(norm, _NormBase) and norm.running_var is not None:
            norm.train()
            norm.momentum = 1.0
    # one that takes other batches only, or maps of one pixel, keeps statistics that are random
    with suppress(Exception):
        model(x)
    model.eval()


def trains(model: nn.Module, x: Tensor) -> bool:
    """Whether a batch of two passes forward and backward in training mode."""
    x = torch.cat([x, x])
    try:
        with restored(model):
            out = [t for t in leaves(model.train()(x)) if t.requires_grad]
            torch.autograd.grad(
                torch.stack([t.sum() for t in out]).sum(),
                [p for p in model.parameters() if p.requires_grad],
                allow_unused=True,
            )
    except Exception:
        return False
    return True


def randomised(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """A clone with random weights, of the size that keeps signals alive; other buffers than
    statistics stay as they are."""
    twin, generator = clone(model), torch.Generator().manual_seed(0)
    done: set[int] = set()
    for module in twin.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None or id(tensor) in done:
                continue
            done.add(id(tensor))
            value = tensor.detach().clone()
            if value.is_floating_point():
                is_parameter = name in module._parameters
                drawn = torch.rand(value.shape, generator=generator, dtype=torch.float64)
                if is_parameter and value.ndim > 1:
                    drawn = (2 * drawn - 1) * math.sqrt(6 / max(1, value[0].numel()))
                elif name == "running_var" or is_parameter:
                    drawn = drawn + 0.5
                if is_parameter or name in ("running_mean", "running_var"):
                    value = drawn.to(value.device, value.dtype)
                value = value.to(dtype) if dtype else value
            tensor.data = value
    return twin.eval()
