"""The studies of fitness and of running time: statistics against other sources, resumption, pages
true to their results.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from dpes.coupling.genome import to_hex
from dpes.coupling.tracing import trace
from dpes.disk import read_json
from dpes.study import data, models
from dpes.study.settings import Training
from dpes.study.train import error_rate

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import fitness  # noqa: E402
import fitness_errors  # noqa: E402
import fitness_orders  # noqa: E402
import harness  # noqa: E402
import scaling  # noqa: E402


# ---- the study, small ----------------------------------------------------------------------------
@pytest.fixture
def small(monkeypatch, tmp_path):
    """A function that makes the study of four genomes of a tiny network on digits, and continues
    it.
    """
    tiny = replace(fitness_errors.BASE, calibration_images=64, search_images=50, batch_size=32)
    partial = replace(tiny, fitness="partial", partial_epochs=1, partial_images=64)
    searches = {
        "cut": replace(tiny, fitness="none"),
        "recalibrated": tiny,
        "brief_stale": replace(partial, precision="bfloat16"),
        "brief": replace(partial, fitness="partial-recalibrate", precision="bfloat16"),
        "partial": partial,
        "partial_fast": replace(partial, partial_lr=0.01),
    }
    monkeypatch.setattr(fitness_errors, "SEARCHES", searches)
    monkeypatch.setattr(fitness_errors, "FINETUNE", Training(epochs=1, lr=0.02, images=64))
    monkeypatch.setattr(fitness_errors, "JUDGED", 50)
    monkeypatch.setattr(fitness_errors, "CHECKPOINTS", tmp_path)
    network, digits = models.build("resnet8", channels=1).eval(), data.load("digits")
    return lambda name="fitness.json": fitness_errors.Study(
        network, digits, tmp_path / name, genomes=4
    )


def without_times(stored):
    text = re.sub(r'"(cpu_)?seconds": [0-9.]+', "", json.dumps(stored, sort_keys=True))
    assert "finetuned" in text and "seconds" not in text
    return text


def test_study_continues_where_it_stopped_to_the_same_numbers(small, monkeypatch):
    whole = small()
    whole.run(finetuned=3)
    assert [("finetuned" in r) for r in whole.stored["rows"]].count(
        True
    ) == 3 and whole.stored == read_json(whole.results)
    assert (
        whole.stored["unpruned"]["recalibrated"]["search"] <= 1 and len(whole.stored["rows"]) == 4
    )

    def stop(study, row):
        raise KeyboardInterrupt

    broken = small("broken.json")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(fitness_errors.Study, "finetune", stop)
        broken.run()
    kept = read_json(broken.results)
    assert len(kept["rows"]) == 4 and not any("finetuned" in r for r in kept["rows"])
    # as if written before there was such a fitness
    del kept["rows"][1]["brief"], kept["unpruned"]["brief"]
    broken.results.write_text(json.dumps({**kept, "rows": kept["rows"][:2]}))
    again = small("broken.json")
    again.run(finetuned=3)
    assert without_times(again.stored) == without_times(whole.stored)
    before = again.results.read_text()
    small("broken.json").run(finetuned=3)  # nothing left to do
    assert again.results.read_text() == before


def test_study_refuses_results_of_other_genomes(small):
    study = small()
    study.stored["rows"] = [{"index": 0, "genome": to_hex(~study.genomes[0])}]
    study.keep()
    with pytest.raises(SystemExit, match="genome 0 is another one"):
        small()


def test_row_holds_the_errors_of_the_fitness(small):
    study = small()
    row = study.row(0)
    assert study.complete(row) and not study.complete(row)
    assert row["recalibrated"]["search"] == study.fitness["recalibrated"](study.genomes[0])
    bench = study.fitness["recalibrated"].scratch
    assert row["recalibrated"]["test"] == error_rate(
        bench, study.dataset.test.first(50), study.dataset
    )
    judged = study.dataset.search.first(50)
    with torch.no_grad():
        logits = bench(data.normalise(judged.x, study.dataset))
    assert row["recalibrated"]["search_loss"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, judged.y)), rel=1e-4
    )


def test_genomes_are_the_same_whenever_drawn():
    layout = trace(models.build("resnet56", source="akamaster"), torch.zeros(1, 3, 32, 32))
    fractions, genomes = fitness_errors.random_genomes(40, layout.group_of_bit)
    assert np.array_equal(genomes, fitness_errors.random_genomes(40, layout.group_of_bit)[1])
    assert (
        np.allclose(genomes.mean(1), fractions, atol=0.06)
        and 0.3 <= fractions.min()
        and fractions.max() <= 0.98
    )
    assert all(genomes[:, g.bits].any(1).all() for g in layout.groups)


@given(st.integers(1, 200))
def test_order_of_fine_tunings_is_spread(n):
    order = fitness_errors.spread(n)
    assert sorted(order) == list(range(n))
    for k in (1, 3, 7):
        if n >= 8 * k:  # every beginning of 2^j - 1 leaves no gap of more than a step
            assert np.diff([0, *sorted(order[:k]), n]).max() <= n / (k + 1) + 1


# ---- statistics ----------------------------------------------------------------------------------
def test_correlations_are_scipys(rng):
    x = rng.normal(size=40).round(1)
    y = (x + rng.normal(size=40)).round(1)
    estimate, low, high = fitness_orders.spearman(x, y)
    assert estimate == pytest.approx(spearmanr(x, y).statistic) and low < estimate < high
    assert fitness_orders.spearman(x, y) == (estimate, low, high)
    z = x + rng.normal(size=40)
    rx, ry, rz = (
        np.argsort(np.argsort(v)).astype(float)
        for v in (x + 1e-9 * np.arange(40), y + 1e-9 * np.arange(40), z)
    )
    left = [v - np.polyval(np.polyfit(rz, v, 1), rz) for v in (rx, ry)]
    beyond = fitness_orders.spearman_beyond(rx, ry, rz)
    assert (
        beyond[0] == pytest.approx(np.corrcoef(*left)[0, 1]) and beyond[1] < beyond[0] < beyond[2]
    )


def test_interval_covers_about_as_often_as_it_says(rng):
    """95 % of samples of 40 should have the true rank correlation of a normal pair, 6/pi
    arcsin(rho/2), in their interval.
    """
    truth, hits = 6 / np.pi * np.arcsin(0.6 / 2), 0
    for _ in range(60):
        x = rng.normal(size=40)
        y = 0.6 * x + 0.8 * rng.normal(size=40)
        _, low, high = fitness_orders.spearman(x, y)
        hits += low <= truth <= high
    assert 50 <= hits <= 60


def test_neighbours_by_hand():
    left = np.array([0.50, 0.52, 0.54, 0.90])
    pairs, (share, low, high) = fitness_orders.neighbours(
        np.array([1.0, 2.0, 2.0, 0.0]), np.array([1.0, 2.0, 3.0, 0.0]), left
    )
    # the last one has no neighbour, a tie counts half
    assert (pairs, share) == (3, pytest.approx(2.5 / 3)) and low <= share <= high
    assert fitness_orders.neighbours(left, left, np.array([0.1, 0.3, 0.5, 0.9]))[0] == 0
    assert fitness_orders.neighbours(-left, left, left)[1][0] == 0


def made_up(rng, honest):
    """Forty candidates whose recalibrated error tells all beyond the MACs, or nothing."""
    rows = []
    for i in range(40):
        left, own = rng.uniform(0.05, 0.95), rng.normal(0, 0.05)
        error = float(np.clip(0.9 - 0.8 * left + own, 0, 1))
        told = error if honest else float(np.clip(0.9 - 0.8 * left + rng.normal(0, 0.05), 0, 1))
        entry = {
            "search": told,
            "test": told,
            "seconds": 1.0,
            "cpu_seconds": 1.0,
            "search_loss": told,
        }
        row = {
            "index": i,
            "macs": int(1e6 * left),
            "cut": entry,
            "recalibrated": entry,
            "brief_stale": entry,
            "brief": entry,
            "partial": entry,
        }
        row["partial_fast"] = {"search": error, "test": error, "seconds": 5.0, "cpu_seconds": 5.0}
        rows.append(row | ({"finetuned": {"test": error, "seconds": 100.0}} if i < 6 else {}))
    return {"unpruned": rows[0] | {"macs": 10**6}, "rows": rows}


@pytest.mark.parametrize(
    "honest, words", [(True, "better than chance**, with"), (False, "misleads")]
)
def test_verdict_follows_from_the_numbers(honest, words, rng):
    stored = made_up(rng, honest)
    numbers = fitness.numbers_of(stored)
    assert words in fitness.verdict(numbers) and words in fitness.text(stored)
    beyond, *_ = numbers["table"]["recalibrated"]["trained_beyond"]
    assert beyond > 0.9 if honest else beyond < 0.6


def test_page_of_a_study_in_progress(rng):
    stored = made_up(rng, honest=True)
    stored["rows"] = [{k: v for k, v in r.items() if k != "finetuned"} for r in stored["rows"][:12]]
    text = fitness.text(stored)
    assert (
        "12 of 40 random genomes" in text
        and "None is finished yet" in text
        and "<" not in re.sub(r"<[/a-z]", "", text)
        and "nan" not in text
    )
    assert len(fitness.draw(stored).axes) == 3


# ---- what is published ---------------------------------------------------------------------------
def test_published_fitness_page_is_true_to_its_results():
    stored = harness.stored("fitness")
    numbers = fitness.numbers_of(stored)
    done = numbers["rows"] == fitness.GENOMES and numbers["finetuned"] >= fitness.FINETUNED
    if not done and harness.page("fitness").read_text() != fitness.text(stored):
        pytest.skip("the measurement goes on: python benchmarks/fitness.py, then --page")
    assert (
        harness.page("fitness").read_text() == fitness.text(stored)
        and fitness.FIGURE.stat().st_size > 10_000
    )
    # "so it has seen"
    assert (
        stored["unpruned"]["recalibrated"]["search"]
        < 0.5 * stored["unpruned"]["recalibrated"]["test"]
    )
    if done:  # what the prose says of any numbers
        # "MACs alone order random genomes nearly as training does"
        assert numbers["table"]["macs"]["trained"][0] > 0.8
        # "whatever follows the MACs orders them nearly without a mistake"
        assert numbers["table"]["macs"]["finetuned"][0] > 0.9
        assert numbers["repeat"][0] > 0.95  # "2,000 images are enough to repeat the order"


def test_published_scaling_page_is_true_to_its_results():
    stored = harness.stored("scaling")
    assert harness.page("scaling").read_text() == scaling.text(stored)
    for barrier in stored["barrier"]:
        rounds = -(-stored["population"] // barrier["workers"])
        assert rounds <= barrier["measured"] / stored["nap"] < rounds + 0.5
    for net in stored["nets"]:  # "Layers of odd widths use the processor less well"
        assert net["slim_macs_per_second"] < net["macs_per_second"]
    # "the search is not the problem"
    assert scaling.estimate(stored, "recalibrated", 100, 30).searching_seconds < 600


def test_example_of_the_scaling_page_prints_what_it_shows():
    text = harness.page("scaling").read_text()
    code, shown = (
        re.search(r"```python\n(.*?)\n```", text, re.S)[1],
        re.search(r"```text\n(.*?)\n```", text, re.S)[1],
    )
    assert scaling.output_of(code) == shown
    last = [line for line in shown.splitlines() if line.startswith(("16", "32"))]
    # "nothing is gained"
    assert (
        last[0].split("workers:")[1].split(" s,")[0] == last[1].split("workers:")[1].split(" s,")[0]
    )


def test_estimates_of_the_cluster():
    stored = harness.stored("scaling")
    one, hundred = (scaling.estimate(stored, "all", gpus, 30) for gpus in (1, 100))
    assert hundred.rounds == 9 and one.rounds == one.candidates == 241
    wide = scaling.estimate(stored, "all", 100, 100)
    assert (
        wide.searching_seconds == pytest.approx(hundred.searching_seconds)
        and wide.candidates == 801
    )
    assert (
        scaling.estimate(stored, "all", 100, 30, cores=2).searching_seconds
        > hundred.searching_seconds
    )
    rate = scaling.gpu_macs_per_second(stored) / (3 * stored["imagenet"]["macs"])
    assert rate == pytest.approx(scaling.assumed("training_images_per_second"))
