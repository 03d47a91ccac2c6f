"""The tournament: all rows of the arena, in an order that leaves the most useful table whenever it
stops.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..errors import SettingsError
from . import arena, fidelity, rows, tuning
from .arena import Bench
from .devices import nth
from .environment import check_device
from .methods import CONFIRMED, CORE, LONG, METHODS, MORE, PARTS, REFERENCES, TOP, method, seeded
from .tuning import Task

OWN = "resnet20"  # the tournament's own network; others confirm
LONG_SHARES = (0.5, 0.8)  # of the MACs, for networks that are trained long
# of a candidate, of a fine-tuning: first guesses, replaced by what is measured
SEARCH_SECONDS, TUNE_SECONDS, LONG_SECONDS, GPU_SECONDS = 1.0, 40.0, 1600.0, 30.0
ONLY_LONG = "is for --long; short trainings stay on the CPU, where the others of their table are"


def plan(seeds: list[int], names: list[str] | None = None) -> list[Task]:
    """All tasks: who decides the question seed by seed, searched and fine-tuned at the tighter cut;
    then the wider table, the other cut, the single parts, and second trainings.
    """
    tight, loose = tuning.SHARES
    tasks: list[Task] = []
    for block in (seeds[:3], seeds[3:]):
        for group in (TOP, CORE):
            tasks += [
                t for seed in block for name in group for t in of_one(name, seed, seeds, tight)
            ]
        tasks += [t for seed in block for n in (*TOP, *CORE) for t in of_one(n, seed, seeds, loose)]
    for group in (REFERENCES, MORE, PARTS):
        tasks += [t for seed in seeds for name in group for t in of_one(name, seed, seeds, tight)]
    tasks += [t for seed in seeds for name in METHODS for t in of_one(name, seed, seeds, loose)]
    second = [t for share in tuning.SHARES for t in tasks if t.share == share]
    tasks += [replace(t, training=t.training + tuning.SECOND) for t in second]
    return list(dict.fromkeys(t for t in tasks if names is None or t.name in names))


def confirmation(seeds: list[int], names: list[str] | None = None) -> list[Task]:
    """The tasks on a larger network: few methods, at the tighter cut."""
    tight, _ = tuning.SHARES
    methods = names or CONFIRMED
    tasks = [t for s in seeds for name in methods for t in of_one(name, s, seeds, tight)]
    return list(dict.fromkeys(tasks))


def trained_long(
    folder: Path, seeds: list[int], names: list[str] | None = None, lr: float | None = None
) -> list[Task]:
    """The networks of the rows that are finished, trained as long as those of the study's own
    runs, at the peak learning rate of those or at another.
    """
    tasks = []
    for name in names or LONG:
        found = (p.stem.rpartition("-s")[2] for p in folder.glob(f"{name}-s*.jsonl"))
        numbers = sorted(int(seed) for seed in found if seed.isdecimal())
        made = [seed for seed in numbers if rows.finished(folder, name, seed)]
        cuts = [(seed, share) for seed in seeds for share in LONG_SHARES]
        tasks += [t for s, share in cuts for t in of_one(name, s, made or seeds, share)]
    finished = [t for t in tasks if t.share and rows.finished(folder, t.name, t.seed)]
    return sorted(
        dict.fromkeys(replace(t, long=True, lr=lr) for t in finished),
        key=lambda t: (t.training, LONG_SHARES.index(t.share) if t.share < 1 else 0),
    )


def of_one(name: str, seed: int, seeds: list[int], share: float) -> list[Task]:
    """A row and its fine-tuning. The seed of the search is that of the training, too.

    A family that has no seed is trained once for each, so that all methods are paired.
    """
    if name == "unpruned":  # at no cut
        return [Task(name, seed, 1.0, seed)]
    row = seed if seeded(name) else seeds[0]
    return [Task(name, row), Task(name, row, share, seed)]


class Forecast:
    """Hours left, from the seconds of what was done in this sitting; guessed before."""

    def __init__(self, tune_seconds: float = TUNE_SECONDS) -> None:
        self.guess = {"search": SEARCH_SECONDS, "tune": tune_seconds}
        self.seconds: dict[str, list[float]] = {"search": [], "tune": []}

    def tick(self, seconds: float, kind: str = "search") -> None:
        self.seconds[kind] = [*self.seconds[kind], seconds][-300:]

    def left(self, tasks: list[Task], workers: int) -> float:
        """Hours; rows that are half done count as whole."""
        mean = {k: sum(s) / len(s) if s else self.guess[k] for k, s in self.seconds.items()}
        return (
            sum(mean["tune"] if t.share else mean["search"] * rows.total(t.name) for t in tasks)
            / 3600
            / workers
        )


def work(
    bench: Bench,
    known: dict[str, float],
    folder: Path,
    tasks: list[Task],
    workers: int = 1,
    say: Callable[[str], None] = print,
) -> None:
    """Do all tasks that are not done and that no other process is at; what becomes ``known`` of
    candidates is added.
    """
    forecast = Forecast()
    for task in waiting(tasks, folder):
        with rows.claimed(task.path(folder)) as mine:
            if not mine or task.done(folder):
                continue
            start = time.perf_counter()
            if task.share:
                if not rows.finished(folder, task.name, task.seed):
                    continue
                entry = tuning.tune(bench, folder, task, known)
                forecast.tick(time.perf_counter() - start, "tune")
                percent = 100 * entry.get("test_error", float("nan"))
                outcome = f"at {task.share:.2f} of the MACs, training {task.training}"
                outcome += ", long" * task.long + (f" at {task.lr:g}" if task.lr else "")
                outcome += f": test error {percent:.2f} %"
            else:
                history = rows.run_row(bench, folder, task.name, task.seed, known, forecast.tick)
                least = [
                    "-"
                    if (row := tuning.chosen(history, s)) is None
                    else f"{100 * history.F[row, 0]:.1f}"
                    for s in (0.8, 0.7, 0.6, 0.5)
                ]
                outcome = f"search error % at .8 .7 .6 .5 of the MACs: {' '.join(least)}"
        left = [t for t in tasks if not t.done(folder)]
        say(
            f"{time.strftime('%H:%M:%S')} {task.name} seed {task.seed} {outcome}; "
            f"{time.perf_counter() - start:.0f} s, {len(left)} of {len(tasks)} left, "
            f"{forecast.left(left, workers):.1f} h"
        )


def waiting(tasks: list[Task], folder: Path) -> Iterator[Task]:
    """The tasks that are not done when their turn comes."""
    return (task for task in tasks if not task.done(folder))


MOST = 1000  # seeds of one command


@dataclass(frozen=True)
class Options:
    """Which part of the tournament to do; the names are those of the command's flags."""

    folder: Path
    only: str = ""
    seeds: str = "0-4"
    model: str = OWN
    searches: bool = False
    long: bool = False
    device: str = "cpu"  # of fine-tuning
    lr: float | None = None  # peak rate of long trainings; their recipe's own when None

    @property
    def rows(self) -> Path:
        """The folder of the rows; a larger network's lie in one of its own."""
        return self.folder if self.model == OWN else self.folder / self.model

    @property
    def names(self) -> list[str]:
        """The methods that were asked for; none: all."""
        return [name for name in self.only.split(",") if name]

    def tasks(self) -> list[Task]:
        """Raises ``SettingsError`` for seeds that are no numbers or a folder that is none,
        ``MethodError`` for unknown names.
        """
        if not self.folder.name or any(p.is_file() for p in (self.rows, *self.rows.parents)):
            raise SettingsError(f"folder = {str(self.folder)!r}: must be a folder for the rows")
        names = self.names or None
        for name in names or ():
            method(name)
        low, dash, high = self.seeds.partition("-")
        high = high if dash else low
        if not low.isdecimal() or not high.isdecimal() or int(high) < int(low):
            limits = "must be a number such as 3, or a range such as 0-4"
            raise SettingsError(f"seeds = {self.seeds!r}: {limits}")
        if int(high) - int(low) >= MOST:
            raise SettingsError(f"seeds = {self.seeds!r}: are more than {MOST}")
        seeds = list(range(int(low), int(high) + 1))
        if self.long:
            return self.of_rows(seeds, names)
        tasks = (plan if self.model == OWN else confirmation)(seeds, names)
        return [task for task in tasks if not (self.searches and task.share)]

    def of_rows(self, seeds: list[int], names: list[str] | None) -> list[Task]:
        """Long trainings of what was searched; raises ``SettingsError`` where nothing was."""
        if self.searches:
            raise SettingsError("long and searches: give one of them")
        own = arena.ARENAS[self.model].recipe(True).lr  # given by name, it is the same training
        tasks = trained_long(self.rows, seeds, names, None if self.lr == own else self.lr)
        if not tasks:
            cure = "make them first by the same command without --long"
            raise SettingsError(f"{self.rows} has no finished row of these; {cure}")
        return tasks

    @property
    def first_guess(self) -> float:
        """Seconds of a fine-tuning before one was measured."""
        on_cpu = torch.device(self.device).type == "cpu"
        return TUNE_SECONDS if not self.long else LONG_SECONDS if on_cpu else GPU_SECONDS

    def words(self) -> list[str]:
        """The same, as a command line."""
        named = {"folder": self.folder, "only": self.only, "seeds": self.seeds, "model": self.model}
        named["device"] = self.device
        flags = [word for name, value in named.items() for word in (f"--{name}", str(value))]
        flags += ["--lr", str(self.lr)] if self.lr else []
        return flags + ["--searches"] * self.searches + ["--long"] * self.long


