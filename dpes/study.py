"""One run of the study: search, fine-tuning and test in a directory that can be interrupted, continued and read again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from . import cluster, cost, data, es, evaluate, importance, models, train
from .channels import trace
from .config import SCHEMA, Settings, SettingsError, from_dict, suggest, to_dict
from .files import RunError, difference, locked, read_history, read_json, write_json
from .layout import Layout
from .search import Candidate, archive, search
from .slim import from_hex, load, save, slim, to_hex


# ---- where a run lives ----------------------------------------------------------------------------------------------------------
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


# ---- a finished run -------------------------------------------------------------------------------------------------------------
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
        return pd.DataFrame([vars(c) for c in read_history(self.path / "history.jsonl", mend=False)])

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
        return trace(self.full, torch.zeros(1, self.result["channels"], 32, 32))

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


def read_entries(path: Path, *names: str) -> dict[str, Any]:
    """A JSON file that holds at least these entries; raises ``RunError`` for any other."""
    stored = read_json(path)
    missing = [name for name in names if name not in stored] if isinstance(stored, dict) else ["JSON object"]
    if missing:
        raise RunError(f"{path}: damaged (no {missing[0]} in it); restore it, or delete {path.parent} and run again")
    return stored


def load_runs(folder: str | Path | None = None) -> pd.DataFrame:
    """All finished runs as one tidy frame: a row per run and solution, with model, dataset, profile, seed and path."""
    frames = []
    for path in sorted(runs_folder(folder).glob("*/result.json")):
        run = open_run(path.parent)
        s = run.settings
        frames.append(run.solutions.assign(run=path.parent.name, model=s.model, dataset=s.dataset, profile=s.profile, seed=s.seed))
    return (
        pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["run", "model", "dataset", "profile", "seed", "solution"])
    )


# ---- running it -----------------------------------------------------------------------------------------------------------------
def baseline(settings: Settings, dataset: data.Dataset, device: str = "cpu", progress: bool = False) -> nn.Module:
    """The trained network that a run starts from: loaded by name, or trained by the baseline recipe once and kept.

    Looked for in ``baselines/`` of the data folders, which is published with the study, then in ``weights/``, where a training
    here leaves it, with its recipe, log and checksum beside it. Raises ``RunError`` for a damaged file. Source: ours.
    """
    if settings.weights != "train":
        return models.load_weights(settings.model, settings.weights, n_classes=dataset.n_classes, channels=dataset.channels).to(device)
    name = f"{settings.baseline_id}.safetensors"
    network = models.build(settings.model, dataset.n_classes, dataset.channels, seed=settings.baseline.seed).to(device)
    places = data.folders()
    path = next((file for place in places if (file := place / "baselines" / name).exists()), places[0] / "weights" / name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):  # several runs may want the same baseline: one trains, the others wait
            if not path.exists():
                train_baseline(network, dataset, settings, path, progress)
    try:
        network.load_state_dict(load_file(path))
    except Exception as error:
        raise RunError(f"{path}: damaged ({str(error).splitlines()[0]}); restore it, or delete it to train it again") from None
    return network.to(device).eval()


def train_baseline(network: nn.Module, dataset: data.Dataset, settings: Settings, path: Path, progress: bool) -> None:
    """Train a network by the baseline recipe and write it to ``path``; an interrupted training is continued."""
    evaluate.keep_freed_memory()
    recipe, checkpoint = settings.baseline, path.with_suffix(".training")
    train.check_precision(next(network.parameters()).device, baseline_precision=recipe.precision)
    log = train.fit(network, dataset, recipe, recipe.seed, checkpoint=checkpoint, progress=Progress("baseline", recipe.epochs, progress))
    weights = weights_of(network)
    part = path.with_name(path.name + ".part")
    part.write_bytes(weights)
    entry = {"model": settings.model, "dataset": settings.dataset, "recipe": to_dict(recipe), "torch": torch.__version__}
    write_json(path.with_suffix(".json"), entry | {"sha256": hashlib.sha256(weights).hexdigest(), "log": log})
    os.replace(part, path)
    checkpoint.unlink(missing_ok=True)


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
        train.check_precision(device, finetune_precision=run.settings.finetune.precision)
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


def checksum(network: nn.Module) -> str:
    """SHA-256 of the weights as a safetensors file, like that beside a network trained here."""
    return hashlib.sha256(weights_of(network)).hexdigest()


def weights_of(network: nn.Module) -> bytes:
    """The bytes of a safetensors file of its parameters and buffers."""
    return to_bytes({k: v.cpu().contiguous() for k, v in network.state_dict().items()})


def check_device(device: str) -> None:
    """Raises ``RunError`` for a device that is not there."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):  # torch without CUDA asserts
        raise RunError(f"device {device!r} cannot be used here; use cpu, or cuda on a machine with a GPU") from None


