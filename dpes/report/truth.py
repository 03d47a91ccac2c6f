"""Does the search error tell what fine-tuning makes of a network, and what does it leave out?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..coupling.layout import Layout
from ..strategy.space import narrowness
from ..study import fidelity
from ..study.methods import METHODS
from . import judgement
from .arena import cut, group_shares, tuned
from .judgement import Estimate


def agreement(folder: Path | str) -> pd.DataFrame:
    """How far the search error orders fine-tuned networks of equal MACs as their test errors do, a
    row for each share of the MACs: Kendall's tau [interval] among all of them, and among the half
    of least search errors.
    """
    tests, rows = cut(tuned(folder)), []
    for share, at in tests.dropna(subset=["test_error"]).groupby("share"):
        each = at.groupby("genome")[["search_error", "test_error"]].mean()
        near = each[each.search_error < each.search_error.median()]
        if len(near) > 2:
            taus = [judgement.rank_agreement(n.search_error, n.test_error) for n in (each, near)]
            rows.append((share, len(each), *taus))
    return pd.DataFrame(rows, columns=["share", "networks", "tau", "among the better half"])


def bottlenecks(
    folder: Path | str,
    below: int | None = None,
    layout: Layout | None = None,
    resamples: int = 1000,
) -> pd.DataFrame:
    """What the error after fine-tuning owes to the search error and what to bottlenecks: least
    squares over the networks of a share of the MACs, whose filters were taken by a criterion and
    for which no such price had been paid.

    below: count networks of smaller seeds only.

    A row for each share and kind of error: points of it for a point of search error, for 1 of
    ``narrowness``, and the ratio, which is the price at which a search should trade the two.
    Intervals: bootstrap over the networks.
    """

    def counts(name: str) -> bool:
        one = METHODS[name]
        return one.knowledge and not getattr(one, "bottleneck", None)

    columns = ["share", "error", "networks", "search error", "bottleneck", "price"]
    tests, rows = cut(tuned(folder)), []
    tests = tests[tests.genome.notna() & tests.method.map(counts)]
    tests = tests if below is None else tests[tests.seed < below]
    for share, at in tests.groupby("share"):
        each = at.groupby("genome")[["search_error", "train_error", "test_error"]].mean()
        if len(each) < 5:
            continue
        shares = group_shares(folder, each.index, layout).to_numpy()
        known = np.c_[np.ones(len(each)), each.search_error, narrowness(shares)]
        for kind in ("train_error", "test_error"):
            y, rng = each[kind].to_numpy(), np.random.default_rng(0)
            drawn = [rng.integers(len(y), size=len(y)) for _ in range(resamples)]
            draws = [owed(known[i], y[i]) for i in drawn]
            low, high = np.quantile(draws, judgement.TAILS, axis=0)
            found = [
                Estimate(float(value), float(a), float(b), len(y))
                for value, a, b in zip(owed(known, y), low, high, strict=True)
            ]
            rows.append((share, kind, len(y), *found))
    return pd.DataFrame(rows, columns=columns)


def owed(known: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float [3]: least-squares weights of search error and bottlenecks (columns 1 and 2 of
    ``known`` [n, 3]) in y [n], and the second over the first.
    """
    _, error, bottleneck = np.linalg.lstsq(known, y, rcond=None)[0]
    return np.array([error, bottleneck, bottleneck / error])


def fidelities(folder: Path | str, resamples: int = 1000) -> pd.DataFrame:
    """How far each kind of fitness orders fine-tuned networks of equal MACs as their test errors
    do: Kendall's tau [interval].

    A row for each share of the MACs and kind, with the networks and the median seconds of a
    candidate. Interval: bootstrap over the networks. Test errors are means over training seeds.
    """
    tests = cut(tuned(folder))
    rows = []
    for share, at in tests.groupby("share"):
        true = at.groupby("genome").test_error.mean()
        measured = {
            e["genome"]: e["kinds"]
            for e in fidelity.read(Path(folder))
            if e["share"] == share and e["genome"] in true.index
        }
        if len(measured) < 3:
            continue
        genomes = sorted(measured)
        for kind in measured[genomes[0]]:
            error = np.array([measured[g][kind]["error"] for g in genomes])
            tau = judgement.rank_agreement(error, true[genomes].to_numpy(float), resamples)
            seconds = float(np.median([measured[g][kind]["seconds"] for g in genomes]))
            rows.append((share, kind, len(genomes), tau, seconds))
    return pd.DataFrame(rows, columns=["share", "fitness", "networks", "tau", "seconds"])
