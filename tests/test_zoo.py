"""Common classifiers: each is traced, cut and checked; the committed table has no failure and is true to its page."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import harness  # noqa: E402
import zoo  # noqa: E402

SMALL = [
    "torchvision/mobilenet_v3_small",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/squeezenet1_1",
]
SMALL += ["timm/resnet10t", "timm/lcnet_050", "timm/starnet_s050", "timm/skresnet18"]


@pytest.mark.parametrize("name", SMALL)
def test_slim_networks_pass_all_checks(name):
    row = zoo.check(name, draws=1)
    assert row["failed"] == [] and row["prunable"] > zoo.ENOUGH


@pytest.mark.parametrize(
    "what, wrong, failure",
    [
        ("mask", lambda model, layout, genome: model, "slim is not masked"),
        (
            "mask",
            lambda model, layout, genome: lambda x: model(x) * torch.nan,
            "slim is not masked",
        ),
        ("load", lambda path, model: model, "save and load"),
        ("weights", lambda model: 1, None),
    ],
    ids=["not masked", "not a number", "not loaded", "nothing prunable"],
)
def test_checks_can_fail(what, wrong, failure, monkeypatch):
    monkeypatch.setattr(zoo, what, wrong)
    row = zoo.check("torchvision/squeezenet1_1", draws=1)
    assert row["failed"] == [failure] if failure else row["prunable"] == 0


def test_published_table_has_no_failure_and_is_true_to_its_page():
    rows = harness.stored("zoo")
    assert {r["net"] for r in rows} <= set(zoo.NETS) and len(rows) >= 60
    assert all(r["failed"] == [] for r in rows)
    assert np.mean([r.get("prunable", 0) >= zoo.ENOUGH for r in rows]) >= 0.9
    assert zoo.PAGE.read_text() == zoo.page(rows)
