"""A genome applied without changing a shape: what its removed filters own is zero, in place.

Every candidate then is the same network with other numbers, so that what was compiled or captured
for one (``torch.compile``, a CUDA graph) serves them all. It saves no arithmetic, but a GPU that
waits for its next kernel has arithmetic to spare.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DpesError, first_line
from .cutting import clone, cut
from .evaluating import evaluating
from .layout import Layout, stays
from .lockstep import TOLERANCE
from .operations import Op, leaves
from .proof import repaired
from .subject import randomised
from .watching import Watch


class NotAtFullShape(DpesError):
    """A network that computes something else at full shape than without its removed filters."""


@dataclass
class FullShape:
    """A copy of ``model`` into which one genome after the other is written.

    A filter that is zero stays zero through layers and norms without a shift, through activations
    with f(0) = 0, and through training: all of its gradients are zero. ``check`` finds the networks
    of which that is not true. Source: ours.
    """

    model: nn.Module
    layout: Layout
    target: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        # kernels pixel by pixel, as images that are channels-last want them
        self.target = copy.deepcopy(self.model).to(memory_format=torch.channels_last)
        self.ours = [self.tensor(self.target, *owned.places[0]) for owned in self.layout.tensors]
        self.theirs = [self.tensor(self.model, *owned.places[0]) for owned in self.layout.tensors]
        device = self.theirs[0].device
        # few vectors of bits, shared by many tensors, stay on the device
        self.vectors = {
            id(bits): torch.from_numpy(bits).to(device)
            for owned in self.layout.tensors
            for _, bits in owned.cuts
        }

    @staticmethod
    def tensor(model: nn.Module, module: str, name: str) -> Tensor:
        return getattr(model.get_submodule(module), name).detach()

    @torch.no_grad()
    def __call__(self, keep: np.ndarray) -> nn.Module:
        """``target``, at full shape, as the network of a checked genome, bool [n_bits]."""
        device = self.theirs[0].device
        gone = torch.from_numpy(~np.append(keep, True)).to(device)  # KEPT = -1 is the appended one
        silent = {key: gone[bits] for key, bits in self.vectors.items()}
        for ours, theirs, owned in zip(self.ours, self.theirs, self.layout.tensors, strict=True):
            ours.copy_(theirs)
            for dim, bits in owned.cuts:
                shape = [-1 if d == dim else 1 for d in range(ours.ndim)]
                ours.masked_fill_(silent[id(bits)].view(shape), 0)
        for parameter in self.target.parameters():
            parameter.grad = None
        return self.target


def check(model: nn.Module, layout: Layout) -> None:
    """Raise ``NotAtFullShape`` unless the network at full shape computes what the slim one does.

    Both are compared with random weights in double precision, before and after two steps of
    training in training mode, for two random genomes. Source: ours.
    """
    name = f"{type(model).__name__} cannot be evaluated at full shape"
    if layout.integers:
        raise NotAtFullShape(f"{name}: its inputs are whole numbers; evaluate it cut")
    twin, generator = randomised(model, torch.float64), torch.Generator().manual_seed(0)
    device = next(twin.parameters()).device
    shape = (4, *layout.example)
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(device)
    rng, whole = np.random.default_rng(0), FullShape(twin, layout)
    for share in (0.7, 0.3):
        keep = repaired(layout, rng.random(layout.n_bits) < share)
        if reason := difference(whole, cut(clone(twin), twin, layout, keep), keep, x):
            raise NotAtFullShape(f"{name}: {reason}; evaluate it cut")


def difference(whole: FullShape, small: nn.Module, keep: np.ndarray, x: Tensor) -> str:
    """What tells the network at full shape from the slim one, or nothing."""
    network = whole(keep)
    wakes = Wakes(network, whole.layout, keep)
    with evaluating(network), wakes:
        network(x[:1])
    if wakes.first:
        return f"{wakes.first} makes something of zero"
    for stage in ("", " after training"):
        if stage:
            try:
                for each in (network, small):
                    train(each, x)
            except RuntimeError as error:
                return f"it does not train ({first_line(error)})"
        with evaluating(network), evaluating(small):
            pairs = zip(leaves(network(x)), leaves(small(x)), strict=True)
            for a, b in pairs:
                if not (a - b).abs().max() <= TOLERANCE[torch.float64] * b.abs().max():
                    return f"it computes something else{stage}"
    return ""


def train(model: nn.Module, x: Tensor, steps: int = 2) -> None:
    """A few steps as partial training takes them, towards outputs of zero."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack([t.square().mean() for t in leaves(model(x))]).sum().backward()
        optimizer.step()
    model.eval()


class Wakes(Watch):
    """Follows the filters through a run and notes the first operation that makes something else of
    those that are zero.
    """

    def __init__(self, model: nn.Module, layout: Layout, keep: np.ndarray):
        super().__init__(model, choices=dict(layout.choices))
        self.speaks, self.first = stays(layout.bit_of, keep), ""

    def see(self, op: Op) -> None:
        for tensor in op.outputs:
            for dim, vector in self.numbers(tensor).items():
                silent = torch.from_numpy(~self.speaks[vector]).to(tensor.device)
                if not self.first and tensor.index_select(dim, silent.nonzero()[:, 0]).any():
                    self.first = str(op)
