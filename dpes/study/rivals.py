"""Rivals of the strategy under the same budget: networks of the same MACs that no search has chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..coupling import cost, importance
from ..coupling.layout import Layout
from ..coupling.slimfile import read_header
from ..disk import locked, read_json, write_json
from ..errors import RunError, SettingsError
from ..strategy.es import ROLES, repair
from ..strategy.workers import attempt, settled
from .environment import check_device, environment
from .finetune import Work, prepare
from .runs import Run, check_baseline, check_settings, searched

if TYPE_CHECKING:
    import pandas as pd


def random_mask(layout: Layout, macs: float, seed: int) -> np.ndarray:
    """A genome that keeps each filter with the same probability, nearest to ``macs`` from below: bool [n_bits]. Source: ours."""
    draws = np.random.default_rng(seed).random(layout.n_bits)
    return nearest(layout, macs, lambda share: repair(draws < share, layout.group_of_bit))


def uniform(layout: Layout, macs: float, scores: np.ndarray) -> np.ndarray:
    """A genome that keeps the same share of every group, its filters of highest score, nearest to ``macs`` from below.

    scores: [n_bits], for example ``importance.l1_norms`` (uniform L1, Li et al. 2017).
    """
    return in_proportion(layout, macs, scores, np.full(len(layout.groups), 0.5))


def in_proportion(layout: Layout, macs: float, scores: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """A genome with the proportions of given widths, of each group its filters of highest score, nearest to ``macs`` from below.

    shares: [n_groups] in (0, 1], what each group keeps of its filters in the network whose proportions count; all are raised to
    one power, so that a whole group stays whole and a narrower one stays narrower. Source: ours. Widths are rounded to whole
    filters at another point in each group: if all groups of a DenseNet rounded at once, its MACs would go in steps of a tenth.
    """
    rank = importance.ranks(layout, scores)
    sizes = np.array([g.size for g in layout.groups])
    rounding = np.arange(len(sizes)) * GOLDEN % 1  # spread evenly over [0, 1), as are those of neighbouring groups

    def genome_of(size: float) -> np.ndarray:
        kept = shares ** ((1 - size) / max(size, 1e-9))
        return rank < np.maximum(1, np.floor(kept * sizes + rounding))[layout.group_of_bit]

    return nearest(layout, macs, genome_of)


GOLDEN = (5**0.5 - 1) / 2


def nearest(layout: Layout, macs: float, genome_of: Callable[[float], np.ndarray]) -> np.ndarray:
    """The largest genome of a family that costs at most ``macs``, by bisection over its share of kept filters in [0, 1].

    genome_of: share -> genome, which must not shrink as the share grows. Where even the smallest one costs more, that one.
    """
    low, high = 0.0, 1.0
    if layout.macs(genome_of(high)) <= macs:
        return genome_of(high)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if layout.macs(genome_of(middle)) <= macs else (low, middle)
    return genome_of(low)


def genomes(work: Work, macs: float, masks: int) -> dict[str, np.ndarray]:
    """Name -> genome of each rival: uniform L1 and so many random masks, at most ``macs``."""
    l1 = uniform(work.layout, macs, importance.l1_norms(work.network, work.layout))
    return {"l1": l1} | {f"random{k}": random_mask(work.layout, macs, work.settings.seed + k) for k in range(masks)}


def on_widths(run: Run, work: Work, workers: int = 1) -> np.ndarray:
    """The widths that the strategy finds for its knee when it searches them instead of filters, brought to the MACs of the run's.

    bool [n_bits]; filters by L1 norm, proportions by the search, which differs from the run's in ``WIDTHS`` only and has as many
    candidates. It lies in ``widths/`` of the run's directory and is continued from there. Raises ``RunError`` if that is damaged.
    Source: ours.
    """
    path, settings = run.path / "widths", replace(run.settings, search=replace(run.settings.search, **WIDTHS))
    path.mkdir(exist_ok=True)
    check_settings(path, settings)
    found = dict(zip(ROLES, searched(replace(work, settings=settings, path=path), workers).parents, strict=True))["knee"]
    shares = np.array([found[group.bits].mean() for group in work.layout.groups])
    return in_proportion(work.layout, run.result["knee"]["macs"], importance.l1_norms(work.network, work.layout), shares)


WIDTHS: dict[str, Any] = {"encoding": "widths", "p_mutation": 0.3}  # a third of the groups change at a time; see the page on the algorithm


def train_rivals(
    run: Run, masks: int = 3, device: str = "cpu", progress: bool = False, workers: int = 1, widths: bool = False
) -> pd.DataFrame:
    """Rivals at the MACs of the run's knee, fine-tuned and tested exactly as its solutions were; a row each, ``knee`` first.

    masks: how many random ones. workers: processes, of one thread each, that train them. widths: also what a search on widths
    finds (``on_widths``), which takes as long as the run's own. Errors in [0, 1] on the test set, MACs for one image;
    ``wrong_alone`` and ``knee_wrong_alone`` count the test images that only one of the two gets wrong, where the knee's own weights are
    here. Kept in ``rivals.json`` of the run's directory after each one, with a checkpoint after every epoch: the same call continues.
    Raises ``RunError`` if that file is damaged, the run in use, the device not there, or a worker dies, and ``SettingsError`` for
    widths beside a run that has searched widths itself. Source: ours.
    """
    file = run.path / "rivals.json"
    check_device(device)
    if widths and run.settings.search.encoding == "widths":
        raise SettingsError(f"widths: {run.path.name} has searched widths itself, its knee is what that finds; leave them out")
    names = ["l1", *(f"random{k}" for k in range(masks)), *(["widths"] if widths else [])]
    if not set(names) <= set(stored(file)):
        with locked(run.path):
            done = stored(file)
            work = prepare(run.settings, run.path, device, progress)
            check_baseline(run, work)
            rivals = genomes(work, run.result["knee"]["macs"], masks)
            if widths and "widths" not in done:
                rivals["widths"] = on_widths(run, work, workers)
            missing = {name: (genome, settled(attempt(work.fitness, genome))) for name, genome in rivals.items() if name not in done}
            knee = work.test_mistakes("knee") if knee_is_here(run) else None
            for name, entry in work.finetuned_each(missing, workers):
                if knee is not None:
                    wrong = work.test_mistakes(name)
                    entry |= {"wrong_alone": int((wrong & ~knee).sum()), "knee_wrong_alone": int((knee & ~wrong).sum())}
                done[name] = entry | {"env": environment(device)}
                write_json(file, {name: done[name] for name in sorted(done, key=lambda name: (len(name), name))})
            work.tidy(*names)
            for name in names:  # no one asks for their weights
                (run.path / f"{name}.safetensors").unlink(missing_ok=True)
    return frame(run, stored(file))


def knee_is_here(run: Run) -> bool:
    """Whether the knee's weights lie in the run's directory: large ones are not published, and ``restore`` may have made others."""
    file = run.path / "knee.safetensors"
    return file.exists() and read_header(file)["metrics"].get("error") == run.result["knee"]["error"]


def stored(file: Path) -> dict[str, dict[str, Any]]:
    """The rivals of a file that may not be there yet."""
    return read_entries(file) if file.exists() else {}


def read_entries(file: Path) -> dict[str, dict[str, Any]]:
    """The rivals of a file by name; raises ``RunError`` if it is damaged."""
    done = read_json(file)
    whole = {"genome", "error", *cost.COSTS}
    if not isinstance(done, dict) or not all(isinstance(entry, dict) and whole <= set(entry) for entry in done.values()):
        raise RunError(f"{file}: damaged; delete it, and dpes rivals trains them again")
    return done


def frame(run: Run, done: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """The knee and its rivals as rows: errors on the test set, costs also relative to the baseline, seconds of fine-tuning."""
    import pandas as pd

    rows = [
        {"solution": name, "seconds": sum(epoch["seconds"] for epoch in entry.get("log", []))}
        | {k: v for k, v in entry.items() if not isinstance(v, (dict, list))}
        for name, entry in done.items()
    ]
    table = pd.concat([run.solutions.query("solution == 'knee'"), pd.DataFrame(rows)], ignore_index=True)
    whole = run.result["baseline"]
    return table.assign(macs_left=table.macs / whole["macs"], params_left=table.params / whole["params"])


def read_rivals(run: Run, file: str = "rivals.json") -> pd.DataFrame | None:
    """The rivals of a finished run, or None if there are none; see ``train_rivals``.

    file: ``rivals-again.json`` holds those that were trained a second time, on another machine, where there are some. Raises
    ``RunError`` if it is damaged.
    """
    done = stored(run.path / file)
    return frame(run, done) if done else None
