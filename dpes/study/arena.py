"""The arena: every search and every simple method on one network, over seeds, at equal evaluations; a line for each candidate.

A candidate's error depends on its genome alone: batch norm is re-estimated on the same augmented training images for all, errors
are counted on the same images of the search split. So methods share the errors of networks that several of them ask for. The
published weights of ResNet-20 were trained on all 50,000 images, those of the search split among them: errors of nearly whole
networks are too low, for all methods alike; the test images were never seen.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from torch import nn

from ..coupling import cost, importance
from ..coupling.genome import from_hex, to_hex
from ..coupling.layout import Layout
from ..coupling.tracing import trace
from ..errors import RunError
from ..fields import to_dict
from ..strategy.settings import Search
from ..strategy.space import History, Space, ranking
from . import criteria, data
from .baseline import load_baseline
from .environment import environment
from .fitness import Fitness
from .methods import method
from .settings import Settings, Training

FOLDER = Path("data/arena")


@dataclass(frozen=True)
class Arena:
    """What all methods have in common: the network, the images, and one short fine-tuning."""

    model: str = "resnet20"
    dataset: str = "cifar10"
    weights: str = "akamaster"
    calibration_images: int = 500  # enough: 1,000 change the error of few networks by more than .01
    search_images: int = 1000  # standard error of an error of .25: .014, of a difference between two networks less
    tune_images: int = 20_000
    tune_lr: float = 0.05
    tune_precision: str | None = "bfloat16"  # a search's errors are float32

    def recipe(self) -> Training:
        """One fine-tuning for all."""
        return Training(epochs=1, images=self.tune_images, lr=self.tune_lr, precision=self.tune_precision)


class Computed(Mapping):
    """A table whose entries are computed when they are first asked for; few methods need Torch-Pruning."""

    def __init__(self, names: tuple[str, ...], make: Callable[[str], np.ndarray]):
        self.made: dict[str, np.ndarray] = {}
        self.names, self.make = names, make

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise KeyError(name)
        if name not in self.made:
            self.made[name] = self.make(name)
        return self.made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass
class Bench:
    """The arena's network, images and space, loaded once; ``error`` is the fitness of a genome."""

    arena: Arena
    model: nn.Module
    layout: Layout
    dataset: data.Dataset

    @cached_property
    def fitness(self) -> Fitness:
        """Recalibration without any training: the least that makes slim networks comparable."""
        search = Search(fitness="recalibrate", calibration_images=self.arena.calibration_images, search_images=self.arena.search_images)
        return Fitness(self.model, self.layout, self.dataset, search, seed=0)

    @cached_property
    def whole(self) -> int:
        """MACs of the unpruned network."""
        return cost.macs(self.layout, np.ones(self.layout.n_bits, dtype=bool))

    @cached_property
    def space(self) -> Space:
        """Bits, costs, and the orders that use knowledge."""
        score = Computed(("l1", *criteria.CRITERIA), self.score)
        space = Space(self.layout.group_of_bit, self.shares, {}, score)
        return Space(space.groups, space.cost, Computed(tuple(score), lambda name: ranking(space, score[name])), score)

    def score(self, name: str) -> np.ndarray:
        """float [n_bits]: the importance of each filter by one criterion."""
        if name == "l1":
            return importance.l1_norms(self.model, self.layout)
        return criteria.scores(self.model, self.layout, name, *self.labelled())

    def labelled(self, n: int = 250) -> tuple[torch.Tensor, torch.Tensor]:
        """The first calibration images, normalised, and their classes: the criteria see what recalibration sees."""
        n = min(n, len(self.fitness.calibration))
        order = torch.randperm(len(self.dataset.train), generator=torch.Generator().manual_seed(0))[:n]  # as Fitness draws them
        return data.normalise(self.fitness.calibration[:n], self.dataset), self.dataset.train.y[order]

    def shares(self, genomes: np.ndarray) -> np.ndarray:
        """float [n]: which part of the MACs each genome has left."""
        return np.array([cost.macs(self.layout, g) for g in genomes]) / self.whole


def prepare(arena: Arena) -> Bench:
    """Load the network and the images; one thread, so that equal processors give equal bits."""
    torch.set_num_threads(1)
    dataset = data.load(arena.dataset)
    settings = Settings(model=arena.model, dataset=arena.dataset, weights=arena.weights, profile="arena")
    model = load_baseline(settings, dataset).eval()
    return Bench(arena, model, trace(model, torch.zeros(1, dataset.channels, 32, 32)), dataset)


