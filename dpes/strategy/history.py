"""Every candidate of a search as a line of ``history.jsonl``, each line checked when it is read."""

from __future__ import annotations

import json
import math
import re
import reprlib
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..coupling.genome import from_hex, to_hex
from ..disk import damaged, verify
from ..errors import RunError
from . import pareto
from .es import ROLES

if TYPE_CHECKING:
    import pandas as pd


Place = tuple[int | None, int | None]
ARCHIVE = "archive"  # the parent of what a surrogate proposes: all candidates before it


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One evaluated genome, as a line of ``history.jsonl``; what a line leaves out is None.

    Lines of the tournament have genome, error and macs alone.
    """

    generation: int | None = None  # 0: the unpruned network; offspring count from 1
    index: int | None = None
    parent: str | None = None  # role of its parent or ARCHIVE, empty for the unpruned network
    genome: str  # bits as hexadecimal digits, first bit first
    # on the images of the search, after recalibration or partial training; inf: evaluation failed
    error: float
    macs: int
    params: int | None = None
    cost: float | None = None  # the second objective, where it is none of the layout's own

    @property
    def place(self) -> Place:
        """Generation and index."""
        return self.generation, self.index

    def line(self) -> str:
        return json.dumps({k: v for k, v in vars(self).items() if v is not None}) + "\n"


class History:
    """All candidates of a search so far, in their order: which genomes are known, what is written
    down, and what a strategy learns from.

    Parameters
    ----------
    write
        Called with each new candidate and its seconds.
    n_bits, whole
        Length of a genome and MACs of the whole network, for ``genomes`` and ``F``.
    """

    def __init__(
        self,
        candidates: Iterable[Candidate] = (),
        write: Callable[[Candidate, float], None] = lambda *_: None,
        n_bits: int = 0,
        whole: float = 1,
    ):
        self.candidates, self.write = list(candidates), write
        self.n_bits, self.whole = n_bits, whole
        self.known = {c.genome: c for c in self.candidates}
        self.places = {c.place: c for c in self.candidates}

    def __len__(self) -> int:
        return len(self.candidates)

    @property
    def genomes(self) -> np.ndarray:
        """bool [n, n_bits]."""
        rows = [from_hex(c.genome, self.n_bits) for c in self.candidates]
        return np.reshape(rows, (-1, self.n_bits)).astype(bool)

    @property
    def F(self) -> np.ndarray:
        """float [n, 2]: error and share of the MACs, both minimised."""
        return np.reshape([(c.error, c.macs / self.whole) for c in self.candidates], (-1, 2))

    def new(self, genomes: np.ndarray) -> list[np.ndarray]:
        """Those that are not known yet, each once."""
        return list({to_hex(g): g for g in genomes if to_hex(g) not in self.known}.values())

    def add(self, candidate: Candidate, seconds: float = 0.0) -> None:
        """Remember a candidate and write it down, unless an earlier sitting did."""
        if candidate.place not in self.places:
            self.places[candidate.place] = candidate
            self.candidates.append(candidate)
            self.write(candidate, seconds)
        self.known[candidate.genome] = candidate

    def checked(self, candidate: Candidate, cure: str) -> Candidate:
        """The candidate; ``RunError`` if an earlier sitting had another one in its place."""
        earlier = self.places.get(candidate.place, candidate)
        for name, value in vars(candidate).items():
            if (then := getattr(earlier, name)) != value:
                where = f"candidate {candidate.index} of generation {candidate.generation}"
                found = f"{name} {then!r} in the history, {value!r} here"
                raise RunError(f"{where} has {found}: {cure}")
        return candidate

    @property
    def frame(self) -> pd.DataFrame:
        """A row for each candidate: generation, index, parent, genome (hex), error, macs, params,
        cost.
        """
        import pandas as pd  # late: it takes as long to import as all of this package

        return pd.DataFrame([vars(c) for c in self.candidates])


def read_history(path: Path, mend: bool = True) -> list[Candidate]:
    """All whole lines of a history, every one checked; a last line that a kill cut short is left
    out, and cut from the file to mend it.

    Raises ``RunError`` that names the first damaged line, and then writes nothing.
    """
    if not path.exists():
        return []
    whole = whole_lines(path)
    verify(path, path.read_bytes())
    candidates: dict[Place, Candidate] = {}
    checksums = read_checksums(path.with_name(TIMING))
    for number, line in enumerate(whole.split(b"\n")[:-1], 1):
        try:
            candidate = to_candidate(line)
            if candidate.place in checksums:
                if checksums[candidate.place] != zlib.crc32(line + b"\n"):
                    raise ValueError(f"its checksum in {TIMING} differs")
            # older files have none, up to the line where a later version went on
            elif checksums.keys() & candidates.keys():
                lost = f"line {number} has no checksum in {TIMING}"
                raise RunError(f"{path}: {lost}; delete that file: {LOSS}")
            check_among(candidate, candidates)
        except ValueError as error:
            raise damaged(path, f"line {number}: {error}") from None
        candidates[candidate.place] = candidate
    if mend:
        cut_off(path)
        cut_off(path.with_name(TIMING))
    return list(candidates.values())


def check_among(candidate: Candidate, before: dict[Place, Candidate]) -> None:
    """Raises ``ValueError`` if an earlier line has its place, or genomes of another length."""
    if candidate.place in before:
        where = f"generation {candidate.generation}, index {candidate.index}"
        raise ValueError(f"{where} stands in an earlier line, too")
    first = next(iter(before.values()), candidate)
    if (own := len(candidate.genome)) != (digits := len(first.genome)):
        found = f"its genome has {own} hexadecimal digits"
        raise ValueError(f"{found}, that of the first line {digits}")


def cut_off(path: Path) -> None:
    """Remove a last line that a kill cut short."""
    if path.exists() and len(lines := whole_lines(path)) < path.stat().st_size:
        with path.open("r+b") as file:
            file.truncate(len(lines))


def whole_lines(path: Path) -> bytes:
    """The lines of a file without a last one that a kill cut short."""
    text = path.read_bytes()
    return text[: text.rfind(b"\n") + 1]


TIMING = "timing.jsonl"  # beside a history: seconds, and the checksum of each of its lines
LOSS = "nothing but seconds and checksums is lost"


def read_checksums(path: Path) -> dict[Place, int]:
    """(generation, index) -> CRC-32 of a candidate's line, as far as they are known."""
    found = {}
    lines = whole_lines(path).split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            place = values.pop("generation"), values.pop("index")
            if not values.keys() <= {"seconds", "crc32"}:
                raise ValueError("unknown entry")
            if "crc32" in values:
                found[place] = values["crc32"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise damaged(path, f"line {number}", f"delete this file: {LOSS}") from None
    return found


# entry of a line -> what it must be, in words
CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "generation": (lambda v: type(v) is int and v >= 0, "a whole number of at least 0"),
    "index": (lambda v: type(v) is int and v >= 0, "a whole number of at least 0"),
    "parent": (
        lambda v: v in ("", *ROLES, ARCHIVE),
        f"empty or one of {', '.join((*ROLES, ARCHIVE))}",
    ),
    "genome": (
        lambda v: isinstance(v, str) and bool(re.fullmatch("([0-9a-f]{2})+", v)),
        "pairs of hexadecimal digits",
    ),
    "error": (
        lambda v: type(v) in (int, float) and (0 <= v <= 1 or v == math.inf),
        "a number from 0 to 1, or Infinity",
    ),
    "macs": (lambda v: type(v) is int and v >= 0, "a whole number of at least 0"),
    "params": (lambda v: type(v) is int and v >= 0, "a whole number of at least 0"),
    "cost": (lambda v: type(v) in (int, float), "a number"),
}


