"""A run of the study: baseline, search, fine-tuning, test; each step is done once."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..disk import locked, write_json
from ..errors import RunError, SettingsError
from ..fields import to_dict
from ..strategy import cluster, es
from ..strategy.folder import Folder
from ..strategy.loop import Evaluate, Task, rank_for, search
from ..strategy.workers import check_workers, processes, serial
from . import data, train
from .baseline import checksum
from .environment import Stopwatch, check_device
from .finetune import Work, prepare
from .finished import Run, open_run, where
from .fitness import Fitness, build
from .settings import SCHEMA, Settings


def run(
    settings: Settings,
    folder: str | Path | None = None,
    device: str = "cpu",
    progress: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
) -> Run:
    """Run what ``settings`` describe: finished runs are loaded, half-done ones continued.

    Source: ours.

    Parameters
    ----------
    workers
        Processes, of one thread each, that evaluate candidates and fine-tune solutions.
    scheduler
        Of a Dask cluster that evaluates candidates: its address, its file, or ``local:N``.

    Raises
    ------
    RunError
        The directory is damaged, of other settings, or in use; the device is not there.
    """
    path = where(settings, folder)
    check_means(workers, scheduler)
    if (path / "result.json").exists():
        claim(path, settings)
        return open_run(path)
    check_device(device)
    if scheduler is not None:
        cluster.probe(scheduler)
    with locked(path):
        claim(path, settings).resume(mend=False)  # what is damaged is refused before all else
        means = workers if scheduler is None else "a Dask cluster"
        seconds = Stopwatch(path / "env.json", device, means)
        with seconds("baseline"):
            work = prepare(settings, path, device, progress)
        finish(work, seconds, workers, scheduler)
    return open_run(path)


def check_means(workers: int, scheduler: str | None) -> None:
    """Raises ``SettingsError`` for what cannot evaluate candidates."""
    check_workers(workers)
    if scheduler is not None and workers > 1:
        given = f"workers = {workers} and scheduler = {scheduler!r}"
        raise SettingsError(f"{given}: give one of them; a cluster has workers of its own")


def finish(work: Work, seconds: Stopwatch, workers: int, scheduler: str | None) -> None:
    """All that comes after the trained network: search, fine-tuning, latency, and the result."""
    check_start(work)
    with seconds("search"):
        state = searched(work, workers, scheduler)
    with seconds("fine-tuning"):
        entries = finetuned(work, state, workers)
    with seconds("latency"):
        times = work.latencies()
    write_json(work.path / "result.json", result(work, state, entries, times))
    work.tidy(*es.ROLES)


def claim(path: Path, settings: Settings) -> Folder:
    """The directory of a search by these settings; refuses one of others."""
    folder = Folder(path, settings.search.population)
    folder.claim({"schema": SCHEMA, "settings": to_dict(settings)})
    return folder


def check_start(work: Work) -> None:
    """Refuse a network that is none, and now what fine-tuning would refuse after the search."""
    x = data.normalise(work.dataset.search.x[:2], work.dataset)
    with torch.no_grad():
        logits = work.network(x)
    if logits.shape != (2, work.dataset.n_classes) or not logits.isfinite().all():
        found = f"gives {list(logits.shape)} values"
        if not logits.isfinite().all():
            found = "gives values that are not finite"
        cure = "are its weights damaged? Delete them to train them again"
        raise RunError(f"the trained {work.settings.model} {found}: {cure}")
    if work.settings.finetune.small_epochs:
        train.check_small(work.network, data.normalise(work.dataset.train.x[:1], work.dataset))


def searched(work: Work, workers: int, scheduler: str | None = None) -> es.State:
    """Search to the last generation, every candidate and state written down at once."""
    settings, folder = work.settings.search, Folder(work.path, work.settings.search.population)
    state, history = folder.resume()
    if state is not None and state.generation == settings.generations:
        workers, scheduler = 1, None  # nothing is left for them
    rank = rank_for(settings, work.network, work.layout)
    with evaluator(work.fitness, workers, scheduler) as evaluate:
        task = Task(work.layout, evaluate, settings, work.settings.seed, rank)
        return search(task, history, state, folder.checkpoint, work.progress)


def evaluator(
    fitness: Fitness, workers: int, scheduler: str | None
) -> AbstractContextManager[Evaluate]:
    """What computes the errors of genomes: this process, several, or a cluster."""
    if scheduler is not None:
        return cluster.dask(build, fitness.parts(), scheduler)
    if workers > 1:
        return processes(build, fitness.parts(), workers)
    return nullcontext(partial(serial, fitness))


def finetuned(work: Work, state: es.State, workers: int) -> dict[str, dict[str, Any]]:
    """The three solutions, fine-tuned: role -> what came of it."""
    pairs = zip(state.parents, state.F[:, 0].tolist(), strict=True)
    entries = dict(work.finetuned_each(dict(zip(es.ROLES, pairs, strict=True)), workers))
    return {role: entries[role] for role in es.ROLES}


def result(work: Work, state: es.State, entries: dict, times: dict) -> dict[str, Any]:
    """What a run has found, for ``result.json``."""
    whole = np.ones(work.layout.n_bits, dtype=bool)
    found: dict[str, Any] = {
        "n_bits": work.layout.n_bits,
        "n_classes": work.dataset.n_classes,
        "channels": work.dataset.channels,
        "baseline_sha256": checksum(work.network),
    }
    if state.coincident:
        found["coincident"] = state.coincident
        same = f"{state.coincident} are one network"
        warnings.warn(f"the front has fewer than three points: {same}; search longer", stacklevel=2)
    networks = {"baseline": {"error": work.test(work.network), **work.costs(whole)}} | entries
    return found | {name: entry | times[name] for name, entry in networks.items()}


def restore(
    run: Run, device: str = "cpu", progress: bool = False, workers: int = 1
) -> dict[str, float]:
    """Fine-tune again the solutions whose weights are not here, as large ones are not published.

    From the network that the run started from, by its settings: on the same kind of machine, with
    as many threads, to the same bits. What the run has found and published stays as it is.

    Source: ours.

    Returns
    -------
    Role -> error on the test set, of those that were missing.

    Raises
    ------
    RunError
        The run is in use, or the device not there.
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
        entries = dict(work.finetuned_each(chosen, workers))
        work.tidy(*es.ROLES)  # also what an interrupted call left of those that it had finished
    return {role: entry["error"] for role, entry in entries.items()}


def check_baseline(run: Run, work: Work) -> None:
    """Warns if the trained network is not the one that the run started from."""
    if run.result.get("baseline_sha256", found := checksum(work.network)) != found:
        warnings.warn(
            f"{work.settings.baseline_id} is not the network that the run started from, but "
            "trained again where bits differ (another kind of processor, other threads): errors "
            "differ by more than those of one network",
            stacklevel=3,
        )
