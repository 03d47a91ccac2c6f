"""Rivals of a run's knee: networks of its MACs that no search of filters has chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..coupling import cost, importance
from ..coupling.slimfile import load, read_header
from ..disk import locked, read_json, write_json
from ..errors import RunError, SettingsError
from ..strategy.es import ROLES
from ..strategy.workers import attempt, settled
from .budgets import in_proportion, random_mask, uniform
from .environment import check_device, environment
from .finetune import Work, prepare
from .finished import Run, relative
from .runs import check_baseline, claim, searched
from .settings import Settings

if TYPE_CHECKING:
    import pandas as pd

FILE = "rivals.json"
# a third of the groups change at a time; see the page on the algorithm
WIDTHS: dict[str, Any] = {"encoding": "widths", "p_mutation": 0.3}


def train_rivals(
    run: Run,
    masks: int = 3,
    device: str = "cpu",
    progress: bool = False,
    workers: int = 1,
    widths: bool = False,
) -> pd.DataFrame:
    """Rivals at the MACs of the run's knee, fine-tuned and tested exactly as its solutions were.

    Kept in ``rivals.json`` of the run's directory after each one, and continued by the same call.

    Parameters
    ----------
    masks
        How many random ones.
    widths
        Also what a search on widths finds (``on_widths``), which takes as long as the run's own.

    Returns
    -------
    pandas.DataFrame
        A row each, ``knee`` first: errors in [0, 1] on the test set, MACs for one image.
        ``wrong_alone`` and ``knee_wrong_alone`` count the test images that only one of the two gets
        wrong, where the knee's own weights are here.

    Raises
    ------
    RunError
        The file is damaged, the run in use, the device not there, or a worker dies.
    """
    check_asked(run.settings, masks, widths)
    check_device(device)
    names = ["l1", *(f"random{k}" for k in range(masks)), *(["widths"] if widths else [])]
    if not set(names) <= set(stored(run.path / FILE)):
        with locked(run.path):
            work = prepare(run.settings, run.path, device, progress)
            check_baseline(run, work)
            train_missing(run, work, names, workers)
    return frame(run, stored(run.path / FILE))


def train_missing(run: Run, work: Work, names: list[str], workers: int) -> None:
    """Those rivals that are not there yet; their weights, which no one asks for, are not kept."""
    done = stored(run.path / FILE)
    genomes = missing(run, work, [name for name in names if name not in done], workers)
    train_each(run, work, genomes, workers)
    work.tidy(*names)
    for name in names:
        work.weights(name).unlink(missing_ok=True)


MOST = 1000  # random masks, each trained


def check_asked(settings: Settings, masks: int, widths: bool) -> None:
    """Raises ``SettingsError`` for rivals that there cannot be."""
    if not 0 <= masks < MOST:
        raise SettingsError(f"masks = {masks}: must be at least 0 and less than {MOST}")
    if widths and settings.search.encoding == "widths":
        problem = "the run searches widths itself, its knee is what that finds"
        raise SettingsError(f"widths: {problem}; leave them out")


def missing(run: Run, work: Work, names: list[str], workers: int) -> dict[str, np.ndarray]:
    """The genomes of rivals by their names, at most the MACs of the knee."""
    macs, layout, found = run.result["knee"]["macs"], work.layout, {}
    for name in names:
        if name == "l1":
            found[name] = uniform(layout, macs, importance.l1_norms(work.network, layout))
        elif name == "widths":
            found[name] = on_widths(run, work, workers)
        else:
            seed = run.settings.seed + int(name.removeprefix("random"))
            found[name] = random_mask(layout, macs, seed)
    return found


def on_widths(run: Run, work: Work, workers: int = 1) -> np.ndarray:
    """The proportions that the strategy finds for its knee when it searches widths, not filters.

    bool [n_bits], at the MACs of the run's knee; filters by L1 norm. The search differs from the
    run's in ``WIDTHS`` only and has as many candidates. It lies in ``widths/`` of the run's
    directory and is continued from there. Raises ``RunError`` if that is damaged. Source: ours.
    """
    settings = replace(run.settings, search=replace(run.settings.search, **WIDTHS))
    path = run.path / "widths"
    path.mkdir(exist_ok=True)
    claim(path, settings)
    state = searched(replace(work, settings=settings, path=path), workers)
    knee = state.parents[ROLES.index("knee")]
    shares = np.array([knee[group.bits].mean() for group in work.layout.groups])
    norms = importance.l1_norms(work.network, work.layout)
    return in_proportion(work.layout, run.result["knee"]["macs"], norms, shares)


def train_each(run: Run, work: Work, genomes: dict[str, np.ndarray], workers: int) -> None:
    """Fine-tune rivals, compare each with the knee image by image, and write it down."""
    file = run.path / FILE
    done = stored(file)
    jobs = {name: (g, settled(attempt(work.fitness, g))) for name, g in genomes.items()}
    knee = wrong_images(work, "knee") if knee_is_here(run) else None
    for name, entry in work.finetuned_each(jobs, workers):
        if knee is not None:
            wrong = wrong_images(work, name)
            entry["wrong_alone"] = int((wrong & ~knee).sum())
            entry["knee_wrong_alone"] = int((knee & ~wrong).sum())
        done[name] = entry | {"env": environment(str(work.fitness.device))}
        order = sorted(done, key=lambda name: (len(name), name))
        write_json(file, {name: done[name] for name in order})


def wrong_images(work: Work, name: str) -> Tensor:
    """Which test images a fine-tuned network gets wrong, from its weights: bool [n]."""
    return work.mistakes(load(work.weights(name), work.network).to(work.fitness.device))


def knee_is_here(run: Run) -> bool:
    """Whether the knee's own weights are here: large ones are not published, or made again."""
    file = run.path / "knee.safetensors"
    own = run.result["knee"]["error"]
    return file.exists() and read_header(file)["metrics"].get("error") == own


def stored(file: Path) -> dict[str, dict[str, Any]]:
    """The rivals of a file by name, none where it is not there; ``RunError`` if it is damaged."""
    if not file.exists():
        return {}
    done = read_json(file)
    parts = done.values() if isinstance(done, dict) else [None]
    if not all(isinstance(e, dict) and {"genome", "error", *cost.COSTS} <= set(e) for e in parts):
        raise RunError(f"{file}: damaged; delete it, and dpes rivals trains them again")
    return done


def frame(run: Run, done: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """The knee and its rivals as rows, with the seconds of their fine-tuning."""
    import pandas as pd

    rows = [
        {"solution": name, "seconds": sum(epoch["seconds"] for epoch in entry.get("log", []))}
        | {k: v for k, v in entry.items() if not isinstance(v, (dict, list))}
        for name, entry in done.items()
    ]
    parts = [run.solutions.query("solution == 'knee'"), pd.DataFrame(rows)]
    return relative(pd.concat(parts, ignore_index=True), run.result["baseline"])


def read_rivals(run: Run, file: str = FILE) -> pd.DataFrame | None:
    """The rivals of a finished run, or None if there are none; see ``train_rivals``.

    Parameters
    ----------
    file
        ``rivals-again.json`` holds those that were trained a second time, on another machine, where
        there are some.

    Raises
    ------
    RunError
        The file is damaged.
    """
    done = stored(run.path / file)
    return frame(run, done) if done else None