def to_candidate(line: bytes) -> Candidate:
    """One line of a history; raises ``ValueError`` that says what is wrong with it."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    check_values(values, set(CHECKS) - {"cost"})
    if (values["generation"] == 0) != (values["parent"] == ""):
        raise ValueError(f"parent is {values['parent']!r} in generation {values['generation']}")
    return Candidate(**values)


def check_values(values: Any, needed: Iterable[str]) -> None:
    """Raises ``ValueError`` that says what is wrong with the entries of a line."""
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    if missing := [name for name in CHECKS if name in needed and name not in values]:
        raise ValueError(f"no {missing[0]}")
    for name, value in values.items():
        if name not in CHECKS:
            raise ValueError(f"unknown entry {reprlib.repr(name)}")
        fits, words = CHECKS[name]
        if not fits(value):
            raise ValueError(f"{name} is {reprlib.repr(value)}, not {words}")


def archive(history: pd.DataFrame, cost: str) -> pd.DataFrame:
    """The candidates that no other dominates, over all generations, by falling cost; the unpruned
    network is none of them.

    Source: ours.

    Parameters
    ----------
    history
        A row per candidate, the unpruned network first.
    cost
        The column of the second objective.
    """
    # it may be born again, and would not be a result
    pruned = history[history.genome != history.genome.iloc[0]]
    return pruned[pareto.non_dominated(pruned[["error", cost]].to_numpy(float))].sort_values(
        cost, ascending=False
    )
