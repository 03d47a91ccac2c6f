"""A network of one's own pruned: the search of the study without its data sets, recipes and run
directories.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from ..coupling.cutting import slim
from ..coupling.genome import from_hex
from ..coupling.layout import Layout
from ..coupling.tracing import trace
from ..disk import digest, locked, path_of
from ..errors import RunError, SettingsError
from ..fields import to_dict
from . import es, variants
from .candidates import Fitness, Function, cost_function
from .classifier import Judge, parts, samples
from .folder import Folder
from .history import History, archive
from .loop import Task, rank_for, search, space_of
from .samples import Name, Reader, Samples, seeded
from .settings import NEEDS_MACS, Search

if TYPE_CHECKING:
    import pandas as pd

SEEDS = 2**63 - 1


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

    def at(self, share: float) -> np.ndarray:
        """bool [n_bits]: the best genome with at most this share of the MACs, for a network at a
        budget: ``dpes.slim(model, front.layout, front.at(0.5))``.

        Best: least error, each bottleneck counted at the price of the tournament's winner, because
        fine-tuning may bring back less of what narrow groups lost. Raises ``SettingsError`` for
        what is no share, and if no candidate is so light. Source: ours.
        """
        if isinstance(share, bool) or not isinstance(share, Real) or not 0 < share <= 1:
            limits = "must be a number above 0 and at most 1, of the MACs of the whole network"
            raise SettingsError(f"share = {share!r:.60}: {limits}")
        frame, n_bits = self.history, self.layout.n_bits
        left, genomes = frame.macs / frame.macs[0], [from_hex(g, n_bits) for g in frame.genome]
        toll = variants.SURROGATE.toll(space_of(self.layout), np.array(genomes))
        finite = np.isfinite(frame.error)
        judged = (frame.error + toll)[(left <= share) & finite]
        if not len(judged):
            found = f"the lightest candidate has {left[finite].min():.3f} of the MACs"
            raise SettingsError(f"share = {share!r}: {found}; search longer, or ask for more")
        return genomes[judged.idxmin()]

    @property
    def archive(self) -> pd.DataFrame:
        """The candidates that no other dominates, by falling cost, without the unpruned network."""
        return archive(self.history, "cost")


def prune(
    model: nn.Module,
    example: Tensor,
    evaluate: Function | None = None,
    *,
    data: Any = None,
    calibration: Any = None,
    input: Name = 0,
    label: Name = 1,
    cost: str | Function | None = None,
    settings: Search | None = None,
    layout: Layout | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Front:
    """Search for three smaller versions of a trained network; ``model`` is left as it is.

    Fine-tune the networks that come out as you trained the original: they are only cut and
    recalibrated. The unpruned network is judged first: what does not fit is refused at once.

    It has many parameters, because it stands for a whole study. Source: ours.

    Parameters
    ----------
    example
        A batch of inputs, float [n, ...], on the model's device.
    evaluate
        A function from a slim network, in eval mode, to its error, 0 (best) to 1.
    data
        In its place, for a classifier: ``(x, y)`` with x [n, ...] as the model takes it and classes
        y [n], tensors or arrays; a ``Dataset``; a ``DataLoader`` or other batches, tuples or
        dictionaries. Its first ``settings.search_images`` are read once, with all global random
        numbers under ``seed``, kept on the model's device and judged in batches of
        ``settings.batch_size``.
    calibration
        Inputs, in the forms of ``data`` with or without labels, that re-estimate batch norm after
        each cut: training images with the augmentation of training are best. Those of ``data`` if
        not given.
    input, label
        Where batches have images and labels: places in a tuple, or keys of a dictionary.
    cost
        ``macs``, ``params``, ``activations``, ``latency`` (milliseconds of ``example``, measured)
        or a function of the slim network; that of ``settings`` if not given.
    layout
        What ``dpes.trace`` found in the model, for its options: layers to keep, least widths.
    folder
        Keeps state and history there after each candidate; the same call continues from it.

    Returns
    -------
    The networks of least error, best compromise and least cost, with all that led to them.

    Raises
    ------
    DpesError
        A model, data or settings that do not fit.
    """
    settings = Search() if settings is None else settings
    settings, seed = check_arguments(settings, evaluate, data, seed)
    if settings.proposals and cost not in (None, "macs"):
        raise SettingsError(f"cost = {cost!r:.60}: {NEEDS_MACS}")
    layout = trace(model, example) if layout is None else layout
    original = unpruned(model, layout)
    reader = Reader(example, input, label)
    with seeded(seed):
        judged, inputs = samples(original, reader, settings, data, calibration)
    judge = evaluate or Judge(parts(judged, settings))
    batches = [part.x for part in parts(inputs, settings)] or None
    fitness, objective = Fitness(original, layout, judge, batches), cost or settings.cost
    measure, rank = cost_function(objective, fitness, example), rank_for(settings, original, layout)
    task = Task(layout, fitness.errors, settings, seed, rank, measure)
    about = identity(task, objective, original, judged, inputs) if folder else {}
    state, history = searched(task, fitness, folder, about, progress)
    genomes = dict(zip(es.ROLES, state.parents, strict=True))
    networks = {role: fitness.network(g) for role, g in genomes.items()}
    return Front(**networks, genomes=genomes, layout=layout, history=history.frame)


def searched(
    task: Task, fitness: Fitness, folder: str | Path | None, about: dict[str, Any], progress: bool
) -> tuple[es.State, History]:
    """The last state of a search and its candidates, kept in a folder of this search if there is
    one.
    """
    if not folder:
        return search(task, history := History(), progress=progress), history
    place = Folder(path_of(folder, "folder"), task.settings.population)
    with locked(place.path):
        place.claim(about)
        state, history = place.resume()
        if history.candidates:
            check_judges(task, history, fitness)
        return search(task, history, state, place.checkpoint, progress), history


def check_arguments(settings: Any, evaluate: Any, data: Any, seed: Any) -> tuple[Search, int]:
    """Raises ``SettingsError`` for what is of another kind, for what only a study can do, and if
    nothing says what error is.
    """
    if not isinstance(settings, Search):
        cure = "give dpes.Search(population=12, generations=8), for example"
        if isinstance(getattr(settings, "search", None), Search):
            cure = "give its .search"
        raise SettingsError(f"settings is of type {type(settings).__name__}, not Search: {cure}")
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number <= SEEDS:
        limits = f"at least 0 and at most {SEEDS}"
        raise SettingsError(f"seed = {seed!r}: must be a whole number of {limits}")
    if (evaluate is None) == (data is None):
        need = "either evaluate=, a function from network to error, or data=(x, y)"
        raise SettingsError(f"prune needs {need}")
    if evaluate is not None and not callable(evaluate):
        kind = type(evaluate).__name__
        raise SettingsError(
            f"evaluate is of type {kind}: it must be a function from network to error"
        )
    if settings.precision is not None:
        cure = "leave it unset, and do likewise inside your evaluate= function"
        raise SettingsError(f"precision needs the images of a study: {cure}")
    if settings.error_on != "search":
        cure = "leave it unset, and give those images as data="
        raise SettingsError(f"error_on needs the images of a study: {cure}")
    if settings.shape is not None:
        raise SettingsError(f"shape = {settings.shape!r} is for a study on a GPU: leave it unset")
    if "partial" in settings.fitness:
        cure = "train inside your evaluate= function and set fitness='none'"
        raise SettingsError(f"fitness {settings.fitness!r} trains on data of the study; {cure}")
    return settings, number


def unpruned(model: nn.Module, layout: Layout) -> nn.Module:
    """A copy of the network in evaluation mode; the layout of another one is refused."""
    n_bits = layout.n_bits if isinstance(layout, Layout) else 0  # slim says what is wrong
    return slim(model, layout, np.ones(n_bits, dtype=bool)).eval()


def identity(
    task: Task, objective: Any, network: nn.Module, judged: Samples | None, inputs: Samples | None
) -> dict[str, Any]:
    """What must be the same when a search is continued."""
    name = getattr(objective, "__qualname__", type(objective).__name__)
    tensors = {
        "images": judged.x if judged else None,
        "labels": judged.y if judged else None,
        "calibration": inputs.x if inputs else None,
    }
    if judged and inputs and inputs.x.data_ptr() == judged.x.data_ptr():
        tensors["calibration"] = None  # these are the images themselves
    return {
        "search": to_dict(task.settings),
        "seed": task.seed,
        "cost": objective if isinstance(objective, str) else name,
        # a least width of one is not written down: it was not in folders of before
        "groups": [
            [g.name, g.size, g.least][: 3 if g.least > 1 else 2] for g in task.layout.groups
        ],
        "weights": digest(network.state_dict())[:16],
    } | {name: t if t is None else digest({name: t})[:16] for name, t in tensors.items()}


def check_judges(task: Task, history: History, fitness: Fitness) -> None:
    """Refuses to continue a search whose unpruned network had another error or cost: that of
    another ``evaluate`` or ``cost``. What varies from call to call may differ by a half.
    """
    first, ones = history.candidates[0], np.ones(task.layout.n_bits, dtype=bool)
    judges: list[tuple[str, float | None, Any]] = [
        ("evaluate", first.error, fitness.judged_first),
        ("cost", first.cost, lambda: task.measure and task.measure(ones)),
    ]
    for name, then, says in judges:
        if then is None or math.isclose(then, now := says(), rel_tol=1e-6):
            continue
        if now == says() or abs(then - now) > max(then, now) / 2:
            found = f"{name} says {now:.6g} of the unpruned network, {then:.6g} in the folder"
            raise RunError(f"{found}; use another folder, or the same function, weights and data")
