"""What each part of a search is worth: a method beside the one that lacks the part, over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from . import judgement
from .arena import pairs, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Changes = Sequence[tuple[str, str]]  # (method, what changed)


@dataclass(frozen=True)
class Step:
    """A method that differs from another in one part."""

    method: str
    change: str
    errors: np.ndarray  # float [seeds]: its own, each the mean over trainings
    difference: judgement.Estimate | None  # below zero the change helps; None: no common seeds

    def mean(self) -> str:
        """Its error in percent, and of how many seeds that is the mean."""
        return f"{100 * self.errors.mean():.1f} ({len(self.errors)})"

    def words(self) -> str:
        """The difference in points, and of how many pairs that is the mean."""
        d = self.difference
        return "–" if d is None else d.text(100) + f" ({d.n})" * (d.low < d.high)


def steps(
    frame: pd.DataFrame, column: str, changes: Changes, against: str | None = None
) -> list[Step]:
    """A step for each change whose method has rows, by ``pairs``.

    against: one method for all; else each is compared with the one before it in ``changes``, the
    first with none.
    """
    found, last = [], None
    for method, change in changes:
        before, last = against or last, method
        own = frame[frame.method == method].groupby("seed")[column].mean().dropna().to_numpy()
        both = pairs(frame, column, method, before) if before else ()
        difference = judgement.paired(*both) if both and len(both[0]) else None
        if len(own):
            found.append(Step(method, change, own, difference))
    return found


def table(
    values: Mapping[str, tuple[pd.DataFrame, str]], changes: Changes, against: str | None = None
) -> pd.DataFrame:
    """``steps`` in words, a row for each; for each heading of ``values`` (a frame and its column)
    the error and its change.
    """
    columns: dict[str, dict[str, str]] = {}
    for heading, (frame, column) in values.items():
        found = steps(frame, column, changes, against)
        columns[heading] = {step.change: step.mean() for step in found}
        columns[f"{heading}, change"] = {step.change: step.words() for step in found}
    order = [change for _, change in changes]
    whole = pd.DataFrame(columns, index=pd.Index(order, name="what changed"))
    return whole.dropna(how="all").fillna("–")


def sentence(tests: pd.DataFrame, share: float, changes: Changes) -> str:
    """What all changes together bring after fine-tuning at a share of the MACs, and ``verdict``."""
    here, ends = tests[tests.share == share], [changes[0], changes[-1]]
    at = f"{100 * share:.0f} % of the MACs"
    found = [s.difference for s in steps(here, "test_error", ends) if s.difference]
    if not found:
        return f"The first and the last of these have no fine-tuned networks at {at} yet."
    text = f"From {title(ends[0][0])} to the {title(ends[1][0])}, at {at} "
    text += "and after the same short fine-tuning, the test error changes by "
    text += f"{found[0].text(100)} points, over {found[0].n} seeds. "
    return text + verdict(steps(here, "test_error", changes))


def verdict(found: Sequence[Step]) -> str:
    """Which steps help and which harm, by their intervals alone."""
    tested = [(s.change, d) for s in found if (d := s.difference) and d.low < d.high]
    if not tested:
        return "Too few runs to tell."
    said = []
    for what, sign in (("help", -1), ("harm", 1)):
        some = [
            f"{change} ({d.text(100)})"
            for change, d in tested
            if min(sign * d.low, sign * d.high) > 0
        ]
        said += [f"Shown to {what}: {'; '.join(some)}."] if some else []
    return " ".join(said) or "No step is shown to help or to harm."


def staircase(frame: pd.DataFrame, column: str, changes: Changes, ax: Axes, heading: str) -> str:
    """Draw the errors of ``steps`` on matplotlib's ``ax``, from the first change at the top to the
    last: a dot for each seed, a bar at the mean; returns the alt text.
    """
    found = steps(frame, column, changes)
    places = {change: y for y, (_, change) in enumerate(changes)}
    means = {step.change: 100 * step.errors.mean() for step in found}
    for step in found:
        y = [places[step.change]] * len(step.errors)
        ax.plot(100 * step.errors, y, "o", color="#888888", ms=4, alpha=0.6)
    line = [means.get(change, np.nan) for change in places]  # none across what was not trained
    ax.plot(line, range(len(line)), "|-", color="black", ms=16, mew=2, lw=0.8)
    ax.set_yticks(range(len(places)), [fill(change, 30) for change in places])
    ax.set(title=heading, xlabel="test error (%)", ylim=(len(places) - 0.5, -0.5))
    told = "; ".join(f"{change} {mean:.1f}" for change, mean in means.items())
    return f"Dots in rows, one row for each step, {heading}; mean test error in percent: {told}."
