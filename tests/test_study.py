"""A run: what it finds, that it runs once, and the directories it refuses."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from dpes import cost, data, es, evaluate, make_settings, models, study, train
from dpes.channels import trace
from dpes.files import RunError
from dpes.search import search
from dpes.slim import from_hex, slim, to_hex

pytestmark = pytest.mark.usefixtures("own_weights")


def bytes_of(path):
    return {p.name: p.read_bytes() for p in path.iterdir()}


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run that a test may damage."""
    path = tmp_path / finished.path.name
    shutil.copytree(finished.path, path)
    return path


@pytest.fixture
def halfway(copied):
    """A run whose search is complete and whose result is not."""
    for name in ("result.json", "heavy.safetensors", "knee.safetensors", "light.safetensors"):
        (copied / name).unlink()
    return copied


def refuses(settings, path, words):
    before = bytes_of(path)
    with pytest.raises(RunError, match=words) as caught:
        study.run(settings, path.parent)
    assert "\n" not in str(caught.value)
    assert bytes_of(path) == before


def test_three_solutions_make_sense(finished):
    rows = finished.solutions.set_index("solution")
    assert rows.macs["baseline"] > rows.macs["heavy"] >= rows.macs["knee"] >= rows.macs["light"]
    assert rows.search_error["heavy"] <= rows.search_error["knee"] <= rows.search_error["light"]
    assert len({finished.result[r]["genome"] for r in es.ROLES}) == 3
    assert rows[["error", "macs_left", "params_left"]].notna().all().all()
    assert len(finished.history) == 1 + 4 * 2


def test_solutions_are_of_the_front(finished):
    """Heavy has the least error of all pruned candidates, light the fewest MACs, and all three are in the archive."""
    pruned = finished.history[finished.history.generation > 0]
    assert finished.result["heavy"]["search_error"] == pruned.error.min()
    assert finished.result["light"]["macs"] == pruned.macs.min()
    assert {finished.result[r]["genome"] for r in es.ROLES} <= set(finished.archive.genome)


def test_history_holds_what_the_networks_cost(finished):
    for row in finished.history.itertuples():
        genome = from_hex(row.genome, finished.layout.n_bits)
        assert (row.macs, row.params) == (cost.macs(finished.layout, genome), cost.params(finished.layout, genome))


def test_saved_networks_have_the_tested_error(finished):
    digits = data.load("digits")
    for role in es.ROLES:
        network = finished.network(role)
        assert sum(p.numel() for p in network.parameters()) == finished.result[role]["params"]
        assert train.error_rate(network, digits.test, digits) == pytest.approx(finished.result[role]["error"])


def test_running_twice_is_running_once(finished):
    before, started = {p: p.stat().st_mtime_ns for p in finished.path.iterdir()}, time.perf_counter()
    again = study.run(finished.settings, finished.path.parent)
    assert time.perf_counter() - started < 1.0  # reads a few small files
    assert again.result == finished.result
    assert before == {p: p.stat().st_mtime_ns for p in finished.path.iterdir()}


def test_a_run_is_silent_unless_asked(halfway, finished, capfd):
    study.run(finished.settings, halfway.parent, progress=False)
    out, error = capfd.readouterr()
    assert not out and not error
    study.run(make_settings("smoke", seed=1, model="vgg-tiny", finetune_epochs=0), halfway.parent, progress=True)
    assert "search" in capfd.readouterr().err


def test_half_done_runs_end_alike(halfway, finished):
    done = study.run(finished.settings, halfway.parent)
    for role in es.ROLES:
        assert done.result[role]["error"] == finished.result[role]["error"]
        assert (halfway / f"{role}.safetensors").read_bytes() == (finished.path / f"{role}.safetensors").read_bytes()


