"""Random genomes of ResNet-56 judged after the cut, recalibrated, partially trained and fine-tuned."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from harness import ROOT
from torch import nn

from dpes import slim, trace
from dpes.coupling.genome import to_hex
from dpes.disk import read_json, write_json
from dpes.strategy.es import repair
from dpes.strategy.settings import Search
from dpes.study import data, train
from dpes.study.data import Dataset
from dpes.study.fitness import Fitness, genome_seed
from dpes.study.settings import Training

CHECKPOINTS = ROOT / "build" / "fitness"
SEED, GENOMES, FINETUNED = 0, 40, 8
BASE = Search()
# as the profile cpu
BRIEF: dict[str, Any] = {
    "partial_epochs": 1, "partial_images": 1000, "partial_lr": 1e-2, "precision": "bfloat16",
}  # fmt: skip
TRAINED: dict[str, Any] = {"fitness": "partial", "partial_epochs": 1, "partial_images": 5000}
SEARCHES: dict[str, Search] = {
    "cut": replace(BASE, fitness="none"),
    "recalibrated": BASE,
    "brief_stale": replace(BASE, fitness="partial", **BRIEF),
    "brief": replace(BASE, fitness="partial-recalibrate", **BRIEF),
    "partial": replace(BASE, **TRAINED),
    "partial_fast": replace(BASE, partial_lr=1e-2, **TRAINED),
}
FINETUNE = Training(epochs=2, lr=0.05, precision="bfloat16")
JUDGED = 2000  # test images, for judging only: no candidate is chosen by them


def random_genomes(n: int, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(fraction to keep [n], genomes bool [n, n_bits]): for each genome a fraction is drawn, then
    every bit by itself.
    """
    rng = np.random.default_rng(SEED)
    fractions = rng.uniform(0.3, 0.98, n)
    return fractions, repair(rng.random((n, len(groups))) < fractions[:, None], groups)


def spread(n: int) -> list[int]:
    """Ranks 0 .. n - 1 in an order whose every beginning is spread evenly: half, quarters, eighths
    (van der Corput's).
    """
    bits = (2 * n - 1).bit_length()  # so fine a grid that every rank is met
    grid = (int(f"{k:0{bits}b}"[::-1], 2) for k in range(1, 2**bits))
    return list(dict.fromkeys([n * point >> bits for point in grid]))


@torch.no_grad()
def loss_of(network: nn.Module, split: data.Split, dataset: Dataset) -> float:
    """Mean cross-entropy."""
    total = 0.0
    for x, y in data.batches(split, BASE.batch_size):
        total += float(F.cross_entropy(network(data.normalise(x, dataset)), y, reduction="sum"))
    return total / len(split)


def timed(work: Callable[[], float]) -> tuple[float, dict[str, float]]:
    """What ``work`` returns; its seconds by the clock and of this process alone, which a busy
    machine does not stretch as much.
    """
    clock, processor = time.perf_counter(), time.process_time()
    value = work()
    seconds, own = time.perf_counter() - clock, time.process_time() - processor
    return value, {"seconds": round(seconds, 3), "cpu_seconds": round(own, 3)}


class Study:
    """The measurements and the file that keeps them; what is measured is written at once."""

    def __init__(self, network: nn.Module, dataset: Dataset, results: Path, genomes: int = GENOMES):
        self.network, self.dataset, self.results = network, dataset, results
        self.layout = trace(network, torch.zeros(1, dataset.channels, 32, 32))
        self.fractions, self.genomes = random_genomes(genomes, self.layout.group_of_bit)
        self.fitness = {
            name: Fitness(network, self.layout, dataset, search, SEED)
            for name, search in SEARCHES.items()
        }
        self.stored = read_json(results) if results.exists() else {"rows": []}
        for row in self.stored["rows"]:
            if row["genome"] != to_hex(self.genome(row)):
                index, cure = row["index"], "written by another version; delete the file"
                raise SystemExit(f"{results}: genome {index} is another one: {cure}")

    def genome(self, row: dict) -> np.ndarray:
        """Of a row; the unpruned network's has the index -1."""
        whole = np.ones(self.layout.n_bits, dtype=bool)
        return whole if row["index"] < 0 else self.genomes[row["index"]]

    def keep(self) -> None:
        write_json(self.results, self.stored)

    def row(self, index: int) -> dict:
        """What a genome costs, before anything is measured."""
        genome = self.genome({"index": index})
        kept = 1.0 if index < 0 else float(self.fractions[index])
        row = {"index": index, "kept": kept, "genome": to_hex(genome)}
        return row | {"macs": self.layout.macs(genome), "params": self.layout.params(genome)}

    def complete(self, row: dict) -> bool:
        """Judge a row by every fitness that it lacks; whether it lacked one. ``seconds`` are those
        of the fitness alone, as the search pays them.
        """
        missing = [name for name in self.fitness if name not in row]
        for name in missing:
            fitness = self.fitness[name]
            error, taken = timed(lambda fitness=fitness: fitness(self.genome(row)))
            tested = self.test(fitness.scratch, JUDGED)
            row[name] = {"search": error, "test": tested} | taken
            if name == "recalibrated":
                row[name]["search_loss"] = loss_of(fitness.scratch, fitness.judged, self.dataset)
        return bool(missing)

    def test(self, network: nn.Module, images: int | None = None) -> float:
        return train.error_rate(network, self.dataset.test.first(images), self.dataset)

    def finetune(self, row: dict) -> dict:
        """A candidate's real training and its error on all test images."""
        genome, checkpoint = self.genome(row), CHECKPOINTS / f"{row['index']}.training"
        small = slim(self.network, self.layout, genome)
        CHECKPOINTS.mkdir(parents=True, exist_ok=True)
        seed = genome_seed(SEED, genome)
        log = train.fit(small, self.dataset, FINETUNE, seed, checkpoint=checkpoint)
        error = self.test(small)
        checkpoint.unlink()
        return {"test": error, "seconds": round(sum(e["seconds"] for e in log), 1)}

    def run(self, finetuned: int = FINETUNED) -> None:
        """The cheap rows, then the fine-tunings, spread over the MACs at any time."""
        rows = self.stored["rows"]
        if "unpruned" not in self.stored:  # judged as published
            tuned = {"finetuned": {"test": self.test(self.network), "seconds": 0.0}}
            self.stored["unpruned"] = self.row(-1) | tuned
        for index in range(-1, len(self.genomes)):
            if index == len(rows):
                rows.append(self.row(index))
            row = self.stored["unpruned"] if index < 0 else rows[index]
            if self.complete(row):
                self.keep()
                said = ", ".join(f"{name} {row[name]['search']:.3f}" for name in SEARCHES)
                print(f"{index}: {row['kept']:.2f} of the filters, {said}", flush=True)
        by_macs = sorted(rows, key=lambda row: row["macs"])
        for row in (by_macs[rank] for rank in spread(len(rows))[:finetuned]):
            if "finetuned" not in row:
                row["finetuned"] = self.finetune(row)
                self.keep()
                print(f"{row['index']}: fine-tuned {row['finetuned']}", flush=True)
