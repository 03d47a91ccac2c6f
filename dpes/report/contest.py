"""Who wins the tournament: comparisons, the outcome in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..study.methods import REFERENCES, alike, is_search
from ..study.models import MODELS
from . import judgement
from .arena import pairs, title, tuned

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def comparisons(frame: pd.DataFrame, column: str, ours: str) -> pd.DataFrame:
    """Ours against every other method, by ``pairs``: difference [interval], how many pairs ours
    wins, Holm's p (NaN for a single pair, which decides nothing), probability of improvement.

    Below zero ours is better. A method that found no network is no rival there. Holm's correction
    is for the rivals, and for other forms of ours by themselves: how many of those are tried says
    nothing of a rival.
    """
    rows, p = [], {}
    for method in frame.method.unique():
        if method == ours or method in REFERENCES:
            continue
        a, b = pairs(frame, column, ours, method)
        if len(a) > 1:
            p[method] = judgement.p_value(a, b)
        if len(a):
            won, better = int((a < b).sum()), judgement.improvement(a, b)
            rows.append((method, judgement.paired(a, b), won, better))
    table = pd.DataFrame(rows, columns=["method", "difference", "won", "improvement"])
    forms = {method: value for method, value in p.items() if alike(method, ours)}
    rivals = {method: value for method, value in p.items() if method not in forms}
    table["p_holm"] = table.method.map(judgement.holm(forms) | judgement.holm(rivals)).astype(float)
    table["form"] = np.array([alike(method, ours) for method in table.method], dtype=bool)
    values = [d.value for d in table.difference]
    return table.iloc[np.argsort(values, kind="stable")].reset_index(drop=True)


def trained_long(folder: Path | str, ours: str) -> pd.DataFrame:
    """Networks that were trained as long as the study's own: for each method and share of the MACs
    how many networks (genomes) in how many trainings, the mean test error (percent), what it is
    over that of the unpruned network as it came (points), and ours minus it, among those that were
    trained at one peak learning rate on one kind of device.
    """
    tests = tuned(folder, long=True)
    parts = []
    found = tests[tests.test_error.notna()]
    for (share, lr, device), at in sorted(found.groupby(["share", "lr", "device"]), reverse=True):
        each = at.groupby("method")
        means = each[["test_error", "unpruned_error"]].mean().sort_values("test_error")
        own = {m: judgement.mean(rows.test_error).text(100, 2) for m, rows in each}
        table = comparisons(at, "test_error", ours).set_index("method")
        told = {m: d.text(100) for m, d in table.difference.items()}
        parts.append(pd.DataFrame({
            "MACs left": f"{100 * share:.0f} %",
            "method": [title(m) for m in means.index],
            "networks": each.genome.nunique()[means.index].tolist(),
            "trainings": each.size()[means.index].tolist(),
            "test error": [own[m].partition(" (")[0] for m in means.index],
            "lost": (100 * (means.test_error - means.unpruned_error)).map("{:.2f}".format).tolist(),
            "difference": [told.get(m, "–") for m in means.index],
            "peak rate": str(lr),
            "trained on": device,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def sentence(
    tests: pd.DataFrame, ours: str, share: float, larger: Mapping[str, pd.DataFrame] | None = None
) -> str:
    """The outcome: our test error at a share of the MACs, how far the nearest rival is, in points
    with an interval; how many rivals ours beats there, at the other shares, and on ``larger``
    networks, whose tests go by their names; which simpler methods it was not shown to beat.
    """
    at = f"{100 * share:.0f} % of the MACs"
    here = tests[(tests.share == share) & tests.test_error.notna()]
    if ours not in set(here.method):
        return f"No network of {title(ours)} was fine-tuned at {at} yet."
    mine = judgement.mean(here[here.method == ours].groupby("seed").test_error.mean())
    text = f"At {at}, after the same short fine-tuning, this book's own {title(ours)} "
    text += f"errs on {mine.text(100)} % of the test images"
    table = rivals(here, ours)
    if not len(table):
        return f"{text}; it has no rivals yet."
    tested = table[table.p_holm.notna()]  # one pair decides nothing
    if not len(tested):
        return f"{text}; no rival has two seeds yet."
    # of all the least told apart; of those, the one whose difference is least
    nearest = max(tested.itertuples(), key=lambda r: (r.p_holm, -abs(r.difference.value)))
    text += f", {distance(nearest.difference)} than {title(nearest.method)}, the nearest rival. "
    text += "Corrected for so many comparisons, it beats "
    text += score(table, " rivals with these seeds")
    shares = sorted(s for s in tests.share.unique() if s < 1 and s != share)
    others = {f"at {100 * s:.0f} % of the MACs": tests[tests.share == s] for s in shares}
    others |= {f"on {name}": rows[rows.share == share] for name, rows in (larger or {}).items()}
    tables = {where: rivals(rows, ours) for where, rows in others.items()}
    known = {where: t for where, t in tables.items() if t.p_holm.notna().any()}
    text += "".join(f"; {where} {score(t)}" for where, t in known.items()) + "."
    text += chance({f"at {at}": table} | known)
    open_ = table[(table.p_holm >= 1 - judgement.LEVEL) & ~table.method.map(is_search)]
    if simple := [
        title(row.method) for row in open_.itertuples() if row.difference.n == mine.n > 2
    ]:
        text += f" Not told apart from it by {mine.n} runs, and simpler, as no search is needed: "
        text += f"{' and '.join(simple)}."
    return text


def chance(tables: Mapping[str, pd.DataFrame]) -> str:
    """Where ours is shown to be better than all random searches that were tested, and where not."""
    told: dict[bool, list[str]] = {True: [], False: []}
    for where, table in tables.items():
        random = table[table.method.str.startswith("random-") & table.p_holm.notna()]
        if len(random):
            told[bool((random.p_holm < 1 - judgement.LEVEL).all())].append(where)
    shown, open_ = (", ".join(told[key]) for key in (True, False))
    parts = [shown] * bool(shown) + [f"not {open_}"] * bool(open_)
    return f" That it beats random search is shown {', '.join(parts)}." if parts else ""


def rivals(tests: pd.DataFrame, ours: str) -> pd.DataFrame:
    """``comparisons`` of test errors with all methods that are no form of ours."""
    table = comparisons(tests, "test_error", ours)
    return table[~table.form]


def distance(difference: judgement.Estimate) -> str:
    """Ours minus a rival, as points less or more."""
    d, less = difference, difference.value < 0
    size = replace(d, value=-d.value, low=-d.high, high=-d.low) if less else d
    return f"{size.text(100)} points {'less' if less else 'more'}"


def score(table: pd.DataFrame, what: str = "") -> str:
    """Of how many that could be tested ours beats how many, and to how many it loses."""
    decided = table[table.p_holm < 1 - judgement.LEVEL]
    better = sum(d.value < 0 for d in decided.difference)
    lost = f" and loses to {n}" if (n := len(decided) - better) else ""
    return f"{better} of {table.p_holm.notna().sum()}{what}{lost}"


def called(network: str) -> str:
    """A network's name, for pages."""
    return MODELS[network].about.partition(",")[0]


