"""Parts of what one layer produces, and widths that forward compares with one another: right at every
width, not only at those that a proof has tried.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpes import mask, repair, slim, trace


class Two(nn.Module):
    """A layer of n filters, one of k that reads it, and a branch between them."""

    def __init__(self, branch, n=12, k=7, sizes=None):
        super().__init__()
        self.stem, self.a = nn.Conv2d(3, 4, 1), nn.Conv2d(4, n, 3, padding=1)
        self.b = nn.Conv2d(n, k, 3, padding=1)
        self.f, self.branch, self.sizes = nn.Linear(k, 5), branch, sizes

    def forward(self, x):
        h = self.a(self.stem(x)).relu()
        return self.f(self.branch(self, h, self.b(h)).mean((2, 3)))


COMPARED = {  # a branch that turns at a single width of a
    "shapes": lambda m, h, y: y + h if y.shape == h.shape else y,
    "sizes": lambda m, h, y: y + h if y.size()[1:] == h.size()[1:] else y,
    "one dimension": lambda m, h, y: y + h if y.shape[1] == h.shape[1] else y,
    "less": lambda m, h, y: y * 2 if h.shape[1] < y.shape[1] else y,
    "shapes of weights": lambda m, h, y: y + h if m.a.weight.shape[0] == m.b.weight.shape[0] else y,
    "attributes": lambda m, h, y: y + h if m.b.out_channels == m.a.out_channels else y,
    "what is computed of them": lambda m, h, y: y * 3 if h.shape[1] - y.shape[1] == 1 else y,
    "elements": lambda m, h, y: y * 3 if h.numel() == y.numel() else y,
}


class Parts(nn.Module):
    """A layer whose filters are split by sizes that the module holds; ``rest`` uses the parts."""

    def __init__(self, sizes, rest, stem=False, **layers):
        super().__init__()
        self.sizes, self.rest = sizes, rest
        self.stem = nn.Conv2d(3, 3, 1) if stem else nn.Identity()
        self.a = nn.Conv2d(3, sum(sizes), 3, padding=1)
        self.f = nn.LazyLinear(5)
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        h = self.a(self.stem(x))
        return self.f(self.rest(self, h, *h.split(self.sizes, 1)).mean((2, 3)))


SPLIT = {
    "a part is read by a layer and added": lambda: Parts(
        [2, 6], lambda m, h, p, q: h + m.l(p).sum(1, True), l=nn.Conv2d(2, 4, 1)
    ),
    "a part is read by a layer beside the other": lambda: Parts(
        [2, 6], lambda m, h, p, q: torch.cat([m.l(p), q], 1), l=nn.Conv2d(2, 2, 3, padding=1)
    ),
    "a part is normalised": lambda: Parts(
        [2, 6], lambda m, h, p, q: torch.cat([m.n(p), q], 1), n=nn.BatchNorm2d(2)
    ),
    "a part is pooled": lambda: Parts(
        [2, 6], lambda m, h, p, q: torch.cat([F.max_pool2d(p, 3, 1, 1), q], 1)
    ),
    "three parts, one by a depthwise layer": lambda: Parts(
        [2, 2, 4], lambda m, h, p, q, r: torch.cat([m.d(p), m.l(q), r], 1),
        d=nn.Conv2d(2, 2, 3, padding=1, groups=2), l=nn.Conv2d(2, 2, 1),
    ),
    "a size is compared with another": lambda: Parts(
        [6, 3], lambda m, h, p, q: torch.cat([p * 2, q], 1) * (3 if m.sizes[1] == m.sizes[0] else 1), True
    ),
    "sizes are subtracted": lambda: Parts(
        [6, 2], lambda m, h, p, q: torch.cat([p * 2, q], 1) * (3 if m.sizes[1] - m.sizes[0] == -2 else 1), True
    ),
}  # fmt: skip


def agrees_at_every_width(model):
    """Slim and masked network compute the same: each group at each width, and at random."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    model(x)
    model, x = model.double().eval(), x.double()
    layout = trace(model, x[:1])
    rng, genomes = np.random.default_rng(0), []
    for group in layout.groups:
        for width in range(1, group.size):
            for order in (np.arange(group.size), np.arange(group.size)[::-1]):
                genome = np.ones(layout.n_bits, bool)
                genome[group.bits] = order < width
                genomes.append(genome)
    few = rng.random((20, layout.n_bits)) < 0.2
    for genome in [*genomes, *repair(few, layout.group_of_bit, layout.least)]:
        wanted = mask(model, layout, genome)(x)
        torch.testing.assert_close(slim(model, layout, genome)(x), wanted, rtol=1e-9, atol=1e-9)
    return layout


@pytest.mark.parametrize("branch", COMPARED.values(), ids=COMPARED)
def test_widths_that_forward_compares_are_right_at_every_width(branch):
    layout = agrees_at_every_width(Two(branch))
    assert any("compares" in why or "computes" in why for *_, why in layout.kept) or layout.notes


def test_sizes_of_coupled_filters_may_be_compared():
    class Residual(Two):
        def forward(self, x):
            h = self.a(self.stem(x)).relu()
            y = self.b(h)
            assert y.shape == h.shape
            return self.f((y + h).mean((2, 3)))

    assert agrees_at_every_width(Residual(None, 9, 9)).n_bits == 13


@pytest.mark.parametrize("build", SPLIT.values(), ids=SPLIT)
def test_no_part_that_a_layer_reads_is_emptied(build):
    agrees_at_every_width(build())
