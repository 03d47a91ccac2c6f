"""Kills and interrupts commands at random moments, lets them continue, and compares what they write.

    python benchmarks/kills.py                # all rows, 30 kills and 10 interrupts: ten minutes
    python benchmarks/kills.py run train      # these anew

Writes kills.json: for each command how often it was struck and whether it ended in the same bytes as
when it was left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TINY = "--profile smoke --model vgg-tiny --population 6 --generations 4 --finetune-epochs 2 --threads 1"
DPES = [sys.executable, "-m", "dpes"]
PRUNE = """
import sys, torch, dpes
from dpes.teaching import lessons
torch.set_num_threads(1)
x, y = lessons.digits().validation
front = dpes.prune(lessons.plain().eval(), x[:1], data=(x, y), folder=sys.argv[1] + "/search",
                   settings=dpes.Search(population=12, generations=12), progress=False)
"""


@dataclass(frozen=True)
class Row:
    """A command that writes into a folder, and how often it is struck."""

    command: Callable[[Path], list[str]]
    files: str  # a pattern of what must not differ
    kills: int
    interrupts: int
    finished_run: bool = False  # whether it goes on from one


def dpes(words: str) -> Callable[[Path], list[str]]:
    return lambda folder: [*DPES, *words.split()]


def rivals(workers: int) -> Callable[[Path], list[str]]:
    def command(folder: Path) -> list[str]:
        (run,) = (folder / "runs").iterdir()
        words = f"--masks 2 --threads 1 --quiet --workers {workers}"
        return [*DPES, "rivals", str(run), *words.split()]

    return command


ROWS = {
    "run": Row(dpes(f"run {TINY} --quiet"), "runs/*/*", 6, 2),
    "run, two processes": Row(dpes(f"run {TINY} --quiet --workers 2"), "runs/*/*", 6, 2),
    "train": Row(dpes("train --profile smoke --baseline-epochs 6 --quiet"), "data/weights/*", 4, 1),
    "rivals": Row(rivals(1), "runs/*/rivals.json", 3, 1, True),
    "rivals, two processes": Row(rivals(2), "runs/*/rivals.json", 3, 1, True),
    "execute": Row(
        lambda folder: [sys.executable, str(folder / "notebooks" / "execute.py"), "learn-cut"],
        "book/chapters/*.ipynb", 4, 1,
    ),
    "prune": Row(lambda folder: [sys.executable, "-c", PRUNE, str(folder)], "search/*", 4, 2),
}  # fmt: skip
VARIES = ("timing.jsonl", "env.json", "lock", "owner")
TIMES = ("seconds", "latency", "env", "checksum", "torch")


def prepared(folder: Path, row: Row) -> Path:
    """A folder with what the command needs."""
    folder.mkdir(parents=True)
    for name in ("notebooks", "dpes"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    if row.finished_run:
        call(folder, [*DPES, *f"run {TINY} --quiet".split()]).wait()
    return folder


def call(folder: Path, command: list[str]) -> subprocess.Popen:
    env = os.environ | {"DPES_DATA": str(folder / "data"), "DPES_RUNS": str(folder / "runs")}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    ignored = [sys.executable, "-c", f"{code}; import os, sys; os.execv(sys.argv[1], sys.argv[1:])"]
    quiet = subprocess.DEVNULL
    where = {"cwd": folder, "env": env, "start_new_session": True}
    return subprocess.Popen([*ignored, *command], stdout=quiet, stderr=subprocess.PIPE, **where)


def finished(folder: Path, row: Row) -> float:
    """Let the command end; its seconds."""
    started = time.perf_counter()
    process = call(folder, row.command(folder))
    _, error = process.communicate()
    if process.returncode:
        raise SystemExit(f"{row.command(folder)} ended with {process.returncode}: {error.decode()}")
    return time.perf_counter() - started


def written(folder: Path, row: Row) -> dict[str, bytes]:
    """What must not differ: files byte by byte, of JSON everything but measured times."""
    found = {}
    for file in sorted(folder.glob(row.files)):
        if file.is_file() and file.name not in VARIES and not file.name.endswith(".lock"):
            raw = file.read_bytes()
            name = str(file.relative_to(folder))
            found[name] = (
                json.dumps(timeless(json.loads(raw))).encode() if file.suffix == ".json" else raw
            )
    assert found
    return found


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if not k.startswith(TIMES)}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def strike(folder: Path, row: Row, signals: list[int], seconds: float, draw: random.Random) -> int:
    """Strike the command by these signals at random moments, one a start; how many hit it."""
    hits = 0
    while hits < len(signals):
        process = call(folder, row.command(folder))
        try:
            process.wait(draw.uniform(0.15, 0.95) * seconds)
            process.stderr.close()
            return hits  # it ended before: what is left of the signals needs a new folder
        except subprocess.TimeoutExpired:
            if signals[hits] == signal.SIGINT:
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            else:
                process.kill()
            process.communicate()
            hits += 1
    return hits


def measure(name: str, seed: int = 0) -> dict[str, Any]:
    row, draw = ROWS[name], random.Random(f"{name} {seed}")
    signals = [signal.SIGKILL] * row.kills + [signal.SIGINT] * row.interrupts
    draw.shuffle(signals)
    same = folders = 0
    with tempfile.TemporaryDirectory() as place:
        whole = prepared(Path(place) / "whole", row)
        seconds = finished(whole, row)
        wanted, left = written(whole, row), list(signals)
        while left:
            folders += 1
            folder = prepared(Path(place) / f"struck{folders}", row)
            hits = strike(folder, row, left[:4], seconds, draw)
            left = left[hits:]
            finished(folder, row)
            found = written(folder, row)
            differ = [k for k in {*wanted, *found} if wanted.get(k) != found.get(k)]
            if differ:
                print(f"{name}: differs in {differ}", flush=True)
            same += not differ
    counts = {"kills": row.kills, "interrupts": row.interrupts, "folders": folders, "same": same}
    return {"command": name, **counts, "seconds_alone": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Strike commands at random moments.")
    parser.add_argument("names", nargs="*", choices=[[], *ROWS], help="rows; all by default")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    file = Path(__file__).with_suffix(".json")
    rows = {r["command"]: r for r in (json.loads(file.read_text()) if file.exists() else [])}
    for name in arguments.names or ROWS:
        rows[name] = measure(name, arguments.seed)
        print(rows[name], flush=True)
        kept = [rows[n] for n in ROWS if n in rows]
        file.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
