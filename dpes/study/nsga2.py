"""NSGA-II (Deb et al. 2002) through pymoo as a rival: on bits or on widths, from the same spread
sample as the other searches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import DpesError
from ..strategy import es, starts
from ..strategy.space import Evaluated, Space, order_of


class RivalError(DpesError):
    """A rival whose package is not installed."""


@dataclass(frozen=True)
class NSGA2:
    """A strategy like ``Variant``: (space, history, seed) -> the next genomes; pymoo is asked and
    told all over again each time.
    """

    encoding: str = "widths"
    order: str = "l1"
    population: int = 30
    offspring: int = 15
    evaluations: int = 150

    @property
    def knowledge(self) -> bool:
        return self.encoding == "widths"

    def rank(self, space: Space, seed: int) -> np.ndarray | None:
        return order_of(space, self.order, seed) if self.encoding == "widths" else None

    def __call__(self, space: Space, history: Evaluated, seed: int) -> np.ndarray:
        rank = self.rank(space, seed)
        algorithm, told = self.algorithm(space, rank, seed), 0
        while True:
            asked = algorithm.ask()
            genomes = asked.get("X").astype(int)
            genomes = genomes.astype(bool) if rank is None else space.genomes(genomes, rank)
            if told + len(genomes) > len(history):
                return genomes
            F = np.nan_to_num(history.F[told : told + len(genomes)], posinf=1e9)
            told += len(genomes)
            asked.set("F", F)
            algorithm.tell(infills=asked)

    def algorithm(self, space: Space, rank: np.ndarray | None, seed: int):
        """pymoo's algorithm before its first generation; raises ``RivalError`` without pymoo."""
        try:
            from pymoo.algorithms.moo.nsga2 import NSGA2 as Pymoo
        except ImportError:
            raise RivalError(
                "NSGA-II needs pymoo; install it with: pip install 'dpes[test]'"
            ) from None
        from pymoo.core.problem import Problem
        from pymoo.core.repair import Repair
        from pymoo.core.termination import NoTermination
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.crossover.ux import UniformCrossover
        from pymoo.operators.mutation.bitflip import BitflipMutation
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair

        class KeepOne(Repair):
            def _do(self, problem, X, **_):
                return es.repair(X.astype(bool), space.groups, space.least)

        least = np.minimum(space.least, space.sizes)
        first = starts.spread(space, seed, rank, 0, self.population)
        if rank is None:
            problem = Problem(n_var=space.n_bits, n_obj=2, xl=0, xu=1, vtype=bool)
            operators = {
                "crossover": UniformCrossover(repair=KeepOne()),
                "mutation": BitflipMutation(repair=KeepOne()),
            }
            operators |= {"sampling": first, "repair": KeepOne()}
        else:
            problem = Problem(n_var=len(space.sizes), n_obj=2, xl=least, xu=space.sizes, vtype=int)
            operators = {
                "crossover": SBX(vtype=float, repair=RoundingRepair()),
                "mutation": PM(vtype=float, repair=RoundingRepair()),
            }
            operators |= {"sampling": space.widths(first)}
        algorithm = Pymoo(
            pop_size=self.population,
            n_offsprings=self.offspring,
            eliminate_duplicates=True,
            **operators,
        )
        algorithm.setup(problem, termination=NoTermination(), seed=seed, verbose=False)
        return algorithm
