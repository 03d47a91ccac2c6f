"""What breaks beside the networks: the run stops in one line, keeps all that was true, and the same
command continues.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_data_cases import SEARCH, X, prune

from dpes import make_settings
from dpes.errors import DpesError, RunError
from dpes.strategy import history, workers
from dpes.study import runs
from dpes.study.finished import open_run
from dpes.study.fitness import Fitness

pytestmark = pytest.mark.usefixtures("own_weights")


class Breaking:
    """A judge that fails in a stretch of its calls."""

    def __init__(self, stretch=(), problem="CUDA error: an illegal memory access"):
        self.stretch, self.problem, self.calls = stretch, problem, 0

    def __call__(self, net):
        self.calls += 1
        if self.calls in self.stretch:
            raise RuntimeError(self.problem)
        return 0.2 - 1e-5 * sum(p.numel() for p in net.parameters())


@pytest.fixture
def whole():
    return prune(evaluate=Breaking(), calibration=X).history


def test_a_broken_device_stops_the_search_and_leaves_no_trace(tmp_path, whole, monkeypatch):
    given = {"calibration": X, "folder": tmp_path}

    def broken():
        raise RuntimeError("CUDA error: an illegal memory access\nand more")

    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "synchronize", broken)
        with pytest.raises(RunError, match="the device has failed .CUDA error.*continues$"):
            prune(evaluate=Breaking(range(4, 99)), **given)
    assert len(history.read_history(tmp_path / "history.jsonl")) == 4  # one was born twice
    assert prune(evaluate=Breaking(), **given).history.equals(whole)


@pytest.mark.filterwarnings("ignore:candidate failed")
@pytest.mark.parametrize("stretch", [range(2, 99), range(5, 99)])
def test_a_generation_that_fails_stops_the_search_and_leaves_no_trace(stretch, tmp_path, whole):
    given = {"calibration": X, "folder": tmp_path}
    with pytest.raises(RunError, match="all of generation . failed, see above") as caught:
        prune(evaluate=Breaking(stretch), **given)
    assert "\n" not in str(caught.value)
    kept = history.read_history(tmp_path / "history.jsonl")
    assert len(kept) == (1 if stretch.start == 2 else 5) and all(c.error < 1 for c in kept)
    assert prune(evaluate=Breaking(), **given).history.equals(whole)


@pytest.mark.filterwarnings("ignore:candidate failed")
def test_an_unpruned_network_that_fails_stops_a_run_before_its_search(tmp_path, monkeypatch):
    settings = make_settings("smoke")

    def fails(self, genome):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Fitness, "__call__", fails)
        with pytest.raises(RunError, match="the unpruned network failed"):
            runs.run(settings, tmp_path)
    assert not (tmp_path / settings.run_id / "history.jsonl").exists()


def test_a_trained_network_that_is_none_is_refused_before_the_search(tmp_path, monkeypatch):
    monkeypatch.setattr("dpes.study.finetune.load_baseline", lambda *a, **k: broken_network())
    with pytest.raises(DpesError, match="values that are not finite"):
        runs.run(make_settings("smoke"), tmp_path)


def broken_network():
    from dpes.study import models

    net = models.build("resnet8", channels=1)
    net.fc.weight.data[:] = torch.nan
    return net.eval()


@pytest.mark.parametrize("nth", [1, 3, 9])
@pytest.mark.parametrize("name", ["record", "checkpoint"])
def test_a_full_disk_stops_prune_in_one_line(name, nth, tmp_path, whole, monkeypatch):
    from dpes.strategy.folder import Folder

    write, calls = getattr(Folder, name), []

    def full(self, *given):
        calls.append(1)
        if len(calls) == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, *given)

    given = {"calibration": X, "folder": tmp_path}
    if name == "checkpoint" and nth > 1 + SEARCH.generations:
        pytest.skip("no so many")
    with monkeypatch.context() as patch:
        patch.setattr(Folder, name, full)
        with pytest.raises(RunError, match="No space left on device; once that is put right"):
            prune(evaluate=Breaking(), **given)
    assert prune(evaluate=Breaking(), **given).history.equals(whole)


LIMITED = """
import resource, signal, sys, torch
torch.set_num_threads(1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from dpes.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
raise SystemExit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="a system without limits of files")
def test_a_line_that_the_disk_takes_half_of_is_written_again(tmp_path):
    """A limit of a file's size stands for a full disk: the system writes as much as it may."""
    generations = 3  # whose history is longer than any file before it
    settings = make_settings("smoke", generations=generations)
    whole = runs.run(settings, tmp_path / "whole").path
    command = ["run", "--profile", "smoke", "--generations", str(generations)]
    command += ["--folder", str(tmp_path), "--quiet"]
    # within the settings, within the history
    for limit in (100, (whole / "history.jsonl").stat().st_size - 50):
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, str(limit), *command], capture_output=True, text=True
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1 and "File too large" in done.stderr
    path = tmp_path / whole.name
    assert (path / "history.jsonl").stat().st_size == limit
    runs.run(settings, tmp_path)
    for name in ("history.jsonl", "knee.safetensors"):
        assert (path / name).read_bytes() == (whole / name).read_bytes()


