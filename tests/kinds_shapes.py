"""More small networks: other shapes of input, channels that move, attention, operations of one's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from kinds import BASE, KEPT, Net, conv, images, kind
from torch import Tensor, nn

from dpes.coupling import rule


# ---- channels that move ---------------------------------------------------------------------------------------------------------
class OptionA(nn.Module):
    """A shortcut that halves the image and pads the channels with zeros, as in the first residual networks."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (
            conv(3, 8),
            nn.Conv2d(8, 6, 3, 2, 1),
            conv(6, 16),
            conv(16, 16),
        )
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.a(x))
        y = F.relu(self.c(F.relu(self.b(x))) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))
        return self.fc((y + self.d(y)).mean((2, 3)))


kind("shortcut padded with zero channels", ("a", "b"), 14)(OptionA)


@kind("channel shuffle", ("c1", "c2", "c3"), 18)
def _():
    def mid(m, x):
        n, c, h, w = x.shape
        return x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)

    return Net(mid)


@kind("pixel shuffle", ("c1", "up", "c2", "c3"), 28)
def _():
    return Net(lambda m, x: F.pixel_shuffle(m.up(x), 2), up=conv(8, 16), c2=conv(4, 8))


@kind("channels last")
def _():
    return Net().to(memory_format=torch.channels_last)


@kind("concatenation and split", ("c1", "left", "c2", "c3"), 24)
def _():
    def mid(m, x):
        a, b = torch.split(x, x.shape[1] // 2, 1)
        return torch.cat([b, m.left(a)], 1)

    return Net(mid, left=conv(4, 4))


@kind("a split written out behind one depthwise convolution, before others", ("c2", "c3.0"), 16)
def _():
    """What is refused at the split stays so there alone, though the convolutions then are read otherwise."""

    def mid(m, x):
        a, b = torch.split(m.d(x), [4, 4], 1)
        return m.d(torch.cat([a, b * 2], 1))

    depthwise = nn.Sequential(conv(8, 8), conv(8, 8, groups=8))
    return Net(mid, d=conv(8, 8, groups=8), c3=depthwise)


class Parts(nn.Module):
    """Holds the sizes of its parts."""

    def __init__(self, sizes, scaled=False):
        super().__init__()
        self.others, self.sizes, self.scaled = [torch.ones(3), 5], sizes, scaled

    def forward(self, x):
        a, b = torch.split(x, self.sizes, 1)
        return torch.cat([a, b * (self.sizes[0] if self.scaled else 2)], 1)


for name, sizes in (("tuple", (3, 5)), ("list", [4, 4])):
    kind(f"a split whose sizes are in a {name}", ("c1", *BASE[0]))(  # none of its parts is emptied
        lambda sizes=sizes: Net(lambda m, x: m.parts(x), parts=Parts(sizes))
    )
kind("a split whose sizes are in a tuple that forward computes with", *KEPT)(
    lambda: Net(lambda m, x: m.parts(x), parts=Parts((3, 5), scaled=True))
)


@kind("a head that training alone runs", *KEPT)
def _():
    """No run in evaluation mode shows what it reads."""
    return Net(lambda m, x: x + m.head(x).mean() if m.training else x, head=nn.Conv2d(8, 4, 1))


@kind("index of channels", *KEPT)
def _():
    return Net(lambda m, x: x[:, [1, 0, 3, 2, 5, 4, 7, 6]])


# ---- grouped, transposed, normalised ------------------------------------------------------------------------------------------
for groups, out, bits in ((4, 8, 20), (8, 16, 24), (2, 16, 28)):
    pruned = ("c1", "c2", "c3") if groups > 2 else ("c1", "g", "c2", "c3")

    @kind(f"convolution of {groups} groups", pruned, bits)
    def _(groups=groups, out=out):
        return Net(lambda m, x: m.g(x), g=conv(8, out, groups=groups), c2=conv(out, 8))


kind("transposed", ("c1", "t", "c2", "c3"), 32)(
    lambda: Net(lambda m, x: m.t(x), t=nn.ConvTranspose2d(8, 8, 2, 2))
)
kind("transposed in groups", bits=20)(
    lambda: Net(lambda m, x: m.t(x), t=nn.ConvTranspose2d(8, 8, 2, 2, groups=4))
)
kind("group norm", bits=20)(lambda: Net(lambda m, x: m.n(x), n=nn.GroupNorm(4, 8)))
kind("instance norm")(
    lambda: Net(lambda m, x: m.n(x), n=nn.InstanceNorm2d(8, affine=True, track_running_stats=True))
)
kind("a norm used twice", ("c1",), 8)(lambda: Net(lambda m, x: m.b1(m.c3(x))))


@kind("layer norm over channels", *KEPT)
def _():
    return Net(lambda m, x: m.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), n=nn.LayerNorm(8))