def test_a_last_line_cut_short_is_evaluated_again(halfway, finished):
    (halfway / "state.npz").unlink()
    history = (halfway / "history.jsonl").read_bytes()
    (halfway / "history.jsonl").write_bytes(history[: len(history) // 2])
    study.run(finished.settings, halfway.parent)
    assert (halfway / "history.jsonl").read_bytes() == history


def test_damaged_files_are_refused(halfway, finished):
    settings = finished.settings
    whole = (halfway / "history.jsonl").read_bytes()
    for damaged in (whole.replace(b"{", b"[", 3), whole.replace(b'"macs"', b'"mac"', 1), b"\xff\xfe\n" + whole):
        (halfway / "history.jsonl").write_bytes(damaged)
        refuses(settings, halfway, "history.jsonl: damaged .*delete")
    (halfway / "history.jsonl").write_bytes(whole)
    (halfway / "state.npz").write_bytes(b"PK" + b"\0" * 40)
    with pytest.raises(es.StrategyError, match="state.npz: not a saved state"):
        study.run(settings, halfway.parent)
    (halfway / "settings.json").write_text("not json")
    refuses(settings, halfway, "settings.json: cannot be read")


def test_other_settings_schema_and_strangers_are_refused(copied, finished):
    stored = json.loads((copied / "settings.json").read_text())
    (copied / "settings.json").write_text(json.dumps(stored | {"schema": 0}))
    refuses(finished.settings, copied, "schema is 0, not 1")
    stored["settings"]["search"]["population"] = 5
    (copied / "settings.json").write_text(json.dumps(stored))
    refuses(finished.settings, copied, r"other settings \(settings.search.population is 5, not 4\)")
    (copied / "settings.json").unlink()
    (copied / "result.json").unlink()
    refuses(finished.settings, copied, "has results but no settings.json")


def test_a_directory_in_use_is_refused_by_pid_and_a_dead_lock_is_free(halfway, finished):
    hold = (
        "import sys, time; from pathlib import Path; from dpes.files import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, str(halfway)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline().strip() == "held"
        refuses(finished.settings, halfway, f"in use by process {holder.pid} on ")
        holder.kill()
    assert (halfway / "lock").exists()  # left behind by the dead process
    assert study.run(finished.settings, halfway.parent).result["knee"]["error"] == finished.result["knee"]["error"]


def test_unfinished_and_missing_runs_cannot_be_opened(halfway, tmp_path):
    with pytest.raises(RunError, match="not finished; continue it"):
        study.open_run(halfway)
    with pytest.raises(RunError, match="not a run directory"):
        study.open_run(tmp_path / "nothing")


def test_all_runs_as_one_frame(finished):
    frame = study.load_runs(finished.path.parent)
    assert list(frame[frame.run == finished.path.name].solution) == ["baseline", *es.ROLES]
    assert {"model", "dataset", "profile", "seed", "error", "macs", "macs_left"} <= set(frame.columns)
    assert study.load_runs(finished.path / "none").empty


def test_provenance_is_written(finished):
    assert {"baseline", "search", "fine-tuning"} <= set(finished.env["seconds"])
    assert finished.env["torch"] == torch.__version__ and finished.env["threads"] == 1


# ---- fitness --------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def setting():
    digits = data.load("digits")
    network = models.build("vgg-tiny", channels=1)
    train.fit(network, digits, make_settings("smoke").baseline, 0)
    return network, trace(network, torch.zeros(1, 1, 32, 32)), digits


def fitness(setting, **changes):
    return evaluate.Fitness(*setting, make_settings("smoke", **changes).search)


def draws(layout, n):
    rng = np.random.default_rng(0)
    return es.repair(rng.random((n, layout.n_bits)) < 0.7, layout.group_of_bit)


@pytest.mark.parametrize("kind", ["recalibrate", "partial", "none"])
def test_errors_depend_on_nothing_but_the_genome(kind, setting):
    changes = {"fitness": kind, "partial_epochs": 1, "partial_images": 100}
    genomes = draws(setting[1], 5)
    forwards = list(evaluate.serial(fitness(setting, **changes), genomes))
    backwards = list(evaluate.serial(fitness(setting, **changes), genomes[::-1]))[::-1]
    assert forwards == backwards and len(set(forwards)) > 1


def test_processes_give_the_same_bits_even_when_one_dies(setting):
    one, genomes = fitness(setting), draws(setting[1], 12)
    expected = list(evaluate.serial(one, genomes))
    with evaluate.processes(one, 2) as errors:
        assert list(errors(genomes)) == expected
        answers = errors(genomes)
        first = next(answers)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        assert [first, *answers] == expected


def test_fitness_leaves_the_network_alone(setting):
    network, layout, _ = setting
    before = {k: v.clone() for k, v in network.state_dict().items()}
    one = fitness(setting, fitness="partial", partial_epochs=1, partial_images=64)
    one(draws(layout, 1)[0])
    one(np.ones(layout.n_bits, dtype=bool))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_fitness_none_is_the_error_of_the_cut(setting):
    network, layout, digits = setting
    genome = draws(layout, 1)[0]
    cut = slim(network, layout, genome)
    assert fitness(setting, fitness="none")(genome) == train.error_rate(cut, digits.search.first(100), digits)
    assert fitness(setting, fitness="none", error_on="train")(genome) == train.error_rate(cut, digits.train.first(100), digits)


def test_a_failed_candidate_is_worst_and_said(setting, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory\nand more")

    one = fitness(setting)
    monkeypatch.setattr(train, "recalibrate", fail)
    with pytest.warns(UserWarning, match="counts as worst: out of memory$"):
        assert one(draws(setting[1], 1)[0]) == float("inf")


def test_search_reevaluates_nothing(setting):
    """A genome that comes back, and all of a history, cost nothing."""
    layout, settings = setting[1], make_settings("smoke", population=8, generations=3, p_mutation=0.02).search
    asked, history = [], []

    def errors(genomes):
        for genome in genomes:
            asked.append(to_hex(genome))
            yield float(genome.mean())

    arguments = {"checkpoint": lambda s: None}
    first = search(layout, errors, settings, 0, history=[], record=lambda c, s: history.append(c), **arguments)
    assert len(asked) == len(set(asked)) and len(history) == 1 + 8 * 3
    asked.clear()
    second = search(layout, errors, settings, 0, history=history, record=lambda c, s: None, **arguments)
    assert not asked and np.array_equal(first.parents, second.parents)


def test_devices_that_do_not_exist_are_refused(tmp_path):
    for device in ("gpu", "cuda:99"):
        with pytest.raises(RunError, match=f"device '{device}'"):
            study.run(make_settings("smoke"), tmp_path, device=device)
    assert not os.listdir(tmp_path)
