"""Files of a run: written whole or not at all, read with care, held by one process."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from .config import DpesError
from .search import Candidate


class RunError(DpesError):
    """A run directory that is damaged, of other settings or another schema, or in use."""


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(partial, path)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"{path}: cannot be read ({type(error).__name__}); restore it, or delete {path.parent} and run again") from None


def read_history(path: Path) -> list[Candidate]:
    """All whole lines of a history; a last line that a kill cut short is dropped from the file."""
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    try:
        return [Candidate(**json.loads(line)) for line in whole.splitlines()]
    except (TypeError, ValueError) as error:
        raise RunError(f"{path}: damaged ({error}); restore it, or delete {path.parent} and run again") from None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a run directory; a second process is refused by the first one's pid and host. A dead owner's lock is free."""
    path.mkdir(parents=True, exist_ok=True)
    lock, owner = filelock.FileLock(path / "lock", timeout=0), path / "owner"
    try:
        lock.acquire()
    except filelock.Timeout:
        who = owner.read_text().strip() if owner.exists() else "another process"
        raise RunError(f"{path}: in use by {who}; wait for it or stop it") from None
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        for leftover in (owner, path / "lock"):
            leftover.unlink(missing_ok=True)
        lock.release()


def difference(a: Any, b: Any, name: str = "") -> str:
    """The first entry in which two nested dictionaries differ, in words."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            if a.get(key) != b.get(key):
                return difference(a.get(key), b.get(key), f"{name}.{key}" if name else key)
    return f"{name} is {a!r}, not {b!r}"
