"""What bits and seconds depend on beside the settings, and the seconds of each phase: ``env.json``
of a run.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..disk import read_entries, write_json
from ..errors import RunError


class Stopwatch:
    """Adds the seconds of each phase, over all sittings, to ``env.json`` beside versions and
    hardware of each sitting, and of the last one.
    """

    def __init__(self, path: Path, device: str, workers: int | str):
        self.path = path
        self.env = read_env(path)
        here = environment(device) | {"workers": workers}
        before = self.env.pop("sittings", None) or [sitting(self.env)]
        self.env |= here | {"sittings": [s for s in before if s] + [here]}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            before = self.env["seconds"].get(phase, 0.0)
            self.env["seconds"][phase] = round(before + time.perf_counter() - start, 2)
            write_json(self.path, self.env)


def read_env(path: Path) -> dict[str, Any]:
    """What ``env.json`` holds, nothing but no seconds where it is not there."""
    cure = "delete this file: nothing but seconds and versions is lost"
    return read_entries(path, "seconds", cure=cure) if path.exists() else {"seconds": {}}


def sitting(env: dict[str, Any]) -> dict[str, Any]:
    """Commit, versions and hardware alone; of older files, those of their last sitting."""
    return {k: v for k, v in env.items() if k not in ("seconds", "sittings")}


def environment(device: str) -> dict[str, Any]:
    """What bits and seconds depend on beside the settings: commit, versions, hardware, threads."""
    hardware = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    if str(device).startswith("cuda"):
        hardware = torch.cuda.get_device_name(device)
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": hardware,
        "threads": torch.get_num_threads(),
    }


def commit() -> str:
    """The commit of the code, with ``+`` for uncommitted changes; empty outside a checkout."""
    command, here = "git describe --always --dirty=+ --abbrev=12".split(), Path(__file__).parent
    quiet: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 10}
    try:
        described = subprocess.run(command, cwd=here, **quiet)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return described.stdout.strip() if described.returncode == 0 else ""


def check_device(device: str) -> None:
    """Raises ``RunError`` for a device that is not there."""
    try:
        torch.zeros(1, device=device).cpu()  # that of device meta holds nothing
    except (RuntimeError, AssertionError):  # torch without CUDA asserts
        raise RunError(
            f"device {device!r} cannot be used here; use cpu, or cuda on a machine with a GPU"
        ) from None


class Progress:
    """Called after each epoch of a training; prints one line when asked to."""

    def __init__(self, name: str, epochs: int, visible: bool):
        self.name, self.epochs, self.visible = name, epochs, visible

    def __call__(self, epoch: int, loss: float, seconds: float) -> None:
        if self.visible:
            said = f"epoch {epoch + 1}/{self.epochs}, loss {loss:.3f}, {seconds:.0f} s"
            print(f"{self.name}: {said}", file=sys.stderr, flush=True)