def run(
    options: Options,
    workers: int = 1,
    left: bool = False,
    fitness: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """All tasks of the options, by so many processes; see ``python -m dpes arena --help``."""
    folder, model = options.rows, options.model
    check_device(options.device)
    if torch.device(options.device).type != "cpu" and not options.long:
        raise SettingsError(f"device = {options.device!r}: {ONLY_LONG}")
    if options.lr is not None:
        if not options.long:
            raise SettingsError(f"lr = {options.lr:g}: is for --long")
        arena.ARENAS[model].recipe(True, options.lr)  # refuses what is no rate
    if fitness and options.long:
        raise SettingsError("long and fitness: give one of them")
    tasks = options.tasks()
    rows.check_folder(folder, arena.ARENAS[model])
    if fitness:
        networks = len(fidelity.missing(folder))
        say(f"{networks} networks to judge by other kinds of fitness")
        return fidelity.run(ready(folder, model)[0], folder) if networks and not left else None
    if options.long and (without := set(options.names or LONG) - {t.name for t in tasks}):
        say(f"left out, as they have no finished row: {', '.join(sorted(without))}")
    missing = [task for task in tasks if not task.done(folder)]
    hours = Forecast(options.first_guess).left(missing, workers)
    say(f"{len(missing)} of {len(tasks)} tasks left, about {hours:.1f} h")
    if left or not missing:
        return
    bench, known = ready(folder, model, options.device)
    with beside(options, workers - 1):
        work(bench, known, folder, tasks, workers, say)


def ready(folder: Path, model: str, device: str = "cpu") -> tuple[Bench, dict[str, float]]:
    """The network with its images, and what is known of its candidates, where all that is in the
    folder is of them.

    Raises ``RunError`` where it is not, before anything is shared or another process begins.
    """
    bench = arena.prepare(arena.ARENAS[model], device)
    tuning.check_tuned(folder, bench)
    return bench, rows.known_errors(folder, bench)


@contextmanager
def beside(options: Options, n: int) -> Iterator[None]:
    """So many more processes of the same command, which take the tasks that are free, and the GPUs
    in turn after the first; they end with the block, at once if it fails.
    """
    each = [replace(options, device=nth(options.device, k + 1)) for k in range(n)]
    command = [sys.executable, "-m", "dpes", "arena"]
    others = [subprocess.Popen([*command, *one.words()]) for one in each]
    try:
        yield
    except BaseException:
        for process in others:
            process.terminate()
        raise
    finally:
        for process in others:
            process.wait()
