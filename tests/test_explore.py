"""The figures to explore: their data are those of the run, their HTML asks for nothing outside."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from dpes import open_run
from dpes.teaching import explore

RUN = Path(__file__).parents[1] / "data" / "runs" / "densenet22-cifar10-cpu-s0-89d98c17"


@pytest.fixture(scope="module")
def run():
    return open_run(RUN)


def test_the_front_holds_the_archive_and_the_three_solutions(run):
    data = explore.front(run).data
    errors = [p["error"] for p in data["archive"]]
    assert errors == sorted(errors) and len(errors) == len(run.archive)
    assert len(data["cloud"]) == len(run.history) - 1
    for role, place in data["roles"].items():
        point = data["archive"][place]
        assert run.history.genome[point["row"]] == run.result[role]["genome"]
        assert point["left"] == pytest.approx(
            run.result[role]["macs"] / run.result["baseline"]["macs"], abs=1e-4
        )
        assert sum(point["kept"]) == run.genome(role).sum()
    assert set(data["roles"]) == {"heavy", "knee", "light"}


def test_the_commands_of_a_point_cut_its_network(run, monkeypatch):
    data = explore.front(run).data
    monkeypatch.chdir(RUN.parents[2])
    scope: dict = {}
    exec(data["command"].replace("ROW", str(data["archive"][data["roles"]["light"]]["row"])), scope)
    assert (scope["genome"] == run.genome("light")).all()
    assert sum(p.numel() for p in scope["small"].parameters()) == run.result["light"]["params"]


def test_generations_add_up_to_the_history(run):
    steps = explore.generations(run).data["generations"]
    assert sum(len(s["points"]) for s in steps) == len(run.history) - 1
    volumes = [s["hypervolume"] for s in steps]
    assert volumes == sorted(volumes)
    sizes = np.array([g.size for g in run.layout.groups])
    assert all(
        np.average(s["heat"], weights=sizes) == pytest.approx(s["kept"], abs=1e-3) for s in steps
    )


@pytest.mark.parametrize("kind", ["front", "generations", "toy", "drag"])
def test_the_html_stands_alone(run, kind):
    figure = {
        "front": lambda: explore.front(run),
        "generations": lambda: explore.generations(run),
        "toy": explore.toy,
        "drag": lambda: explore.drag({"A": (0.1, 100), "B": (0.3, 30)}),
    }[kind]()
    html = figure._repr_html_()
    assert html == figure._repr_html_()
    assert re.findall(r"https?://[^\"' ]+", html) == [
        "http://www.w3.org/2000/svg"
    ]  # a name, not an address
    assert not re.search(r"\b(fetch|XMLHttpRequest|import)\b *\(|src=|@import|url\(", html)
    text = re.search(r'<script type="application/json">(.*?)</script>', html).group(1)
    assert json.loads(text)["kind"] == kind
