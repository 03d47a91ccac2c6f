"""Small networks, one of each kind that is easily taken for another when filters are followed through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def images(n: int = 2, side: int = 16) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Kind:
    """How a network is built, and the layers whose filters can leave: no fewer, so that nothing passes by being kept whole."""

    build: Callable[[], nn.Module]
    pruned: tuple[str, ...]  # the groups, by their first layers, in order
    bits: int  # of all groups together
    x: Callable[[], Tensor] = images
    trains: bool = True  # whether the whole network runs in training mode
    weights_tell: bool = (
        True  # whether a filter without weights, read with none, is one that is not there
    )
    loads: bool = True  # whether the same groups are found in a network of other weights


KINDS: dict[str, Kind] = {}
BASE = (
    ("c1", "c2", "c3"),
    24,
)  # what is prunable in the plain network below, if nothing comes between
KEPT = (("c2", "c3"), 16)  # and what is left if the first filters stay


def kind(name: str, pruned: tuple[str, ...] = BASE[0], bits: int = BASE[1], **more) -> Callable:
    """Enters a function that builds a network under a name."""

    def enter(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        assert name not in KINDS
        KINDS[name] = Kind(build, pruned, bits, **more)
        return build

    return enter


def conv(i: int, o: int, **more) -> nn.Conv2d:
    return nn.Conv2d(i, o, 3, padding=1, **more)


class Net(nn.Module):
    """Three convolutions of 8 filters with batch norm, a mean over pixels, a linear head; ``mid`` works on the first filters."""

    def __init__(self, mid: Callable = lambda m, x: x, **layers):
        super().__init__()
        self.c1, self.b1, self.c2, self.b2 = (
            conv(3, 8),
            nn.BatchNorm2d(8),
            conv(8, 8),
            nn.BatchNorm2d(8),
        )
        self.c3, self.fc = conv(8, 8), nn.Linear(8, 5)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.mid = mid

    def forward(self, x, *others):
        x = self.mid(
            self, F.leaky_relu(self.b1(self.c1(x)), 0.1)
        )  # whose gradient does not need the output, so it may change
        return self.fc(self.c3(F.relu(self.b2(self.c2(x)))).mean((2, 3)))


kind("plain")(Net)


# ---- changed in place under one name, read under another ------------------------------------------------------------------
@kind("add_ under another name")
def _():
    def mid(m, x):
        y = x
        y.add_(1)
        return x

    return Net(mid)


@kind("sigmoid_ of a view")
def _():
    def mid(m, x):
        y = x.view(x.shape[0], x.shape[1], -1)
        y.sigmoid_()
        return x

    return Net(mid)


@kind("sigmoid_ of a reshaped view")
def _():
    def mid(m, x):
        x.flatten(2).neg_()
        x.view(x.shape[0], x.shape[1], 4, -1).permute(0, 3, 2, 1).transpose(1, 2).sigmoid_()
        return x

    return Net(mid)


@kind("mul_ of a slice", *KEPT)
def _():
    def mid(m, x):
        x[:, 2:5].mul_(2.0)
        return x

    return Net(mid)


@kind("mul_ of half the channels", ("c1", "c2", "c3"), 20)
def _():
    def mid(m, x):
        x[:, x.shape[1] // 2 :].mul_(-2.0)
        return x

    return Net(mid)


@kind("mul_ of half the channels, written out", *KEPT)
def _():
    def mid(m, x):
        x[:, :4].mul_(2.0)
        return x

    return Net(mid)


@kind("mul_ of pixels")
def _():
    def mid(m, x):
        y = x[:, :, ::2]
        y *= 2
        x[:, :, 3:5, 1] = 0
        return x

    return Net(mid)


@kind("a sum written into another", ("c1", "c2", "c3"), 24)
def _():
    def mid(m, x):
        y = m.other(x)
        z = y.view(y.shape)
        z += x
        return y

    return Net(mid, other=conv(8, 8))


# ---- forward that branches --------------------------------------------------------------------------------------------------
def flagged(m, x, mask=None, twice=True):
    assert x.shape[-1] == 16 and type(x) is Tensor
    if not isinstance(x, Tensor) or not hasattr(x, "shape") or mask is not None:
        return -x.sum(1, keepdim=True)
    if x.shape[-1] < 8:
        return x.mean(1, keepdim=True)
    return x * 2 if twice else x[:, :4]


@kind("branches on types, flags and sizes")
def _():
    return Net(flagged)


@kind("*args")
def _():
    class Args(Net):
        def forward(self, *args):
            return super().forward(args[0])

    return Args()


@kind("dimensions computed from the tensor")
def _():
    def mid(m, x):
        y = torch.cat([x, x], dim=x.dim() - 3)[:, : x.size(x.dim() - 3)]
        return y + x.mean(dim=x.dim() - 1, keepdim=True) * x.size(x.dim() - 1)

    return Net(mid)


@kind("a branch on the width", *KEPT)
def _():
    return Net(lambda m, x: x * 2 if x.shape[1] > 6 else x)


@kind("a branch on a sum over channels")
def _():
    return Net(lambda m, x: x if x.sum() > 0 else 1 - x)


@kind("a branch on the first filter", *KEPT)
def _():
    return Net(lambda m, x: x if x[:, 0].sum() > 3 else 1 - x)


# ---- hooks and replaced forwards --------------------------------------------------------------------------------------------
@kind("hooks on the model")
def _():
    model = Net()
    model.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    model.register_forward_hook(lambda m, args, out: out.sigmoid())
    return model


@kind("a hook that mixes channels", *KEPT)
def _():
    model = Net()
    model.c1.register_forward_hook(lambda m, args, out: out - out.mean(1, keepdim=True))
    return model


@kind("forward replaced by a closure")
def _():
    model = Net()
    original = model.c1.forward  # bound to this very layer
    model.c1.forward = lambda x: original(x) * 2
    return model


@kind("forward replaced by a method")
def _():
    model = Net()
    model.c1.forward = type(model.c1).forward.__get__(model.c1)
    return model


@kind("forward replaced by a mean over channels", *KEPT)
def _():
    model = Net()
    model.b1.forward = lambda x: x.mean(1, keepdim=True) + x
    return model


@kind("forward replaced by a softmax", *KEPT)
def _():
    model = Net(lambda m, x: m.act(x), act=nn.ReLU())
    model.act.forward = lambda x: F.softmax(x, 1)
    return model


@kind("weights standardised in _conv_forward", *KEPT)
def _():
    model = Net()

    def forward(x, w, b):
        return F.conv2d(
            x,
            (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5),
            b,
            padding=1,
        )

    model.c2._conv_forward = forward
    return model
