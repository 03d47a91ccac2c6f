"""How long a run will take, from what was measured on one worker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dpes.study.settings import Settings


@dataclass(frozen=True)
class SearchSeconds:
    """What a run takes: seconds of the clock by phase, with the workers that it was asked for; made by ``search_seconds``."""

    start_seconds: float  # of the workers, all at once
    calibration_seconds: float  # passes that re-estimate batch norm
    training_seconds: float  # partial training of candidates
    judging_seconds: float  # passes that count errors
    overhead_seconds: float  # of candidates and generations, whatever the network
    finetuning_seconds: float
    candidates: int  # the unpruned network included
    rounds: int  # in which they are evaluated, as many at a time as there are workers
    workers: int
    idle_share: float  # of the workers' time: while the unpruned network is evaluated, and in last rounds that are not full
    bytes_to_send: int  # network and images, once to each worker

    @property
    def searching_seconds(self) -> float:
        """Everything before fine-tuning."""
        return (
            self.start_seconds
            + self.calibration_seconds
            + self.training_seconds
            + self.judging_seconds
            + self.overhead_seconds
        )

    @property
    def total_seconds(self) -> float:
        return self.searching_seconds + self.finetuning_seconds


def search_seconds(
    settings: Settings,
    macs_per_image: float,
    macs_per_second: float,
    *,
    train_images: int,
    macs_left: float | Sequence[float] = 1.0,
    solutions_left: Sequence[float] = (1.0, 1.0, 1.0),
    slim_rate: float = 1.0,
    training_rate: float = 1.0,
    load_images_per_second: float = math.inf,
    overhead_seconds_per_candidate: float = 0.0,
    overhead_seconds_per_generation: float = 0.0,
    start_seconds: float = 0.0,
    workers: int = 1,
    finetunings_at_once: int = 1,
    bytes_per_worker: int = 0,
) -> SearchSeconds:
    """How long a run will take, from what was measured on one worker. Source: ours.

    macs_per_image, macs_per_second: of the unpruned network in a forward pass. Training an image is taken for three forward
    passes: the pass itself, the gradient of its inputs and that of its weights.
    train_images: what "all training images" means in the settings.
    macs_left: share of the MACs that candidates have left on average, one number or one for each generation. solutions_left:
    that of heavy, knee and light.
    slim_rate: MACs per second of a slim network, and training_rate: those of a training step, each as a share of
    ``macs_per_second``; 1 is what nobody reaches on narrow layers, so measure them.
    load_images_per_second: what each worker's storage and decoder deliver; loading runs beside the computation, and the slower
    of both counts. Infinite for images that lie in memory.
    overhead_seconds_per_candidate: the cut, and whatever else does not shrink with the network; per_generation: ask, tell, files.
    start_seconds: until the workers are ready, paid once.
    workers: of equal speed. A generation of P candidates takes ceil(P / workers) rounds, since the next one needs all of its
    errors; the unpruned network is a round of its own. finetunings_at_once: how many of the three solutions are fine-tuned at
    the same time; ``dpes.run`` does as many as it has workers.
    bytes_per_worker: network and images of one worker, only added up in ``bytes_to_send``.
    """
    search, finetune = settings.search, settings.finetune
    left = (
        [macs_left] * search.generations if isinstance(macs_left, int | float) else list(macs_left)
    )
    if len(left) != search.generations:
        raise ValueError(
            f"macs_left has {len(left)} numbers: must be one, or one for each of the {search.generations} generations"
        )

    if workers < 1 or finetunings_at_once < 1:
        raise ValueError(
            f"workers = {workers}, finetunings_at_once = {finetunings_at_once}: must be at least 1"
        )

    def seconds(images: int, share: float, training: bool, rate: float) -> float:
        compute = share * macs_per_image / (rate * macs_per_second)
        return images * max(
            3 * compute / training_rate if training else compute, 1 / load_images_per_second
        )

    epoch = min(search.partial_images or train_images, train_images)
    images = {
        "calibration": search.calibration_images if "recalibrate" in search.fitness else 0,
        "training": search.partial_epochs * epoch if "partial" in search.fitness else 0,
        "judging": search.search_images,
    }
    rounds_each = math.ceil(search.population / workers)
    phases = {}
    for phase, n in images.items():
        unpruned = seconds(n, 1, phase == "training", 1)
        phases[phase] = unpruned + rounds_each * sum(
            seconds(n, share, phase == "training", slim_rate) for share in left
        )
    rounds, candidates = (
        1 + rounds_each * search.generations,
        1 + search.population * search.generations,
    )

    epoch = min(finetune.images or train_images, train_images)
    ends = [0.0] * min(finetunings_at_once, len(solutions_left))
    for share in sorted(
        solutions_left, reverse=True
    ):  # the longest first, each to the worker that is free first
        ends[ends.index(min(ends))] += seconds(finetune.epochs * epoch, share, True, slim_rate)
    return SearchSeconds(
        start_seconds=start_seconds,
        calibration_seconds=phases["calibration"],
        training_seconds=phases["training"],
        judging_seconds=phases["judging"],
        overhead_seconds=rounds * overhead_seconds_per_candidate
        + search.generations * overhead_seconds_per_generation,
        finetuning_seconds=max(ends),
        candidates=candidates,
        rounds=rounds,
        workers=workers,
        idle_share=1 - candidates / (rounds * workers),
        bytes_to_send=workers * bytes_per_worker,
    )
