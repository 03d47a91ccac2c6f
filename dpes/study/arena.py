"""The arena: one network on which every search and every simple method is tried.

A candidate's error depends on its genome alone: batch norm is re-estimated on the same augmented
training images for all, errors are counted on the same images of the search split. So methods share
the errors of networks that several of them ask for. The published weights of ResNet-20 were trained
on all 50,000 images, those of the search split among them: errors of nearly whole networks are too
low, for all methods alike; the test images were never seen.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import nn

from ..coupling import importance
from ..coupling.cost import costs
from ..coupling.importance import ranking
from ..coupling.layout import Layout
from ..coupling.tracing import trace
from ..strategy.settings import Search
from ..strategy.space import Space
from . import criteria, data, models, train
from .baseline import checksum, load_baseline
from .environment import environment
from .fitness import Fitness
from .profiles import make_settings
from .settings import Settings, Training

RECALIBRATED = "recalibrated"


@dataclass(frozen=True)
class Arena:
    """What all methods have in common: the network, the images, and one short fine-tuning."""

    model: str = "resnet20"
    dataset: str = "cifar10"
    weights: str = "akamaster"
    calibration_images: int = 500
    search_images: int = 1000  # an error of .25 has a standard error of .014; see also ``fidelity``
    tune_images: int = 20_000
    tune_lr: float = 0.05
    tune_precision: str | None = "bfloat16"  # a search's errors are float32

    def kinds(self) -> dict[str, Search]:
        """Kinds of fitness by name, the cheapest first; searches use ``RECALIBRATED``, unless they
        say otherwise.
        """
        n, judged = self.calibration_images, self.search_images
        own = Search(fitness="recalibrate", calibration_images=n, search_images=judged)
        brief = replace(own, fitness="partial-recalibrate", partial_epochs=1, partial_lr=0.01)
        step = own.batch_size // 2
        return {
            "cut": replace(own, fitness="none"),
            "recalibrated on a fifth": replace(own, calibration_images=n // 5, batch_size=n // 5),
            RECALIBRATED: own,
            "recalibrated, judged on four times as many": replace(own, search_images=4 * judged),
            "8 steps, recalibrated": replace(brief, partial_images=8 * step),
            "32 steps, recalibrated": replace(brief, partial_images=32 * step),
        }

    @property
    def settings(self) -> Settings:
        """Those of the study's own run of this network."""
        names = {"model": self.model, "dataset": self.dataset, "weights": self.weights}
        return make_settings("cpu", **names)

    def recipe(self, long: bool = False, lr: float | None = None) -> Training:
        """One fine-tuning for all; long: that of the study's own runs of this network, lr: with
        another peak learning rate.
        """
        if long:
            own = self.settings.finetune
            return own if lr is None else replace(own, lr=lr)
        return Training(
            epochs=1, images=self.tune_images, lr=self.tune_lr, precision=self.tune_precision
        )


# where the outcome of the tournament on ResNet-20 is confirmed, and that itself
ARENAS = {
    "resnet20": Arena(),
    "resnet56": Arena("resnet56"),
    "densenet22": Arena("densenet22", weights="train"),
    "vgg16": Arena("vgg16", weights="train"),
}


class Computed(Mapping):
    """A table whose entries are computed when they are first asked for; few methods need
    Torch-Pruning.
    """

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
    device: str = "cpu"  # where networks are fine-tuned; searches and orders stay on the CPU

    @cached_property
    def network(self) -> str:
        """The start of its weights' SHA-256: a network that is trained here differs between
        processors.
        """
        return checksum(self.model)[:12]

    @cached_property
    def trained_on(self) -> data.Dataset:
        """The images where networks are fine-tuned."""
        return self.dataset.to(self.device)

    @cached_property
    def unpruned_error(self) -> float:
        """Test error of the network as it came, counted where networks are fine-tuned."""
        images, network = self.trained_on, copy.deepcopy(self.model).to(self.device)
        return train.error_rate(network, images.test, images)

    @property
    def elsewhere(self) -> dict[str, str]:
        """What an entry says of a device that is not the CPU."""
        return (
            {}
            if torch.device(self.device).type == "cpu"
            else {"device": environment(self.device)["device"]}
        )

    @cached_property
    def fitness(self) -> Fitness:
        """Recalibration without any training: the least that makes slim networks comparable."""
        return self.fitness_of(RECALIBRATED)

    def fitness_of(self, kind: str) -> Fitness:
        """Another kind of fitness, by its name in ``Arena.kinds``."""
        search = self.arena.kinds()[kind]
        return Fitness(self.model, self.layout, self.dataset, search, seed=0)

    def drawn(self, seed: int) -> nn.Module:
        """The network with weights drawn from ``seed``, as before any training."""
        shape = self.dataset.n_classes, self.dataset.channels
        return models.build(self.arena.model, *shape, seed=seed, source=self.arena.weights)

    @cached_property
    def whole(self) -> int:
        """MACs of the unpruned network."""
        return self.layout.macs(np.ones(self.layout.n_bits, dtype=bool))

    @cached_property
    def space(self) -> Space:
        """Bits, costs, and the orders that use knowledge."""
        score = Computed(("l1", *criteria.CRITERIA), self.score)
        space = Space(self.layout.group_of_bit, self.shares, {}, score, self.layout.least)
        orders = Computed(tuple(score), lambda name: ranking(space.groups, score[name]))
        return replace(space, orders=orders)

    def score(self, name: str) -> np.ndarray:
        """float [n_bits]: the importance of each filter by one criterion."""
        if name == "l1":
            return importance.l1_norms(self.model, self.layout)
        return criteria.scores(self.model, self.layout, name, *self.labelled())

    def labelled(self, n: int = 250) -> tuple[torch.Tensor, torch.Tensor]:
        """The first calibration images, normalised, and their classes: the criteria see what
        recalibration sees.
        """
        n = min(n, len(self.fitness.calibration))
        order = torch.randperm(len(self.dataset.train), generator=torch.Generator().manual_seed(0))[
            :n
        ]  # as Fitness draws them
        return data.normalise(self.fitness.calibration[:n], self.dataset), self.dataset.train.y[
            order
        ]

    def shares(self, genomes: np.ndarray) -> np.ndarray:
        """float [n]: which part of the MACs each genome has left."""
        return costs(self.layout, genomes) / self.whole


def prepare(arena: Arena, device: str = "cpu") -> Bench:
    """Load the network and the images; one thread, so that equal processors give equal bits."""
    torch.set_num_threads(1)
    dataset = data.load(arena.dataset)
    model = load_baseline(arena.settings, dataset).eval()
    layout = trace(model, torch.zeros(1, dataset.channels, 32, 32), prove=False)
    return Bench(arena, model, layout, dataset, device)
