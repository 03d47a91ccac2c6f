"""One run of the study: search, fine-tuning and test in a directory that can be interrupted, continued and read again."""

from __future__ import annotations

import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..coupling.genome import from_hex
from ..coupling.layout import Layout
from ..coupling.slimfile import load
from ..coupling.tracing import trace
from ..disk import locked, read_entries, write_json
from ..errors import RunError, SettingsError, suggest
from ..fields import to_dict
from ..strategy import cluster, es
from ..strategy.folder import Folder
from ..strategy.history import History, archive, read_history
from ..strategy.loop import Evaluate, Task, rank_for, search
from ..strategy.workers import processes, serial
from . import data, models, train
from .baseline import checksum
from .environment import Stopwatch, check_device
from .finetune import Work, prepare
from .fitness import Fitness, build
from .settings import SCHEMA, Settings, from_dict

if TYPE_CHECKING:
    import pandas as pd


def runs_folder(folder: str | Path | None = None) -> Path:
    """The folder of run directories: the argument, else ``$DPES_RUNS``, else ``data/runs``."""
    return Path(folder or os.environ.get("DPES_RUNS") or "data/runs")


def where(settings: Settings, folder: str | Path | None = None) -> Path:
    """The directory of a run; asking for it starts nothing. Raises ``DpesError`` for names that do not exist."""
    if settings.model not in models.MODELS:
        raise models.ModelError(f"unknown model {settings.model!r}: {suggest(settings.model, models.MODELS)}")
    if settings.dataset not in data.DATASETS:
        raise data.DataError(f"unknown dataset {settings.dataset!r}: {suggest(settings.dataset, data.DATASETS)}")
    if settings.weights != "train":
        models.published(settings.model, settings.weights)
    return runs_folder(folder) / settings.run_id


@dataclass(frozen=True)
class Run:
    """A finished run, read from its directory."""

    path: Path
    settings: Settings
    result: dict[str, Any]
    env: dict[str, Any]

    @cached_property
    def history(self) -> pd.DataFrame:
        """Every candidate: generation, index, parent, genome (hex), error, macs, params."""
        return History(read_history(self.path / "history.jsonl", mend=False)).frame

    @property
    def archive(self) -> pd.DataFrame:
        """The candidates that no other dominates, over all generations, by falling cost; the unpruned network is none of them."""
        return archive(self.history, self.settings.search.cost)

    @property
    def solutions(self) -> pd.DataFrame:
        """One row each for baseline, heavy, knee and light; errors on the test set, costs also relative to the baseline."""
        rows = [
            {"solution": role} | {k: v for k, v in self.result[role].items() if not isinstance(v, (dict, list))}
            for role in ("baseline", *es.ROLES)
        ]
        import pandas as pd

        frame = pd.DataFrame(rows)
        return frame.assign(
            macs_left=frame.macs / self.result["baseline"]["macs"],
            params_left=frame.params / self.result["baseline"]["params"],
        )

    def genome(self, role: str) -> np.ndarray:
        """bool [n_bits] of heavy, knee or light."""
        return from_hex(self.result[role]["genome"], self.result["n_bits"])

    @cached_property
    def full(self) -> nn.Module:
        """The full-size network, untrained."""
        return models.build(self.settings.model, self.result["n_classes"], self.result["channels"], source=self.settings.weights)

    @cached_property
    def layout(self) -> Layout:
        """The coupled groups of the full network."""
        return trace(self.full, torch.zeros(1, self.result["channels"], 32, 32), prove=False)

    def network(self, role: str) -> nn.Module:
        """The fine-tuned slim network of heavy, knee or light, in eval mode; raises ``RunError`` if its weights are not here."""
        if not (weights := self.path / f"{role}.safetensors").exists():
            raise RunError(f"{weights}: not here (large weights are not published); train them again: python -m dpes restore {self.path}")
        return load(weights, self.full)


def open_run(path: str | Path) -> Run:
    """Read a finished run; raises ``RunError`` if it is unfinished, damaged or of another schema."""
    path = Path(path)
    if not (path / "settings.json").exists():
        raise RunError(f"{path}: not a run directory; list them with: python -m dpes show")
    stored = read_entries(path / "settings.json", "schema", "settings")
    if stored.get("schema") != SCHEMA:
        raise RunError(f"{path}: of schema {stored.get('schema')}, this version reads {SCHEMA}; delete it or use the version that wrote it")
    if not (path / "result.json").exists():
        raise RunError(f"{path}: not finished; continue it with: python -m dpes run")
    try:
        settings = from_dict(stored["settings"])
    except SettingsError as error:
        raise RunError(f"{path / 'settings.json'}: {error}; restore it, or delete {path} and run again") from None
    result = read_entries(path / "result.json", "n_bits", "baseline", *es.ROLES)
    return Run(path, settings, result, read_entries(path / "env.json", "seconds"))


def load_runs(folder: str | Path | None = None) -> pd.DataFrame:
    """All finished runs as one tidy frame: a row per run and solution, with model, dataset, profile, seed and path."""
    import pandas as pd

    frames = []
    for path in sorted(runs_folder(folder).glob("*/result.json")):
        run = open_run(path.parent)
        s = run.settings
        frames.append(run.solutions.assign(run=path.parent.name, model=s.model, dataset=s.dataset, profile=s.profile, seed=s.seed))
    return (
        pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["run", "model", "dataset", "profile", "seed", "solution"])
    )


