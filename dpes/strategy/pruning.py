"""A network of one's own pruned: the search of the study without its data sets, recipes and run directories."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from ..coupling import cost as costs
from ..coupling.cutting import cut, slim
from ..coupling.layout import Layout
from ..coupling.tracing import trace
from ..disk import locked
from ..errors import SettingsError, suggest
from ..fields import to_dict
from . import es, judging, workers
from .folder import Folder
from .history import History, archive
from .loop import Task, rank_for, search
from .settings import Search

if TYPE_CHECKING:
    import pandas as pd

Batches = Tensor | Iterable[Any]


@dataclass
class Front:
    """Three smaller networks and all that led to them."""

    heavy: nn.Module  # least error
    knee: nn.Module  # best compromise
    light: nn.Module  # least cost
    genomes: dict[str, np.ndarray]  # role -> bool [n_bits]
    layout: Layout
    history: pd.DataFrame = field(repr=False)  # every candidate: generation, index, parent, genome (hex), error, macs, params, cost

    @property
    def archive(self) -> pd.DataFrame:
        """The candidates that no other dominates, by falling cost; the unpruned network is none of them."""
        return archive(self.history, "cost")


def prune(
    model: nn.Module,
    example: Tensor,
    evaluate: Callable[[nn.Module], float] | None = None,  # noqa: A002 - the public name in the design
    *,
    data: tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]] | None = None,
    calibration: Batches | None = None,
    cost: str | Callable[[nn.Module], float] | None = None,
    settings: Search | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Front:
    """Search for three smaller versions of a trained classifier; ``model`` is left as it is.

    example: a batch of inputs, float [n, ...], on the model's device. What counts as error is either of

    - data: ``(x, y)`` with x float [n, ...] as the model takes it and y int64 [n], or batches of such pairs (a ``DataLoader``
      that does not shuffle); at most ``settings.search_images`` are judged;
    - evaluate: a function from a slim network, in eval mode, to its error, 0 (best) to 1.

    calibration: inputs, float [n, ...] or batches of them, that re-estimate batch norm after each cut; training images with
    the augmentation of training are best, the images of ``data`` are taken if there are none. cost: ``macs``, ``params``, ``activations``,
    ``latency`` (milliseconds of ``example``, measured) or a function of the slim network; that of ``settings`` if not given.
    folder: keeps state and history there after each candidate; the same call continues from it.
    The networks returned are cut and recalibrated; fine-tune them as you trained the original. Source: ours.
    Raises ``DpesError`` subclasses for models, data and settings that do not fit.
    """
    settings = settings or Search()
    if (evaluate is None) == (data is None):
        raise SettingsError("prune needs either evaluate=, a function from network to error, or data=(x, y)")
    if settings.precision is not None:
        raise SettingsError("precision needs the images of a study: leave it unset, and do likewise inside your evaluate= function")
    if "partial" in settings.fitness:
        raise SettingsError(
            f"fitness {settings.fitness!r} trains on data sets of the study; train inside your evaluate= function and set fitness='none'"
        )
    layout = trace(model, example)
    original = copy.deepcopy(model).eval()
    recalibrates = settings.fitness == "recalibrate" and any(getattr(m, "running_mean", None) is not None for m in model.modules())
    if recalibrates and calibration is None:
        if data is None:
            raise SettingsError("batch norm needs calibration= images after a cut; give training images, or set fitness='none'")
        calibration = data
    judge = evaluate or _Judge(data, settings)
    fitness = _Fitness(original, layout, judge, _Inputs(calibration, settings) if recalibrates else None)
    named = cost or settings.cost
    cost_of = _cost(named, fitness, example)
    place = Folder(Path(folder), settings.population) if folder else None
    task = Task(layout, fitness.errors, settings, seed, rank_for(settings, original, layout), cost_of)
    with locked(place.path) if place else nullcontext():
        if place:
            place.claim(_identity(settings, seed, layout, named))
        state, history = place.resume() if place else (None, History())
        checkpoint = place.checkpoint if place else lambda state: None
        state = search(task, history, state, checkpoint, progress)
    genomes = dict(zip(es.ROLES, state.parents, strict=True))
    networks = {role: fitness.ready(slim(model, layout, genome)) for role, genome in genomes.items()}
    return Front(**networks, genomes=genomes, layout=layout, history=history.frame)


@dataclass
class _Fitness:
    """The error of a genome by a user's own judge."""

    model: nn.Module
    layout: Layout
    judge: Callable[[nn.Module], float]
    inputs: Iterable[Tensor] | None

    def __post_init__(self) -> None:
        self.scratch = copy.deepcopy(self.model)

    def errors(self, genomes: Iterable[np.ndarray]) -> Iterator[float]:
        return workers.serial(self.error, genomes)

    def network(self, genome: np.ndarray) -> nn.Module:
        return self.ready(cut(self.scratch, self.model, self.layout, self.layout.checked(genome)))

    def ready(self, network: nn.Module) -> nn.Module:
        if self.inputs is not None:
            judging.recalibrate(network, self.inputs)
        return network.eval()

    def error(self, genome: np.ndarray) -> float:
        error = float(self.judge(self.network(genome)))
        if not 0 <= error <= 1:
            raise SettingsError(f"evaluate returned {error}: it must return an error between 0 (best) and 1; 1 - accuracy, for example")
        return error


