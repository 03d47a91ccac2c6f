"""The check for who has a GPU, run on a CPU where nothing of it may fail; on a GPU, what it finds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import gpu  # noqa: E402


def test_every_part_runs_and_a_cpu_agrees_with_itself(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "TRAINED", ("vgg-narrow",))
    monkeypatch.setattr(gpu, "BATCH", 8)
    monkeypatch.setattr(gpu, "TUNED", ("resnet8",))
    log = [{"seconds": 1.0, "loss": 2.0}]
    monkeypatch.setattr(gpu, "training", lambda *what: log)
    monkeypatch.setattr(gpu, "at_once", lambda *what: [6.0])
    monkeypatch.setattr(gpu, "spread", lambda device, n: {"gpus": 0})
    found = gpu.measured("cpu", ["resnet8"], rounds=1, genomes=2)
    json.dumps(gpu.rounded(found))
    assert capsys.readouterr().out.count("\n") == 4
    for kind in found["agreement"]["vgg-narrow"].values():
        assert kind["differs_at_most"]["cut"] == kind["differs_at_most"]["again"] == 0
        assert kind["differs_at_most"]["full"] <= 0.01 and len(kind["cpu"]) == 2
    assert found["losses"] == {"resnet8": [[2.0, 2.0]]}
    rows = found["speed"]["resnet8"]["training"]
    assert set(rows) == set(gpu.WAYS) and all(row["images_per_second"] > 0 for row in rows.values())


@pytest.mark.slow
def test_processes_find_what_one_finds():
    assert gpu.spread("cpu", 2)["differs_at_most"] == 0


def test_without_a_gpu_it_says_so_in_one_line(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert gpu.main([]) == 2
    assert capsys.readouterr().err.startswith("gpu: device 'cuda' cannot be used here")


@pytest.mark.slow
def test_trainings_beside_each_other_are_timed(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert len(gpu.at_once("resnet8", "cpu", 2, 3, 128)) == 2


@pytest.mark.gpu
def test_a_gpu_agrees_and_nothing_is_copied():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    row = gpu.speed("resnet56", "cuda", rounds=5)["training"]
    assert {r["copies_from_host"] for r in row.values()} == {0}
    assert row["float32, recorded"]["launches"] < row["float32"]["launches"] / 5
    plain, recorded = (gpu.training("resnet20", "cuda", way) for way in (False, True))
    for a, b in zip(plain, recorded, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=0.02)
    for kind in gpu.agreement("resnet20", "cuda", 4).values():
        assert max(kind["differs_at_most"].values()) < 0.1