def check_settings(path: Path, settings: Settings) -> None:
    """Refuse a directory of other settings; write the settings into a new one."""
    file = path / "settings.json"
    mine = {"schema": SCHEMA, "settings": to_dict(settings)}
    if not file.exists():
        if any(path.glob("*.json*")):
            raise RunError(f"{path}: has results but no settings.json; delete it and run again")
        write_json(file, mine)
    elif (stored := read_entries(file, "schema", "settings")) != mine:
        raise RunError(f"{path}: holds a run of other settings ({difference(stored, mine)}); use another folder or delete it")


def _finish(settings: Settings, path: Path, device: str, progress: bool, workers: int, scheduler: str | None) -> None:
    """Everything that is not done yet."""
    resumed(path, settings, mend=False)  # what is damaged is refused before anything is written
    precisions = {"precision": settings.search.precision, "finetune_precision": settings.finetune.precision}
    train.check_precision(device, **precisions)
    seconds = Stopwatch(path / "env.json", device, workers if scheduler is None else "a Dask cluster")
    with seconds("baseline"):
        work = prepare(settings, path, device, progress)
    if settings.finetune.small_epochs:  # refused now, not after the search
        train.check_small(work.network, data.normalise(work.dataset.train.x[:1], work.dataset))
    with seconds("search"):
        state = work.search(workers, scheduler)
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


def resumed(path: Path, settings: Settings, mend: bool) -> tuple[es.State | None, list[Candidate]]:
    """What earlier sittings left of a search: the strategy's state, and the candidates; see ``read_history``.

    Raises ``RunError`` for damaged files, and if candidates are missing that the state has seen.
    """
    saved = path / "state.npz"
    state = es.State.load(saved) if saved.exists() else None
    history = read_history(path / "history.jsonl", mend)
    seen = 1 + settings.search.population * state.generation if state else 0
    if len(history) < seen:
        raise RunError(
            f"{path / 'history.jsonl'}: has {len(history)} of the {seen} candidates that {saved.name} has seen; "
            f"restore it, or delete {saved} to evaluate them again"
        )
    return state, history


def prepare(settings: Settings, path: Path, device: str, progress: bool) -> Work:
    """The trained network, its layout and data: what all phases of a run need."""
    dataset = data.load(settings.dataset, device=device)
    network = baseline(settings, dataset, device, progress)
    layout = trace(network, torch.zeros(1, dataset.channels, 32, 32, device=device))
    fitness = evaluate.Fitness(network, layout, dataset, settings.search, settings.seed, device)
    return Work(settings, path, network, layout, dataset, fitness, progress)