def run(
    settings: Settings,
    folder: str | Path | None = None,
    device: str = "cpu",
    progress: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
) -> Run:
    """Run what ``settings`` describe and return it: finished runs are loaded, half-done ones continued, never one redone.

    workers: processes, of one thread each, that evaluate candidates and fine-tune solutions; 1 does all in this one.
    scheduler: of a Dask cluster that evaluates candidates instead, by its address, its file, or ``local:N``.
    Raises ``RunError`` where the directory is damaged, of other settings, or in use. Source: ours.
    """
    path = where(settings, folder)
    if scheduler is not None and workers > 1:
        raise SettingsError(f"workers = {workers} and scheduler = {scheduler!r}: give one of them; a cluster has workers of its own")
    if (path / "result.json").exists():
        check_settings(path, settings)
        return open_run(path)
    check_device(device)
    if scheduler is not None:
        cluster.probe(scheduler)
    with locked(path):
        check_settings(path, settings)
        _finish(settings, path, device, progress, workers, scheduler)
    return open_run(path)


def restore(run: Run, device: str = "cpu", progress: bool = False, workers: int = 1) -> dict[str, float]:
    """Fine-tune again the solutions whose weights are not here, as large ones are not published; role -> error on the test set.

    From the network that the run started from, by its settings: on the same kind of machine, with as many threads, to the same
    bits. What the run has found and published stays as it is. workers: processes, of one thread each. Raises ``RunError`` for a
    run in use. Source: ours.
    """
    check_device(device)
    missing = [role for role in es.ROLES if not (run.path / f"{role}.safetensors").exists()]
    if not missing:
        return {}
    with locked(run.path):
        work = prepare(run.settings, run.path, device, progress)
        check_baseline(run, work)
        for role in missing:
            (run.path / f"{role}.json").unlink(missing_ok=True)  # of weights that are gone
        chosen = {role: (run.genome(role), run.result[role]["search_error"]) for role in missing}
        errors = {role: entry["error"] for role, entry in work.finetuned_each(chosen, workers)}
        work.tidy(*es.ROLES)  # also what an interrupted call left of those that it had finished
    return errors


def check_baseline(run: Run, work: Work) -> None:
    """Warns if the trained network is not the one that the run started from, so that what starts from it now compares badly."""
    if run.result.get("baseline_sha256", found := checksum(work.network)) != found:
        warnings.warn(
            f"{work.settings.baseline_id} is not the network that the run started from, but trained again where bits differ "
            "(another kind of processor, other threads): errors differ by more than those of one network",
            stacklevel=3,
        )


def check_settings(path: Path, settings: Settings) -> None:
    """Refuse a directory of other settings; write the settings into a new one."""
    Folder(path, settings.search.population).claim({"schema": SCHEMA, "settings": to_dict(settings)})


def _finish(settings: Settings, path: Path, device: str, progress: bool, workers: int, scheduler: str | None) -> None:
    """Everything that is not done yet."""
    Folder(path, settings.search.population).resume(mend=False)  # what is damaged is refused before anything is written
    seconds = Stopwatch(path / "env.json", device, workers if scheduler is None else "a Dask cluster")
    with seconds("baseline"):
        work = prepare(settings, path, device, progress)
    if settings.finetune.small_epochs:  # refused now, not after the search
        train.check_small(work.network, data.normalise(work.dataset.train.x[:1], work.dataset))
    with seconds("search"):
        state = searched(work, workers, scheduler)
    result: dict[str, Any] = {"n_bits": work.layout.n_bits, "n_classes": work.dataset.n_classes, "channels": work.dataset.channels}
    result["baseline_sha256"] = checksum(work.network)
    if state.coincident:
        result["coincident"] = state.coincident
        warnings.warn(f"the front has fewer than three points: {state.coincident} are one network; search longer", stacklevel=2)
    result["baseline"] = {"error": work.test(work.network), **work.costs(np.ones(work.layout.n_bits, dtype=bool))}
    with seconds("fine-tuning"):
        chosen = {role: (genome, float(F[0])) for role, genome, F in zip(es.ROLES, state.parents, state.F, strict=True)}
        entries = dict(work.finetuned_each(chosen, workers))
        result |= {role: entries[role] for role in es.ROLES}
    with seconds("latency"):
        for name, times in work.latencies().items():
            result[name] |= times
    write_json(path / "result.json", result)
    work.tidy(*es.ROLES)


def searched(work: Work, workers: int, scheduler: str | None = None) -> es.State:
    """Search to the last generation, every candidate and state written down at once."""
    settings, folder = work.settings.search, Folder(work.path, work.settings.search.population)
    state, history = folder.resume()
    if state is not None and state.generation == settings.generations:
        return state
    with evaluator(work.fitness, workers, scheduler) as evaluate:
        task = Task(work.layout, evaluate, settings, work.settings.seed, rank_for(settings, work.network, work.layout))
        return search(task, history, state, folder.checkpoint, work.progress)


def evaluator(fitness: Fitness, workers: int, scheduler: str | None) -> AbstractContextManager[Evaluate]:
    """What computes the errors of genomes: this process, several, or a cluster."""
    if scheduler is not None:
        return cluster.dask(build, fitness.parts(), scheduler)
    return processes(build, fitness.parts(), workers) if workers > 1 else nullcontext(partial(serial, fitness))
