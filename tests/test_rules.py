"""Rules that a wrong number of a filter would pass by: each alone, without the proof that would catch it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kinds import Net, images
from torch import nn

from dpes import mask, repair, slim, trace

CASES = {  # what is done with the first filters, and whether they can leave
    "convolution over channels as pixels": (
        lambda m, x: F.conv2d(x.transpose(1, 2), m.pixels).transpose(1, 2), False,
    ),
    "norm of ord -1": (
        lambda m, x: x + torch.linalg.vector_norm(x, -1, 1, keepdim=True), False,
    ),
    "norm of ord -inf": (
        lambda m, x: x + torch.linalg.vector_norm(x, -torch.inf, 1, keepdim=True), False,
    ),
    "norm of ord 2": (lambda m, x: x + torch.linalg.vector_norm(x, 2, 1, keepdim=True), True),
    "gather along channels": (lambda m, x: x.gather(1, x.argsort(1)), False),
    "gather along pixels": (lambda m, x: x.gather(3, x.argsort(3)), True),
    "gather by an index of fixed width": (
        lambda m, x: x.gather(3, torch.zeros(len(x), 8, *x.shape[2:], dtype=torch.int64)), False,
    ),
    "group norm over channels as pixels": (
        lambda m, x: F.group_norm(x.transpose(1, 2), 4).transpose(1, 2), False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("mid, leaves", CASES.values(), ids=CASES)
def test_a_rule_is_right_without_the_proof(mid, leaves):
    model, x = Net(mid).double().eval(), images().double()
    model.pixels = nn.Parameter(torch.randn(16, 16, 1, 1).double())
    layout = trace(model, x, prove=False)
    assert ("c1" in [g.name for g in layout.groups]) == leaves
    rng = np.random.default_rng(0)
    for share in (0.8, 0.3):
        genome = repair(rng.random(layout.n_bits) < share, layout.group_of_bit)
        with torch.no_grad():
            torch.testing.assert_close(
                slim(model, layout, genome)(x), mask(model, layout, genome)(x)
            )


def test_each_fault_is_found_where_it_is_and_the_search_ends():
    """A width in the code behind each of many layers: one run shows all of them, and no bisection is needed."""
    from dpes.coupling import lockstep, proof

    layers = [m for k in range(12) for m in (nn.Conv2d(8 if k else 3, 8, 3, padding=1), Divided())]
    model, runs = nn.Sequential(*layers, nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)), []
    with pytest.MonkeyPatch.context() as patch:
        count = lambda *a, **k: runs.append(1) or lockstep.faults(*a, **k)  # noqa: E731
        patch.setattr(proof, "faults", count)
        layout = trace(model, images())
    assert [g.name for g in layout.groups] == ["24"] and len(runs) < 60
    assert ("0", 8, "without it div in 1 computes something else") in layout.kept


class Divided(nn.Module):
    def forward(self, x):
        return x / x.shape[1]


class Deep(nn.Module):
    """Twelve layers, and a head that training alone runs."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(8 if k else 3, 8, 3, padding=1) for k in range(12))
        self.head, self.fc = nn.Conv2d(8, 4, 1), nn.Linear(8, 5)

    def forward(self, x):
        for k, layer in enumerate(self.layers):
            x = layer(x)
            if k == 5 and self.training:
                x = x + self.head(x).mean()
        return self.fc(x.mean((2, 3)))


def test_the_one_at_fault_is_found_among_many_where_no_place_tells():
    layout = trace(Deep(), images())
    assert [g.name for g in layout.groups] == [f"layers.{k}" for k in range(12) if k != 5]
    assert ("layers.5", 8, "without it the network does not train") in layout.kept
