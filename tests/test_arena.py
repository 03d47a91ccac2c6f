"""The tournament's rows: the same however often they are stopped, refused when they are others,
brought to equal MACs by rule.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dpes import trace
from dpes.coupling import importance
from dpes.coupling.genome import from_hex, to_hex
from dpes.disk import write_json
from dpes.errors import DpesError, RunError, SettingsError
from dpes.fields import to_dict
from dpes.report import arena as report
from dpes.report import contest, truth
from dpes.strategy.history import Candidate, History
from dpes.study import arena, baseline, criteria, data, fidelity, models, rows, tournament, tuning
from dpes.study.methods import CONFIRMED, METHODS, TOP, seeded
from dpes.study.profiles import make_settings
from dpes.study.tuning import Task

tp = pytest.importorskip("torch_pruning")


@pytest.fixture(scope="module")
def bench():
    """A tiny untrained network on digits."""
    small = arena.Arena(
        "resnet8",
        "digits",
        "train",
        calibration_images=32,
        search_images=60,
        tune_images=128,
        tune_precision=None,
    )
    model = models.build("resnet8", 10, 1).eval()
    return arena.Bench(small, model, trace(model, torch.zeros(1, 1, 32, 32)), data.load("digits"))


@pytest.fixture
def short(monkeypatch):
    """Searches of 40 evaluations."""
    for name in ("surrogate", "random-widths", "deeppruning"):
        monkeypatch.setitem(METHODS, name, replace(METHODS[name], evaluations=40, pool=100))


@pytest.mark.parametrize("name", ["surrogate", "random-widths", "deeppruning", "uniform-l1"])
def test_a_row_that_was_stopped_goes_on_to_the_same_bytes(bench, short, tmp_path, name):
    rows.run_row(bench, tmp_path, name, 1, known := {})
    path = rows.row_path(tmp_path, name, 1)
    whole = path.read_bytes()
    assert rows.finished(tmp_path, name, 1) and len(whole.splitlines()) == 1 + rows.total(name)
    for cut in (len(whole) - 30, len(whole) // 2, len(whole.splitlines(True)[0]) + 5, 10):
        path.write_bytes(whole[:cut])
        assert not rows.finished(tmp_path, name, 1)
        rows.run_row(bench, tmp_path, name, 1, {} if cut > len(whole) - 31 else known)
        assert path.read_bytes() == whole


def test_a_finished_row_costs_nothing_and_errors_are_shared(bench, short, tmp_path):
    ticks: list[float] = []
    known: dict[str, float] = {}
    rows.run_row(bench, tmp_path, "random-widths", 0, known, ticks.append)
    drawn = len(ticks)
    assert 30 < drawn == len(known) <= 40
    rows.run_row(bench, tmp_path, "random-widths", 0, {}, ticks.append)
    assert len(ticks) == drawn
    assert rows.known_errors(tmp_path, bench) == known
    rows.run_row(bench, tmp_path, "surrogate", 0, known, ticks.append)
    assert 0 < len(ticks) - drawn <= 10  # they start at the same 30 networks
    with pytest.raises(RunError, match="of another arena; use another folder$"):
        rows.known_errors(tmp_path, replace(bench, arena=arena.Arena()))


def test_a_method_may_judge_by_another_fitness_and_shares_no_errors_then(
    bench, tmp_path, monkeypatch
):
    brief = replace(METHODS["surrogate-brief"], evaluations=4, first=3)
    monkeypatch.setitem(METHODS, "surrogate-brief", brief)
    rows.run_row(bench, tmp_path, "surrogate-brief", 0, known := {})
    assert len(known) == 4 and all(name.endswith(" 8 steps, recalibrated") for name in known)
    assert rows.known_errors(tmp_path, bench) == known
    first = rows.read_row(rows.row_path(tmp_path, "surrogate-brief", 0))[1][0]
    genome = from_hex(first["genome"], bench.layout.n_bits)
    assert first["error"] == bench.fitness_of("8 steps, recalibrated")(genome)


def test_rows_of_others_are_refused(bench, short, tmp_path):
    rows.run_row(bench, tmp_path, "random-widths", 0, {})
    path = rows.row_path(tmp_path, "random-widths", 0)
    lines = path.read_text().splitlines(True)
    path.write_text(lines[0].replace('"seed": 0', '"seed": 9') + "".join(lines[1:]))
    with pytest.raises(RunError, match="of another seed; delete it, and it is made again"):
        rows.run_row(bench, tmp_path, "random-widths", 0, {})
    path.write_text("".join([lines[0], lines[2], lines[1], *lines[3:20]]))
    with pytest.raises(RunError, match="candidate 0 is another one"):
        rows.run_row(bench, tmp_path, "random-widths", 0, {})
    path.write_text("no json\n")
    with pytest.raises(RunError, match="damaged .*; delete it"):
        rows.read_row(path)


def test_rows_of_another_network_are_refused_before_anything_is_shared(bench, short, tmp_path):
    """A network that is trained here has other bits on another processor, but the same arena."""
    rows.run_row(bench, tmp_path, "uniform-l1", 0, {})
    other = replace(bench, model=models.build("resnet8", 10, 1, seed=5).eval())
    with pytest.raises(RunError, match="uniform-l1-s0.jsonl: of another network; use another"):
        rows.known_errors(tmp_path, other)
    tuning.tune(bench, tmp_path, Task("uniform-l1", 0, 0.5, 0), {})
    tuning.check_tuned(tmp_path, bench)
    with pytest.raises(RunError, match="m50-t0.json: of another network; use another"):
        tuning.check_tuned(tmp_path, other)
    path = rows.row_path(tmp_path, "uniform-l1", 0)
    path.write_text(path.read_text().replace('"network"', '"net"'))
    with pytest.raises(RunError, match="names no network, so it is from an older version; delete"):
        rows.known_errors(tmp_path, bench)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"uniform-l1"', '"uniform-l2"', "a method that is not known here, 'uniform-l2'"),
        ('"uniform-l1"', '["uniform-l1"]', "its first line says not what it is"),
        ('"parts": {', '"parts": "x", "p": {', "its first line says not what it is"),
        ('"n_bits": ', '"n_bits": 9', "a genome that has not 9"),
        ('"n_bits": ', '"n_bits": -', "its network has no filters"),
        ('"macs": ', '"macs": -', "its network has no filters"),
    ],
)
def test_a_row_whose_first_line_is_damaged_is_named(bench, tmp_path, old, new, words):
    rows.run_row(bench, tmp_path, "uniform-l1", 0, {})
    path = rows.row_path(tmp_path, "uniform-l1", 0)
    lines = path.read_text().splitlines(True)
    head = lines[0].rpartition(old)  # the last: the arena before it has numbers of such names
    path.write_text("".join([head[0], new, head[2], *lines[1:]]))
    with pytest.raises(RunError, match=re.escape(f"uniform-l1-s0.jsonl: damaged ({words}")):
        report.candidates(tmp_path)


def test_a_finished_row_of_another_method_or_network_is_not_fine_tuned(bench, short, tmp_path):
    rows.run_row(bench, tmp_path, "uniform-l1", 0, {})
    path = rows.row_path(tmp_path, "uniform-l1", 0)
    whole = path.read_text()
    for old, new in (('"seed": 0', '"seed": 1'), ('"macs": ', '"macs": 1'), ('"l1"}', '"bn"}')):
        path.write_text(whole.replace(old, new, 1))
        with pytest.raises(RunError, match=r"uniform-l1-s0.jsonl: of another (seed|macs|parts);"):
            tuning.tune(bench, tmp_path, Task("uniform-l1", 0, 0.5, 0), {})


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("a-m50-t0", {"share": "x"}, "share is 'x'"),
        ("a-m50-t0", {"recipe": None}, "recipe is None"),
        ("a-m50-t0", {"method": "b"}, "a method that is not known here, 'b'"),
        ("a-m50-t0-long", {"recipe": {"lr": "x"}}, "no learning rate in its recipe"),
    ],
)
def test_a_fine_tuning_that_says_not_what_it_is_is_named(tmp_path, name, changes, words):
    entry = {"method": "uniform-l1", "seed": 0, "share": 0.5, "training": 0, "recipe": {"lr": 0.1}}
    (tmp_path / "tuned").mkdir()
    write_json(path := tmp_path / "tuned" / f"{name}.json", entry)
    assert tuning.read_tuned(tmp_path, "long" in name) == [entry]
    write_json(path, entry | changes)
    with pytest.raises(RunError, match=re.escape(f"{name}.json: damaged ({words}")):
        report.tuned(tmp_path, "long" in name)


@pytest.mark.parametrize("fitness", [False, True])
def test_a_network_whose_results_are_here_and_whose_weights_are_not_is_not_trained_for_an_hour(
    tmp_path, monkeypatch, fitness
):
    monkeypatch.setattr(arena, "prepare", lambda *what: pytest.fail("trains it"))
    monkeypatch.setattr(data, "folders", lambda: [tmp_path])
    options = tournament.Options(tmp_path / "rows", model="vgg16", only="uniform-l1")
    row(options.rows, "uniform-l1", of=arena.ARENAS["vgg16"])
    with pytest.raises(RunError, match="rows of a vgg16 whose weights are not here; use another"):
        tournament.run(options, fitness=fitness)
    (path := baseline.file_of(arena.ARENAS["vgg16"].settings)).parent.mkdir()
    path.touch()
    rows.check_folder(options.rows, arena.ARENAS["vgg16"])
    path.unlink()
    rows.row_path(options.rows, "uniform-l1", 0).unlink()  # a fine-tuning alone is of one, too
    (options.rows / "tuned").mkdir()
    (options.rows / "tuned" / "uniform-l1-s0-m50-t0.json").touch()
    with pytest.raises(RunError, match="rows of a vgg16 whose weights are not here"):
        rows.check_folder(options.rows, arena.ARENAS["vgg16"])


@pytest.mark.parametrize("how", [{}, {"workers": 3}, {"left": True}, {"fitness": True}])
def test_the_folder_of_another_arena_is_refused_before_anything_starts(tmp_path, monkeypatch, how):
    """--folder data/arena/densenet22 instead of --model densenet22."""
    monkeypatch.setattr(arena, "prepare", lambda *what: pytest.fail("starts"))
    monkeypatch.setattr(tournament, "beside", lambda *what: pytest.fail("starts others"))
    row(tmp_path, "uniform-l1", of=arena.ARENAS["densenet22"])
    with pytest.raises(
        RunError, match="uniform-l1-s0.jsonl: of another arena; use another folder$"
    ):
        tournament.run(tournament.Options(tmp_path), **how)


def test_the_network_at_a_cut_is_that_of_least_search_error_and_ties_go_to_the_lighter():
    F = [(0.1, 0.9), (0.3, 0.6), (0.2, 0.7), (0.2, 0.65), (np.inf, 0.1)]
    history = History([Candidate(genome="e0", error=e, macs=c) for e, c in F], n_bits=3)
    assert [tuning.chosen(history, s) for s in (1, 0.7, 0.62, 0.5)] == [0, 3, 1, None]


def test_a_method_that_pays_for_bottlenecks_counts_them_when_it_chooses(bench):
    space = bench.space
    narrow = space.genomes(
        np.where(np.arange(len(space.sizes)) == 1, 1, space.sizes), space.orders["fpgm"]
    )
    even = space.genomes(np.ceil(0.9 * space.sizes).astype(int), space.orders["fpgm"])
    lines = [
        Candidate(genome=to_hex(g), error=e, macs=bench.layout.macs(g))
        for g, e in ((narrow, 0.30), (even, 0.31))
    ]
    history = History(lines, n_bits=space.n_bits, whole=bench.whole)
    for name, taken in (("surrogate-half", narrow), ("surrogate-toll", even)):
        genome = tuning.at_equal_macs(bench, history, name, 0, history.F[:, 1].max())
        assert (genome & taken == taken).all()


def test_a_network_is_brought_to_equal_macs_trained_once_and_written(bench, short, tmp_path):
    rows.run_row(bench, tmp_path, "uniform-l1", 0, known := {})
    entry = tuning.tune(bench, tmp_path, Task("uniform-l1", 0, 0.5, 0), known)
    assert (
        0.45 < entry["macs"] / bench.whole <= 0.5
        and entry["macs"] >= entry["found_macs"] * bench.whole - 1
    )
    assert 0 <= entry["test_error"] <= 1 and entry["search_error"] == known[entry["genome"]]
    assert (
        tuning.tune(bench, tmp_path, Task("uniform-l1", 0, 0.5, 0), {})
        == entry
        == tuning.read_tuned(tmp_path)[0]
    )
    again = tuning.trained(
        bench,
        np.unpackbits(np.frombuffer(bytes.fromhex(entry["genome"]), np.uint8))[
            : bench.layout.n_bits
        ]
        > 0,
        bench.arena.recipe(),
        0,
    )
    assert again["test_error"] == entry["test_error"]
    assert (
        tuning.same_network(tmp_path, entry["genome"], entry)["test_error"] == entry["test_error"]
    )
    assert tuning.same_network(tmp_path, "00", entry) is None


def test_the_unpruned_network_and_one_with_new_weights_are_trained_alike(
    bench, tmp_path, monkeypatch
):
    unpruned = tuning.tune(bench, tmp_path, Task("unpruned", 1, 1.0, 1), {})
    assert unpruned["macs"] == bench.whole and "found_error" not in unpruned
    with pytest.raises(RunError, match="fine-tune surrogate-fpgm before its network from scratch"):
        tuning.tune(bench, tmp_path, Task("scratch", 1, 0.5, 1), {})
    rows.run_row(bench, tmp_path, "uniform-l1", 0, known := {})
    entry = tuning.tune(bench, tmp_path, Task("uniform-l1", 0, 0.5, 1), known)
    path = Task("surrogate-fpgm", 1, 0.5, 1).path(tmp_path)
    path.write_text(json.dumps(entry | {"method": "surrogate-fpgm", "seed": 1}))
    scratch = tuning.tune(bench, tmp_path, Task("scratch", 1, 0.5, 1), known)
    assert scratch["genome"] == entry["genome"] and scratch["anew"] == "surrogate-fpgm"
    drawn = [bench.drawn(seed).conv1.weight for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    genome = tuning.target(bench, tmp_path, Task("scratch", 1, 0.5, 1))[0]
    monkeypatch.setattr(bench, "drawn", lambda seed: bench.model)  # nothing drawn: fine-tuned
    found = tuning.trained(bench, genome, bench.arena.recipe(), 1, anew=True)
    assert found["test_error"] == entry["test_error"]
    table = report.test_table(report.tuned(tmp_path))
    assert "100 % of the MACs" in table and {"scratch", "unpruned"} <= set(table.index)


def test_fine_tuned_networks_are_judged_by_other_kinds_of_fitness(bench, short, tmp_path):
    rows.run_row(bench, tmp_path, "uniform-l1", 0, known := {})
    rows.run_row(bench, tmp_path, "global-l2", 0, known)
    rows.run_row(bench, tmp_path, "uniform-random", 0, known)
    entries = [
        tuning.tune(bench, tmp_path, Task(name, 0, 0.5, 0), known)
        for name in ("uniform-l1", "global-l2", "uniform-random")
    ]
    assert len(fidelity.missing(tmp_path)) == 3
    fidelity.run(bench, tmp_path)
    assert not fidelity.missing(tmp_path)
    measured = {e["genome"]: e["kinds"] for e in fidelity.read(tmp_path)}
    assert all(measured[e["genome"]]["recalibrated"]["error"] == e["search_error"] for e in entries)
    table = truth.fidelities(tmp_path, 20)
    assert list(table.fitness) == list(bench.arena.kinds()) and set(table.networks) == {3}
    assert truth.agreement(tmp_path).empty  # three networks have no better half


def test_what_networks_keep_is_told_of_the_network_whose_rows_they_are(bench, short, tmp_path):
    for name in ("uniform-l1", "global-l2"):
        rows.run_row(bench, tmp_path, name, 0, known := {})
        for training in (0, 1):  # trained twice it is one network
            tuning.tune(bench, tmp_path, Task(name, 0, 0.5, training), known)
    kept = report.kept(tmp_path, 0.5, bench.layout)
    assert list(kept.index) == ["global-l2", "uniform-l1"]
    assert list(kept.columns) == [group.name for group in bench.layout.groups]
    uniform = kept.loc["uniform-l1"]  # all layers alike, but for rounding to whole filters
    assert uniform.max() - uniform.min() < 0.1 < kept.loc["global-l2"].max()
    assert report.kept(tmp_path, 0.7, bench.layout).empty
    assert report.network(tmp_path / "resnet56") == "resnet56" != report.network(tmp_path)


def test_the_price_of_a_bottleneck_is_found_from_fine_tuned_networks(bench, tmp_path, rng):
    """Errors made of search errors and bottlenecks alone give both back; random masks
    count not, nor searches that paid for bottlenecks.
    """
    space = bench.space
    for k in range(24):
        widths = rng.integers(space.sizes // 4, space.sizes + 1)
        genome, search = space.genomes(widths, space.orders["l1"]), rng.uniform(0.2, 0.5)
        error = 0.05 + 0.1 * search + 0.02 * (1 / space.shares(genome) - 1).mean()
        name = ("deeppruning", "surrogate-toll")[k % 2] if k > 20 else "surrogate"
        errors = {"search_error": search, "train_error": 2 * error, "test_error": error}
        what = {"method": name, "seed": k, "share": 0.5, "training": k, "recipe": {}}
        path = Task(name, k, 0.5, k).path(tmp_path)
        path.parent.mkdir(exist_ok=True)
        write_json(path, what | errors | {"genome": to_hex(genome)})
    assert truth.bottlenecks(tmp_path, 4, bench.layout).empty  # four are too few
    table = truth.bottlenecks(tmp_path, None, bench.layout, 100)
    assert list(table.error) == ["train_error", "test_error"] and set(table.networks) == {21}
    assert [e.value for e in table["search error"]] == pytest.approx([0.2, 0.1])
    assert [e.value for e in table.price] == pytest.approx([0.2, 0.2])


def test_a_search_without_a_network_so_light_says_so(bench, short, tmp_path):
    rows.run_row(bench, tmp_path, "deeppruning", 0, {})
    entry = tuning.tune(bench, tmp_path, Task("deeppruning", 0, 0.05, 0), {})
    assert "test_error" not in entry and tuning.read_tuned(tmp_path) == [entry]


def test_the_plan_takes_main_methods_first_and_each_task_once():
    tasks = tournament.plan([0, 1, 2, 3, 4])
    assert len(tasks) == len(set(tasks)) and {t.name for t in tasks} == set(METHODS)
    searches = [t for t in tasks if not t.share]
    assert [t.name for t in searches[: len(TOP)]] == [*TOP]
    assert [t.seed for t in searches if t.name == "uniform-l1"] == [0]
    for task in tasks:
        if task.share:  # fine-tuned only after its search, by the search's seed or the family's
            before = Task(task.name, task.seed)
            if task.name == "scratch":  # what is trained anew is fine-tuned first
                before = replace(task, name=METHODS["scratch"].of)
            assert task.name == "unpruned" or tasks.index(before) < tasks.index(task)
            assert (task.share == 1) == (task.name == "unpruned")
            assert task.training % tuning.SECOND == task.seed or not seeded(task.name)
    trained = {t.training for t in tasks if t.name == "uniform-l1" and t.share == 0.5}
    assert trained == {0, 1, 2, 3, 4, 100, 101, 102, 103, 104}


def test_a_larger_network_confirms_few_methods_in_a_folder_of_its_own(tmp_path, monkeypatch):
    own, large = (tournament.Options(tmp_path, model=m) for m in ("resnet20", "resnet56"))
    assert own.rows == tmp_path and large.rows == tmp_path / "resnet56"
    tasks = large.tasks()
    assert {t.name for t in tasks} == set(CONFIRMED) and len(tasks) == len(set(tasks)) < 80
    assert {t.share for t in tasks} == {0, 0.5, 1} and not any(t.long for t in tasks)
    assert {t.name for t in replace(large, only="archive").tasks()} == {"archive"}
    assert not any(t.share for t in replace(large, searches=True).tasks())
    done: list[object] = []
    monkeypatch.setattr(tournament, "work", lambda *what: done.append(what))
    monkeypatch.setattr(tournament, "ready", lambda folder, model, device: (model, device))
    tournament.run(replace(large, only="uniform-l1", seeds="0"), say=lambda line: None)
    [(*found, folder, tasks, workers, _)] = done
    assert found == ["resnet56", "cpu"] and folder == tmp_path / "resnet56" and workers == 1
    assert [t.share for t in tasks] == [0, 0.5]


def test_a_network_may_be_trained_long_and_stands_apart(bench, short, tmp_path, monkeypatch):
    longer = replace(arena.Arena("resnet56").recipe(long=True), epochs=2, images=128)
    assert arena.Arena("resnet56").recipe(long=True) == make_settings("cpu").finetune
    own = bench.arena.recipe()

    def recipe(self, long=False, lr=None):
        return replace(longer, lr=lr or longer.lr) if long else own

    monkeypatch.setattr(arena.Arena, "recipe", recipe)
    rows.run_row(bench, tmp_path, "uniform-l1", 0, known := {})
    brief = tuning.tune(bench, tmp_path, Task("uniform-l1", 0, 0.5, 0), known)
    long = tuning.tune(bench, tmp_path, Task("uniform-l1", 0, 0.5, 0, long=True), known)
    assert long["genome"] == brief["genome"] and long["recipe"]["epochs"] == 2
    assert long["train_error"] != brief["train_error"] and 0 < long["unpruned_error"] < 1
    assert len(report.tuned(tmp_path)) == len(report.tuned(tmp_path, long=True)) == 1
    [line] = contest.trained_long(tmp_path, "uniform-l1").to_dict("records")
    lost = 100 * (long["test_error"] - long["unpruned_error"])
    assert line | {"test error": 0, "lost": 0} == {
        "MACs left": "50 %", "method": "uniform L1", "networks": 1, "trainings": 1, "test error": 0, "lost": 0,
        "difference": "–", "peak rate": "0.05", "trained on": "CPU",
    }  # fmt: skip
    assert abs(float(line["lost"]) - lost) < 0.01
    other = long | {"method": "global-l2", "test_error": long["test_error"] + 0.01}
    for device in (None, "a GPU"):  # only the one trained where ours was is compared with it
        entry = other | {"seed": 0, "checksum": None} | ({"device": device} if device else {})
        entry.pop("checksum")
        where = "gpu" if device else "cpu"
        write_json(tmp_path / "tuned" / f"global-l2-{where}-long.json", entry)
    lines = contest.trained_long(tmp_path, "uniform-l1").set_index(["method", "trained on"])
    told = lines.difference.to_dict()
    assert told.pop(("global L2", "CPU")).startswith("-1.0")
    assert set(told.values()) == {"–"} and len(told) == 2
    assert Task("uniform-l1", 0, 0.5, 0, long=True).done(tmp_path)
    # at another rate it is another training, and compared with none at this one
    gentle = Task("uniform-l1", 0, 0.5, 0, long=True, lr=0.001)
    assert not gentle.done(tmp_path)
    entry = tuning.tune(bench, tmp_path, gentle, known)
    assert gentle.done(tmp_path) and entry["recipe"] == long["recipe"] | {"lr": 0.001}
    assert entry["train_error"] != long["train_error"] and len(report.tuned(tmp_path)) == 1
    found = contest.trained_long(tmp_path, "uniform-l1")
    assert set(found[found["peak rate"] == "0.001"].method) == {"uniform L1"}
    assert dict(found.groupby("peak rate").size()) == {"0.001": 1, "0.05": 3}


@pytest.mark.parametrize("name", sorted(set(arena.ARENAS) - {"vgg16"}))
def test_each_arena_names_weights_that_exist(name):
    one = arena.ARENAS[name]
    wanted = make_settings("cpu", model=name, weights=one.weights).baseline_id
    published = Path(__file__).parent.parent / "data" / "baselines" / f"{wanted}.safetensors"
    assert name in models.MODELS and (one.weights == "akamaster" or published.exists())


def test_the_command_names_what_is_wrong_in_one_line(capsys, tmp_path):
    from dpes.__main__ import main

    place = ["--folder", str(tmp_path)]
    assert main(["arena", "--only", "surogate", *place]) == 2
    assert capsys.readouterr().err.startswith(
        "dpes: unknown method 'surogate': did you mean 'surrogate'?"
    )
    assert main(["arena", "--seeds", "4-2", *place]) == 2
    assert "must be a number such as 3, or a range such as 0-4" in capsys.readouterr().err
    assert main(["arena", "--only", "random-widths", "--seeds", "1", "--left", *place]) == 0
    assert capsys.readouterr().out.startswith("5 of 5 tasks left")
    assert (
        main(["arena", "--only", "random-widths", "--seeds", "1-2", "--left", "--searches", *place])
        == 0
    )
    assert capsys.readouterr().out.startswith("2 of 2 tasks left")
    (file := tmp_path / "file").touch()
    for folder in (file, file / "rows", ""):
        assert main(["arena", "--left", "--folder", str(folder)]) == 2
        assert "must be a folder for the rows" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["null", "{}", "[]", "NaN", "no json", '{"method": "archive"}'])
def test_a_file_that_holds_something_else_is_named(tmp_path, text):
    (tuned := tmp_path / "tuned").mkdir()
    (tuned / "archive-s0-m50-t0.json").write_text(text)
    with pytest.raises(RunError, match="archive-s0-m50-t0.json.*delete it, and it is made again$"):
        report.tuned(tmp_path)


@pytest.mark.parametrize("line", ["null", "{}", '{"genome": 3, "error": 0.1, "macs": 4}'])
def test_a_row_whose_lines_are_others_is_named(bench, short, tmp_path, line):
    rows.run_row(bench, tmp_path, "uniform-l1", 0, {})
    path = rows.row_path(tmp_path, "uniform-l1", 0)
    whole = path.read_text()
    for text in (whole + line + "\n", line + "\n" + whole):
        path.write_text(text)
        with pytest.raises(RunError, match="uniform-l1-s0.jsonl: damaged .*; delete it"):
            report.candidates(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(RunError, match="uniform-l1-s0.jsonl: damaged .*; delete it"):
        report.candidates(tmp_path)


def test_the_work_is_done_in_the_order_of_the_plan_and_only_once(
    bench, short, tmp_path, monkeypatch
):
    lines: list[str] = []
    tasks = tournament.plan([0], ["uniform-l1"])[:2]
    tournament.work(bench, {}, tmp_path, tasks, say=lines.append)
    assert (
        len(lines) == 2
        and "search error % at" in lines[0]
        and "test error" in lines[1]
        and "0 of 2 left" in lines[1]
    )
    tournament.work(bench, {}, tmp_path, tasks, say=lines.append)
    assert len(lines) == 2
    with rows.claimed(tmp_path / "x.jsonl") as mine, rows.claimed(tmp_path / "x.jsonl") as theirs:
        assert mine and not theirs


# ---- criteria -------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("criterion", criteria.CRITERIA)
def test_criteria_rank_as_torch_prunings_own_pruner_does(bench, criterion):
    """Its pruner removes, group by group, the filters that our order removes: the same number from
    each.
    """
    x, y = bench.labelled(32)
    scores = criteria.scores(bench.model, bench.layout, criterion, x, y)
    assert (
        scores.shape == (bench.layout.n_bits,) and np.isfinite(scores).all() and (scores >= 0).all()
    )
    import copy

    model = copy.deepcopy(bench.model).eval()
    torch.nn.functional.cross_entropy(model(x), y).backward()
    measure = {
        "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2, group_reduction="first"),
        "group": lambda: tp.importance.GroupMagnitudeImportance(p=2), "bn": tp.importance.BNScaleImportance,
        "taylor": tp.importance.GroupTaylorImportance, "fpgm": tp.importance.FPGMImportance,
    }[criterion]()  # fmt: skip
    pruner = tp.pruner.BasePruner(
        model, x[:1], importance=measure, pruning_ratio=0.5, ignored_layers=[model.fc]
    )
    gone = np.zeros(bench.layout.n_bits, dtype=bool)
    owner = {layer: group for group in bench.layout.groups for layer in group.members}
    names = {module: name for name, module in model.named_modules()}
    for coupled in pruner.step(interactive=True):
        group = owner[names[coupled[0].dep.target.module]]
        gone[group.start + np.array(coupled[0].idxs)] = True
    for group in bench.layout.groups:
        if criterion == "l2" and len(group.members) > 1:
            continue  # the pruner takes another one of the coupled layers for the first
        worst = np.sort(scores[group.bits])[: gone[group.bits].sum()]
        assert gone[group.bits].sum() == group.size // 2
        assert np.allclose(np.sort(scores[group.bits][gone[group.bits]]), worst)


def test_l2_is_the_squared_norm_of_the_filters_over_the_mean_of_the_group(bench):
    x, y = bench.labelled(32)
    scores = criteria.scores(bench.model, bench.layout, "l2", x, y)
    group = bench.layout.groups[1]
    norms = (
        bench.model.get_submodule(group.name)
        .weight.detach()
        .flatten(1)
        .double()
        .pow(2)
        .sum(1)
        .numpy()
    )
    assert np.allclose(scores[group.bits], norms / norms.mean(), rtol=1e-5)


def test_the_space_of_the_bench_has_all_orders_and_true_costs(bench):
    space = bench.space
    assert (
        space.orders["l1"]
        == importance.ranking(
            bench.layout.group_of_bit, importance.l1_norms(bench.model, bench.layout)
        )
    ).all()
    assert space.cost(np.ones((1, space.n_bits), bool)).tolist() == [1.0]
    assert {"l1", *criteria.CRITERIA} == set(space.orders) == set(space.scores)


def test_an_unknown_criterion_is_named(bench):
    with pytest.raises(criteria.CriterionError, match="did you mean 'taylor'"):
        criteria.scores(bench.model, bench.layout, "tailor", torch.zeros(1, 1, 32, 32))


def test_the_header_of_a_row_is_readable_by_itself(bench, short, tmp_path):
    rows.run_row(bench, tmp_path, "uniform-l1", 0, {})
    head, candidates = rows.read_row(rows.row_path(tmp_path, "uniform-l1", 0))
    assert (
        head["macs"] == bench.whole
        and head["n_bits"] == bench.layout.n_bits
        and head["parts"] == {"order": "l1"}
    )
    assert set(candidates[0]) == {"genome", "error", "macs"}
    assert json.loads(json.dumps(head)) == head
    assert len(candidates[0]["genome"]) == len(to_hex(np.ones(bench.layout.n_bits, bool)))


def row(folder, name, seed=0, of=None):
    """A finished row of this arena, as far as its length tells."""
    head = {"method": name, "seed": seed, "parts": {}, "arena": to_dict(of or arena.Arena())}
    head |= {"n_bits": 8, "macs": 1}
    line = {"genome": "ff", "error": 0.5, "macs": 1}
    rows.write_whole(rows.row_path(folder, name, seed), [head, *[line] * rows.total(name)])


def test_long_trainings_are_of_rows_that_are_there(tmp_path, monkeypatch):
    """Those of a family are paired with every seed, whichever seed its one row was made with."""
    options = tournament.Options(tmp_path, long=True, seeds="3-4", only="global-l2,random-group")
    with pytest.raises(SettingsError, match="has no finished row of these; make them first by"):
        options.tasks()
    row(tmp_path, "global-l2", 2)
    (tmp_path / "global-l2-sx.jsonl").write_text("")
    tasks = options.tasks()
    found = [(t.name, t.seed, t.share, t.training) for t in tasks]
    row(tmp_path, "global-l2", 1)
    path = rows.row_path(tmp_path, "global-l2", 1)
    path.write_text(path.read_text().splitlines(True)[0])  # begun, so the finished one counts
    assert options.tasks() == tasks
    shares = tournament.LONG_SHARES
    assert found == [("global-l2", 2, share, training) for training in (3, 4) for share in shares]
    said: list[str] = []
    monkeypatch.setattr(tournament, "work", lambda *what: None)
    tournament.run(options, left=True, say=said.append)
    assert said[0] == "left out, as they have no finished row: random-group"
    assert said[1] == "4 of 4 tasks left, about 1.8 h"
    row(tmp_path, "random-group", 4)
    assert [t.seed for t in options.tasks() if t.name == "random-group"] == [4, 4]
    gentle = replace(options, lr=0.01)
    assert {t.lr for t in gentle.tasks()} == {0.01} and gentle.words()[-3:] == [
        "--lr",
        "0.01",
        "--long",
    ]
    assert {t.lr for t in replace(options, lr=0.05).tasks()} == {None}  # their recipe's own
    paths = {Task("a", 0, 0.5, 0, long=True, lr=lr).path(tmp_path) for lr in (0.01, 0.010000001)}
    assert len(paths) == 2
    everything = replace(options, only="", seeds="0-2").tasks()
    assert {t.name for t in everything} == {"unpruned"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": "²", "long": False}, "seeds = '²': must be a number"),
        ({"seeds": "0-"}, "seeds = '0-': must be a number"),
        ({"searches": True}, "long and searches: give one of them"),
        ({"device": "meta"}, "device 'meta' cannot be used here"),
        ({"lr": 0.01, "long": False}, "lr = 0.01: is for --long"),
        ({"lr": -1.0}, "lr = -1"),
        ({"lr": 0.0}, "lr = 0"),
        ({"lr": float("nan")}, "lr = nan"),
    ],
)
def test_what_does_not_fit_long_trainings_is_refused(changes, words, tmp_path):
    row(tmp_path, "uniform-l1")
    options = tournament.Options(tmp_path, long=True, only="uniform-l1")
    with pytest.raises(DpesError, match=re.escape(words)):
        tournament.run(replace(options, **changes))
    with pytest.raises(SettingsError, match="long and fitness"):
        tournament.run(options, fitness=True)


def test_a_guess_counts_until_something_was_measured():
    forecast, tasks = tournament.Forecast(1600.0), [Task("uniform-l1", 0, 0.5, s) for s in range(9)]
    assert forecast.left(tasks, 1) == pytest.approx(4.0)
    forecast.tick(400.0, "tune")
    assert forecast.left(tasks, 2) == pytest.approx(0.5)


def test_a_short_training_stays_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(tournament, "check_device", lambda device: None)
    with pytest.raises(SettingsError, match="device = 'cuda': is for --long"):
        tournament.run(tournament.Options(tmp_path, device="cuda"))


def test_a_training_takes_over_the_outcome_of_its_own_seed_only(tmp_path):
    (tmp_path / "tuned").mkdir()
    entry = {"share": 0.5, "training": 100, "recipe": {}, "genome": "f"}
    outcome = {"test_error": 0.1, "train_error": 0.2, "seconds": 3.0}
    named = entry | {"method": "archive", "seed": 0} | outcome
    write_json(tmp_path / "tuned" / "a-s0-m50-t100.json", named)
    assert tuning.same_network(tmp_path, "f", entry) == outcome
    assert tuning.same_network(tmp_path, "f", entry | {"training": 1}) is None
    assert tuning.same_network(tmp_path, "f", entry | {"device": "a GPU"}) is None


def test_an_entry_says_where_it_was_trained_and_other_processes_train_there(bench, monkeypatch):
    assert bench.elsewhere == replace(bench, device="cpu:0").elsewhere == {}
    monkeypatch.setattr(arena, "environment", lambda device: {"device": f"a {device}"})
    assert replace(bench, device="cuda").elsewhere == {"device": "a cuda"}
    options = tournament.Options(Path("rows"), long=True, device="cuda")
    assert options.words()[-3:] == ["--device", "cuda", "--long"]
    with pytest.raises(RunError, match="device 'tpu' cannot be used here"):
        tournament.run(replace(options, device="tpu", only="uniform-l1", seeds="0"))


def test_other_processes_take_the_gpus_in_turn(monkeypatch):
    started = []

    class Popen:
        def __init__(self, command):
            started.append(command)

        def wait(self):
            pass

    monkeypatch.setattr(tournament.subprocess, "Popen", Popen)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device, wanted in (("cuda", ["cuda:1", "cuda:0"]), ("cpu", ["cpu"] * 2)):
        started.clear()
        options = tournament.Options(Path("rows"), long=True, device=device, lr=0.01)
        with tournament.beside(options, 2):
            pass
        assert [c[c.index("--device") + 1] for c in started] == wanted
        assert all(c[-3:] == ["--lr", "0.01", "--long"] for c in started)
