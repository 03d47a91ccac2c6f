"""Who wins the tournament: comparisons, the outcome in a sentence, what each part is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    table["form"] = [alike(method, ours) for method in table.method]
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
        table = comparisons(at, "test_error", ours).set_index("method")
        told = {m: d.text(100) for m, d in table.difference.items()}
        parts.append(pd.DataFrame({
            "MACs left": f"{100 * share:.0f} %",
            "method": [title(m) for m in means.index],
            "networks": each.genome.nunique()[means.index].tolist(),
            "trainings": each.size()[means.index].tolist(),
            "test error": (100 * means.test_error).map("{:.2f}".format).tolist(),
            "lost": (100 * (means.test_error - means.unpruned_error)).map("{:.2f}".format).tolist(),
            "difference": [told.get(m, "–") for m in means.index],
            "peak rate": f"{lr:g}",
            "trained on": device,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def sentence(
    tests: pd.DataFrame,
    ours: str,
    share: float,
    named: Sequence[str] = (),
    larger: Mapping[str, pd.DataFrame] | None = None,
) -> str:
    """The outcome in a few sentences: our test error at a share of the MACs, what it gains over the
    nearest rival and over those ``named``, in points with intervals, how many it beats, which
    methods without a search it was not shown to beat; then how many it beats at the other shares,
    and on ``larger`` networks, whose tests go by their names.
    """
    here = tests[(tests.share == share) & tests.test_error.notna()]
    if ours not in set(here.method):
        return f"No network of {title(ours)} was fine-tuned at {100 * share:.0f} % of the MACs yet."
    mine = judgement.mean(here[here.method == ours].groupby("seed").test_error.mean())
    table = comparisons(here, "test_error", ours)
    text = (
        f"At {100 * share:.0f} % of the MACs, after the same short fine-tuning, the {title(ours)} "
    )
    text += f"errs on {mine.text(100)} % of the test images"
    if not len(table):
        return text + "; it has no rivals yet."
    others = table[~table.form] if not table.form.all() else table
    nearest = others.method.iloc[np.argmin([abs(d.value) for d in others.difference])]
    gains = [
        f"{row.difference.text(100)} points against {title(row.method)}"
        + (", the nearest" if row.method == nearest else "")
        for row in table[::-1].itertuples()
        if row.method == nearest or row.method in named
    ]
    text += f": {'; '.join(gains)}. Corrected for so many comparisons, it beats "
    text += f"{count(table[~table.form], 'rivals with these seeds')}."
    if table.p_holm[table.form].notna().any():
        text += (
            f" Of its own kind, it beats {count(table[table.form], 'other surrogate searches')}."
        )
    open_, most = table[table.p_holm >= 1 - judgement.LEVEL], mine.n
    simple = [r.method for r in open_.itertuples() if r.difference.n == most > 2]
    if simple := [title(method) for method in simple if not is_search(method)]:
        text += f" Not told apart from it by {most} runs, and simpler, as no search is needed: "
        text += f"{' and '.join(simple)}."
    others = {f"At {100 * s:.0f} % of the MACs": at for s, at in tests.groupby("share") if s < 1}
    others.pop(f"At {100 * share:.0f} % of the MACs")
    others |= {f"On {name}": at[at.share == share] for name, at in (larger or {}).items()}
    for where, at in others.items():
        table = comparisons(at, "test_error", ours)
        if table.p_holm[~table.form].notna().any():
            text += f" {where} it beats {count(table[~table.form], 'rivals')}."
    return text


def count(table: pd.DataFrame, what: str) -> str:
    """How many of those that were tested are beaten, and to how many ours loses."""
    decided = table[table.p_holm < 1 - judgement.LEVEL]
    better = sum(d.value < 0 for d in decided.difference)
    tested = int(table.p_holm.notna().sum())
    return f"{better} of {tested} {what} and loses to {len(decided) - better}"


def called(network: str) -> str:
    """A network's name, for pages."""
    return MODELS[network].about.partition(",")[0]


def at_a_glance(
    tests: Mapping[str, pd.DataFrame], ours: str, share: float, rivals: Sequence[str]
) -> pd.DataFrame:
    """Ours minus each rival at a share of the MACs, in points with intervals: a column for each
    network, or way of training, that has some. Networks trained on other devices than most of ours,
    or at other rates, do not count.
    """
    columns: dict[str, dict[str, str]] = {}
    for name, frame in tests.items():
        frame = frame[frame.share == share]
        for key in [key for key in ("device", "lr") if key in frame]:
            usual = frame[frame.method == ours][key].mode()
            frame = frame[frame[key].isin(usual[:1])]
        table = comparisons(frame, "test_error", ours).set_index("method")
        told = {title(r): table.difference[r].text(100) for r in rivals if r in table.index}
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
    ax.set_yticks(range(len(rows)), [title(row.method) for row in rows])
    ax.set_xlabel("points of test error (left: ours is better)")
    ax.set_title(heading)
    parts = [f"{title(row.method)} {row.difference.text(100)}" for row in reversed(rows)]
    return (
        f"Forest plot: {title(ours)} minus each rival, points of test error with 95 % intervals: "
        + "; ".join(parts)
        + "."
    )


def steps(
    values: Mapping[str, tuple[pd.DataFrame, str]],
    changes: Sequence[tuple[str, str]],
    against: str | None = None,
) -> pd.DataFrame:
    """What each change is worth: a row for each (method, what changed); its mean error in percent,
    and by ``pairs`` the gain in points with the number of pairs, below zero = it helps.

    values: for each heading a frame and its column.
    against: one method for all rows; else each row is compared with the one before it in
    ``changes``, the first with none. Methods without rows yet are left out.
    """
    rows, last = [], None
    for method, change in changes:
        before, last = against or last, method
        row: dict[str, object] = {"method": title(method), "what changed": change}
        for heading, (frame, column) in values.items():
            own = frame[frame.method == method].groupby("seed")[column].mean().dropna()
            row[heading] = f"{100 * own.mean():.1f} ({len(own)})" if len(own) else "-"
            row[f"{heading} gain"] = "-"
            if before and len((both := pairs(frame, column, method, before))[0]):
                gain = judgement.paired(*both)
                row[f"{heading} gain"] = gain.text(100) + f" ({gain.n})" * (gain.low < gain.high)
        if any(row[heading] != "-" for heading in values):
            rows.append(row)
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else ["method"]).set_index("method")
