"""What the paper's networks cost: the model by hand, and a page that says what was not measured."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dpes.study.profiles import PAPER, make_settings

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import cost  # noqa: E402
import harness  # noqa: E402

ROW = {"macs": 1e8, "images_per_second": {"training": 100, "forward": 300}}
SETTINGS = make_settings("paper", model="resnet56", dataset="cifar100")


def test_steps_and_images_of_a_run():
    work = cost.work_of(SETTINGS)
    assert work.search_steps == 331 * 3 * 360 and work.judged_images == 331 * 45_000
    assert work.finetune_steps == 3 * 200 * (45_000 // 128) == 3 * work.baseline_steps
    assert cost.work_of(replace(SETTINGS, weights="akamaster")).baseline_steps == 0


def test_hours_of_a_gpu_are_its_images_by_its_rate():
    rates = {"recorded": {"images_per_second": 1000.0}, "plain": {"images_per_second": 100.0}}
    fast, slow = (cost.gpu_hours(rates, SETTINGS, way) for way in rates)
    judged = 331 * 45_000 / 3
    assert fast["search"] == pytest.approx((331 * 3 * 360 * 125 + judged) / 1000 / 3600)
    assert fast["fine-tuning"] == pytest.approx(3 * fast["baseline"])
    assert all(slow[phase] == pytest.approx(10 * fast[phase]) for phase in fast)


def test_two_cores_take_longer_for_networks_that_are_slower():
    fast = cost.cpu_hours(ROW, SETTINGS)
    slow = cost.cpu_hours(ROW | {"images_per_second": {"training": 50, "forward": 150}}, SETTINGS)
    assert sum(slow.values()) == pytest.approx(2 * sum(fast.values()))
    assert fast["baseline"] == pytest.approx(200 * 45_000 / 100 / 3600)
    assert 0.5 < cost.slim_rate("resnet") < 1


def test_every_network_of_the_paper_has_a_row_and_the_page_is_that_of_the_results():
    assert list(harness.stored("cost")["networks"]) == list(PAPER)
    text = harness.page("gpu").read_text()
    assert cost.costs() in text and cost.found() in text
    values = cost.in_sentences()
    assert all(value in text for value in values.values())
    assert not re.search("<[A-Z_]+>", text)
    gpu, cpu = cost.long_trainings()
    assert values["LONG"] == str(len(gpu)) and max(gpu) < min(cpu)
    assert all(cost.LABELS[name] in text for name in PAPER)


def test_what_a_gpu_found_is_told_way_by_way(monkeypatch):
    d = {"cut": 0.01, "full": 0.0, "bfloat16": 0.02, "again": 0.0}
    made_up = {
        "about": {"device": "a GPU", "torch": "2"}, "seconds": 500,
        "agreement": {"resnet20": {"recalibrate": {"differs_at_most": d}}},
        "speed": {"resnet56": {"training": {
            "float32": {"images_per_second": 1e4, "kernels": 470, "launches": 470, "copies_from_host": 0},
            "bfloat16, recorded": {"failed": "no"}}}},
        "trainings": {"resnet20": {"recorded, six at once": [3.0, 2.0, 2.0]}},
    }  # fmt: skip
    monkeypatch.setattr(cost, "stored", lambda name: json.loads(json.dumps(made_up)))
    text = cost.found()
    assert "| ResNet-20 | `recalibrate` | 1.00 % | 0.00 % | 2.00 %" in text
    assert "| ResNet-20 | recorded, six at once | 2.00 | 38,400 |" in text
    assert "| network | float32 | bfloat16, recorded | kernels a step" in text
    assert "| ResNet-56 | 10,000 | failed |  |" in text


def test_a_network_is_measured():
    row = cost.measured("resnet8", images=4)
    assert row["macs"] > 1e7 and all(rate > 0 for rate in row["images_per_second"].values())
