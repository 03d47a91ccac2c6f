"""An order of the filters that the search learns from its own history: which filters did better
networks keep?

The error's logit is modelled as a smooth function of the widths plus one number for each filter,
all in one Gaussian process. Before anything is known a filter's number is zero on average, or, with
knowledge, a mixture of classical criteria whose weights are learned too. Sets of filters are drawn
from what is believed so far (Thompson 1933), so that doubt is tried out. Source: ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from ..coupling.importance import ranking
from . import parents, starts, surrogate
from .es import stepped
from .history import History
from .space import Space

DRAWS = 25  # orders drawn from the belief for one generation


def standardised(space: Space, names: Sequence[str]) -> np.ndarray:
    """float [n_bits, len(names)]: ranks of the criteria, 1 for the best filter of a group to -1 for
    its worst, over root n_bits.
    """
    ranks = np.reshape([space.orders[name] for name in names], (len(names), space.n_bits))
    falling = 1 - 2 * ranks / np.maximum(space.sizes[space.groups] - 1, 1)
    return (falling / np.sqrt(space.n_bits)).T


def features(space: Space, genomes: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """float [n, n_groups + n_bits + n_directions]: shares, deviations of the bits from the share of
    their group, and their sums.
    """
    shares = space.shares(genomes)
    deviations = genomes - shares[:, space.groups]
    return np.hstack([shares, deviations, deviations @ directions])


def on_columns():
    """A scikit-learn kernel that sees some columns only; made here, since scikit-learn is slow to
    import.
    """
    from sklearn.gaussian_process.kernels import Kernel

    class On(Kernel):
        def __init__(self, kernel, start: int, stop: int):
            self.kernel, self.start, self.stop = kernel, start, stop

        def get_params(self, deep: bool = True) -> dict:
            return {"kernel": self.kernel, "start": self.start, "stop": self.stop}

        hyperparameters = property(lambda self: self.kernel.hyperparameters)
        bounds = property(lambda self: self.kernel.bounds)
        theta = property(
            lambda self: self.kernel.theta, lambda self, theta: setattr(self.kernel, "theta", theta)
        )

        def __call__(self, X, Y=None, eval_gradient: bool = False):
            part = None if Y is None else Y[:, self.start : self.stop]
            return self.kernel(X[:, self.start : self.stop], part, eval_gradient)

        def diag(self, X):
            return self.kernel.diag(X[:, self.start : self.stop])

        def is_stationary(self) -> bool:
            return False

    return On


class Belief:
    """What a history teaches about widths and single filters."""

    def __init__(self, space: Space, history: History, names: Sequence[str] = ()):
        from scipy.linalg import cho_solve
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

        self.space, self.directions = space, standardised(space, names)
        On, groups, bits = on_columns(), len(space.sizes), space.n_bits
        length = Matern(np.full(groups, 1.0), (0.05, 50.0), nu=2.5)
        linear = DotProduct(0.0, "fixed")
        kernel = On(ConstantKernel(1.0, (1e-2, 1e3)) * length, 0, groups)
        kernel += On(ConstantKernel(1e-3, (1e-6, 1.0)) * linear, groups, groups + bits)
        for column in range(groups + bits, groups + bits + len(names)):
            kernel += On(ConstantKernel(1.0, (1e-4, 1e4)) * linear, column, column + 1)
        kernel += WhiteKernel(0.05, (1e-4, 1.0))
        X = features(space, history.genomes, self.directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            process = GaussianProcessRegressor(kernel, normalize_y=True)
            self.process = process.fit(X, surrogate.logit(history.F[:, 0]))
        # prior covariance of the filters' numbers, then what the data leave of it
        found = np.exp(self.process.kernel_.theta)[1 + groups : 2 + groups + len(names)]
        D = X[:, groups : groups + bits]
        prior = found[0] * np.eye(bits) + (self.directions * found[1:]) @ self.directions.T
        pull = prior @ D.T
        self.mean = pull @ self.process.alpha_
        self.covariance = prior - pull @ cho_solve((self.process.L_, True), pull.T)

    def orders(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """int [n, n_bits]: ranks drawn from the belief; a filter whose presence lowers the error
        comes early.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        drawn = self.mean + rng.standard_normal((n, len(self.mean))) @ root.T
        return ranking(self.space.groups, -drawn)

    def bound(self, genomes: np.ndarray) -> np.ndarray:
        """[n]: predicted mean minus one standard deviation, in logits."""
        return surrogate.bound(self.process, features(self.space, genomes, self.directions))


def propose(
    space: Space,
    history: History,
    widths: np.ndarray,
    n: int,
    rng: np.random.Generator,
    names: Sequence[str] = (),
) -> np.ndarray:
    """bool [n, n_bits]: networks of the given widths, filters by orders drawn from the belief, the
    best one for each level of MACs.
    """
    belief = Belief(space, history, names)
    orders = belief.orders(rng, DRAWS)[rng.integers(DRAWS, size=len(widths))]
    pool = surrogate.unseen(space.genomes(widths, orders), history.genomes)
    return pool[surrogate.best_per_level(belief.bound(pool), space.cost(pool), n, rng)]


def first_ranks(space: Space, seed: int, first: int, n: int, names: Sequence[str]) -> np.ndarray:
    """int [n, n_bits]: orders to start from: at random, or random mixtures of the criteria with as
    much noise again.
    """
    if not names:
        return starts.fresh_ranks(space, seed, first, n)
    directions, rows = standardised(space, names) * np.sqrt(space.n_bits), []
    for i in range(first, first + n):
        rng = np.random.default_rng([seed, 4, i])
        mixture = directions @ rng.dirichlet(np.ones(len(names)))
        rows.append(mixture + 0.3 * rng.standard_normal(space.n_bits))
    return ranking(space.groups, np.array(rows))


def widths_to_try(
    space: Space, history: History, p_mutation: float, n: int, rng: np.random.Generator
) -> np.ndarray:
    """int [n, n_groups]: widths of archive members, mutated, and as many fresh ones."""
    old = space.widths(parents.archive(history, rng, n // 2))
    old = stepped(old, rng, p_mutation, space.sizes)
    return np.concatenate([old, starts.spread_widths(space, int(rng.integers(2**32)), 0, n // 2)])
