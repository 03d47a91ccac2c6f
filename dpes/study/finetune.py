"""What all phases of a run need, and its last ones: solutions cut from the original weights, fine-tuned, tested and timed."""

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
    """The phases of a run in progress; each takes up what an earlier sitting left in the directory."""

    settings: Settings
    path: Path
    network: nn.Module  # trained, full size
    layout: Layout
    dataset: data.Dataset
    fitness: Fitness
    progress: bool

    def finetuned(self, role: str, genome: np.ndarray, search_error: float) -> dict[str, Any]:
        """One solution cut from the original weights, fine-tuned and tested; kept in ``<role>.json`` until all are done."""
        file = self.path / f"{role}.json"
        if file.exists():
            return read_entries(file, "genome", "error", *cost.COSTS)
        entry: dict[str, Any] = {"genome": to_hex(genome), "search_error": search_error, **self.costs(genome)}
        small = slim(self.network, self.layout, genome)
        entry["error_cut"] = self.test(small)
        judging.recalibrate(small, self.fitness.calibration_batches())
        entry["error_recalibrated"] = self.test(small)
        small = slim(self.network, self.layout, genome)
        entry["log"] = train.fit(
            small,
            self.dataset,
            self.settings.finetune,
            genome_seed(self.settings.seed, genome) + self.settings.finetune.seed,
            checkpoint=self.path / f"{role}.training",
            progress=Progress(role, self.settings.finetune.epochs, self.progress),
        )
        entry["error"] = self.test(small)
        save(self.path / f"{role}.safetensors", small, self.layout, genome, model=self.settings.model, error=entry["error"])
        write_json(file, entry)
        return entry

    def finetuned_each(self, chosen: dict[str, tuple[np.ndarray, float]], workers: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Fine-tune networks by name, given as (genome, search error): in turn, or several at once in processes of one thread each.

        Yields (name, entry) in order. A network whose process dies continues from its last epoch, once; then it is a ``RunError``.
        """
        if min(workers, len(chosen)) < 2:
            for name, job in chosen.items():
                yield name, self.finetuned(name, *job)
            return
        arguments = self.settings, self.path, str(self.fitness.device), self.progress
        with pool(build_finetuning, arguments, min(workers, len(chosen))) as compute:
            for name, entry in zip(chosen, compute((name, *job) for name, job in chosen.items()), strict=True):
                if entry is None:
                    raise RunError("a process that fine-tuned a network died twice (out of memory?); the same command continues")
                yield name, entry

    def tidy(self, *names: str) -> None:
        """Remove what only the continuation of a fine-tuning needs."""
        for name in names:
            for ending in ("training", "json"):
                (self.path / f"{name}.{ending}").unlink(missing_ok=True)

    def latencies(self) -> dict[str, dict[str, float]]:
        """Seconds of a batch of 1 and of 64 images, and each network's share of the baseline's, measured in alternating rounds."""
        nets = {"baseline": self.network} | {role: load(self.path / f"{role}.safetensors", self.network) for role in ROLES}
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


def build_finetuning(settings: Settings, path: Path, device: str, progress: bool) -> Callable[..., dict[str, Any]]:
    """The function that fine-tunes a network in a process of its own."""
    return prepare(settings, path, device, progress).finetuned
