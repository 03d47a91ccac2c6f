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

NO_PAIRS = judgement.Estimate(np.nan, np.nan, np.nan, 0)
Changes = Sequence[tuple[str, str]]  # (method, what changed)


@dataclass(frozen=True)
class Step:
    """A method that differs from another in one part."""

    method: str
    change: str
    errors: np.ndarray  # fractions [seeds]: its own, means over trainings; NaN: found none
    difference: judgement.Estimate  # below zero the change helps
    p: float  # of a paired t-test; NaN where there are fewer than three pairs

    @property
    def found(self) -> np.ndarray:
        """float: the errors of the seeds that found a network so light."""
        return self.errors[np.isfinite(self.errors)]

    def mean(self) -> str:
        """Its error in percent, and of how many seeds that is the mean."""
        found, all_ = len(self.found), len(self.errors)
        return f"{100 * self.found.mean():.1f} ({found}{f' of {all_}' * (found < all_)})"

    def words(self) -> str:
        """The difference in points, and of how many pairs that is the mean."""
        d = self.difference
        return d.text(100) + f" ({d.n})" * (d.low < d.high) if d.n else "–"


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
        own = frame[frame.method == method].groupby("seed")[column].mean().to_numpy()
        both = pairs(frame, column, method, before) if before else ()
        n = len(both[0]) if both else 0
        difference = judgement.paired(*both) if n else NO_PAIRS
        p = judgement.p_value(*both) if n > 2 else np.nan
        if np.isfinite(own).any():
            found.append(Step(method, change, own, difference, p))
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


def sentence(tests: pd.DataFrame, share: float, changes: Changes, fresh: int) -> str:
    """What all changes together bring after fine-tuning at a share of the MACs, on seeds from
    ``fresh`` on, and ``verdict`` on each, on all seeds.
    """
    here, ends = tests[tests.share == share], [changes[0], changes[-1]]
    at = f"{100 * share:.0f} % of the MACs"
    found = [s for s in steps(here[here.seed >= fresh], "test_error", ends) if s.difference.n]
    if not found:
        return f"The first and the last of these have no fine-tuned networks at {at} yet."
    text = f"From {title(ends[0][0])} to the {title(ends[1][0])}, at {at} and after the same "
    text += f"short fine-tuning, the test error changes by {found[0].difference.text(100)} points, "
    text += f"over {found[0].difference.n} seeds that were not used to choose. One part at a time: "
    return text + verdict(steps(here, "test_error", changes))


def verdict(found: Sequence[Step]) -> str:
    """Which steps help and which harm, after Holm's correction for these steps."""
    tested = {s.change: s for s in found if np.isfinite(s.p)}
    if not tested:
        return "too few runs to tell."
    p, said = judgement.holm({change: s.p for change, s in tested.items()}), []
    for what, sign in (("help", -1), ("harm", 1)):
        some = [
            f"{change} ({s.difference.text(100)})"
            for change, s in tested.items()
            if p[change] < 1 - judgement.LEVEL and sign * s.difference.value > 0
        ]
        said += [f"shown to {what}: {'; '.join(some)}."] if some else []
    return " ".join(said) or "no step is shown to help or to harm."


def staircase(frame: pd.DataFrame, column: str, changes: Changes, ax: Axes, heading: str) -> str:
    """Draw the errors of ``steps`` on matplotlib's ``ax``, from the first change at the top to the
    last: a dot for each seed, a bar at the mean; returns the alt text.
    """
    found = steps(frame, column, changes)
    places = {change: y for y, (_, change) in enumerate(changes)}
    means = {step.change: 100 * step.found.mean() for step in found}
    for step in found:
        y = [places[step.change]] * len(step.found)
        ax.plot(100 * step.found, y, "o", color="#888888", ms=4, alpha=0.6)
    ax.plot(list(means.values()), [places[c] for c in means], "|", color="black", ms=16, mew=2)
    ax.set_yticks(range(len(places)), [fill(change, 30) for change in places])
    ax.set(title=heading, xlabel="test error (%)", ylim=(len(places) - 0.5, -0.5))
    told = "; ".join(f"{change} {mean:.1f}" for change, mean in means.items())
    return f"Dots in rows, one row for each step, {heading}; mean test error in percent: {told}."
