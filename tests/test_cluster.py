"""Candidates on a Dask cluster: the bits of one process, whoever dies, and one line for whatever is
wrong.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("distributed")
import dask
from distributed import Client, LocalCluster, WorkerPlugin, default_client

from dpes import make_settings
from dpes.__main__ import main
from dpes.coupling.tracing import trace
from dpes.strategy import cluster, es, workers
from dpes.study import data, models, train
from dpes.study.fitness import Fitness, build

PAGE = Path(__file__).parents[1] / "book" / "cluster.md"


@pytest.fixture(scope="module")
def fitness():
    digits = data.load("digits")
    network = models.build("resnet8", channels=1)
    train.fit(network, digits, make_settings("smoke").baseline, 0)
    return Fitness(
        network, trace(network, torch.zeros(1, 1, 32, 32)), digits, make_settings("smoke").search
    )


@pytest.fixture(scope="module")
def jobs(fitness):
    rng = np.random.default_rng(0)
    genomes = rng.random((8, fitness.layout.n_bits)) < 0.7
    return list(es.repair(genomes, fitness.layout.group_of_bit))


@pytest.fixture(scope="module")
def expected(fitness, jobs):
    return list(workers.serial(fitness, jobs))


@pytest.fixture
def threads():
    """A scheduler and one worker in this process, which start at once; the worker has two threads,
    which must not meet.
    """
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as local:
        yield local


@pytest.mark.slow
def test_processes_give_the_bits_of_serial_even_when_all_die(fitness, jobs, expected):
    with cluster.dask(build, fitness.parts(), "local:2") as errors:
        assert list(errors(jobs)) == expected
        answers = errors(jobs)
        first = next(answers)
        for pid in default_client().run(os.getpid).values():
            os.kill(pid, signal.SIGKILL)
        # by workers that joined after network and data were sent
        assert [first, *answers] == expected
    assert len(set(expected)) > 1


def poisoned(poison, *parts):
    """Ends the process of every worker that evaluates this genome."""
    error = build(*parts)
    return lambda genome: os._exit(1) if (genome == poison).all() else error(genome)


@pytest.mark.slow
def test_a_candidate_that_kills_its_workers_fails_and_no_other(fitness, jobs, expected):
    alone = {"distributed.scheduler.allowed-failures": 0}
    with (
        dask.config.set(alone),
        cluster.dask(poisoned, (jobs[1], *fitness.parts()), "local:1") as errors,
    ):
        with pytest.warns(UserWarning, match="counts as worst: its worker died twice"):
            assert list(errors(jobs[:3])) == [expected[0], workers.FAILED, expected[2]]


@pytest.mark.slow
def test_the_commands_of_the_book_give_the_bytes_of_a_serial_run(
    finished, weights_folder, tmp_path
):
    (block,) = re.findall(r"```\n(dask scheduler .*?)```", PAGE.read_text(), re.S)
    commands = [
        line.split(" #")[0].rstrip(" &")
        for line in block.splitlines()
        if "python -m dpes" in line or line.startswith("dask ")
    ]
    assert [c.split()[:2] for c in commands[:3]] == [
        ["dask", "scheduler"],
        ["dask", "worker"],
        ["dask", "worker"],
    ]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DPES_DATA": weights_folder,
        "DPES_RUNS": str(tmp_path / "runs"),
    }
    started = []
    try:
        for command in commands[:3]:
            started.append(
                subprocess.Popen(
                    shlex.split(command), cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
                )
            )
            while command == commands[0] and not (tmp_path / "cluster.json").exists():
                assert started[0].poll() is None
                time.sleep(0.05)
        search = shlex.split(commands[3].replace("--profile quick", "--profile smoke"))
        done = subprocess.run(
            [*search, "--quiet"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait()
    assert done.returncode == 0 and not done.stderr, done.stderr
    for name in ("history.jsonl", "knee.safetensors"):
        assert (tmp_path / "runs" / finished.path.name / name).read_bytes() == (
            finished.path / name
        ).read_bytes()


def ours(local):
    """What the scheduler and its workers keep for this package."""
    return [
        name
        for place in (local.scheduler.worker_plugins, *(w.plugins for w in local.workers.values()))
        for name in place
        if "dpes" in name
    ]


def test_nothing_is_left_behind_and_no_test_image_leaves(fitness, jobs, expected, threads):
    sent = []
    register = Client.register_plugin
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Client,
            "register_plugin",
            lambda self, plugin, name: sent.append(plugin.payload) or register(self, plugin, name),
        )
        with cluster.dask(build, fitness.parts(), threads.scheduler_address) as errors:
            assert list(errors(jobs)) == expected
            assert ours(threads)
    assert not ours(threads)
    (payload,) = sent
    _, (network, _, dataset, *_) = pickle.loads(payload)
    assert (
        len(dataset.test) == 0
        and len(dataset.train) == len(fitness.dataset.train)
        and not network.training
    )


def test_what_a_killed_client_left_is_removed(fitness, threads):
    with Client(threads) as client:
        client.register_plugin(WorkerPlugin(), name=f"{cluster.MARK}Client-dead")
        with (
            cluster.dask(build, fitness.parts(), threads.scheduler_address),
            cluster.dask(build, fitness.parts(), threads.scheduler_address),
        ):
            assert len(ours(threads)) == 4 and not any("dead" in name for name in ours(threads))
        assert not ours(threads)


def test_a_failed_candidate_is_worst_and_said_here(fitness, jobs, expected, threads, monkeypatch):
    whole = Fitness.__call__

    def error(self, genome):
        if (genome == jobs[0]).all():
            raise RuntimeError("out of memory\nand more")
        return whole(self, genome)

    monkeypatch.setattr(Fitness, "__call__", error)
    with (
        cluster.dask(build, fitness.parts(), threads.scheduler_address) as errors,
        pytest.warns(UserWarning, match="counts as worst: out of memory$"),
    ):
        assert list(errors(jobs[:2])) == [workers.FAILED, expected[1]]


def test_a_worker_that_joins_later_with_other_versions_is_refused(
    fitness, jobs, threads, monkeypatch
):
    check = cluster.check
    with cluster.dask(build, fitness.parts(), threads.scheduler_address) as errors:
        monkeypatch.setattr(
            cluster,
            "check",
            lambda address, theirs, mine: check(address, theirs | {"torch": None}, mine),
        )
        threads.scale(2)
        default_client().wait_for_workers(2, timeout=30)
        with pytest.raises(
            cluster.ClusterError, match=r"worker inproc.*: torch is None, here 2.*; start it in"
        ):
            for _ in range(20):
                list(errors(jobs))


def test_a_worker_of_other_versions_is_refused(fitness, threads, monkeypatch):
    whole = Client.get_versions

    def versions(self, **arguments):
        report = whole(self, **arguments)
        report["client"]["packages"]["dpes"] = "9.9"
        return report

    monkeypatch.setattr(Client, "get_versions", versions)
    with pytest.raises(
        cluster.ClusterError,
        match=r"worker inproc.*: dpes is 0.*, here 9.9; start it in the environment",
    ):
        with cluster.dask(build, fitness.parts(), threads.scheduler_address):
            pass


def test_a_worker_without_the_package_says_so(fitness, threads, monkeypatch):
    whole = cluster._pack
    monkeypatch.setattr(
        cluster,
        "_pack",
        lambda *parts: whole(*parts).replace(b"dpes.study.models", b"dpes.study.models"[::-1]),
    )
    with pytest.raises(cluster.ClusterError, match=r"a worker cannot evaluate \(No module named"):
        with cluster.dask(build, fitness.parts(), threads.scheduler_address):
            pass


BAD = [  # arguments of `run`, words of the message that name the problem and the cure
    (
        ["--scheduler", "nowhere.json"],
        "'nowhere.json': cannot be read (No such file or directory); give tcp://host:port",
    ),
    (["--scheduler", "host:8786"], "'host:8786': cannot be read"),
    (["--scheduler", "."], "'.': cannot be read (Is a directory)"),
    (["--scheduler", ""], "'': cannot be read"),
    (
        ["--scheduler", "broken.json"],
        "no address in this file; start dask scheduler --scheduler-file again",
    ),
    (["--scheduler", "list.json"], "no address in this file"),
    (["--scheduler", "bytes.json"], "no address in this file"),
    (["--scheduler", "stale.json"], "'stale.json': does not answer"),
    (["--scheduler", "tcp://127.0.0.1:9"], "does not answer (Timed out"),
    (["--scheduler", "tcp://127.0.0.1"], "does not answer"),
    (["--scheduler", "tcp://"], "does not answer"),
    (["--scheduler", "http://127.0.0.1:9"], "does not answer (unknown address scheme 'http'"),
    (["--scheduler", "local:0"], "'local:0': must be local:N with N at least 1 and at most 1024"),
    (["--scheduler", "local:two"], "must be local:N"),
    (["--scheduler", "local:" + "9" * 5000], "must be local:N"),
    (
        ["--scheduler", "local:2", "--workers", "2"],
        "workers = 2 and scheduler = 'local:2': give one of them",
    ),
    (
        ["--workers", "1025"],
        "workers = 1025: must be at least 1 and at most 1024; one for each core is enough",
    ),
    (
        ["--threads", "100000"],
        f"threads = 100000: must be at least 1 and at most {4 * (os.cpu_count() or 1)}",
    ),
]


def refused(capsys, tmp_path, *arguments):
    """The one line that a refused run prints; nothing is written."""
    assert (
        main(
            ["run", "--profile", "smoke", "--quiet", "--folder", str(tmp_path / "runs"), *arguments]
        )
        == 2
    )
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1 and "Traceback" not in error and not (tmp_path / "runs").exists()
    ), error
    return error


@pytest.mark.parametrize(
    "arguments, words",
    BAD,
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_bad_input_gets_one_line(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT", 0.5)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "bytes.json").write_bytes(b"\xff\x00")
    (tmp_path / "stale.json").write_text('{"address": "tcp://127.0.0.1:9"}')
    assert words in refused(capsys, tmp_path, *arguments)


def test_a_client_whose_thread_does_not_start_gets_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "distributed.utils.LoopRunner.start", lambda self: (_ for _ in ()).throw(AssertionError)
    )
    words = refused(capsys, tmp_path, "--scheduler", "tcp://127.0.0.1:9")
    assert "does not answer (AssertionError); start it" in words


def test_a_scheduler_without_workers_gets_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    with LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as local:
        assert "no worker for 0 s; start dask worker" in refused(
            capsys, tmp_path, "--scheduler", local.scheduler_address
        )


def test_without_dask_there_is_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "distributed is not installed: pip install 'dpes[cluster]'" in refused(
        capsys, tmp_path, "--scheduler", "local:2"
    )


def test_workers_that_all_leave_end_the_search_with_one_line(fitness, jobs, threads, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    with cluster.dask(build, fitness.parts(), threads.scheduler_address) as errors:
        default_client().retire_workers()
        with pytest.raises(cluster.ClusterError, match="no worker for 0 s; start dask worker"):
            list(errors(jobs))