def test_a_run_lists_its_sittings(tmp_path, finished, monkeypatch):
    """Each with commit, versions and hardware; a page says all of them."""
    from dpes.report import tables
    from dpes.strategy.folder import Folder

    with monkeypatch.context() as patch:
        patch.setattr("dpes.study.environment.commit", lambda: "earlier")
        patch.setattr(Folder, "checkpoint", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            runs.run(finished.settings, tmp_path)
    monkeypatch.setattr("dpes.study.environment.commit", lambda: "later")
    run = runs.run(finished.settings, tmp_path)
    assert [s["commit"] for s in run.env["sittings"]] == ["earlier", "later"]
    assert {"torch", "device", "threads", "workers"} < set(run.env["sittings"][0])
    assert run.env["commit"] == "later" and tables.provenance(run).commit == "earlier, later"
    assert tables.provenance(finished).threads == "1"


def test_side_files_cost_no_more_than_themselves(tmp_path, finished):
    """Damaged, they are named with a cure that deletes nothing else; without them a run is read."""
    import shutil

    path = tmp_path / finished.path.name
    shutil.copytree(finished.path, path)
    (path / "env.json").write_text("{")
    with pytest.raises(RunError, match="env.json.*delete this file: nothing but seconds"):
        open_run(path)
    (path / "env.json").unlink()
    assert open_run(path).env == {"seconds": {}}
    (path / "timing.jsonl").write_text("{\n")
    with pytest.raises(RunError, match="timing.jsonl.*delete this file: nothing but seconds"):
        _ = open_run(path).history
    (path / "timing.jsonl").unlink()
    assert len(open_run(path).history) == 9


def test_a_worker_says_that_its_device_is_gone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    def fails(genome):
        raise RuntimeError("out of memory")

    assert workers.attempt(fails, None) == (workers.FAILED, "out of memory")


def test_paths_that_cannot_be_written_get_one_line(tmp_path):
    if os.geteuid() == 0:
        place = Path("/proc/nothing")
    else:
        place = tmp_path / "locked"
        place.mkdir(mode=0o500)
    with pytest.raises(RunError, match="cannot be written|is a file") as caught:
        prune(folder=place / "below")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="a system without limits of files")
def test_a_full_temporary_folder_stops_workers_in_one_line(finished, tmp_path):
    command = ["run", "--profile", "smoke", "--folder", str(tmp_path), "--quiet", "--workers", "2"]
    code = [sys.executable, "-c", LIMITED, "20000", *command]
    done = subprocess.run(code, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "TMPDIR" in done.stderr
