"""torchvision's classifiers: each is pruned at random and checked; the committed table is complete and true to its page."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import zoo  # noqa: E402

LARGE = ("vgg", "resnet101", "resnet152", "wide", "densenet161", "densenet201", "convnext")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n.startswith(LARGE) else ()) for n in zoo.NETS])
def test_slim_network_passes_all_checks(name):
    assert zoo.check(name, genomes=1, onnx=0)["failed"] == []


def test_published_table_is_complete_and_has_no_failure():
    rows = json.loads(zoo.RESULTS.read_text())
    assert [r["net"] for r in rows] == zoo.NETS
    assert all(r["failed"] == [] and r["genomes"] >= 20 for r in rows)
    assert zoo.PAGE.read_text() == zoo.page(rows)
