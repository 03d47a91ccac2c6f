"""From genomes to errors: what a search of the study calls the fitness of a candidate."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..coupling.cutting import cut
from ..coupling.layout import Layout
from ..coupling.tracing import trace
from ..coupling.zeroing import FullShape, check
from ..strategy import judging
from ..strategy.settings import Search
from ..strategy.workers import keep_freed_memory
from . import data, devices, train
from .settings import Training


@dataclass
class Fitness:
    """The error of a genome: cut from the original weights, made fit as ``search.fitness`` says,
    errors counted.

    A genome's error depends on nothing but the genome, the seed and the device: not on order, batch
    of genomes or worker.
    Sources: partial training from the original weights: authors' later code; recalibration, alone
    or after it: ours.
    """

    model: nn.Module
    layout: Layout
    dataset: data.Dataset
    search: Search
    seed: int = 0
    device: str | torch.device = "cpu"
    scratch: nn.Module = field(init=False)  # the module tree that every candidate becomes
    # uint8, augmented once: the same images for all candidates make fair comparisons
    calibration: Tensor = field(init=False)
    course: train.Course | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        keep_freed_memory()
        # images are channels-last, which decides for the passes; weights lie kernel by kernel,
        # which is faster to cut
        self.model = self.model.to(self.device).to(memory_format=torch.contiguous_format).eval()
        self.dataset = self.dataset.to(self.device)
        generator = torch.Generator().manual_seed(self.seed)
        images = self.dataset.train.x
        drawn = torch.randperm(len(images), generator=generator)[: self.search.calibration_images]
        chosen = images[drawn.to(images.device)]
        # batch norm saw augmented images in training: statistics of plain ones cost an intact
        # ResNet-56 1.5 points
        self.calibration = data.augment(chosen, generator, flip=self.dataset.flip)
        everything = np.ones(self.layout.n_bits, dtype=bool)
        values, usual = self.layout.activations(everything), self.search.batch_size
        self.at_once = devices.images_at_once(self.device, values, usual)
        self.whole = self.at_full_shape() if self.search.shape == "full" else None
        self.scratch = self.whole.target if self.whole else copy.deepcopy(self.model)
        pool = self.dataset.search if self.search.error_on == "search" else self.dataset.train
        self.judged = pool.first(self.search.search_images)

    def __call__(self, genome: np.ndarray) -> float:
        """Error in [0, 1] of one genome, bool [n_bits]."""
        network = self.network(self.layout.checked(genome))
        if "partial" in self.search.fitness:
            self.train(network, genome_seed(self.seed, genome))
        # only around passes whose weights stay as they are: autocast remembers the weights it has
        # converted
        half = self.search.precision == "bfloat16"
        with torch.autocast(self.calibration.device.type, torch.bfloat16, enabled=half):
            # after a brief training the running averages of batch norm still are mostly those of
            # the full network
            if "recalibrate" in self.search.fitness:
                judging.recalibrate(network, self.calibration_batches())
            return train.error_rate(network, self.judged, self.dataset, self.at_once)

    def train(self, network: nn.Module, seed: int) -> None:
        """The brief training of a candidate; on a GPU, at full shape, by a step that is recorded
        once for all.
        """
        if self.whole is None or torch.device(self.device).type != "cuda":
            train.fit(network, self.dataset, self.partial_recipe(), seed)
            return
        if self.course is None:
            recipe = self.partial_recipe()
            self.course = train.Course.begun(network, self.dataset, recipe, seed)
            self.course.record()
        self.course.restart(seed)
        self.course.run([])

    def network(self, keep: np.ndarray) -> nn.Module:
        """The candidate of a checked genome, as the original weights have it, in ``scratch``."""
        if self.whole is not None:
            return self.whole(keep)
        network = cut(self.scratch, self.model, self.layout, keep)
        # on the CPU the images alone decide; a GPU would turn the weights round in every pass
        on_gpu = torch.device(self.device).type == "cuda"
        return network.to(memory_format=torch.channels_last) if on_gpu else network

    def at_full_shape(self) -> FullShape:
        """What writes candidates into one copy of the network; refuses networks that would compute
        something else.
        """
        check(self.model, self.layout)
        return FullShape(self.model, self.layout)

    def parts(self) -> tuple[Any, ...]:
        """All that another process needs to ``build`` the same function, without test images."""
        dataset = replace(self.dataset, test=self.dataset.test.first(0)).to("cpu")
        model, device = copy.deepcopy(self.model).cpu(), str(self.device)
        return model, self.layout.example, dataset, self.search, self.seed, device

    def calibration_batches(self) -> Iterator[Tensor]:
        for images in self.calibration.split(self.search.batch_size):
            yield data.normalise(images, self.dataset)

    def partial_recipe(self) -> Training:
        return Training(
            epochs=self.search.partial_epochs,
            lr=self.search.partial_lr,
            schedule="constant",
            weight_decay=0.0,
            batch_size=max(2, self.search.batch_size // 2),
            images=self.search.partial_images,
            precision=self.search.precision,
        )


def build(
    model: nn.Module,
    example: tuple[int, ...],
    dataset: data.Dataset,
    search: Search,
    seed: int,
    device: str,
) -> Fitness:
    """The function from a genome to its error in a process of its own, from ``Fitness.parts``; the
    network is traced there.
    """
    device = devices.of_worker(device)
    layout = trace(model.to(device), torch.zeros(1, *example, device=device), prove=False)
    return Fitness(model, layout, dataset, search, seed, device)


def genome_seed(seed: int, genome: np.ndarray) -> int:
    """The seed of a genome's own random stream, from the study's seed and the genome."""
    digest = hashlib.sha256(seed.to_bytes(8, "little") + np.packbits(genome).tobytes()).digest()
    return int.from_bytes(digest[:6], "little")