@dataclass
class Work:
    """The phases of a run in progress; each takes up what an earlier sitting left in the directory."""

    settings: Settings
    path: Path
    network: nn.Module  # trained, full size
    layout: Layout
    dataset: data.Dataset
    fitness: evaluate.Fitness
    progress: bool

    def search(self, workers: int, scheduler: str | None = None) -> es.State:
        """Search to the last generation, every candidate and state written down at once."""
        state, history = resumed(self.path, self.settings, mend=True)
        if state is not None and state.generation == self.settings.search.generations:
            return state
        if scheduler is not None:
            pool = cluster.dask(self.fitness, scheduler)
        else:
            pool = evaluate.processes(self.fitness, workers) if workers > 1 else nullcontext(partial(evaluate.serial, self.fitness))
        with (self.path / "history.jsonl").open("a") as lines, (self.path / "timing.jsonl").open("a") as timings, pool as errors:

            def record(candidate: Candidate, taken: float) -> None:
                lines.write(candidate.line())
                lines.flush()
                timings.write(json.dumps({"generation": candidate.generation, "index": candidate.index, "seconds": round(taken, 4)}) + "\n")
                timings.flush()

            return search(
                self.layout,
                errors,
                self.settings.search,
                self.settings.seed,
                history=history,
                record=record,
                checkpoint=lambda s: s.save(self.path / "state.npz"),
                state=state,
                rank=importance.rank_for(self.settings.search, self.network, self.layout),
                progress=self.progress,
            )

    def finetuned(self, role: str, genome: np.ndarray, search_error: float) -> dict[str, Any]:
        """One solution cut from the original weights, fine-tuned and tested; kept in ``<role>.json`` until all are done."""
        file = self.path / f"{role}.json"
        if file.exists():
            return read_entries(file, "genome", "error", *cost.COSTS)
        entry: dict[str, Any] = {"genome": to_hex(genome), "search_error": search_error, **self.costs(genome)}
        small = slim(self.network, self.layout, genome)
        entry["error_cut"] = self.test(small)
        train.recalibrate(small, self.fitness.calibration_batches())
        entry["error_recalibrated"] = self.test(small)
        small = slim(self.network, self.layout, genome)
        entry["log"] = train.fit(
            small,
            self.dataset,
            self.settings.finetune,
            evaluate.genome_seed(self.settings.seed, genome) + self.settings.finetune.seed,
            checkpoint=self.path / f"{role}.training",
            progress=Progress(role, self.settings.finetune.epochs, self.progress),
        )
        entry["error"] = self.test(small)
        save(self.path / f"{role}.safetensors", small, self.layout, genome, model=self.settings.model, error=entry["error"])
        write_json(file, entry)
        return entry

    def finetuned_each(self, chosen: dict[str, tuple[np.ndarray, float]], workers: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Fine-tune networks by name, given as (genome, search error): in turn, or several at once in processes of one thread each.

        Yields (name, entry) as they are done. A process that dies is a ``RunError``; its network continues from its last epoch.
        """
        if min(workers, len(chosen)) < 2:
            for name, job in chosen.items():
                yield name, self.finetuned(name, *job)
            return
        arguments = self.settings, self.path, str(self.fitness.device), self.progress
        try:
            with evaluate.workers_of(min(workers, len(chosen)), _start_worker, arguments) as pool:
                jobs = [(name, *job) for name, job in chosen.items()]
                names = dict(zip(evaluate.submit(pool, _finetuned_in_worker, jobs), chosen, strict=True))
                for future in as_completed(names):
                    yield names[future], future.result()
        except BrokenProcessPool:
            raise RunError("a process that fine-tuned a network died (out of memory?); the same command continues") from None

    def tidy(self, *names: str) -> None:
        """Remove what only the continuation of a fine-tuning needs."""
        for name in names:
            for ending in ("training", "json"):
                (self.path / f"{name}.{ending}").unlink(missing_ok=True)

    def latencies(self) -> dict[str, dict[str, float]]:
        """Seconds of a batch of 1 and of 64 images, and each network's share of the baseline's, measured in alternating rounds."""
        nets = {"baseline": self.network} | {role: load(self.path / f"{role}.safetensors", self.network) for role in es.ROLES}
        measured: dict[str, dict[str, float]] = {name: {} for name in nets}
        for batch in (1, 64):
            times = cost.latency(nets, data.normalise(self.dataset.train.x[:batch], self.dataset))
            ratios = cost.latency_ratios(times, "baseline")
            for name in nets:
                measured[name] |= {f"seconds_batch{batch}": float(np.median(times[name])), f"latency_left_batch{batch}": ratios[name]}
        return measured

    def test(self, network: nn.Module) -> float:
        """Error on the test set: after the search, for the table only; nothing is chosen by it."""
        return train.error_rate(network, self.dataset.test, self.dataset, self.settings.search.batch_size)

    def test_mistakes(self, role: str) -> Tensor:
        """The test images that a fine-tuned network gets wrong, read from its weights in the run's directory: bool [n]."""
        network = load(self.path / f"{role}.safetensors", self.network).to(self.fitness.device)
        return train.mistakes(network, self.dataset.test, self.dataset, self.settings.search.batch_size)

    def costs(self, genome: np.ndarray) -> dict[str, int]:
        return {name: one(self.layout, genome) for name, one in cost.COSTS.items()}


def _start_worker(settings: Settings, path: Path, device: str, progress: bool) -> None:
    global _work
    evaluate.behave_as_worker()
    _work = prepare(settings, path, device, progress)


def _finetuned_in_worker(name: str, genome: np.ndarray, search_error: float) -> dict[str, Any]:
    return _work.finetuned(name, genome, search_error)


_work: Work  # of this process, in workers only


class Progress:
    """Called after each epoch of a training; prints one line when asked to."""

    def __init__(self, name: str, epochs: int, visible: bool):
        self.name, self.epochs, self.visible = name, epochs, visible

    def __call__(self, epoch: int, loss: float, seconds: float) -> None:
        if self.visible:
            print(f"{self.name}: epoch {epoch + 1}/{self.epochs}, loss {loss:.3f}, {seconds:.0f} s", file=sys.stderr, flush=True)


class Stopwatch:
    """Adds the seconds of each phase, over all sittings, to ``env.json`` beside versions and hardware."""

    def __init__(self, path: Path, device: str, workers: int | str):
        self.path = path
        self.env = read_entries(path, "seconds") if path.exists() else {"seconds": {}}
        self.env |= environment(device) | {"workers": workers}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            before = self.env["seconds"].get(phase, 0.0)
            self.env["seconds"][phase] = round(before + time.perf_counter() - start, 2)
            write_json(self.path, self.env)


def environment(device: str) -> dict[str, Any]:
    """What bits and seconds depend on beside the settings: commit, versions, hardware, threads."""
    gpu = str(device).startswith("cuda")
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name(device) if gpu else f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
    }


def commit() -> str:
    """The commit of the code, with ``+`` for uncommitted changes; empty outside a checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return described.stdout.strip() if described.returncode == 0 else ""
