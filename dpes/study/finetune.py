"""What the steps of a run work on, and its last ones: solutions fine-tuned, tested and timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..coupling import cost
from ..coupling.cutting import slim
from ..coupling.genome import to_hex
from ..coupling.layout import Layout
from ..coupling.slimfile import load, save
from ..coupling.tracing import trace
from ..disk import read_entries, write_json
from ..errors import RunError
from ..strategy import judging
from ..strategy.es import ROLES
from ..strategy.workers import pool
from . import data, train
from .baseline import load_baseline
from .devices import of_worker
from .environment import Progress
from .fitness import Fitness, genome_seed
from .settings import Settings


def prepare(settings: Settings, path: Path, device: str, progress: bool) -> Work:
    """The trained network, its layout and data: what all phases of a run need."""
    dataset = data.load(settings.dataset, device=device)
    network = load_baseline(settings, dataset, device, progress)
    layout = trace(network, torch.zeros(1, dataset.channels, 32, 32, device=device), prove=False)
    fitness = Fitness(network, layout, dataset, settings.search, settings.seed, device)
    return Work(settings, path, network, layout, dataset, fitness, progress)


@dataclass
class Work:
    """The phases of a run; each takes up what an earlier sitting left in the directory."""

    settings: Settings
    path: Path
    network: nn.Module  # trained, full size
    layout: Layout
    dataset: data.Dataset
    fitness: Fitness
    progress: bool

    def finetuned(self, name: str, genome: np.ndarray, search_error: float) -> dict[str, Any]:
        """A network cut from the original weights, fine-tuned, tested and kept.

        What came of it lies in ``<name>.json`` until all are done.
        """
        file, recipe = self.path / f"{name}.json", self.settings.finetune
        if file.exists():
            return read_entries(file, "genome", "error", *cost.COSTS)
        entry: dict[str, Any] = {"genome": to_hex(genome), "search_error": search_error}
        entry |= self.costs(genome)
        small = slim(self.network, self.layout, genome)
        entry["error_cut"] = self.test(small)
        judging.recalibrate(small, self.fitness.calibration_batches())
        entry["error_recalibrated"] = self.test(small)
        small = slim(self.network, self.layout, genome)
        seed = genome_seed(self.settings.seed, genome) + recipe.seed
        report = Progress(name, recipe.epochs, self.progress)
        checkpoint = self.path / f"{name}.training"
        entry["log"] = train.fit(small, self.dataset, recipe, seed, report, checkpoint)
        entry["error"] = self.test(small)
        about = {"model": self.settings.model, "error": entry["error"]}
        save(self.weights(name), small, self.layout, genome, **about)
        write_json(file, entry)
        return entry

    def finetuned_each(
        self, chosen: dict[str, tuple[np.ndarray, float]], workers: int
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Fine-tune networks by name, given as (genome, search error); yields (name, entry).

        In turn, or several at once in processes of one thread each. A network whose process dies
        continues from its last epoch, once; then it is a ``RunError``.
        """
        jobs, workers = [(name, *job) for name, job in chosen.items()], min(workers, len(chosen))
        if workers < 2:
            yield from ((job[0], self.finetuned(*job)) for job in jobs)
            return
        arguments = self.settings, self.path, str(self.fitness.device), self.progress
        with pool(build_finetuning, arguments, workers) as compute:
            for name, entry in zip(chosen, compute(jobs), strict=True):
                if entry is None:
                    problem = "a process that fine-tuned a network died twice (out of memory?)"
                    raise RunError(f"{problem}; the same command continues")
                yield name, entry

    def weights(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"

    def tidy(self, *names: str) -> None:
        """Remove what only the continuation of a fine-tuning needs."""
        for name in names:
            for ending in ("training", "json"):
                (self.path / f"{name}.{ending}").unlink(missing_ok=True)

    def latencies(self) -> dict[str, dict[str, float]]:
        """Seconds of a batch of 1 and of 64 images, and each network's share of the baseline's."""
        nets = {role: load(self.weights(role), self.network) for role in ROLES}
        nets = {"baseline": self.network} | nets
        measured: dict[str, dict[str, float]] = {name: {} for name in nets}
        for batch in (1, 64):
            times = cost.latency(nets, data.normalise(self.dataset.train.x[:batch], self.dataset))
            for name, ratio in cost.latency_ratios(times, "baseline").items():
                measured[name][f"seconds_batch{batch}"] = float(np.median(times[name]))
                measured[name][f"latency_left_batch{batch}"] = ratio
        return measured

    def test(self, network: nn.Module) -> float:
        """Error on the test set: after the search, for the table only; nothing is chosen by it."""
        return int((wrong := self.mistakes(network)).sum()) / len(wrong)

    def mistakes(self, network: nn.Module) -> Tensor:
        """Which test images a network gets wrong: bool [n]."""
        return train.mistakes(network, self.dataset.test, self.dataset, self.fitness.at_once)

    def costs(self, genome: np.ndarray) -> dict[str, int]:
        return {name: one(self.layout, genome) for name, one in cost.COSTS.items()}


def build_finetuning(
    settings: Settings, path: Path, device: str, progress: bool
) -> Callable[..., dict[str, Any]]:
    """The function that fine-tunes a network in a process of its own."""
    return prepare(settings, path, of_worker(device), progress).finetuned