# ---- rows -----------------------------------------------------------------------------------------------------------------------
def row_path(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name}-s{seed}.jsonl"


def header(bench: Bench, name: str, seed: int) -> dict[str, Any]:
    """The first line of a row: what the method is, what was the same for all, and what errors depend on beside that."""
    env = {key: value for key, value in environment("cpu").items() if key in ("torch", "numpy", "device")}
    row = {"method": name, "seed": seed, "parts": to_dict(method(name)), "arena": to_dict(bench.arena)}
    return json.loads(json.dumps(row | {"n_bits": bench.layout.n_bits, "macs": bench.whole, "env": env}))


def read_row(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(header, candidates in order) of a row; a line that was cut off while it was written is left out. Raises ``RunError``."""
    text = path.read_text()
    lines = text.splitlines()
    whole = lines if text.endswith("\n") else lines[:-1]
    try:
        entries = [json.loads(line) for line in whole]
    except ValueError:
        raise RunError(f"{path}: damaged; delete it, and it is made again") from None
    return (entries[0], entries[1:]) if entries else ({}, [])


def history_of(candidates: list[dict[str, Any]], bench: Bench) -> History:
    """The candidates of a row as arrays."""
    if not candidates:
        return History.empty(bench.layout.n_bits)
    genomes = np.array([from_hex(c["genome"], bench.layout.n_bits) for c in candidates])
    return History(genomes, np.array([[c["error"], c["macs"] / bench.whole] for c in candidates]))


def known_errors(folder: Path, arena: Arena) -> dict[str, float]:
    """Genome (hex) -> error of all candidates of this arena so far, whoever asked for them."""
    known: dict[str, float] = {}
    for path in sorted(folder.glob("*.jsonl")):
        head, candidates = read_row(path)
        if head.get("arena") == to_dict(arena):
            known |= {c["genome"]: c["error"] for c in candidates}
    return known


def total(name: str) -> int:
    """How many candidates a finished row has; the unpruned network comes on top where a search starts at it."""
    one = method(name)
    return one.evaluations + (getattr(one, "start", "") == "unpruned")


def finished(folder: Path, name: str, seed: int) -> bool:
    path = row_path(folder, name, seed)
    return path.exists() and len(read_row(path)[1]) >= total(name)


def run_row(
    bench: Bench, folder: Path, name: str, seed: int, known: dict[str, float], tick: Callable[[float], None] = lambda seconds: None
) -> History:
    """Make one row, or what is missing of it; returns its history. tick: called with the seconds of each new evaluation.

    The method is asked again for every generation, so a row that goes on is checked, candidate by candidate, to be the same
    search. Raises ``RunError`` if it is not.
    """
    path, head = row_path(folder, name, seed), header(bench, name, seed)
    stored, candidates = read_row(path) if path.exists() else ({}, [])
    if stored and stored | {"env": 0} != head | {"env": 0}:
        raise RunError(f"{path}: of another method or arena; delete it, or use another folder")
    write_whole(path, [stored or head, *candidates])
    one, n = method(name), 0
    with path.open("a") as file:
        while n < total(name):
            genomes = one(bench.space, history_of(candidates[:n], bench), seed)[: total(name) - n]
            if not len(genomes):
                break
            for genome in genomes:
                text = to_hex(genome)
                if n < len(candidates):
                    if candidates[n]["genome"] != text:
                        raise RunError(f"{path}: candidate {n} is another one here (other versions or processor?); delete the row")
                else:
                    start = time.perf_counter()
                    if text not in known:
                        known[text] = bench.fitness(genome)
                        tick(time.perf_counter() - start)
                    candidates.append({"genome": text, "error": known[text], "macs": cost.macs(bench.layout, genome)})
                    file.write(json.dumps(candidates[-1]) + "\n")
                    file.flush()
                n += 1
    return history_of(candidates, bench)


def write_whole(path: Path, entries: list[dict[str, Any]]) -> None:
    """A file of one JSON line each, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    os.replace(part, path)


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process may work on a file that others may be working on; use as a context manager."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(f"{path}.lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
        Path(f"{path}.lock").unlink(missing_ok=True)
