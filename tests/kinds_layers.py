"""More small networks: arithmetic, layers of one's own and where they are kept, wrappers, computed weights."""

from __future__ import annotations

import operator
import threading
import warnings

import torch
import torch.nn.functional as F
from kinds import KEPT, Net, conv, kind
from torch import nn
from torch.nn.utils import parametrizations


# ---- arithmetic ---------------------------------------------------------------------------------------------------------------
@kind("negation and 1 - x")
def _():
    return Net(lambda m, x: operator.neg(1 - x) + torch.rsub(x, 2))


@kind("where")
def _():
    return Net(lambda m, x: torch.where(x > 0.1, x, x * 0.1 - 1))


@kind("maxout", ("c1", "c2", "c3"), 20)
def _():
    def mid(m, x):
        n, c, h, w = x.shape
        return x.view(n, c // 2, 2, h, w).max(2)[0]

    return Net(mid, c2=conv(4, 8))


@kind("gated by its own half", ("c1", "c2", "c3"), 20)
def _():
    def mid(m, x):
        a, b = x.chunk(2, 1)
        return torch.cat([a * b.sigmoid(), F.glu(x, 1)], 1)

    return Net(mid)


@kind("bytes read as other numbers", *KEPT)
def _():
    return Net(lambda m, x: x.view(torch.int64).view(x.dtype))


# A filter less than two and squeeze() takes the dimension of channels with it.
@kind("squeeze() where a width may become one", ("c1", "c2", "c3"), 23)
def _():
    def mid(m, x):
        return x * m.gate(x.mean((2, 3), keepdim=True).squeeze()).sigmoid()[..., None, None]

    return Net(mid, gate=nn.Linear(8, 8))


@kind("layer scale in two spellings")
def _():
    return Net(
        lambda m, x: x * m.g.view(1, -1, 1, 1) + x * m.g[None, :, None, None],
        g=nn.Parameter(torch.rand(8)),
    )


@kind("frozen batch norm as arithmetic")
def _():
    def mid(m, x):
        scale = m.weight * (m.var + 1e-5).rsqrt()
        return x * scale.reshape(1, -1, 1, 1) + (m.bias - m.mean * scale).reshape(1, -1, 1, 1)

    model = Net(mid)
    for name in ("weight", "bias", "mean", "var"):
        model.register_buffer(name, torch.rand(8) + 0.5)
    return model


@kind("x / x.shape[1]", *KEPT)
def _():
    return Net(lambda m, x: x / x.shape[1])


# ---- layers of one's own, and where they are kept -----------------------------------------------------------------------------
class Same(nn.Conv2d):
    """Nothing added."""


class Activated(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: the activation is a part of it."""

    def __init__(self, n):
        super().__init__(n)
        self.drop, self.act = nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(
            self.drop(
                F.batch_norm(
                    x, self.running_mean, self.running_var, self.weight, self.bias, self.training
                )
            )
        )


class Leaky(nn.ReLU):
    def forward(self, x):
        return F.leaky_relu(super().forward(x) - 1)


@kind("subclasses of layers")
def _():
    return Net(lambda m, x: m.act(m.n(x)), c2=Same(8, 8, 3, padding=1), n=Activated(8), act=Leaky())


@kind("a plain list of layers that are known elsewhere", ("c1", "c3"), 16)
def _():
    class Listed(Net):
        def __init__(self):
            super().__init__(lambda m, x: m.layers[1](m.layers[0]["it"](x)))
            self.layers = [{"it": self.c2}, self.b2]

    return Listed()


@kind("a plain list of layers", ("c2", "c3"), 16)
def _():
    model = Net(lambda m, x: m.layers[0](x))
    model.layers = [conv(8, 8).double()]  # which .double() does not find
    return model


@kind("a lock")
def _():
    model = Net()
    model.lock = threading.Lock()
    return model


@kind("a dict for an output")
def _():
    model = Net()
    model.register_forward_hook(
        lambda m, args, out: {"logits": out, "more": [out * 2, None, "text"]}
    )
    return model


kind("data parallel")(lambda: nn.DataParallel(Net()))
kind("compiled")(lambda: torch.compile(Net(), backend="eager"))
kind("synchronised batch norm", trains=False)(
    lambda: nn.SyncBatchNorm.convert_sync_batchnorm(Net())
)


# ---- computed weights ---------------------------------------------------------------------------------------------------------
kind("weight norm")(lambda: Net(c2=parametrizations.weight_norm(conv(8, 8))))
kind("spectral norm")(lambda: Net(c2=parametrizations.spectral_norm(conv(8, 8))))


@kind("weight norm by a hook")
def _():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return Net(c2=nn.utils.weight_norm(conv(8, 8)))


@kind("spectral norm by a hook")
def _():
    return Net(c2=nn.utils.spectral_norm(conv(8, 8)))


class Tied(nn.Module):
    """Decodes with the weights that it encodes with."""

    def __init__(self):
        super().__init__()
        self.conv, self.inside = conv(3, 8), conv(8, 8)

    def forward(self, x):
        x = F.conv_transpose2d(self.inside(F.relu(self.conv(x))), self.conv.weight, padding=1)
        return x.sigmoid()


kind("tied autoencoder", ("conv",), 8)(Tied)
