"""Candidates of a network of one's own: cut, recalibrated and judged; the unpruned one first, to
see that all fits together.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..coupling import cost as costs
from ..coupling.cutting import slim
from ..coupling.genome import repair
from ..coupling.layout import Layout
from ..errors import CandidateFailed, DpesError, SettingsError, first_line, suggest
from . import judging, workers

Function = Callable[[nn.Module], Any]
FAR = 0.25  # a difference between two errors that is no accident


@dataclass
class Fitness:
    """The error of a genome by a user's own judge.

    Every candidate is a network of its own: what a judge keeps of it never changes.
    """

    model: nn.Module
    layout: Layout
    judge: Function
    inputs: list[Tensor] | None  # batches that re-estimate batch norm, if anything does

    def __post_init__(self) -> None:
        self.first = self.judged_first()
        if self.first > FAR:
            self.doubt()

    def judged_first(self) -> float:
        """The error of the unpruned network; raises what is wrong with it, or with the judge."""
        try:
            unpruned = self.network(np.ones(self.layout.n_bits, dtype=bool))
        except (RuntimeError, ValueError) as error:
            shape = f"shape {list(self.inputs[-1].shape)}" if self.inputs else "no image"
            reason = f"batches of calibration, of {shape} ({first_line(error)})"
            cure = "give images as in training, or set fitness='none'"
            raise SettingsError(f"the network cannot read {reason}; {cure}") from error
        return checked(self.judge, unpruned, "evaluate")

    def doubt(self) -> None:
        """Warns if a network without half of its filters, drawn at random, errs far less than the
        unpruned one: that is no error, or no trained network.
        """
        rng, layout = np.random.default_rng(0), self.layout
        half = repair(rng.random(layout.n_bits) < 0.5, layout.group_of_bit, layout.least)
        error, _ = workers.attempt(self.error, half)
        if error < self.first - FAR:
            found = f"{self.first:.2f} for the unpruned network, {error:.2f} with half of it gone"
            cure = "evaluate must return an error, not an accuracy, and labels must fit"
            warnings.warn(f"the error is {found}: {cure}", stacklevel=5)

    def errors(self, genomes: Iterable[np.ndarray]) -> Iterator[float]:
        return workers.serial(self.error, genomes)

    def network(self, genome: np.ndarray) -> nn.Module:
        network = slim(self.model, self.layout, genome)
        if self.inputs is not None:
            judging.recalibrate(network, self.inputs)
        return network.eval()

    def error(self, genome: np.ndarray) -> float:
        if genome.all():
            return self.first
        try:
            return checked(self.judge, self.network(genome), "evaluate")
        except SettingsError as problem:
            raise CandidateFailed(str(problem)) from problem


def checked(function: Function, network: nn.Module, name: str, high: float = 1.0) -> float:
    """What a user's function says of a network; ``SettingsError`` for all but a number from 0 to
    ``high``. What the system or this package raises passes.
    """
    try:
        said = function(network)
    except (DpesError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise SettingsError(f"{name} failed on a network ({reason})") from error
    try:
        value = float(said)
    except (TypeError, ValueError, RuntimeError):
        value = math.nan
    if not 0 <= value <= high or value == math.inf:
        what = "an error between 0 (best) and 1; 1 - accuracy, for example"
        limits = what if high == 1 else "a finite number of at least 0"
        raise SettingsError(f"{name} returned {said!r:.60}: it must return {limits}")
    return value


def cost_function(
    objective: str | Function, fitness: Fitness, example: Tensor
) -> Callable[[np.ndarray], float]:
    """The second objective as a function of the genome; one that a user's function cannot tell is
    infinite, but for the unpruned network's.
    """

    def milliseconds(genome: np.ndarray) -> float:
        times = costs.latency({"": fitness.network(genome)}, example, rounds=7)[""]
        return 1e3 * float(np.median(times))

    def own(genome: np.ndarray, function: Any = objective) -> float:
        try:
            return checked(function, fitness.network(genome), "cost", math.inf)
        except SettingsError as problem:
            if genome.all():
                raise
            warnings.warn(f"candidate failed and counts as worst: {problem}", stacklevel=2)
            return math.inf

    if callable(objective):
        return own
    if objective == "latency":
        return milliseconds
    if not isinstance(objective, str) or objective not in costs.COSTS:
        known = suggest(str(objective), [*costs.COSTS, "latency"])
        raise SettingsError(
            f"unknown cost {objective!r}: {known}, or give a function of the network"
        )
    return lambda genome: costs.COSTS[objective](fitness.layout, genome)
