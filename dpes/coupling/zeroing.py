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
from .cloning import clone
from .cutting import Silence, cut
from .evaluating import evaluating
from .layout import Layout
from .lockstep import alike
from .network import tensors_of
from .operations import Op, laid, leaves
from .proof import repaired
from .subject import randomised


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
        tensors = self.layout.tensors
        self.ours, self.theirs = (tensors_of(m, tensors) for m in (self.target, self.model))
        # few vectors of bits, shared by many tensors, stay on the device
        vectors = {id(bits): bits for owned in tensors for _, bits in owned.cuts}
        device = self.theirs[0].device
        self.vectors = {key: torch.from_numpy(bits).to(device) for key, bits in vectors.items()}

    @torch.no_grad()
    def __call__(self, keep: np.ndarray) -> nn.Module:
        """``target``, at full shape, as the network of a checked genome, bool [n_bits]."""
        device = self.theirs[0].device
        gone = torch.from_numpy(~np.append(keep, True)).to(device)  # KEPT = -1 is the appended one
        silent = {key: gone[bits] for key, bits in self.vectors.items()}
        for ours, theirs, owned in zip(self.ours, self.theirs, self.layout.tensors, strict=True):
            ours.copy_(theirs)
            for dim, bits in owned.cuts:
                ours.masked_fill_(laid(silent[id(bits)], dim, ours.ndim), 0)
        for parameter in self.target.parameters():
            parameter.grad = None
        return self.target


def check(model: nn.Module, layout: Layout) -> None:
    """Raise ``NotAtFullShape`` unless the network at full shape computes what the slim one does.

    Both are compared with random weights in double precision, after two steps of training, for two
    random genomes; before that no filter that is zero may become something. Source: ours.
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
    try:
        train(network, x)
        train(small, x)
    except RuntimeError as error:
        return f"it does not train ({first_line(error)})"
    with evaluating(network), evaluating(small):
        same = all(map(alike, leaves(network(x)), leaves(small(x))))
    return "" if same else "it computes something else after training"


def train(model: nn.Module, x: Tensor, steps: int = 2) -> None:
    """A few steps as partial training takes them, towards outputs of zero."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack([t.square().mean() for t in leaves(model(x))]).sum().backward()
        optimizer.step()
    model.eval()


class Wakes(Silence):
    """Notes the first operation of a run that makes something else of filters that are zero."""

    first = ""

    def see(self, op: Op) -> None:
        for tensor in op.outputs:
            if any(tensor.masked_select(gone).any() for _, gone in self.gone(tensor)):
                self.first = self.first or str(op)
