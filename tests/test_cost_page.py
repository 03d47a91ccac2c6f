"""What the paper's networks cost: the model by hand, and a page that says what was not measured."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dpes.study.profiles import PAPER, make_settings

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import cost  # noqa: E402
import harness  # noqa: E402

ROW = {
    "macs": 1e8,
    "activations": 5e5,
    "kernels": 400,
    "images_per_second": {"training": 100, "forward": 300},
}
SETTINGS = make_settings("paper", model="resnet56", dataset="cifar100")


def test_steps_and_images_of_a_run():
    work = cost.work_of(SETTINGS)
    assert work.search_steps == 331 * 3 * 360 and work.judged_images == 331 * 45_000
    assert work.finetune_steps == 3 * 200 * (45_000 // 128) == 3 * work.baseline_steps
    assert cost.work_of(replace(SETTINGS, weights="akamaster")).baseline_steps == 0


def test_a_step_takes_as_long_as_what_is_slowest():
    launched = cost.gpu_hours(ROW, SETTINGS)
    step = 400 * 15e-6  # launched one by one: longer than 125 images take to move or to multiply
    image = max(3e8 / 5e13, 2 * 20 * 5e5 / 2e12)
    judged = 331 * 45_000 * image / 3
    assert launched["search, cut"] == pytest.approx((331 * 3 * 360 * step + judged) / 3600)
    moved = 331 * 3 * 360 * max(400 * 2.5e-6, 125 * image)
    assert launched["search"] == pytest.approx((moved + judged) / 3600)
    assert launched["search"] < launched["search, cut"]
    large = cost.gpu_hours(ROW | {"macs": 1e11}, SETTINGS)
    assert large["search"] == pytest.approx(large["search, cut"])


def test_two_cores_take_longer_for_networks_that_are_slower():
    fast = cost.cpu_hours(ROW, SETTINGS)
    slow = cost.cpu_hours(ROW | {"images_per_second": {"training": 50, "forward": 150}}, SETTINGS)
    assert sum(slow.values()) == pytest.approx(2 * sum(fast.values()))
    assert fast["baseline"] == pytest.approx(200 * 45_000 / 100 / 3600)
    assert 0.5 < cost.slim_rate("resnet") < 1


def test_every_network_of_the_paper_has_a_row_and_the_page_is_that_of_the_results():
    assert list(harness.stored("cost")["networks"]) == list(PAPER)
    text = harness.page("gpu").read_text()
    assert cost.costs() in text and cost.found() in text and cost.assumptions() in text
    assert all(cost.LABELS[name] in text for name in PAPER)


def test_the_page_says_so_until_a_gpu_has_run_it(monkeypatch):
    if not harness.results("gpu").exists():
        assert "Not run yet" in harness.page("gpu").read_text()
    d = {"cut": 0.01, "full": 0.0, "bfloat16": 0.02, "again": 0.0}
    made_up = {
        "about": {"device": "a GPU", "torch": "2"}, "seconds": 500,
        "agreement": {"resnet20": {"recalibrate": {"differs_at_most": d}}},
        "speed": {"resnet56": {"training": {
            "float32": {"images_per_second": 1e4, "kernels": 470, "launches": 470, "copies_from_host": 0},
            "bfloat16, recorded": {"failed": "no"}}}},
    }  # fmt: skip
    monkeypatch.setattr(cost, "stored", lambda name: json.loads(json.dumps(made_up)))
    text = cost.found()
    assert (
        "Not run yet" not in text
        and "| ResNet-20 | `recalibrate` | 1.00 % | 0.00 % | 2.00 %" in text
    )
    assert "| ResNet-56 | float32 | 10,000 | 470 | 470 | 0 |" in text and "failed: no" in text


def test_kernels_of_a_step_are_counted():
    row = cost.measured("resnet8", images=4)
    assert 60 < row["kernels"] < 120 and row["macs"] > 1e7 and row["activations"] > 5e4
