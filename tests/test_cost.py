"""Costs of a genome, by hand, and latency as ratios."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dpes import macs, slim, trace
from dpes.coupling import cost

X = torch.zeros(1, 3, 8, 8)


@pytest.fixture
def net():
    """3x3 convolution to 4 filters with bias and norm, halved map, 3x3 to 6, mean, linear to 5."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1, bias=False),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


def test_costs_by_hand(net):
    layout = trace(net, X)
    genome = np.array([1, 0, 1, 1] + [1, 1, 0, 0, 1, 0], dtype=bool)  # 3 of 4, 3 of 6
    for a, b, g in ((4, 6, np.ones(10, dtype=bool)), (3, 3, genome)):
        assert layout.macs(g) == 3 * a * 9 * 64 + a * b * 9 * 16 + b * 5
        assert layout.params(g) == (3 * a * 9 + a) + 2 * a + a * b * 9 + (b * 5 + 5)
        assert layout.activations(g) == a * 64 + b * 16 + 5
    assert macs(net, X) == layout.macs(np.ones(10, dtype=bool))


def test_costs_of_many(net):
    layout = trace(net, X)
    genomes = np.stack([np.ones(10, dtype=bool), np.arange(10) % 2 == 0])
    for which, one in cost.COSTS.items():
        assert cost.costs(layout, genomes, which).tolist() == [one(layout, g) for g in genomes]


def test_latency_is_measured_in_turn(net):
    layout = trace(net, X)
    small = slim(net, layout, np.arange(10) % 2 == 0)
    seconds = cost.latency({"full": net, "small": small}, X, rounds=5)
    assert [len(s) for s in seconds.values()] == [5, 5] and min(map(min, seconds.values())) > 0
    ratios = cost.latency_ratios(seconds, "full")
    assert ratios["full"] == 1.0 and ratios["small"] > 0
    assert cost.latency_ratios({"a": [1.0, 2.0, 9.0], "b": [2.0, 2.0, 2.0]}, "b") == {
        "a": 1.0,
        "b": 1.0,
    }
