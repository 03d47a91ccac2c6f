"""Files of a run: written whole or not at all, read with care, held by one process."""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import filelock

from .config import DpesError
from .es import ROLES
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
    except (OSError, ValueError, RecursionError) as error:  # a ValueError too: bytes that are no text, a number of 5,000 digits
        raise RunError(f"{path}: cannot be read ({type(error).__name__}); restore it, or delete {path.parent} and run again") from None


def read_history(path: Path, mend: bool = True) -> list[Candidate]:
    """All whole lines of a history, every one checked; a last line that a kill cut short is left out, and cut from the file to mend it.

    Raises ``RunError`` that names the first damaged line, and then writes nothing.
    """
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    candidates: dict[tuple[int, int], Candidate] = {}
    digits = 0
    for number, line in enumerate(whole.split(b"\n")[:-1], 1):
        try:
            candidate = to_candidate(line)
            place = candidate.generation, candidate.index
            digits = digits or len(candidate.genome)
            if place in candidates:
                raise ValueError(f"generation {place[0]}, index {place[1]} stands in an earlier line, too")
            if len(candidate.genome) != digits:
                raise ValueError(f"its genome has {len(candidate.genome)} hexadecimal digits, that of the first line {digits}")
        except ValueError as error:
            raise RunError(f"{path}: damaged (line {number}: {error}); restore it, or delete {path.parent} and run again") from None
        candidates[place] = candidate
    if mend and len(whole) < len(text):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return list(candidates.values())


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {  # entry of a line -> what it must be, in words
    "generation": (lambda v: type(v) is int and v >= 0, "a whole number of at least 0"),
    "index": (lambda v: type(v) is int and v >= 0, "a whole number of at least 0"),
    "parent": (lambda v: v in ("", *ROLES), f"empty or one of {', '.join(ROLES)}"),
    "genome": (lambda v: isinstance(v, str) and bool(re.fullmatch("([0-9a-f]{2})+", v)), "pairs of hexadecimal digits"),
    "error": (lambda v: type(v) in (int, float) and (0 <= v <= 1 or v == math.inf), "a number from 0 to 1, or Infinity"),
    "macs": (lambda v: type(v) is int and v >= 0, "a whole number of at least 0"),
    "params": (lambda v: type(v) is int and v >= 0, "a whole number of at least 0"),
    "cost": (lambda v: type(v) in (int, float), "a number"),
    "stopped": (lambda v: type(v) is bool, "true or false"),
}


def to_candidate(line: bytes) -> Candidate:
    """One line of a history; raises ``ValueError`` that says what is wrong with it."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    if missing := [f.name for f in fields(Candidate) if f.default is MISSING and f.name not in values]:
        raise ValueError(f"no {missing[0]}")
    for name, value in values.items():
        if name not in CHECKS:
            raise ValueError(f"unknown entry {reprlib.repr(name)}")
        fits, words = CHECKS[name]
        if not fits(value):
            raise ValueError(f"{name} is {reprlib.repr(value)}, not {words}")
    if (values["generation"] == 0) != (values["parent"] == ""):
        raise ValueError(f"parent is {values['parent']!r} in generation {values['generation']}")
    return Candidate(**values)


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
