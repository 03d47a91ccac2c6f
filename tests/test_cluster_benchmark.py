"""What a cluster costs on one machine: the benchmark on few images, and its page."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import cluster  # noqa: E402
import harness  # noqa: E402

from dpes.coupling.tracing import trace  # noqa: E402
from dpes.study import data, models  # noqa: E402
from dpes.study.fitness import Fitness  # noqa: E402
from dpes.study.profiles import make_settings  # noqa: E402


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc of Linux")
def test_both_ways_are_measured_alike(monkeypatch):
    monkeypatch.setattr(cluster, "CANDIDATES", 2)
    monkeypatch.setattr(cluster, "ROUNDS", 1)
    network = models.build("resnet8", channels=1)
    layout = trace(network, torch.zeros(1, 1, 32, 32))
    fitness = Fitness(network, layout, data.load("digits"), make_settings("smoke").search)
    row = cluster.measured("processes", fitness, 1)
    assert set(row) == {"start_seconds", "generation_seconds", "megabytes", "errors"}
    assert row["errors"] == [fitness(cluster.genome_of(layout, 0.6, seed)) for seed in range(2)]
    assert row["start_seconds"] > 0 and 50 < row["megabytes"] < 5000
    assert cluster.megabytes(os.getpid()) > 50


def test_the_page_is_that_of_the_results():
    assert cluster.table() in harness.page("cluster").read_text()
    assert harness.stored("cluster")["same"]
