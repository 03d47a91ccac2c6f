"""The directory of a search: its settings, the strategy's state, every candidate, and what a
continuation needs of them.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

from ..disk import damaged, difference, read_entries, write_json
from ..errors import RunError
from . import es
from .history import TIMING, Candidate, History, read_history

CURE = "restore it, use another folder, or delete this one and run again"


class Folder:
    """``settings.json``, ``state.npz``, ``history.jsonl`` and ``timing.jsonl`` of one search."""

    def __init__(self, path: Path, population: int):
        self.path, self.population = path, population
        self.state_file, self.history_file = path / "state.npz", path / "history.jsonl"

    def claim(self, settings: dict[str, Any]) -> None:
        """Write the settings into a new directory; ``RunError`` for a directory of others."""
        file = self.path / "settings.json"
        if not file.exists():
            if any(f for f in self.path.glob("*.json*") if f.suffix != ".part"):  # of a kill
                cure = "use another folder, or delete these files and run again"
                raise RunError(f"{self.path}: has results but no settings.json; {cure}")
            write_json(file, settings)
        elif (stored := read_entries(file, *settings, cure=CURE)) != settings:
            raise RunError(
                f"{self.path}: holds a run of other settings ({difference(stored, settings)}); use "
                "another folder or delete it"
            )

    def resume(self, mend: bool = True) -> tuple[es.State | None, History]:
        """What earlier sittings left: the strategy's state, and the candidates; see
        ``read_history``. New ones are added to the file.

        Raises ``RunError`` for damaged files, and if candidates are missing that the state has
        seen.
        """
        state = es.State.load(self.state_file) if self.state_file.exists() else None
        candidates = read_history(self.history_file, mend)
        self.check_order(candidates)
        seen = 1 + self.population * state.generation if state else 0
        if len(candidates) < seen:
            raise RunError(
                f"{self.history_file}: has {len(candidates)} of the {seen} candidates that "
                f"{self.state_file.name} has seen; "
                f"restore it, or delete {self.state_file} to evaluate them again"
            )
        return state, History(candidates, self.record)

    def check_order(self, candidates: list[Candidate]) -> None:
        """Raises ``RunError`` unless candidates stand as they were evaluated, none left out."""
        for k, c in enumerate(candidates):
            generation, index = divmod(k - 1, self.population) if k else (-1, 0)
            if c.place != (generation + 1, index):
                found = f"generation {c.generation}, index {c.index}"
                wanted = f"generation {generation + 1}, index {index}"
                raise damaged(self.history_file, f"line {k + 1}: {found} in place of {wanted}")

    def checkpoint(self, state: es.State) -> None:
        state.save(self.state_file)

    def record(self, candidate: Candidate, seconds: float) -> None:
        """Write a candidate down, and before it how long it took and the checksum of its line."""
        line = candidate.line()
        timing = {
            "generation": candidate.generation,
            "index": candidate.index,
            "seconds": round(seconds, 4),
            "crc32": zlib.crc32(line.encode()),
        }
        with (self.path / TIMING).open("a") as lines:
            lines.write(json.dumps(timing) + "\n")
        with self.history_file.open("a") as lines:
            lines.write(line)
