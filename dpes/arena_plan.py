"""The arena's command line: all rows in an order that leaves the most useful table whenever it stops."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import arena, arena_tuning
from .config import DpesError
from .strategy.methods import CORE, FAMILIES, METHODS, MORE, PARTS, method, seeded

SEARCH_SECONDS, TUNE_SECONDS = 1.0, 40.0  # of a candidate, of a fine-tuning: first guesses, replaced by what is measured


@dataclass(frozen=True)
class Task:
    """A row to search (``share`` 0), or one network of it to fine-tune."""

    name: str
    seed: int
    share: float = 0.0
    training: int = 0

    def path(self, folder: Path) -> Path:
        if self.share:
            return arena_tuning.tuned_path(folder, self.name, self.seed, self.share, self.training)
        return arena.row_path(folder, self.name, self.seed)

    def done(self, folder: Path) -> bool:
        return self.path(folder).exists() if self.share else arena.finished(folder, self.name, self.seed)


def plan(seeds: list[int], names: list[str] | None = None) -> list[Task]:
    """All tasks: the main methods seed by seed, searched and fine-tuned at the tighter cut, then the rest of the table."""
    main, tight, loose = [*CORE, *FAMILIES], *arena_tuning.SHARES
    tasks: list[Task] = []
    for block in (seeds[:3], seeds[3:]):
        for seed in block:
            tasks += [Task(name, seed) for name in main] + [Task(name, seed, tight) for name in main]
        tasks += [Task(name, seed, loose) for seed in block for name in main]
    others = [*MORE, *PARTS]
    tasks += [Task(name, seed) for seed in seeds for name in others]
    tasks += [Task(name, seed, share) for share in arena_tuning.SHARES for seed in seeds for name in others]
    tasks += [Task(name, seed, share, 1) for share in arena_tuning.SHARES for seed in seeds for name in (*main, *others)]
    wanted = dict.fromkeys(t for t in tasks if names is None or t.name in names)
    return [t for t in wanted if seeded(t.name) or t.seed == seeds[0]]


class Forecast:
    """Hours left, from the seconds of what was done in this sitting."""

    def __init__(self) -> None:
        self.seconds = {"search": [SEARCH_SECONDS], "tune": [TUNE_SECONDS]}

    def tick(self, seconds: float, kind: str = "search") -> None:
        self.seconds[kind] = [*self.seconds[kind], seconds][-300:]

    def left(self, tasks: list[Task], workers: int) -> float:
        """Hours; rows that are half done count as whole."""
        mean = {kind: sum(s) / len(s) for kind, s in self.seconds.items()}
        return sum(mean["tune"] if t.share else mean["search"] * arena.total(t.name) for t in tasks) / 3600 / workers


def work(folder: Path, tasks: list[Task], workers: int = 1, say: Callable[[str], None] = print) -> None:
    """Do all tasks that are not done and that no other process is at."""
    bench = arena.prepare(arena.Arena())
    known, forecast = arena.known_errors(folder, bench.arena), Forecast()
    for task in waiting(tasks, folder):
        with arena.claimed(task.path(folder)) as mine:
            if not mine or task.done(folder):
                continue
            start = time.perf_counter()
            if task.share:
                if not arena.finished(folder, task.name, task.seed):
                    continue
                entry = arena_tuning.tune(bench, folder, task.name, task.seed, task.share, task.training, known)
                forecast.tick(time.perf_counter() - start, "tune")
                outcome = f"at {task.share:.2f} of the MACs: test error {100 * entry.get('test_error', float('nan')):.2f} %"
            else:
                history = arena.run_row(bench, folder, task.name, task.seed, known, forecast.tick)
                least = ["-" if (row := arena_tuning.chosen(history, s)) is None else f"{100 * history.F[row, 0]:.1f}" for s in (0.8, 0.7, 0.6, 0.5)]
                outcome = f"search error % at .8 .7 .6 .5 of the MACs: {' '.join(least)}"
        left = [t for t in tasks if not t.done(folder)]
        say(
            f"{time.strftime('%H:%M:%S')} {task.name} seed {task.seed} {outcome}; "
            f"{time.perf_counter() - start:.0f} s, {len(left)} of {len(tasks)} left, {forecast.left(left, workers):.1f} h"
        )


def waiting(tasks: list[Task], folder: Path) -> Iterator[Task]:
    """The tasks that are not done when their turn comes."""
    return (task for task in tasks if not task.done(folder))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m dpes.arena_plan", description="Every search and every simple method on one network.")
    top.add_argument("--only", default="", help="methods, comma between them: " + ", ".join(METHODS))
    top.add_argument("--seeds", default="0-4", help="search seeds: 3, or 0-4")
    top.add_argument("--workers", type=int, default=1, help="processes at the same time, one thread each")
    top.add_argument("--folder", type=Path, default=arena.FOLDER, help="where rows lie")
    top.add_argument("--searches", action="store_true", help="search only, fine-tune nothing")
    top.add_argument("--left", action="store_true", help="only say what is left")
    return top


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    low, _, high = args.seeds.partition("-")
    try:
        names = [name for name in args.only.split(",") if name] or None
        for name in names or ():
            method(name)
        tasks = [t for t in plan(list(range(int(low), int(high or low) + 1)), names) if not (args.searches and t.share)]
        left = [t for t in tasks if not t.done(args.folder)]
        print(f"{len(left)} of {len(tasks)} tasks left, about {Forecast().left(left, args.workers):.1f} h", flush=True)
        if args.left:
            return 0
        others = [subprocess.Popen([sys.executable, "-m", "dpes.arena_plan", *given(argv)]) for _ in range(args.workers - 1)]
        work(args.folder, tasks, args.workers, lambda line: print(line, flush=True))
        return max((p.wait() for p in others), default=0)
    except DpesError as error:
        print(f"dpes: {error}", file=sys.stderr)
        return 1


def given(argv: list[str] | None) -> list[str]:
    """The arguments for a second process, which starts no third."""
    words = list(sys.argv[1:] if argv is None else argv)
    return [*words, "--workers", "1"]


if __name__ == "__main__":
    raise SystemExit(main())
