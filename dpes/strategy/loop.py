"""The search: ask the strategy for offspring, evaluate them, tell it, and write down every
candidate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import nn
from tqdm import tqdm

from ..coupling import cost, importance
from ..coupling.genome import to_hex
from ..coupling.layout import Layout
from . import es
from .history import Candidate, History
from .settings import Search

Evaluate = Callable[[Iterable[np.ndarray]], Iterator[float]]  # genomes -> their errors, in order


@dataclass(frozen=True)
class Task:
    """What a search is for: the layout of a network, how to evaluate genomes, and by which settings
    and draws to search.
    """

    layout: Layout
    evaluate: Evaluate
    settings: Search
    seed: int
    rank: np.ndarray | None = None  # each filter's place in its group, for the encoding by widths
    # the second objective, if it is not ``settings.cost`` in closed form
    measure: Callable[[np.ndarray], float] | None = None


def search(
    task: Task,
    history: History,
    state: es.State | None = None,
    checkpoint: Callable[[es.State], None] = lambda state: None,
    progress: bool = False,
) -> es.State:
    """Search to the last generation; returns the last state, whose parents are the three solutions.

    Parameters
    ----------
    history
        Candidates that are known are not evaluated again, so a genome that returns, or a search
        that is continued, costs nothing.
    state
        Where to continue; from the unpruned network if not given.
    checkpoint
        Called with the state after each generation.

    Source: paper, authors' later code; see ``es``.
    """
    layout, settings = task.layout, task.settings
    with tqdm(
        total=settings.generations, disable=not progress, unit="generation", desc="search"
    ) as bar:
        if state is None:
            unpruned = np.ones((1, layout.n_bits), dtype=bool)
            state = es.start(evaluated(task, history, unpruned, [""], 0)[0], layout.n_bits)
            checkpoint(state)
        bar.update(state.generation)
        while state.generation < settings.generations:
            # a stream of its own for each generation: a continued search draws what an
            # uninterrupted one draws
            rng = np.random.default_rng([task.seed, state.generation])
            genomes, parent_of = es.ask(
                state, rng, settings, layout.group_of_bit, task.rank, layout.least
            )
            F = evaluated(
                task, history, genomes, [es.ROLES[p] for p in parent_of], state.generation + 1
            )
            state = es.tell(state, genomes, F, settings)
            checkpoint(state)
            bar.update()
            bar.set_postfix_str(in_short(state))
    return state


def evaluated(
    task: Task, history: History, genomes: np.ndarray, parents: list[str], generation: int
) -> np.ndarray:
    """The objectives of a generation, [n, 2]; each candidate is written down as soon as its error
    is known.
    """
    F, errors = np.empty((len(genomes), 2)), task.evaluate(history.new(genomes))
    for index, (genome, parent) in enumerate(zip(genomes, parents, strict=True)):
        start = time.perf_counter()
        if twin := history.known.get(to_hex(genome)):
            error, measured = twin.error, twin.cost
        else:
            error, measured = next(errors), task.measure(genome) if task.measure else None
        costs = {name: one(task.layout, genome) for name, one in cost.COSTS.items()}
        candidate = Candidate(
            generation,
            index,
            parent,
            to_hex(genome),
            error,
            costs["macs"],
            costs["params"],
            measured,
        )
        history.add(candidate, time.perf_counter() - start)
        F[index] = error, costs[task.settings.cost] if measured is None else measured
    return F


def rank_for(settings: Search, model: nn.Module, layout: Layout) -> np.ndarray | None:
    """The ranks that a search needs (``es.ask``): by L1 norm for the encoding by widths, none for
    the plain strategy.
    """
    return (
        importance.ranks(layout, importance.l1_norms(model, layout))
        if settings.encoding == "widths"
        else None
    )


def in_short(state: es.State) -> str:
    """The errors and costs of the three parents, in few characters."""
    return ", ".join(
        f"{role} {100 * error:.1f} % {f'{value / 1e6:.1f} M' if value >= 1e5 else f'{value:.3g}'}"
        for role, (error, value) in zip(es.ROLES, state.F, strict=True)
    )
