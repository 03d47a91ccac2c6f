"""Rows of the tournament: one method on one seed in one file, a line for each candidate."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from ..coupling.genome import to_hex
from ..disk import damaged, verify
from ..errors import RunError, first_line
from ..fields import to_dict
from ..strategy.history import Candidate, History, check_values
from .arena import Arena, Bench
from .baseline import file_of
from .environment import environment
from .methods import method

HEADER = {"method", "seed", "parts", "arena", "n_bits", "macs"}  # what a first line has
AGAIN = "delete it, and it is made again"


def row_path(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name}-s{seed}.jsonl"


def header(bench: Bench, name: str, seed: int) -> dict[str, Any]:
    """The first line of a row: what the method is, what was the same for all, and what errors
    depend on beside that, the network's weights first of all.
    """
    env = {
        key: value
        for key, value in environment("cpu").items()
        if key in ("torch", "numpy", "device")
    }
    row = {
        "method": name,
        "seed": seed,
        "parts": to_dict(method(name)),
        "arena": to_dict(bench.arena),
        "network": bench.network,
        "n_bits": bench.layout.n_bits,
        "macs": bench.whole,
        "env": env,
    }
    return json.loads(json.dumps(row))


def read_row(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(header, candidates in order) of a row; a line that was cut off while it was written is left
    out. Raises ``RunError``.
    """
    try:
        verify(path, raw := path.read_bytes())
        text = raw.decode(errors="replace")
        lines = text.splitlines()
        whole = lines if text.endswith("\n") else lines[:-1]
        entries = [json.loads(line) for line in whole]
        if entries and not (isinstance(entries[0], dict) and HEADER <= entries[0].keys()):
            raise ValueError("its first line says not what it is")
        for entry in entries[1:]:
            check_values(entry, ("genome", "error", "macs"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, first_line(error), AGAIN) from None
    return (entries[0], entries[1:]) if entries else ({}, [])


def history_of(candidates: list[dict[str, Any]], bench: Bench) -> History:
    """The candidates of a row, as a method asks for them."""
    lines = (Candidate(**c) for c in candidates)
    return History(lines, n_bits=bench.layout.n_bits, whole=bench.whole)


def check_network(folder: Path, arena: Arena) -> None:
    """Raises ``RunError`` where rows are of a network that would first have to be trained here: its
    weights would most likely be others.
    """
    trained = arena.weights == "train" and not file_of(arena.settings).exists()
    if trained and any(folder.glob("*.jsonl")):
        cure = "use another folder, and it is trained for that one"
        raise RunError(f"{folder}: rows of a {arena.model} whose weights are not here; {cure}")


def known_errors(folder: Path, bench: Bench) -> dict[str, float]:
    """What is known of all candidates of this arena so far, whoever asked: ``key`` -> error.

    Raises ``RunError`` for rows of the arena whose network has other weights.
    """
    known: dict[str, float] = {}
    for path in sorted(folder.glob("*.jsonl")):
        head, candidates = read_row(path)
        if head.get("arena") == to_dict(bench.arena):
            if head.get("network") != bench.network:
                raise RunError(f"{path}: its network has other weights; use another folder")
            kind = head["parts"].get("fitness")
            known |= {key(c["genome"], kind): c["error"] for c in candidates}
    return known


def key(genome: str, kind: str | None) -> str:
    """Name of a genome (hex) under a kind of fitness; under the tournament's own, the genome."""
    return f"{genome} {kind}" if kind else genome


def total(name: str) -> int:
    """How many candidates a finished row has; the unpruned network comes on top where a search
    starts at it.
    """
    one = method(name)
    return one.evaluations + (getattr(one, "start", "") == "unpruned")


def finished(folder: Path, name: str, seed: int) -> bool:
    """Whether all candidates of a row are there; a reference has none."""
    path, n = row_path(folder, name, seed), total(name)
    return not n or (path.exists() and len(read_row(path)[1]) >= n)


def run_row(
    bench: Bench,
    folder: Path,
    name: str,
    seed: int,
    known: dict[str, float],
    tick: Callable[[float], None] = lambda seconds: None,
) -> History:
    """Make one row, or what is missing of it; returns its history. tick: called with the seconds of
    each new evaluation.

    The method is asked again for every generation, so a row that goes on is checked, candidate by
    candidate, to be the same search. Raises ``RunError`` if it is not.
    """
    path, head = row_path(folder, name, seed), header(bench, name, seed)
    stored, candidates = read_row(path) if path.exists() else ({}, [])
    if stored and stored | {"env": 0} != head | {"env": 0}:
        raise RunError(f"{path}: of another method or arena; delete it, or use another folder")
    write_whole(path, [stored or head, *candidates])
    one, n = method(name), 0
    judge = judged(bench, getattr(one, "fitness", None), known, tick)
    with path.open("a") as file:
        while n < total(name):
            genomes = one(bench.space, history_of(candidates[:n], bench), seed)[: total(name) - n]
            if not len(genomes):
                break
            for genome in genomes:
                if n == len(candidates):
                    candidates.append(judge(genome))
                    file.write(json.dumps(candidates[-1]) + "\n")
                    file.flush()
                elif candidates[n]["genome"] != to_hex(genome):
                    reason = f"candidate {n} is another one here (other versions?)"
                    raise RunError(f"{path}: {reason}; delete the row, and it is made again")
                n += 1
    return history_of(candidates, bench)


def judged(
    bench: Bench, kind: str | None, known: dict[str, float], tick: Callable[[float], None]
) -> Callable[[np.ndarray], dict[str, Any]]:
    """A function from a genome to its line: evaluated by this kind of fitness unless known."""
    fitness = bench.fitness_of(kind) if kind else bench.fitness

    def line(genome: np.ndarray) -> dict[str, Any]:
        name = key(text := to_hex(genome), kind)
        if name not in known:
            start = time.perf_counter()
            known[name] = fitness(genome)
            tick(time.perf_counter() - start)
        return {"genome": text, "error": known[name], "macs": bench.layout.macs(genome)}

    return line


def write_whole(path: Path, entries: list[dict[str, Any]]) -> None:
    """A file of one JSON line each, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    os.replace(part, path)


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process may work on a file that others may be working on; use as a context
    manager.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(f"{path}.lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
        Path(f"{path}.lock").unlink(missing_ok=True)
