"""How far one list of numbers orders candidates as another does, with intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

SEED, RESAMPLES, NEAR = 0, 2000, 0.05
Interval = tuple[float, float, float]  # estimate, and where 95 % of the resamples lie


def correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's along the last axis; nan where one of them is constant."""
    x, y = (v - v.mean(-1, keepdims=True) for v in (x, y))
    with np.errstate(invalid="ignore"):
        return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


def partial_correlation(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The correlation of what is left of x and y after a straight line on z is taken from each."""
    xy, xz, yz = correlation(x, y), correlation(x, z), correlation(y, z)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))


def bootstrap(statistic: Callable[..., np.ndarray], *columns: np.ndarray) -> Interval:
    """``statistic`` of the ranks of the columns, and its percentile interval over resampled
    candidates.
    """
    n = len(columns[0])
    chosen = np.random.default_rng(SEED).integers(n, size=(RESAMPLES, n))
    values = statistic(*(rankdata(c[chosen], axis=-1) for c in columns))
    low, high = np.nan, np.nan
    if np.isfinite(values).any():
        low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(statistic(*(rankdata(c) for c in columns))), float(low), float(high)


def spearman(x: np.ndarray, y: np.ndarray) -> Interval:
    return bootstrap(correlation, x, y)


def spearman_beyond(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Interval:
    """Spearman's partial correlation: what x says of y that z does not."""
    return bootstrap(partial_correlation, x, y, z)


def neighbours(x: np.ndarray, y: np.ndarray, left: np.ndarray) -> tuple[int, Interval]:
    """Pairs of candidates whose shares of MACs differ by at most ``NEAR``: how many, and the share
    of them that x orders as y does.

    A tie of x counts half; half of all is chance. The interval is over resampled candidates.
    """
    a, b = np.triu_indices(len(x), 1)
    close = (np.abs(left[a] - left[b]) <= NEAR) & (y[a] != y[b])
    a, b = a[close], b[close]
    if not close.any():
        return 0, (np.nan, np.nan, np.nan)
    right = (1 + np.sign(x[a] - x[b]) * np.sign(y[a] - y[b])) / 2
    rng, n = np.random.default_rng(SEED), len(x)
    times = np.array([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(RESAMPLES)])
    weights = times[:, a] * times[:, b]
    drawn = weights.sum(1) > 0
    low, high = np.percentile((weights @ right)[drawn] / weights.sum(1)[drawn], [2.5, 97.5])
    return len(right), (float(right.mean()), float(low), float(high))


def interval(value: Interval | None, otherwise: str = "") -> str:
    if value is None or not np.isfinite(value[0]):
        return otherwise
    return f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"
