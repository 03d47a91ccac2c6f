"""A run that is killed at any moment and started again ends in the very bits of one that was left
alone.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from dpes import make_settings
from dpes.study import runs

TINY = {
    "model": "vgg-tiny",
    "population": 6,
    "generations": 4,
    "baseline_epochs": 1,
    "finetune_epochs": 2,
    "baseline_images": 256,
    "finetune_images": 256,
}
KILLS = 20


def work(folder: str, data: str) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ["DPES_DATA"] = data
    runs.run(make_settings("smoke", **TINY), folder)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts the run in a process of its own; the server has imported everything, so that a kill
    hits work and not imports.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dpes", "torch", "sklearn.datasets"])
    data = str(tmp_path_factory.mktemp("data"))

    def started(folder: Path) -> multiprocessing.Process:
        process = context.Process(target=work, args=(str(folder), data))
        process.start()
        return process

    return started


def traces(folder: Path) -> dict[str, bytes]:
    """What must not differ: history, state and weights byte by byte; of the result everything but
    measured times.
    """
    (run,) = folder.iterdir()
    files = {
        name: (run / name).read_bytes()
        for name in ("history.jsonl", *(f"{r}.safetensors" for r in ("heavy", "knee", "light")))
    }
    result = json.loads((run / "result.json").read_text())
    del result["checksum"]  # over the times, too
    for role in ("baseline", "heavy", "knee", "light"):
        timed = [k for k in result[role] if k.startswith(("seconds", "latency"))]
        for key in timed:
            del result[role][key]
        for epoch in result[role].get("log", []):
            del epoch["seconds"]
    return files | {"result": json.dumps(result, sort_keys=True).encode()}


def test_killed_at_twenty_random_moments(start, tmp_path):
    whole = start(tmp_path / "whole")
    whole.join()
    assert whole.exitcode == 0
    begun = time.perf_counter()
    # the baseline is trained by now: this is how long a run takes
    again = start(tmp_path / "timed")
    again.join()
    seconds = time.perf_counter() - begun

    draw, kills = random.Random(0), 0
    for attempt in range(10 * KILLS):
        # a few kills for each run, so that all its phases are hit
        folder = tmp_path / f"killed{attempt // 8}"
        process = start(folder)
        process.join(draw.uniform(0.05, 0.6) * seconds)
        if process.is_alive():
            process.kill()
            process.join()
            kills += 1
        if kills >= KILLS:
            break
    assert kills >= KILLS
    expected = traces(tmp_path / "whole")
    for folder in sorted(tmp_path.glob("killed*")):
        process = start(folder)
        process.join()
        assert process.exitcode == 0
        assert traces(folder) == expected


def test_interrupted_by_the_keyboard(start, tmp_path):
    process = start(tmp_path / "run")
    time.sleep(1.0)
    if process.is_alive():
        os.kill(process.pid, signal.SIGINT)
    process.join()
    process = start(tmp_path / "run")
    process.join()
    assert process.exitcode == 0
