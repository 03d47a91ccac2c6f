"""A network of one's own pruned: the search of the study without its data sets, recipes and run
directories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from ..coupling import cost as costs
from ..coupling.cutting import clone, cut, slim
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
    # every candidate: generation, index, parent, genome (hex), error, macs, params, cost
    history: pd.DataFrame = field(repr=False)

    @property
    def archive(self) -> pd.DataFrame:
        """The candidates that no other dominates, by falling cost, without the unpruned network."""
        return archive(self.history, "cost")


def prune(
    model: nn.Module,
    example: Tensor,
    evaluate: Callable[[nn.Module], float] | None = None,
    *,
    data: tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]] | None = None,
    calibration: Batches | None = None,
    cost: str | Callable[[nn.Module], float] | None = None,
    settings: Search | None = None,
    layout: Layout | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Front:
    """Search for three smaller versions of a trained classifier; ``model`` is left as it is.

    Fine-tune the networks that come out as you trained the original: they are only cut and
    recalibrated.

    Parameters
    ----------
    example
        A batch of inputs, float [n, ...], on the model's device.
    evaluate
        A function from a slim network, in eval mode, to its error, 0 (best) to 1.
    data
        In its place: ``(x, y)`` with x float [n, ...] as the model takes it and y int64 [n], or
        batches of such pairs (a ``DataLoader`` that does not shuffle). At most
        ``settings.search_images`` are judged.
    calibration
        Inputs, float [n, ...] or batches of them, that re-estimate batch norm after each cut:
        training images with the augmentation of training are best. Those of ``data`` if not given.
    cost
        ``macs``, ``params``, ``activations``, ``latency`` (milliseconds of ``example``, measured)
        or a function of the slim network; that of ``settings`` if not given.
    layout
        What ``dpes.trace`` found in the model, for its options: layers to keep, least widths.
    folder
        Keeps state and history there after each candidate; the same call continues from it.

    Raises ``DpesError`` subclasses for models, data and settings that do not fit. Source: ours.
    """
    settings = settings or Search()
    check_arguments(settings, evaluate, data)
    layout = layout or trace(model, example)
    original = slim(model, layout, np.ones(layout.n_bits, dtype=bool)).eval()
    inputs = calibration_inputs(model, settings, data if calibration is None else calibration)
    fitness = Fitness(original, layout, evaluate or Judge(data, settings), inputs)
    objective = cost or settings.cost
    measure = cost_function(objective, fitness, example)
    rank = rank_for(settings, original, layout)
    task = Task(layout, fitness.errors, settings, seed, rank, measure)
    place = Folder(Path(folder), settings.population) if folder else None
    with locked(place.path) if place else nullcontext():
        if place:
            place.claim(identity(task, objective))
        state, history = place.resume() if place else (None, History())
        checkpoint = place.checkpoint if place else lambda state: None
        state = search(task, history, state, checkpoint, progress)
    genomes = dict(zip(es.ROLES, state.parents, strict=True))
    networks = {role: fitness.ready(slim(model, layout, g)) for role, g in genomes.items()}
    return Front(**networks, genomes=genomes, layout=layout, history=history.frame)


@dataclass
class Fitness:
    """The error of a genome by a user's own judge."""

    model: nn.Module
    layout: Layout
    judge: Callable[[nn.Module], float]
    inputs: Iterable[Tensor] | None  # that re-estimate batch norm, if anything does

    def __post_init__(self) -> None:
        self.scratch = clone(self.model)

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
            limits = "it must return an error between 0 (best) and 1; 1 - accuracy, for example"
            raise SettingsError(f"evaluate returned {error}: {limits}")
        return error


@dataclass
class Inputs:
    """The first inputs for recalibration, as batches; of one image there is no variance."""

    source: Any
    settings: Search

    def __iter__(self) -> Iterator[Tensor]:
        limit = self.settings.calibration_images
        for x, *_ in first_batches(self.source, self.settings.batch_size, limit):
            if len(x) > 1:
                yield x


