"""A run: what it finds, that it runs once, and the directories it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from conftest import DPES
from safetensors.torch import load_file, save_file

from dpes import fields, make_settings
from dpes.coupling.genome import from_hex
from dpes.disk import read_json
from dpes.errors import RunError
from dpes.strategy import es
from dpes.study import data, finetune, models, runs, train
from dpes.study.baseline import load_baseline
from dpes.study.finished import load_runs, open_run
from dpes.study.fitness import Fitness

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
        runs.run(settings, path.parent)
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
    """Heavy has the least error of all pruned candidates, light the fewest MACs, and all three are
    in the archive.
    """
    pruned = finished.history[finished.history.generation > 0]
    assert finished.result["heavy"]["search_error"] == pruned.error.min()
    assert finished.result["light"]["macs"] == pruned.macs.min()
    assert {finished.result[r]["genome"] for r in es.ROLES} <= set(finished.archive.genome)


def test_history_holds_what_the_networks_cost(finished):
    for row in finished.history.itertuples():
        genome = from_hex(row.genome, finished.layout.n_bits)
        assert (row.macs, row.params) == (
            finished.layout.macs(genome),
            finished.layout.params(genome),
        )


def test_saved_networks_have_the_tested_error(finished):
    digits = data.load("digits")
    for role in es.ROLES:
        network = finished.network(role)
        assert sum(p.numel() for p in network.parameters()) == finished.result[role]["params"]
        assert train.error_rate(network, digits.test, digits) == pytest.approx(
            finished.result[role]["error"]
        )


def test_running_twice_is_running_once(finished, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in finished.path.iterdir()}
    monkeypatch.delattr(runs, "prepare")  # nothing is loaded, a few small files are read
    again = runs.run(finished.settings, finished.path.parent)
    assert again.result == finished.result
    assert before == {p: p.stat().st_mtime_ns for p in finished.path.iterdir()}


def test_a_run_is_silent_unless_asked(halfway, finished, capfd):
    runs.run(finished.settings, halfway.parent, progress=False)
    out, error = capfd.readouterr()
    assert not out and not error
    runs.run(
        make_settings("smoke", seed=1, model="vgg-tiny", finetune_epochs=0),
        halfway.parent,
        progress=True,
    )
    assert "search" in capfd.readouterr().err


def test_half_done_runs_end_alike(halfway, finished):
    done = runs.run(finished.settings, halfway.parent)
    for role in es.ROLES:
        assert done.result[role]["error"] == finished.result[role]["error"]
        assert (halfway / f"{role}.safetensors").read_bytes() == (
            finished.path / f"{role}.safetensors"
        ).read_bytes()


def test_a_last_line_cut_short_is_evaluated_again(halfway, finished):
    (halfway / "state.npz").unlink()
    history = (halfway / "history.jsonl").read_bytes()
    (halfway / "history.jsonl").write_bytes(history[: len(history) // 2])
    runs.run(finished.settings, halfway.parent)
    assert (halfway / "history.jsonl").read_bytes() == history


def test_stopped_after_every_candidate_a_run_ends_alike(halfway, finished, monkeypatch):
    """Each sitting evaluates one candidate, is stopped at the second, and so on to the end."""
    for name in ("state.npz", "history.jsonl", "timing.jsonl"):
        (halfway / name).unlink()
    evaluated, asked, sittings = Fitness.__call__, [], 0

    def stopped(fitness, *job):
        asked.append(job)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return evaluated(fitness, *job)

    monkeypatch.setattr(Fitness, "__call__", stopped)
    while not (halfway / "result.json").exists():
        asked.clear()
        sittings += 1
        try:
            runs.run(finished.settings, halfway.parent)
        except KeyboardInterrupt:
            assert len((halfway / "history.jsonl").read_text().splitlines()) == sittings
            assert not (halfway / "owner").exists()
    assert sittings == len({*finished.history.genome})
    for name in ("history.jsonl", "state.npz", *(f"{r}.safetensors" for r in es.ROLES)):
        assert (halfway / name).read_bytes() == (finished.path / name).read_bytes(), name


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_asked_to_stop_leaves_a_run_to_continue(sent, halfway, finished):
    for name in ("state.npz", "history.jsonl", "timing.jsonl"):
        (halfway / name).unlink()
    command = [
        *DPES,
        "run",
        "--profile",
        "smoke",
        "--quiet",
        "--threads",
        "1",
        "--folder",
        str(halfway.parent),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        while process.poll() is None and not (halfway / "state.npz").exists():
            time.sleep(0.01)
        process.send_signal(sent)
        out, _ = process.communicate(timeout=60)
    assert (
        process.returncode == 130 and "Traceback" not in out and "the same command continues" in out
    ), out
    assert not (halfway / "result.json").exists()
    runs.run(finished.settings, halfway.parent)
    for name in ("history.jsonl", *(f"{r}.safetensors" for r in es.ROLES)):
        assert (halfway / name).read_bytes() == (finished.path / name).read_bytes(), name


def test_a_history_that_lost_candidates_is_refused(halfway, finished):
    """The state has seen them: without them, the run would end with an archive that lacks them."""
    whole = (halfway / "history.jsonl").read_bytes()
    for lines in (0, 1, 8):
        (halfway / "history.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:lines]))
        refuses(
            finished.settings,
            halfway,
            f"has {lines} of the 9 candidates that state.npz has seen; restore it, or delete "
            ".*state.npz",
        )
    (halfway / "state.npz").unlink()  # the cure
    runs.run(finished.settings, halfway.parent)
    assert (halfway / "history.jsonl").read_bytes() == whole


@pytest.mark.parametrize("name, text, words", [
    ("settings.json", "[]", "no JSON object in it"),
    ("settings.json", '{"schema": 1}', "no settings in it"),
    ("settings.json", '{"schema": 1, "settings": []}', "settings are \\[\\]"),
    ("settings.json", '{"schema": 1, "settings": {"search": 5}}', "settings are 5"),
    ("settings.json", '{"schema": 1, "settings": {"seed": "x"}}', "seed = 'x': must be a whole number; restore it"),
    ("settings.json", '{"schema": 1, "settings": {"sead": 1}}', "unknown setting 'sead'"),
    ("result.json", "null", "no JSON object in it"),
    ("result.json", '{"n_bits": 224, "baseline": {}, "heavy": {}, "light": {}}', "no knee in it"),
    ("env.json", "[]", "no JSON object in it"),
    ("env.json", "{}", "no seconds in it"),
])  # fmt: skip
def test_files_of_another_shape_are_refused_by_name(name, text, words, copied):
    (copied / name).write_text(text)
    with pytest.raises(RunError, match=f"{name}: .*{words}") as caught:
        open_run(copied)
    assert "\n" not in str(caught.value) and "delete" in str(caught.value)


def test_one_damaged_run_hides_no_other(copied, finished):
    shutil.copytree(copied, copied.parent / "other")
    (copied / "result.json").write_text("{")
    with pytest.warns(UserWarning, match=f"{copied.name}/result.json: cannot be read"):
        assert load_runs(copied.parent).run.unique().tolist() == ["other"]


@pytest.mark.parametrize("name", ["env.json", "heavy.json", "settings.json"])
def test_half_done_files_of_another_shape_are_refused(name, halfway, finished):
    for text in ("{}", "[]"):
        (halfway / name).write_text(text)
        with pytest.raises(RunError, match=f"{name}: damaged"):
            runs.run(finished.settings, halfway.parent)


def test_damaged_files_are_refused(halfway, finished):
    settings = finished.settings
    whole = (halfway / "history.jsonl").read_bytes()
    for damaged in (
        whole.replace(b"{", b"[", 3),
        whole.replace(b'"macs"', b'"mac"', 1),
        b"\xff\xfe\n" + whole,
    ):
        (halfway / "history.jsonl").write_bytes(damaged)
        refuses(settings, halfway, "history.jsonl: damaged .*delete")
    # a line cut short stays while another is damaged
    (halfway / "history.jsonl").write_bytes(whole.replace(b"0.", b"-0.", 1)[:-9])
    refuses(settings, halfway, "history.jsonl: damaged .line 1: error is -0.*delete")
    (halfway / "history.jsonl").write_bytes(whole)
    (halfway / "state.npz").write_bytes(b"PK" + b"\0" * 40)
    with pytest.raises(es.StrategyError, match="state.npz: not a saved state"):
        runs.run(settings, halfway.parent)
    (halfway / "settings.json").write_text("not json")
    refuses(settings, halfway, "settings.json: cannot be read")


def test_other_settings_schema_and_strangers_are_refused(copied, finished):
    stored = read_json(copied / "settings.json")
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
        "import sys, time; from pathlib import Path; from dpes.disk import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(halfway)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline().strip() == "held"
        refuses(finished.settings, halfway, f"in use by process {holder.pid} on ")
        holder.kill()
    assert (halfway / "lock").exists()  # left behind by the dead process
    assert (
        runs.run(finished.settings, halfway.parent).result["knee"]["error"]
        == finished.result["knee"]["error"]
    )


def test_unfinished_and_missing_runs_cannot_be_opened(halfway, tmp_path):
    with pytest.raises(RunError, match="not finished; continue it"):
        open_run(halfway)
    with pytest.raises(RunError, match="not a run directory"):
        open_run(tmp_path / "nothing")


def test_all_runs_as_one_frame(finished):
    frame = load_runs(finished.path.parent)
    assert list(frame[frame.run == finished.path.name].solution) == ["baseline", *es.ROLES]
    assert {"model", "dataset", "profile", "seed", "error", "macs", "macs_left"} <= set(
        frame.columns
    )
    assert load_runs(finished.path / "none").empty


def test_provenance_is_written(finished):
    assert {"baseline", "search", "fine-tuning"} <= set(finished.env["seconds"])
    assert (
        finished.env["torch"] == torch.__version__
        and finished.env["threads"] == 1
        and finished.env["workers"] == 1
    )
    assert torch.backends.cpu.get_cpu_capability() in finished.env["device"]
    trained = data.folders()[0] / "weights" / f"{finished.settings.baseline_id}.safetensors"
    assert finished.result["baseline_sha256"] == hashlib.sha256(trained.read_bytes()).hexdigest()


def test_weights_too_large_to_publish_are_trained_again_to_the_same_bits(copied, finished, recwarn):
    run = open_run(copied)
    assert runs.restore(run) == {}
    for role in ("knee", "light"):
        (copied / f"{role}.safetensors").unlink()
    with pytest.raises(
        RunError, match=f"knee.safetensors: not here .* python -m dpes restore {copied}"
    ) as caught:
        run.network("knee")
    assert "\n" not in str(caught.value)
    # left by an earlier try, without the weights it is about
    (copied / "knee.json").write_text("{}")
    (copied / "heavy.json").write_text("{}")  # and with them
    for workers in (1, 2):
        assert runs.restore(run, workers=workers) == {
            role: run.result[role]["error"] for role in ("knee", "light")
        }
        assert bytes_of(copied) == bytes_of(finished.path)
        for role in ("knee", "light"):
            (copied / f"{role}.safetensors").unlink()
    assert not recwarn.list
    run.result["baseline_sha256"] = "of another machine"
    with pytest.warns(
        UserWarning,
        match=f"{run.settings.baseline_id} is not the network that the run started from",
    ):
        runs.restore(run)


def test_devices_that_do_not_exist_are_refused(tmp_path):
    for device in ("gpu", "cuda:99"):
        with pytest.raises(RunError, match=f"device '{device}'"):
            runs.run(make_settings("smoke"), tmp_path, device=device)
    assert not os.listdir(tmp_path)


def test_published_baselines_come_before_those_trained_here(tmp_path, monkeypatch, finished):
    settings, name = finished.settings, f"{finished.settings.baseline_id}.safetensors"
    trained = data.folders()[0] / "weights" / name
    monkeypatch.setenv("DPES_DATA", str(tmp_path))
    monkeypatch.setattr(train, "fit", lambda *_, **__: pytest.fail("trained again"))
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in load_file(trained).items()
    }
    (tmp_path / "baselines").mkdir()
    save_file(state, tmp_path / "baselines" / name)
    network = load_baseline(settings, data.load("digits"))
    for key, value in network.state_dict().items():
        assert value.dtype == load_file(trained)[key].dtype and torch.equal(
            value, state[key].to(value.dtype)
        )
    assert not (tmp_path / "weights").exists()


def test_published_baselines_are_those_that_were_logged():
    """Recipe, log and weights in data/baselines belong together and have the name under which a run
    looks for them.
    """
    logs = sorted((Path(__file__).parents[1] / "data" / "baselines").glob("*.json"))
    assert logs
    for file in logs:
        if file.stem.endswith("-digits"):
            continue  # see test_baselines
        stored = json.loads(file.read_text())
        settings = make_settings("cpu", model=stored["model"], dataset=stored["dataset"])
        assert (
            settings.baseline_id == file.stem
            and fields.to_dict(settings.baseline) == stored["recipe"]
        )
        assert (
            len(stored["log"]) == settings.baseline.epochs
            and stored["log"][-1]["loss"] < stored["log"][0]["loss"]
        )
        (row,) = [
            line
            for line in (file.parents[1] / "README.md").read_text().splitlines()
            if file.stem in line
        ]
        # others may be in progress
        finished = [
            result.parent for result in (file.parents[1] / "runs").glob("*-cpu-*/result.json")
        ]
        starts = [run for run in map(open_run, finished) if run.settings.baseline_id == file.stem]
        assert starts and all(
            f"test error {100 * run.result['baseline']['error']:.2f} %" in row for run in starts
        )
        if (weights := file.with_suffix(".safetensors")).exists():
            assert hashlib.sha256(weights.read_bytes()).hexdigest() == stored["sha256"]
            models.build(stored["model"]).load_state_dict(load_file(weights))


def test_fine_tuning_in_processes_gives_the_same_bits_even_when_one_died(halfway, finished, born):
    """Of three solutions two are trained at a time; one is killed as soon as it has begun, and
    trained again.
    """

    def kill_the_first():
        while not (processes := born()):
            time.sleep(0.01)
        processes.pop().kill()

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    run = runs.run(finished.settings, halfway.parent, workers=2)
    killer.join()
    assert not born()
    for role in es.ROLES:
        assert (run.path / f"{role}.safetensors").read_bytes() == (
            finished.path / f"{role}.safetensors"
        ).read_bytes()
        assert run.result[role]["error"] == finished.result[role]["error"]
    assert list(run.result) == list(finished.result)


def test_fine_tuning_that_is_lost_gets_one_line(halfway, finished, monkeypatch):
    monkeypatch.setattr(finetune, "pool", lambda *_: nullcontext(lambda jobs: (None for _ in jobs)))
    with pytest.raises(RunError, match="died twice .* the same command continues"):
        runs.run(finished.settings, halfway.parent, workers=2)
