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
from .methods import METHODS, method

HEADER = {  # what a first line has
    "method": str, "seed": int, "parts": dict, "arena": dict, "n_bits": int, "macs": int,
}  # fmt: skip
AGAIN = "delete it, and it is made again"


def row_path(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name}-s{seed}.jsonl"


def header(bench: Bench, name: str, seed: int) -> dict[str, Any]:
    """The first line of a row: what the method is, what was the same for all, and what errors
    depend on beside that, the network's weights first of all.
    """
    env = environment("cpu")
    env = {"env": {key: env[key] for key in ("torch", "numpy", "device")}}
    return json.loads(json.dumps(identity(bench, name, seed) | env))


def identity(bench: Bench, name: str, seed: int) -> dict[str, Any]:
    """What the first line of a row must say, wherever it was made."""
    one = {"method": name, "seed": seed, "parts": to_dict(method(name))}
    one |= {"arena": to_dict(bench.arena), "network": bench.network}
    return one | {"n_bits": bench.layout.n_bits, "macs": bench.whole}


def check_same(path: Path, head: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises ``RunError`` if entries of a file are not those that it would be made with here."""
    wanted = json.loads(json.dumps(wanted))
    for key, value in wanted.items():
        if key not in head:
            raise RunError(f"{path}: names no {key}, so it is from an older version; {AGAIN}")
        if head[key] != value:
            cure = "use another folder" if key in ("arena", "network") else AGAIN
            raise RunError(f"{path}: of another {key}; {cure}")


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
        if not entries:
            return {}, []
        head, candidates = check_header(entries[0]), entries[1:]
        for entry in candidates:
            check_values(entry, ("genome", "error", "macs"))
            if len(entry["genome"]) != 2 * -(-head["n_bits"] // 8):
                raise ValueError(f"a genome that has not {head['n_bits']} bits")
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, first_line(error), AGAIN) from None
    return head, candidates


def check_header(head: Any) -> dict[str, Any]:
    """The same; raises ``ValueError`` if a first line does not say what its row is."""
    if not isinstance(head, dict) or not all(isinstance(head.get(k), v) for k, v in HEADER.items()):
        raise ValueError("its first line says not what it is")
    if head["method"] not in METHODS:
        raise ValueError(f"a method that is not known here, {head['method']!r}")
    if min(head["n_bits"], head["macs"]) < 1:
        raise ValueError("its network has no filters")
    return head


def history_of(candidates: list[dict[str, Any]], bench: Bench) -> History:
    """The candidates of a row, as a method asks for them."""
    lines = (Candidate(**c) for c in candidates)
    return History(lines, n_bits=bench.layout.n_bits, whole=bench.whole)


def check_folder(folder: Path, arena: Arena) -> None:
    """Raises ``RunError`` for rows of another arena, and where results are of a network that would
    first have to be trained here: its weights would most likely be others.
    """
    for path in (found := sorted(folder.glob("*.jsonl"))):
        if head := read_row(path)[0]:
            check_same(path, head, {"arena": to_dict(arena)})
    trained = arena.weights == "train" and not file_of(arena.settings).exists()
    if trained and (found or any(folder.glob("tuned/*.json"))):
        cure = "use another folder, and it is trained for that one"
        raise RunError(f"{folder}: rows of a {arena.model} whose weights are not here; {cure}")


def known_errors(folder: Path, bench: Bench) -> dict[str, float]:
    """What is known of all candidates of this arena so far, whoever asked: ``key`` -> error.

    Raises ``RunError`` for rows of another arena or of a network with other weights.
    """
    own = {"arena": to_dict(bench.arena), "network": bench.network}
    known: dict[str, float] = {}
    for path in sorted(folder.glob("*.jsonl")):
        head, candidates = read_row(path)
        if head:
            check_same(path, head, own)
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
    if stored:
        check_same(path, stored, identity(bench, name, seed))
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
