"""Rivals of the strategy under the same budget: networks of the same MACs that no search has chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import cost, importance, study, train
from .channels import Layout
from .es import repair
from .files import RunError, locked, read_json, write_json
from .study import Run


def random_mask(layout: Layout, macs: float, seed: int) -> np.ndarray:
    """A genome that keeps each filter with the same probability, nearest to ``macs`` from below: bool [n_bits]. Source: ours."""
    draws = np.random.default_rng(seed).random(layout.n_bits)
    return nearest(layout, macs, lambda share: repair(draws < share, layout.group_of_bit))


def uniform(layout: Layout, macs: float, scores: np.ndarray) -> np.ndarray:
    """A genome that keeps the same share of every group, its filters of highest score, nearest to ``macs`` from below.

    scores: [n_bits], for example ``importance.l1_norms`` (uniform L1, Li et al. 2017). Shares are rounded to whole filters at
    another point in each group: if all groups of a DenseNet rounded at once, its MACs would go in steps of a tenth.
    """
    rank = importance.ranks(layout, scores)
    sizes = np.array([g.size for g in layout.groups])
    rounding = np.arange(len(sizes)) * GOLDEN % 1  # spread evenly over [0, 1), as are those of neighbouring groups
    return nearest(layout, macs, lambda share: rank < np.maximum(1, np.floor(share * sizes + rounding))[layout.group_of_bit])


GOLDEN = (5**0.5 - 1) / 2


def nearest(layout: Layout, macs: float, genome_of: Callable[[float], np.ndarray]) -> np.ndarray:
    """The largest genome of a family that costs at most ``macs``, by bisection over its share of kept filters in [0, 1].

    genome_of: share -> genome, which must not shrink as the share grows. Where even the smallest one costs more, that one.
    """
    low, high = 0.0, 1.0
    if cost.macs(layout, genome_of(high)) <= macs:
        return genome_of(high)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if cost.macs(layout, genome_of(middle)) <= macs else (low, middle)
    return genome_of(low)


def genomes(work: study.Work, macs: float, masks: int) -> dict[str, np.ndarray]:
    """Name -> genome of each control: uniform L1 and so many random masks, at most ``macs``."""
    l1 = uniform(work.layout, macs, importance.l1_norms(work.network, work.layout))
    return {"l1": l1} | {f"random{k}": random_mask(work.layout, macs, work.settings.seed + k) for k in range(masks)}


def controls(run: Run, masks: int = 3, device: str = "cpu", progress: bool = False, workers: int = 1) -> pd.DataFrame:
    """Rivals at the MACs of the run's knee, fine-tuned and tested exactly as its solutions were; a row each, ``knee`` first.

    masks: how many random ones. workers: processes, of one thread each, that train them. Errors in [0, 1] on the test set, MACs for
    one image. Kept in ``controls.json`` of the run's directory after each one, with a checkpoint after every epoch: the same call
    continues. Raises ``RunError`` if that file is damaged, the run in use, the device not there, or a worker dies. Source: ours.
    """
    file = run.path / "controls.json"
    study.check_device(device)
    with locked(run.path):
        done = read_entries(file) if file.exists() else {}
        if {"l1", *(f"random{k}" for k in range(masks))} - set(done):
            train.check_precision(device, finetune_precision=run.settings.finetune.precision)
            work = study.prepare(run.settings, run.path, device, progress)
            rivals = genomes(work, run.result["knee"]["macs"], masks)
            missing = {name: (genome, work.fitness(genome)) for name, genome in rivals.items() if name not in done}
            for name, entry in work.finetuned_each(missing, workers):
                done[name] = entry
                write_json(file, {name: done[name] for name in sorted(done, key=lambda name: (len(name), name))})
            for name in rivals:
                for ending in ("training", "safetensors", "json"):
                    (run.path / f"{name}.{ending}").unlink(missing_ok=True)
            done = read_entries(file)
    return frame(run, done)


def read_entries(file: Path) -> dict[str, dict[str, Any]]:
    """The controls of a file by name; raises ``RunError`` if it is damaged."""
    done = read_json(file)
    whole = {"genome", "error", *cost.COSTS}
    if not isinstance(done, dict) or not all(isinstance(entry, dict) and whole <= set(entry) for entry in done.values()):
        raise RunError(f"{file}: damaged; delete it, and dpes controls trains them again")
    return done


def frame(run: Run, done: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """The knee and its controls as rows: errors on the test set, costs also relative to the baseline, seconds of fine-tuning."""
    rows = [
        {"solution": name, "seconds": sum(epoch["seconds"] for epoch in entry.get("log", []))}
        | {k: v for k, v in entry.items() if not isinstance(v, (dict, list))}
        for name, entry in done.items()
    ]
    table = pd.concat([run.solutions.query("solution == 'knee'"), pd.DataFrame(rows)], ignore_index=True)
    whole = run.result["baseline"]
    return table.assign(macs_left=table.macs / whole["macs"], params_left=table.params / whole["params"])


def read_controls(run: Run) -> pd.DataFrame | None:
    """The controls of a finished run, or None if there are none; see ``controls``."""
    file = run.path / "controls.json"
    return frame(run, read_entries(file)) if file.exists() else None
