"""The benchmark: its page is true to its results, and what it compares is comparable."""

from __future__ import annotations

import copy
import json
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
import bench  # noqa: E402

NETS = ("vgg-tiny", "resnet8", "densenet10")


def network(name):
    model = shake(models.build(name))
    return model, trace(model, torch.zeros(1, 3, 32, 32))


def images(n=4):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_page_says_what_was_measured():
    results = json.loads(bench.RESULTS.read_text())
    for some in bench.by_processor(results["rows"]).values():
        assert [r["row"] for r in some] == list(bench.ROWS)
    assert {r["row"] for r in results["tried"]} == set(bench.TRIED)
    assert bench.PAGE.read_text() == bench.page(results)
    for row in results["rows"]:
        assert row["met"] == all(m.get("met", True) for m in row["measures"])
        for m in row["measures"]:
            assert m["low"] <= m["median"] <= m["high"]
            if "met" in m:
                assert m["met"] == (m["median"] <= m["at_most"] if "at_most" in m else m["median"] >= m["at_least"])
    assert all("met" in row["measures"][0] for row in results["rows"]), "every row has a goal"


def test_results_name_no_place():
    assert not re.search(r"/(home|root|work|tmp|Users)\b", bench.RESULTS.read_text() + bench.PAGE.read_text())


@pytest.mark.parametrize("name", NETS)
def test_both_libraries_and_the_authors_way_remove_the_same_filters(name, rng, tmp_path):
    pytest.importorskip("torch_pruning")
    model, layout = network(name)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    genome = random_genome(layout, rng)
    ours = slim(model, layout, genome)
    theirs = bench.rebuilt(name, tmp_path / "weights.pth", layout, genome).eval()
    library = bench.by_torch_pruning(model, layout, genome)
    for other in (theirs, library):
        state = other.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in ours.state_dict().items() if "num_batches" not in key)
    x = images(1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        theirs(x)
    assert bench.profiled(theirs, x) == layout.macs(genome) == counter.get_total_flops() / 2


def test_the_authors_way_trains_and_counts(tmp_path):
    digits = data.load("digits")
    model = models.build("resnet8", channels=1)
    layout = trace(model, torch.zeros(1, 1, 32, 32))
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    whole = np.ones(layout.n_bits, dtype=bool)
    candidate = bench.rebuilt("resnet8", tmp_path / "weights.pth", layout, whole, channels=1)
    loaders = (bench.loader(split.first(20), digits, 10) for split in (digits.train, digits.search))
    error, macs = bench.by_later_code(candidate, *loaders, 1, torch.zeros(1, 1, 32, 32))
    assert 0 <= error <= 1 and macs == layout.macs(whole)
    assert not torch.equal(candidate.conv1.weight, model.conv1.weight)


@pytest.mark.parametrize("step", [8, 16])
@pytest.mark.parametrize("name", NETS)
def test_padding_leaves_the_function(name, step, rng):
    model, layout = network(name)
    tree, x = copy.deepcopy(model), images()
    for genome in (random_genome(layout, rng), random_genome(layout, rng)):
        wide = bench.padded(layout, genome, step)
        assert (wide >= genome).all()
        assert all(wide[g.bits].sum() in (g.size, -(-genome[g.bits].sum() // step) * step) for g in layout.groups)
        plain, filled = slim(model, layout, genome), bench.cut_padded(tree, model, layout, genome, step)
        with torch.no_grad():
            a, b = plain(x), filled(x)
            assert (a - b).abs().max() <= 1e-5 * a.abs().max()
            a, b = plain.train()(x), filled.train()(x)  # also while batch norm is re-estimated
            assert (a - b).abs().max() <= 1e-4 * a.abs().max()
        filled.eval()


@pytest.mark.parametrize("name", NETS)
def test_folding_leaves_the_function(name, rng):
    model, layout = network(name)
    folded, x = bench.Folded(model, layout), images()
    for genome in (random_genome(layout, rng), random_genome(layout, rng)):
        small = slim(model, layout, genome)
        with torch.no_grad():
            assert torch.allclose(folded(small)(x), small(x), rtol=1e-4, atol=1e-4)


def test_random_genomes_have_about_the_share_of_macs_asked_for():
    layout = bench.network("resnet8")[1]
    shares = [bench.left(layout, g) for g in bench.halves(layout, 3)]
    assert all(abs(share - 0.5) < 0.05 for share in shares) and len(set(shares)) == 3


def test_ways_are_measured_in_turn():
    called, now = [], iter(range(100))
    seconds, answers = bench.alternate({"a": lambda r: called.append(("a", r)), "b": lambda r: r}, 2, clock=lambda: next(now))
    assert [r for _, r in called] == [0, 0, 1] and answers == {"a": None, "b": 1}
    assert {name: len(s) for name, s in seconds.items()} == {"a": 2, "b": 2}


def test_a_measure_knows_its_goal():
    m = bench.measure("x", [1.0, 2.0, 4.0], "ms", at_most=2)
    assert (m["median"], m["low"], m["high"], m["met"]) == (2, 1.5, 3, True)
    assert not bench.measure("x", [1.0], "x", at_least=1.1)["met"]


def test_each_processor_keeps_its_rows():
    def row(name, instructions, median):
        m = bench.measure("strategy", [median], "ms", at_most=20)
        return {
            "row": name,
            "measures": [m],
            "machine": {"cpu": "A", "cores": 2, "torch": "2", "instructions": instructions},
            "load": 0.1,
            "seconds": 60,
        }

    results = {"rows": [], "tried": []}
    for one in (row("strategy", "AVX2", 1.0), row("strategy", "AVX512", 30.0), row("build", "AVX2", 3.0), row("strategy", "AVX2", 2.0)):
        results = bench.kept_rows(results, one)
    assert [(bench.processor(r), r["row"], r["measures"][0]["median"]) for r in results["rows"]] == [
        ("A with AVX2", "build", 3), ("A with AVX2", "strategy", 2), ("A with AVX512", "strategy", 30)
    ]  # fmt: skip
    assert "| strategy | at most 20 ms | 2.00 ms, met | 30.0 ms, **not met** |" in bench.page(results)
    assert "On A with AVX512, 0 of 1 goals are met; not met: strategy." in bench.page(results)


def test_a_row_runs(monkeypatch):
    monkeypatch.setitem(bench.ROWS, "strategy", lambda: bench.strategy(generations=3, name="vgg-tiny"))
    row = bench.run("strategy")
    assert row["met"] and {"cpu", "cores", "torch", "threads"} <= set(row["machine"])
    assert all(m["median"] > 0 for m in row["measures"])


def test_an_unknown_row_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench.py", "speed"])
    assert bench.main() == 2 and "unknown row 'speed'" in capsys.readouterr().err
