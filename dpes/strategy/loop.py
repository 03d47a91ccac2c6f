"""The search: ask the strategy for offspring, evaluate them, tell it, and write down every
candidate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm

from ..coupling import cost, importance
from ..coupling.genome import to_hex
from ..coupling.layout import Layout
from ..errors import RunError
from . import es, variants
from .history import ARCHIVE, Candidate, History
from .settings import Search
from .space import Space

Evaluate = Callable[[Iterable[np.ndarray]], Iterator[float]]  # genomes -> their errors, in order
Objectives = tuple[float, float]  # error and cost
OTHER = "restore the folder, use the versions that wrote it, or begin in another folder"
# at most one a second, so that a notebook's page does not keep twelve of them
BAR: dict[str, Any] = {"unit": "net", "desc": "search", "mininterval": 1.0}


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
    stored: es.State | None = None,
    checkpoint: Callable[[es.State], None] = lambda state: None,
    progress: bool = False,
) -> es.State:
    """Search to the last generation; the parents of the state returned are the three solutions.

    Source: paper, authors' later code; see ``es``.

    Parameters
    ----------
    history
        What it knows is not evaluated again, so a genome that returns, or a search that is
        continued, costs nothing.
    stored
        The state that an earlier sitting has reached; the search is made again up to there, and has
        to come by the same candidates.
    checkpoint
        Called with the state after each further generation.

    Raises
    ------
    RunError
        The history is of another search, or all of a generation failed.
    """
    settings, n_bits = task.settings, task.layout.n_bits
    total = 1 + settings.population * settings.generations
    with tqdm(total=total, disable=not progress, **BAR) as bar:
        rows = evaluated(task, history, np.ones((1, n_bits), dtype=bool), [""], 0)
        state = es.start(counted(bar, rows)[0], n_bits)
        arrived(state, stored, checkpoint)
        while state.generation < settings.generations:
            genomes, roles = offspring(task, state, history)
            rows = evaluated(task, history, genomes, roles, state.generation + 1)
            state = es.tell(state, genomes, counted(bar, rows), settings)
            arrived(state, stored, checkpoint)
            bar.set_postfix_str(in_short(state), refresh=False)
    return state


def offspring(task: Task, state: es.State, history: History) -> tuple[np.ndarray, list[str]]:
    """The genomes of the next generation, and the role of each one's parent."""
    settings, layout = task.settings, task.layout
    if settings.proposals == "surrogate":
        return proposed(task, history.candidates[1 : 1 + settings.population * state.generation])
    # a stream of its own for each generation: a search that is continued draws alike
    rng = np.random.default_rng([task.seed, state.generation])
    groups, least = layout.group_of_bit, layout.least
    genomes, parent_of = es.ask(state, rng, settings, groups, task.rank, least)
    return genomes, [es.ROLES[p] for p in parent_of]


def proposed(task: Task, candidates: list[Candidate]) -> tuple[np.ndarray, list[str]]:
    """The next generation by the strategy that won the tournament, from the candidates so far: at
    first a sample, then what the surrogate prefers.
    """
    n, space = task.settings.population, space_of(task.layout, task.rank)
    whole = task.layout.macs(np.ones(space.n_bits, dtype=bool))
    seen = History(candidates, n_bits=space.n_bits, whole=whole)
    variant = replace(variants.SURROGATE, population=n, first=n)
    return variant(space, seen, task.seed), [ARCHIVE] * n


def space_of(layout: Layout, rank: np.ndarray | None = None) -> Space:
    """What a variant knows of a layout; rank: the order that ours takes filters in."""
    whole = layout.macs(np.ones(layout.n_bits, dtype=bool))
    orders = {} if rank is None else {variants.SURROGATE.order: rank}
    left = lambda genomes: cost.costs(layout, genomes) / whole  # noqa: E731
    return Space(layout.group_of_bit, left, orders, least=layout.least)


def arrived(
    state: es.State, stored: es.State | None, checkpoint: Callable[[es.State], None]
) -> None:
    """Keep a state, or compare it with the one that an earlier sitting has reached."""
    if stored is None or state.generation > stored.generation:
        checkpoint(state)
    elif state.generation == stored.generation and not state.same(stored):
        reached = f"the state of generation {state.generation}"
        raise RunError(f"{reached} does not follow from it: {OTHER}")


def counted(bar: tqdm, rows: Iterable[Objectives]) -> np.ndarray:
    """float [n, 2]: all rows, each shown as soon as it is there."""
    found = []
    for row in rows:
        found.append(row)
        bar.update()
    return np.array(found, dtype=float)


def evaluated(
    task: Task, history: History, genomes: np.ndarray, parents: list[str], generation: int
) -> Iterator[Objectives]:
    """The objectives of a generation; each candidate is written down once they are known.

    One that failed is written down after one that did not: where all that are new fail, something
    else than a network is broken.
    """
    errors, closed_form = task.evaluate(history.new(genomes)), cost.COSTS[task.settings.cost]
    waiting: list[tuple[Candidate, float]] = []
    here: dict[str, Candidate] = {}  # of this generation: one that waits has twins, too
    alive, lost = False, 0
    for index, (genome, parent) in enumerate(zip(genomes, parents, strict=True)):
        start, text = time.perf_counter(), to_hex(genome)
        if twin := history.known.get(text) or here.get(text):
            error, measured = twin.error, twin.cost
        else:
            error, measured = next(errors), task.measure(genome) if task.measure else None
        candidate = Candidate(
            generation=generation, index=index, parent=parent, genome=text, error=error,
            macs=task.layout.macs(genome), params=task.layout.params(genome), cost=measured,
        )  # fmt: skip
        here[text] = candidate
        waiting.append((history.checked(candidate, OTHER), time.perf_counter() - start))
        new = not twin or (generation, index) in history.places
        alive = alive or (new and math.isfinite(error))
        lost += new and not math.isfinite(error)
        while alive and waiting:
            history.add(*waiting.pop(0))
        yield error, closed_form(task.layout, genome) if measured is None else measured
    if not alive and lost > (generation > 0):
        who = f"all of generation {generation}" if generation else "the unpruned network"
        cure = "nothing of it is kept; mend what is said there, and the same call continues"
        raise RunError(f"{who} failed, see above: {cure}")
    for row in waiting:
        history.add(*row)


def rank_for(settings: Search, model: nn.Module, layout: Layout) -> np.ndarray | None:
    """The ranks that a search needs: none for the plain strategy, by L1 norm for the encoding by
    widths (``es.ask``), by the norm of coupled weights for the surrogate.
    """
    if settings.proposals == "surrogate":
        return importance.ranking(layout.group_of_bit, importance.group_norms(model, layout))
    if settings.encoding != "widths":
        return None
    return importance.ranking(layout.group_of_bit, importance.l1_norms(model, layout))


def in_short(state: es.State) -> str:
    """The errors and costs of the three parents, in few characters."""
    return ", ".join(
        f"{role} {100 * error:.1f} % {f'{value / 1e6:.1f} M' if value >= 1e5 else f'{value:.3g}'}"
        for role, (error, value) in zip(es.ROLES, state.F, strict=True)
    )
