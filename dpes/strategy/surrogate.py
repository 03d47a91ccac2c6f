"""A Gaussian process that learns the error of a genome from the history, and proposes what to
evaluate next.

It sees the share of filters that each group keeps. Its target is the logit of the error, which is
nearly additive over groups where the error itself saturates. Source: ours, after Bayesian
optimisation (Jones et al. 1998; Srinivas et al. 2010).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from .history import History
from .space import Space

IMAGES = 1000  # an error of no image of so many counts as that of half an image
LEVELS = (0.4, 0.95)  # the share of the MACs for which candidates are proposed


def logit(error: np.ndarray) -> np.ndarray:
    """Finite for errors of 0 and 1; a failed evaluation counts as 1."""
    p = np.clip(np.where(np.isfinite(error), error, 1.0), 0.5 / IMAGES, 1 - 0.5 / IMAGES)
    return np.log(p / (1 - p))


def fit(shares: np.ndarray, error: np.ndarray):
    """A fitted ``GaussianProcessRegressor``: Matern 5/2 with a length scale per group, and white
    noise.

    shares: [n, n_groups] in [0, 1]. error: [n]. The same data give the same process.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    length = Matern(np.full(shares.shape[1], 1.0), (0.05, 50.0), nu=2.5)
    kernel = ConstantKernel(1.0, (1e-2, 1e3)) * length + WhiteKernel(0.05, (1e-4, 1.0))
    with warnings.catch_warnings():
        # a length scale at its bound is a group that does not matter
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianProcessRegressor(kernel, normalize_y=True).fit(shares, logit(error))


def bound(model, shares: np.ndarray) -> np.ndarray:
    """[n]: predicted mean minus one standard deviation, in logits: low where a network is good or
    could be.
    """
    mean, deviation = model.predict(shares, return_std=True)
    return mean - deviation


def best_per_level(
    scores: np.ndarray, cost: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """int [n]: the candidate of least score in each of n stretches of the MACs, the stretches
    shifted at random.

    An empty stretch takes the best of those that are left.
    """
    low, high = LEVELS
    step = (high - low) / n
    edges = low + step * (np.arange(n + 1) + rng.uniform(-0.5, 0.5))
    chosen: list[int] = []
    left = np.ones(len(scores), dtype=bool)
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        inside = left & (a < cost) & (cost <= b)
        i = int(np.argmin(np.where(inside if inside.any() else left, scores, np.inf)))
        left[i] = False
        chosen.append(i)
    return np.array(chosen)


def screen(
    space: Space,
    history: History,
    pool: np.ndarray,
    n: int,
    rng: np.random.Generator,
    toll: Callable[[Space, np.ndarray], np.ndarray],
) -> np.ndarray:
    """bool [n, n_bits]: of the pool of new genomes those that the process prefers, one for each
    level of MACs.

    toll: what the strategy adds to the errors of genomes; it is known and need not be learned.
    """
    new = unseen(pool, history.genomes)
    pool = new if len(new) else pool  # all of a small space is known
    model = fit(space.shares(history.genomes), history.F[:, 0])
    error = 1 / (1 + np.exp(-bound(model, space.shares(pool))))
    return pool[best_per_level(error + toll(space, pool), space.cost(pool), n, rng)]


def unseen(pool: np.ndarray, genomes: np.ndarray) -> np.ndarray:
    """The rows of the pool that were not evaluated, each once, in their order."""
    seen = {g.tobytes() for g in np.packbits(genomes, axis=1)}
    first: dict[bytes, int] = {}
    for row, g in enumerate(np.packbits(pool, axis=1)):
        first.setdefault(g.tobytes(), row)
    return pool[[row for bits, row in first.items() if bits not in seen]]
