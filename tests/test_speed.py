"""The benchmark: its page is true to its results, and what it compares is comparable."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_genome, shake
from torch.utils.flop_counter import FlopCounterMode

from dpes import slim, trace
from dpes.study import data, models

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import harness  # noqa: E402
import speed  # noqa: E402
import speed_others  # noqa: E402
import speed_rows  # noqa: E402

NETS = ("vgg-tiny", "resnet8", "densenet10")


def network(name):
    model = shake(models.build(name))
    return model, trace(model, torch.zeros(1, 3, 32, 32))


def images(n=4):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_page_says_what_was_measured():
    rows = harness.stored("speed")
    for some in speed.by_processor(rows).values():
        measured = [r["row"] for r in some]
        assert measured == [name for name in speed.ROWS if name in measured]
    assert {r["row"] for r in rows} == set(speed.ROWS)
    assert harness.page("speed").read_text() == speed.text(rows, harness.stored("tried"))
    for row in rows:
        for m in row["measures"]:
            assert m["low"] <= m["median"] <= m["high"]
            if "met" in m:
                least, most = m.get("at_least", 0), m.get("at_most", float("inf"))
                assert m["met"] == (least <= m["median"] <= most)
    assert all("met" in row["measures"][0] for row in rows), "every row has a goal"


def test_results_name_no_place():
    for name in ("speed", "tried", "fitness", "scaling", "zoo"):
        files = (harness.results(name), harness.page(name))
        text = "".join(file.read_text() for file in files if file.exists())
        assert not re.search(r"/(home|root|work|tmp|Users)\b", text)


@pytest.mark.parametrize("name", NETS)
def test_both_libraries_and_the_authors_way_remove_the_same_filters(name, rng, tmp_path):
    pytest.importorskip("torch_pruning")
    model, layout = network(name)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    genome = random_genome(layout, rng)
    ours = slim(model, layout, genome)
    theirs = speed_others.rebuilt(name, tmp_path / "weights.pth", layout, genome).eval()
    library = speed_others.by_torch_pruning(model, layout, genome)
    for other in (theirs, library):
        state = other.state_dict()
        assert all(
            torch.equal(value, state[key])
            for key, value in ours.state_dict().items()
            if "num_batches" not in key
        )
    x = images(1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        theirs(x)
    assert speed_others.profiled(theirs, x) == layout.macs(genome) == counter.get_total_flops() / 2


def test_the_authors_way_trains_and_counts(tmp_path):
    digits = data.load("digits")
    model = models.build("resnet8", channels=1)
    layout = trace(model, torch.zeros(1, 1, 32, 32))
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    whole = np.ones(layout.n_bits, dtype=bool)
    candidate = speed_others.rebuilt("resnet8", tmp_path / "weights.pth", layout, whole, channels=1)
    loaders = (
        speed_others.loader(split.first(20), digits, 10) for split in (digits.train, digits.search)
    )
    error, macs = speed_others.by_later_code(candidate, *loaders, 1, torch.zeros(1, 1, 32, 32))
    assert 0 <= error <= 1 and macs == layout.macs(whole)
    assert not torch.equal(candidate.conv1.weight, model.conv1.weight)


def test_random_genomes_have_about_the_share_of_macs_asked_for():
    layout = harness.network("resnet8")[1]
    shares = [harness.left(layout, g) for g in harness.halves(layout, 3)]
    assert all(abs(share - 0.5) < 0.05 for share in shares) and len(set(shares)) == 3


def test_ways_are_measured_in_turn():
    called, now = [], iter(range(100))
    seconds, answers = harness.alternate(
        {"a": lambda r: called.append(("a", r)), "b": lambda r: r}, 2, clock=lambda: next(now)
    )
    assert [r for _, r in called] == [0, 0, 1] and answers == {"a": None, "b": 1}
    assert {name: len(s) for name, s in seconds.items()} == {"a": 2, "b": 2}


def test_a_measure_knows_its_goal():
    m = harness.measure("x", [1.0, 2.0, 4.0], "ms", at_most=2)
    assert (m["median"], m["low"], m["high"], m["met"]) == (2, 1.5, 3, True)
    assert not harness.measure("x", [1.0], "x", at_least=1.1)["met"]


def test_each_processor_keeps_its_rows():
    def row(name, instructions, median):
        m = harness.measure("strategy", [median], "ms", at_most=20)
        facts = {"cpu": "A", "cores": 2, "torch": "2", "instructions": instructions}
        return {"row": name, "measures": [m], "machine": facts, "load": 0.1, "seconds": 60}

    rows = []
    for one in (
        row("strategy", "AVX2", 1.0),
        row("strategy", "AVX512", 30.0),
        row("build", "AVX2", 3.0),
        row("strategy", "AVX2", 2.0),
    ):
        rows = speed.replaced(rows, one)
    found = [(speed.processor(r), r["row"], r["measures"][0]["median"]) for r in rows]
    assert found == [
        ("A with AVX2", "build", 3),
        ("A with AVX2", "strategy", 2),
        ("A with AVX512", "strategy", 30),
    ]
    page = speed.text(rows, [])
    assert "| strategy | at most 20 ms | 2.00 ms, met | 30.0 ms, **not met** |" in page
    assert "On A with AVX512, 0 of 1 goals are met; not met: strategy." in page


def test_a_row_runs(monkeypatch):
    monkeypatch.setitem(
        speed.ROWS, "strategy", lambda: speed_rows.strategy(generations=3, name="vgg-tiny")
    )
    row = speed.run("strategy")
    assert row["met"] and {"cpu", "cores", "torch", "threads"} <= set(row["machine"])
    assert all(m["median"] > 0 for m in row["measures"])


def test_an_unknown_row_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speed.py", "fast"])
    assert speed.main() == 2 and "unknown row 'fast'" in capsys.readouterr().err