def alike_trained(frame: pd.DataFrame, ours: str) -> pd.DataFrame:
    """Of networks that were trained long, those trained on the device and at the rate of most of
    ours at their share of the MACs.
    """
    kept = [frame[:0]]
    for _, at in frame.groupby("share"):
        for key in ("device", "lr"):
            usual = at[at.method == ours][key].mode()
            at = at[at[key].isin(usual[-1:])]
        kept.append(at)
    return pd.concat(kept)


def at_a_glance(
    tests: Mapping[str, pd.DataFrame], ours: str, share: float, rivals: Sequence[str]
) -> pd.DataFrame:
    """Ours minus each rival at a share of the MACs, in points with intervals: a column for each
    network, or way of training, that has some; a star where the two are told apart by Holm's
    correction for all methods of the column.
    """
    columns: dict[str, dict[str, str]] = {}
    for name, frame in tests.items():
        frame = frame[frame.share == share]
        table = comparisons(frame, "test_error", ours).set_index("method")
        star = (table.p_holm < 1 - judgement.LEVEL).map({True: " *", False: ""})
        told = {title(r): table.difference[r].text(100) + star[r] for r in rivals if r in star}
        columns |= {name: told} if told else {}
    frame = pd.DataFrame(columns).reindex([title(r) for r in rivals])
    return frame.dropna(how="all").fillna("–").rename_axis("rival")


def forest(table: pd.DataFrame, ours: str, ax: Axes, heading: str = "") -> str:
    """Draw the differences of ``comparisons`` in points with their intervals on matplotlib's
    ``ax``; returns the alt text.
    """
    rows = list(table.itertuples())[::-1]
    for y, row in enumerate(rows):
        d = row.difference
        decided = row.p_holm < 1 - judgement.LEVEL
        colour = "#888888" if not decided else "#1b7837" if d.value < 0 else "#762a83"
        ax.plot([100 * d.low, 100 * d.high], [y, y], color=colour, lw=2)
        ax.plot(100 * d.value, y, "o", color=colour)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.set_yticks(range(len(rows)), [title(row.method) for row in rows])
    ax.set_xlabel("points of test error (left: ours is better)")
    ax.set_title(heading)
    parts = [f"{title(row.method)} {row.difference.text(100)}" for row in reversed(rows)]
    return (
        f"Forest plot: {title(ours)} minus each rival, points of test error with 95 % intervals: "
        + "; ".join(parts)
        + "."
    )