class _Inputs:
    """Inputs for recalibration as batches of ``settings.batch_size``, at most ``settings.calibration_images`` of them."""

    def __init__(self, source: Any, settings: Search):
        self.source, self.settings = source, settings

    def __iter__(self) -> Iterator[Tensor]:
        left = self.settings.calibration_images
        for batch in _split(self.source, self.settings.batch_size):
            x = (batch[0] if isinstance(batch, (tuple, list)) else batch)[:left]
            if len(x) > 1:
                yield x
            left -= len(x)
            if left <= 0:
                return


class _Judge:
    """Share of misclassified images among the first ``settings.search_images`` of ``data``."""

    def __init__(self, data: Any, settings: Search):
        if isinstance(data, (tuple, list)) and len(data) == 2 and isinstance(data[0], Tensor) and len(data[0]) != len(data[1]):
            raise SettingsError(f"data has {len(data[0])} images and {len(data[1])} labels: they must be as many")
        self.data, self.settings = data, settings

    def __call__(self, network: nn.Module) -> float:
        wrong, seen = 0, 0
        pairs = []
        for x, y in _split(self.data, self.settings.batch_size):
            x, y = x[: self.settings.search_images - seen], y[: self.settings.search_images - seen]
            pairs.append((x, y))
            seen += len(y)
            if seen >= self.settings.search_images:
                break
        if not seen:
            raise SettingsError("data has no images")
        wrong = int(judging.errors(network, pairs))
        return wrong / seen


def _split(source: Any, size: int) -> Iterable[Any]:
    """Batches of tensors or of pairs of tensors; an iterable is taken as it comes."""
    if isinstance(source, Tensor):
        return source.split(size)
    if isinstance(source, (tuple, list)) and len(source) == 2 and all(isinstance(t, Tensor) for t in source):
        return zip(source[0].split(size), source[1].split(size), strict=True)
    return source


def _cost(named: str | Callable[[nn.Module], float], fitness: _Fitness, example: Tensor) -> Callable[[np.ndarray], float]:
    """The second objective as a function of the genome."""
    if callable(named):
        return lambda genome: float(named(fitness.network(genome)))
    if named == "latency":
        return lambda genome: 1e3 * float(np.median(costs.latency({"": fitness.network(genome)}, example, rounds=7)[""]))
    if named not in costs.COSTS:
        raise SettingsError(f"unknown cost {named!r}: {suggest(named, [*costs.COSTS, 'latency'])}, or give a function of the network")
    return lambda genome: costs.COSTS[named](fitness.layout, genome)


def _identity(settings: Search, seed: int, layout: Layout, cost: Any) -> dict[str, Any]:
    """What must be the same when a search is continued."""
    return {
        "search": to_dict(settings),
        "seed": seed,
        "cost": cost if isinstance(cost, str) else getattr(cost, "__qualname__", type(cost).__name__),
        "groups": [[g.name, g.size] for g in layout.groups],
    }
