"""Candidates at full shape, removed slices zero: they compute what the slim networks do, also when
trained; what would not is refused in one line.
"""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import random_genome, shake
from torch import nn

from dpes.coupling.cutting import slim
from dpes.coupling.tracing import trace
from dpes.coupling.zeroing import FullShape, NotAtFullShape, check, train
from dpes.study import models

NETWORKS = ["vgg-tiny", "resnet20", "densenet16", "densenet50"]


def traced(name):
    model = shake(models.build(name, 7, 3)).double()
    return model, trace(model, torch.zeros(1, 3, 32, 32, dtype=torch.float64), prove=False)


@pytest.mark.parametrize("name", NETWORKS)
def test_full_shape_computes_what_slim_does_before_and_after_training(name, rng):
    model, layout = traced(name)
    x = torch.randn(6, 3, 32, 32, dtype=torch.float64)
    whole = FullShape(model, layout)
    for _ in range(2):  # the second genome finds what training has left of the first
        genome = random_genome(layout, rng)
        full, small = whole(genome), slim(model, layout, genome)
        for _ in range(2):
            with torch.no_grad():
                expected = small(x)
                torch.testing.assert_close(
                    full(x), expected, rtol=0, atol=1e-10 * float(expected.abs().max())
                )
            train(full, x), train(small, x)
    assert not torch.equal(small(x), expected)  # training did something


def test_tensors_stay_where_they_are_and_removed_slices_stay_zero(rng):
    model, layout = traced("resnet8")
    before = copy.deepcopy(model.state_dict())
    whole = FullShape(model, layout)
    places = [t.data_ptr() for t in whole.target.state_dict().values()]
    genome = random_genome(layout, rng)
    train(whole(genome), torch.randn(6, 3, 32, 32, dtype=torch.float64))
    assert [t.data_ptr() for t in whole.target.state_dict().values()] == places
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    state, removed = whole.target.state_dict(), 0
    for owned in layout.tensors:
        tensor = state[".".join(filter(None, owned.places[0]))]
        for dim, bits in owned.cuts:
            gone = torch.from_numpy((bits >= 0) & ~genome[bits])
            removed += int(gone.sum())
            assert not tensor.index_select(dim, gone.nonzero()[:, 0]).any()
    assert removed > 50


def net(*middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), *middle, nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Tanh(), nn.Hardswish()])
def test_activations_that_keep_zero_are_taken(activation):
    model = net(activation)
    check(model, trace(model, torch.zeros(1, 3, 8, 8)))


@pytest.mark.parametrize(
    ("middle", "words"),
    [
        (nn.Sigmoid(), "sigmoid in 2 makes something of zero"),
        (nn.Softplus(), "softplus in 2 makes something of zero"),
        (nn.Sequential(nn.ReLU(), nn.Dropout(0.5)), "computes something else after training"),
    ],
)
def test_others_are_refused_in_one_line_that_names_the_operation(middle, words):
    model = net(middle)
    with pytest.raises(NotAtFullShape) as caught:
        check(model, trace(model, torch.zeros(1, 3, 8, 8)))
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert "evaluate it cut" in str(caught.value)


def test_whole_numbers_are_refused():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(9, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.out(self.embed(x).mean(1))

    model = Words()
    with pytest.raises(NotAtFullShape, match="whole numbers"):
        check(model, trace(model, torch.zeros(1, 4, dtype=torch.long)))
