"""torchvision's classifiers: each is pruned at random and checked; the committed table is complete
and true to its page.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import zoo  # noqa: E402

LARGE = ("vgg", "resnet101", "resnet152", "wide", "densenet161", "densenet201", "convnext")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n.startswith(LARGE) else ()) for n in zoo.NETS],
)
def test_slim_network_passes_all_checks(name):
    assert zoo.check(name, genomes=1, onnx=False)["failed"] == []


@pytest.mark.parametrize(
    "what, wrong, failures",
    [
        ("mask", lambda model, layout, genome: model, {"float32", "float64"}),
        (
            "mask",
            lambda model, layout, genome: lambda x: model(x) * torch.nan,
            {"float32", "float64"},
        ),
        ("load", lambda path, model: model, {"save and load"}),
        (
            "cost",
            SimpleNamespace(macs=lambda layout, genome: 1, params=lambda layout, genome: 1),
            {"MACs", "parameters"},
        ),
    ],
    ids=["not masked", "not a number", "not loaded", "not counted"],
)
def test_checks_can_fail(what, wrong, failures, monkeypatch):
    monkeypatch.setattr(zoo, what, wrong)
    assert set(zoo.check("squeezenet1_1", genomes=1, onnx=False)["failed"]) == failures


def test_published_table_is_complete_and_has_no_failure():
    rows = json.loads(zoo.RESULTS.read_text())
    assert [r["net"] for r in rows] == zoo.NETS
    assert all(r["failed"] == [] and r["genomes"] >= 20 for r in rows)
    assert zoo.PAGE.read_text() == zoo.page(rows)