@dataclass
class Judge:
    """Share of misclassified images among the first ``settings.search_images`` of ``data``."""

    data: Any
    settings: Search

    def __post_init__(self) -> None:
        if is_pair(self.data) and len(self.data[0]) != len(self.data[1]):
            found = f"{len(self.data[0])} images and {len(self.data[1])} labels"
            raise SettingsError(f"data has {found}: they must be as many")

    def __call__(self, network: nn.Module) -> float:
        limit = self.settings.search_images
        pairs = [(x, y) for x, y in first_batches(self.data, self.settings.batch_size, limit)]
        if not (seen := sum(len(y) for _, y in pairs)):
            raise SettingsError("data has no images")
        return int(judging.errors(network, pairs)) / seen


def is_pair(source: Any) -> bool:
    """Whether these are tensors of images and labels, not two batches."""
    few = isinstance(source, (tuple, list)) and len(source) == 2
    return few and all(isinstance(t, Tensor) for t in source)


def first_batches(source: Any, size: int, limit: int) -> Iterator[tuple[Tensor, ...]]:
    """Batches of a tensor, a pair of tensors or an iterable, with at most so many images in all."""
    if isinstance(source, Tensor):
        source = source.split(size)
    elif is_pair(source):
        source = zip(*(t.split(size) for t in source), strict=True)
    for batch in source:
        parts = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
        yield tuple(part[:limit] for part in parts)
        if (limit := limit - len(parts[0])) <= 0:
            return


def check_arguments(settings: Search, evaluate: Any, data: Any) -> None:
    """Raises ``SettingsError`` for what only a study can do, and if nothing says what error is."""
    if (evaluate is None) == (data is None):
        need = "either evaluate=, a function from network to error, or data=(x, y)"
        raise SettingsError(f"prune needs {need}")
    if settings.precision is not None:
        cure = "leave it unset, and do likewise inside your evaluate= function"
        raise SettingsError(f"precision needs the images of a study: {cure}")
    if "partial" in settings.fitness:
        cure = "train inside your evaluate= function and set fitness='none'"
        raise SettingsError(f"fitness {settings.fitness!r} trains on data of the study; {cure}")


def calibration_inputs(model: nn.Module, settings: Search, source: Any) -> Inputs | None:
    """What re-estimates batch norm, if the network has any and the settings ask for it."""
    has_norm = any(getattr(m, "running_mean", None) is not None for m in model.modules())
    if settings.fitness != "recalibrate" or not has_norm:
        return None
    if source is None:
        cure = "give training images, or set fitness='none'"
        raise SettingsError(f"batch norm needs calibration= images after a cut; {cure}")
    return Inputs(source, settings)


def cost_function(
    objective: str | Callable[[nn.Module], float], fitness: Fitness, example: Tensor
) -> Callable[[np.ndarray], float]:
    """The second objective as a function of the genome."""

    def milliseconds(genome: np.ndarray) -> float:
        times = costs.latency({"": fitness.network(genome)}, example, rounds=7)[""]
        return 1e3 * float(np.median(times))

    if callable(objective):
        return lambda genome: float(objective(fitness.network(genome)))
    if objective == "latency":
        return milliseconds
    if objective not in costs.COSTS:
        known = suggest(objective, [*costs.COSTS, "latency"])
        raise SettingsError(
            f"unknown cost {objective!r}: {known}, or give a function of the network"
        )
    return lambda genome: costs.COSTS[objective](fitness.layout, genome)


def identity(task: Task, objective: Any) -> dict[str, Any]:
    """What must be the same when a search is continued."""
    named = isinstance(objective, str)
    return {
        "search": to_dict(task.settings),
        "seed": task.seed,
        "cost": objective
        if named
        else getattr(objective, "__qualname__", type(objective).__name__),
        "groups": [[g.name, g.size] for g in task.layout.groups],
    }
