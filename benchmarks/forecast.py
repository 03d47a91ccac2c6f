"""How long a run will take, from what was measured on one worker. Source: ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dpes.study.settings import Settings


@dataclass(frozen=True)
class Machine:
    """Workers of equal speed, and what one of them does with the unpruned network."""

    macs_per_image: float  # of a forward pass
    macs_per_second: float
    # of a slim network and of a training step, as a share of ``macs_per_second``: on narrow layers
    # nobody reaches 1
    slim_rate: float = 1.0
    training_rate: float = 1.0
    load_images_per_second: float = math.inf  # infinite for images that lie in memory
    overhead_seconds_per_candidate: float = 0.0  # the cut, and what else does not shrink
    start_seconds: float = 0.0  # until the workers are ready, paid once
    workers: int = 1
    finetunings_at_once: int = 1  # ``dpes.run`` does as many as it has workers

    def __post_init__(self) -> None:
        if min(self.workers, self.finetunings_at_once) < 1:
            raise ValueError("workers and finetunings_at_once must be at least 1")

    def seconds(self, images: int, share: float, training: bool, rate: float) -> float:
        """Of images through a network with a share of the MACs, at a share of the rate.

        Training takes three forward passes: the pass, the gradient of the inputs and that of the
        weights. Loading runs beside the computation, and the slower of both counts.
        """
        compute = share * self.macs_per_image / (rate * self.macs_per_second)
        compute = 3 * compute / self.training_rate if training else compute
        return images * max(compute, 1 / self.load_images_per_second)

    def phase(self, images: int, left: Sequence[float], rounds: int, training: bool) -> float:
        """Of all candidates: the unpruned one, and so many rounds in each generation."""
        slim = sum(self.seconds(images, share, training, self.slim_rate) for share in left)
        return self.seconds(images, 1, training, 1) + rounds * slim


@dataclass(frozen=True)
class SearchSeconds:
    """What a run takes: seconds of the clock by phase."""

    start_seconds: float
    calibration_seconds: float  # passes that re-estimate batch norm
    training_seconds: float  # partial training of candidates
    judging_seconds: float  # passes that count errors
    overhead_seconds: float
    finetuning_seconds: float
    candidates: int  # the unpruned network included
    rounds: int  # in which they are evaluated, as many at a time as there are workers
    # of the workers' time: beside the unpruned network, and in last rounds that are not full
    idle_share: float

    @property
    def searching_seconds(self) -> float:
        """Everything before fine-tuning."""
        passes = self.start_seconds + self.calibration_seconds + self.training_seconds
        return passes + self.judging_seconds + self.overhead_seconds


def search_seconds(
    settings: Settings,
    *,
    train_images: int,
    macs_left: float | Sequence[float] = 1.0,
    solutions_left: Sequence[float] = (1.0, 1.0, 1.0),
    **machine: Any,
) -> SearchSeconds:
    """How long a run will take.

    A generation of P candidates takes ceil(P / workers) rounds, since the next one needs all of its
    errors; the unpruned network is a round of its own.
    train_images: what "all training images" means in the settings. macs_left: share of the MACs
    that candidates keep on average, one number or one for each generation. solutions_left: that of
    heavy, knee and light. machine: the fields of ``Machine``.
    """
    search, worker = settings.search, Machine(**machine)
    left = of_generations(macs_left, search.generations)
    each = math.ceil(search.population / worker.workers)
    calibrated = search.calibration_images if "recalibrate" in search.fitness else 0
    epochs = search.partial_epochs if "partial" in search.fitness else 0
    trained = epochs * images(search.partial_images, train_images)
    candidates = 1 + search.population * search.generations
    rounds = 1 + each * search.generations
    return SearchSeconds(
        start_seconds=worker.start_seconds,
        calibration_seconds=worker.phase(calibrated, left, each, training=False),
        training_seconds=worker.phase(trained, left, each, training=True),
        judging_seconds=worker.phase(search.search_images, left, each, training=False),
        overhead_seconds=rounds * worker.overhead_seconds_per_candidate,
        finetuning_seconds=finetuning(settings, worker, train_images, solutions_left),
        candidates=candidates,
        rounds=rounds,
        idle_share=1 - candidates / (rounds * worker.workers),
    )


def of_generations(macs_left: float | Sequence[float], generations: int) -> list[float]:
    """A share of the MACs for each generation."""
    left = [macs_left] * generations if isinstance(macs_left, int | float) else list(macs_left)
    if len(left) != generations:
        each = f"one for each of the {generations} generations"
        raise ValueError(f"macs_left has {len(left)} numbers: must be one, or {each}")
    return left


def images(wanted: int | None, there_are: int) -> int:
    return min(wanted or there_are, there_are)


def finetuning(
    settings: Settings, worker: Machine, train_images: int, solutions_left: Sequence[float]
) -> float:
    """Seconds until the last solution is done: the longest first, each to who is free first."""
    recipe = settings.finetune
    n = recipe.epochs * images(recipe.images, train_images)
    ends = [0.0] * min(worker.finetunings_at_once, len(solutions_left))
    for share in sorted(solutions_left, reverse=True):
        ends[ends.index(min(ends))] += worker.seconds(n, share, True, worker.slim_rate)
    return max(ends)