@kind("softmax over branches", ("c1", "k1", "f1", "c2", "c3"), 36, weights_tell=False)
def _():
    """Selective kernels: of two branches that are silent, each weighs a half."""

    def mid(m, x):
        both = torch.stack([m.k1(x), m.k2(x)], 1)
        weights = m.f2(F.relu(m.f1(both.sum(1).mean((2, 3))))).view(x.shape[0], 2, -1).softmax(1)
        return (both * weights[..., None, None]).sum(1)

    return Net(mid, k1=conv(8, 8), k2=conv(8, 8), f1=nn.Linear(8, 4), f2=nn.Linear(4, 16))


# ---- other inputs ---------------------------------------------------------------------------------------------------------------
class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.c, self.fc = (
            nn.Embedding(11, 8),
            nn.Conv1d(8, 6, 3, padding=1),
            nn.Linear(6, 4),
        )

    def forward(self, x):
        return self.fc(F.relu(self.c(self.words(x).transpose(1, 2))).mean(2))


def words() -> Tensor:
    return torch.randint(0, 11, (2, 7), generator=torch.Generator().manual_seed(1))


kind("integers and an embedding", ("words", "c"), 14, x=words)(Text)


class Video(Net):
    def forward(self, x):
        n, t = x.shape[:2]
        return super().forward(x.flatten(0, 1)).view(n, t, -1).mean(1)


kind("frames folded into the batch", x=lambda: images(8).view(2, 4, 3, 16, 16))(Video)


class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.c, self.l1, self.l2 = conv(3, 8), nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, x):
        return self.l2(F.relu(self.l1(self.c(x).flatten(2).permute(2, 0, 1)))).mean(0)


kind("linear layers on [time, n, c]", ("c", "l1"), 24)(TimeFirst)


class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.n, self.b = (
            nn.Conv3d(3, 8, 3, padding=1),
            nn.BatchNorm3d(8),
            nn.Conv3d(8, 6, 3, padding=1, groups=2),
        )
        self.fc = nn.Linear(6 * 4, 5)

    def forward(self, x):
        x = F.max_pool3d(F.relu(self.n(self.a(x))), 2)
        return self.fc(F.adaptive_avg_pool3d(self.b(x), (1, 2, 2)).flatten(1))


kind("volumes", ("a", "b"), 7, x=lambda: images(8).view(2, 3, 4, 16, 16))(Volume)


# ---- attention ------------------------------------------------------------------------------------------------------------------
class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):  # [n, tokens, width]
        n, tokens, _ = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * self.scale).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, tokens, -1))


class Windows(Net):
    """Attention within windows of 4 x 4 pixels, between convolutions."""

    def __init__(self):
        super().__init__(Windows.between, attention=Attention(8, 2))

    def between(self, x):
        n, c, h, w = x.shape
        y = x.view(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)
        y = self.attention(y).view(n, h // 4, w // 4, 4, 4, c).permute(0, 5, 1, 3, 2, 4)
        return x + y.reshape(n, c, h, w)


kind("attention within windows", ("c1", "attention.qkv", "c2", "c3"), 28)(Windows)


# ---- operations of one's own ----------------------------------------------------------------------------------------------------
@torch.library.custom_op("dpes_kinds::halved", mutates_args=())
def halved(x: Tensor) -> Tensor:
    """Works channel by channel, which nothing says."""
    return x / 2


@torch.library.custom_op("dpes_kinds::swapped", mutates_args=())
def swapped(x: Tensor) -> Tensor:
    """Pixels change places; a rule says that channels do not."""
    return x.flip(2).clone()


for operation in (halved, swapped):
    operation.register_autograd(lambda ctx, grad: grad)
rule("dpes_kinds::swapped")(lambda watch, op: watch.numbers(op.tensors[0]))
kind("an operation of one's own without a rule", *KEPT)(lambda: Net(lambda m, x: halved(x)))
kind("an operation of one's own with a rule")(lambda: Net(lambda m, x: swapped(x)))
