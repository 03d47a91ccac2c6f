"""Is one method better than another? Estimates over seeds with intervals, for few seeds and many
comparisons.

Habits of Agarwal et al. 2021 ("Deep reinforcement learning at the edge of the statistical
precipice"): interquartile means, bootstrap intervals and the probability of improvement, not one
best run. Small values are good: errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

LEVEL = 0.95
FEW = 5  # values that a bootstrap needs
TAILS = (1 - LEVEL) / 2, (1 + LEVEL) / 2  # quantiles that bound an interval


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; ``low`` and ``high`` equal it where the values give none."""

    value: float
    low: float
    high: float
    n: int

    def text(self, scale: float = 1.0, digits: int = 1) -> str:
        """``12.3 [11.9, 12.8]``; without an interval: ``12.3 (one run)``, ``12.3 (3 runs)``."""
        if self.low == self.high:
            runs = "one run" if self.n < 2 else f"{self.n} runs"
            return f"{scale * self.value:.{digits}f} ({runs})"
        value, low, high = (f"{scale * x:.{digits}f}" for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


def iqm(values: ArrayLike | np.ndarray, axis: int = -1) -> np.ndarray | float:
    """Interquartile mean: the mean without the lowest and the highest quarter (whole values), so
    that one odd seed cannot decide.
    """
    return stats.trim_mean(np.asarray(values, dtype=float), 0.25, axis=axis)


def estimate(
    values: ArrayLike | np.ndarray, statistic: Callable = iqm, resamples: int = 5000
) -> Estimate:
    """The statistic with its percentile bootstrap interval over the values (seeds), the same one
    for the same values; of fewer than ``FEW`` values it would be far too narrow, so none is given.
    """
    x = np.asarray(values, dtype=float)
    value = float(statistic(x))
    if len(x) < FEW or np.ptp(x) == 0:
        return Estimate(value, value, value, len(x))
    found = stats.bootstrap(
        (x,),
        statistic,
        n_resamples=resamples,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = map(float, found.confidence_interval)
    return Estimate(value, low, high, len(x))


def paired(ours: ArrayLike, theirs: ArrayLike) -> Estimate:
    """Mean of ours - theirs over pairs (the same seed, the same start), with Student's interval:
    below zero, ours is better.

    A bootstrap of five differences would be too narrow; Student's interval holds if they are about
    normal.
    """
    return mean(np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float))


def mean(values: ArrayLike) -> Estimate:
    """The mean with Student's interval, which knows that the spread of few values is a guess; of
    two it would hold anything, so none is given.
    """
    x = np.asarray(values, dtype=float)
    value = float(x.mean())
    if len(x) < 3:
        return Estimate(value, value, value, len(x))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Estimate(value, value - half, value + half, len(x))


def p_value(ours: ArrayLike, theirs: ArrayLike) -> float:
    """Two-sided paired t-test; 1 for a single pair or for equal values."""
    d = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    if len(d) < 2 or not d.any():
        return 1.0
    return 0.0 if np.ptp(d) == 0 else float(stats.ttest_1samp(d, 0.0).pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p values corrected for that many comparisons (Holm 1979): the k-th smallest of m times m - k
    + 1, never falling, at most 1.
    """
    result, worst, m = {}, 0.0, len(p_values)
    for k, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        worst = max(worst, min(1.0, (m - k) * p_values[name]))
        result[name] = worst
    return {name: result[name] for name in p_values}


def improvement(ours: ArrayLike, theirs: ArrayLike) -> float:
    """Probability that ours is better (smaller) than theirs in a run of each drawn at random; equal
    values count half.
    """
    a, b = np.asarray(ours, dtype=float)[:, None], np.asarray(theirs, dtype=float)[None, :]
    return float(((a < b) + 0.5 * (a == b)).mean())


def rank_agreement(a: ArrayLike, b: ArrayLike, resamples: int = 1000) -> Estimate:
    """Kendall's tau-b of two orders of the same things, with its percentile bootstrap interval; 1:
    the same order, 0: chance.
    """
    x, y, rng = np.asarray(a, dtype=float), np.asarray(b, dtype=float), np.random.default_rng(0)
    draws = []
    for _ in range(resamples):
        rows = rng.integers(len(x), size=len(x))
        draws.append(np.nan_to_num(stats.kendalltau(x[rows], y[rows]).statistic))
    low, high = np.quantile(draws, TAILS)
    value = float(np.nan_to_num(stats.kendalltau(a, b).statistic))
    return Estimate(value, float(low), float(high), len(x))
