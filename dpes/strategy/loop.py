"""The search: ask the strategy for offspring, evaluate them, tell it, and write down every candidate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from torch import nn
from tqdm import tqdm

from ..coupling import cost, importance
from ..coupling.genome import from_hex, to_hex
from ..coupling.layout import Layout
from . import es, pareto
from .history import Candidate
from .settings import Search

Job = tuple[np.ndarray, float]  # a genome, and the error above which it is dominated: arguments of ``Fitness``


def search(
    layout: Layout,
    evaluate_errors: Callable[[Iterable[Job]], Iterator[float]],
    settings: Search,
    seed: int,
    *,
    history: list[Candidate],
    record: Callable[[Candidate, float], None],
    checkpoint: Callable[[es.State], None],
    state: es.State | None = None,
    cost_of: Callable[[np.ndarray], float] | None = None,
    rank: np.ndarray | None = None,
    progress: bool = False,
) -> es.State:
    """Ask for offspring, evaluate them, tell the strategy; returns the last state, whose parents are the three solutions.

    evaluate_errors: genomes with their limits (``es.limit``) -> their errors, in order. history: candidates already evaluated,
    which are not evaluated again (so a genome that returns, or a search that resumes, costs nothing). record: called with each
    new candidate and its seconds. checkpoint: called with the state after each generation. cost_of: the second objective of a
    genome, if it is not ``settings.cost`` in closed form. rank: each filter's place in its group, for the encoding by widths.
    Source: paper, authors' later code; see ``es``.
    """
    known = {c.genome: (c.error, c.cost, c.stopped) for c in history}
    done = {(c.generation, c.index) for c in history}
    points: dict[int, list[np.ndarray]] = {}  # generation -> objectives of its candidates

    def limit(genome: np.ndarray) -> float:
        """The error above which a candidate need not be evaluated any further; infinite unless candidates race."""
        if settings.racing is None or cost_of or state is None:
            return float("inf")
        return es.limit(state, cost.COSTS[settings.cost](layout, genome), settings.keep_unpruned)

    def evaluated(genomes: np.ndarray, generation: int, parents: list[str]) -> np.ndarray:
        texts = [to_hex(g) for g in genomes]
        limits = {t: limit(g) for t, g in zip(texts, genomes, strict=True)}
        # one that was stopped in an earlier generation goes on where no parent of this one dominates it
        new = [t for t in limits if t not in known or (known[t][2] and known[t][0] <= limits[t])]
        errors, waiting = evaluate_errors((from_hex(t, layout.n_bits), limits[t]) for t in new), set(new)
        F = np.empty((len(genomes), 2))
        for index, (genome, text) in enumerate(zip(genomes, texts, strict=True)):
            start = time.perf_counter()
            if text in waiting:
                waiting.remove(text)
                error = next(errors)
                known[text] = error, cost_of(genome) if cost_of else None, limits[text] < error < float("inf") or None
            error, measured, stopped = known[text]
            macs, params = cost.macs(layout, genome), cost.params(layout, genome)
            F[index] = error, cost.COSTS[settings.cost](layout, genome) if measured is None else measured
            if (generation, index) not in done:
                record(
                    Candidate(generation, index, parents[index], text, error, macs, params, measured, stopped), time.perf_counter() - start
                )
            bar.update()
        points[generation] = list(F)
        return F

    def stalled(state: es.State) -> bool:
        """Whether the archive gained nothing in the last ``settings.patience`` generations."""
        if settings.patience is None or state.generation <= settings.patience:
            return False
        corner = (1.0, 1.0 + max(f[1] for fs in points.values() for f in fs if np.isfinite(f).all()))
        until = [
            pareto.hypervolume(np.array([f for g, fs in points.items() if 0 < g <= last for f in fs]), corner)
            for last in (state.generation - settings.patience, state.generation)
        ]
        return until[1] <= until[0]

    total = 1 + settings.population * settings.generations
    finished = 1 + settings.population * state.generation if state else 0
    for c in history if state else []:
        value = cost.COSTS[settings.cost](layout, from_hex(c.genome, layout.n_bits)) if c.cost is None else c.cost
        points.setdefault(c.generation, []).append(np.array([c.error, value]))
    with tqdm(total=total, initial=finished, disable=not progress, unit="net", desc="search") as bar:
        if state is None:
            unpruned = np.ones((1, layout.n_bits), dtype=bool)
            state = es.start(evaluated(unpruned, 0, [""])[0], layout.n_bits)
            checkpoint(state)
        while state.generation < settings.generations and not stalled(state):
            # a stream of its own for each generation: a resumed search draws what an uninterrupted one draws
            rng = np.random.default_rng([seed, state.generation])
            genomes, parent_of = es.ask(
                state,
                rng,
                population=settings.population,
                p_mutation=settings.p_mutation,
                groups=layout.group_of_bit,
                round_to=settings.round_to,
                rank=rank,
            )
            F = evaluated(genomes, state.generation + 1, [es.ROLES[p] for p in parent_of])
            state = es.tell(
                state,
                genomes,
                F,
                knee=settings.knee,
                keep_unpruned=settings.keep_unpruned,
                error_ceiling=settings.error_ceiling,
            )
            checkpoint(state)
            bar.set_postfix_str(", ".join(f"{r} {100 * e:.1f} % {short(c)}" for r, (e, c) in zip(es.ROLES, state.F, strict=True)))
    return state


def short(value: float) -> str:
    """A cost in few characters: millions where it has them."""
    return f"{value / 1e6:.1f} M" if value >= 1e5 else f"{value:.3g}"


def rank_for(settings: Search, model: nn.Module, layout: Layout) -> np.ndarray | None:
    """The ranks that a search needs (``es.ask``): by L1 norm for the encoding by widths, none for the plain strategy."""
    return importance.ranks(layout, importance.l1_norms(model, layout)) if settings.encoding == "widths" else None
