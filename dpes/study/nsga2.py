"""NSGA-II (Deb et al. 2002) through pymoo as a rival: on bits or on widths, from the same spread
sample as the other searches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import require
from ..strategy import es, starts
from ..strategy.history import History
from ..strategy.space import Space, order_of


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

    def __call__(self, space: Space, history: History, seed: int) -> np.ndarray:
        rank = self.rank(space, seed)
        algorithm, told, F = self.algorithm(space, rank, seed), 0, history.F
        while True:
            asked = algorithm.ask()
            genomes = asked.get("X").astype(int)
            genomes = genomes.astype(bool) if rank is None else space.genomes(genomes, rank)
            if told + len(genomes) > len(history):
                return genomes
            asked.set("F", np.nan_to_num(F[told : told + len(genomes)], posinf=1e9))
            told += len(genomes)
            algorithm.tell(infills=asked)

    def algorithm(self, space: Space, rank: np.ndarray | None, seed: int) -> Any:
        """pymoo's algorithm before its first generation; raises ``MissingPackage`` without it."""
        require("pymoo", extra="study")
        from pymoo.algorithms.moo.nsga2 import NSGA2 as Pymoo
        from pymoo.core.problem import Problem
        from pymoo.core.termination import NoTermination

        first = starts.spread(space, seed, rank, 0, self.population)
        if rank is None:
            operators = on_bits(space) | {"sampling": first}
            problem = Problem(n_var=space.n_bits, n_obj=2, xl=0, xu=1, vtype=bool)
        else:
            operators = on_widths() | {"sampling": space.widths(first)}
            least, n = np.minimum(space.least, space.sizes), len(space.sizes)
            problem = Problem(n_var=n, n_obj=2, xl=least, xu=space.sizes, vtype=int)
        algorithm = Pymoo(
            pop_size=self.population,
            n_offsprings=self.offspring,
            eliminate_duplicates=True,
            **operators,
        )
        algorithm.setup(problem, termination=NoTermination(), seed=seed, verbose=False)
        return algorithm


def on_bits(space: Space) -> dict[str, Any]:
    """Operators for genomes of bits; a group without filters is repaired as everywhere."""
    from pymoo.core.repair import Repair
    from pymoo.operators.crossover.ux import UniformCrossover
    from pymoo.operators.mutation.bitflip import BitflipMutation

    class KeepOne(Repair):
        def _do(self, problem: Any, X: np.ndarray, **_: Any) -> np.ndarray:
            return es.repair(X.astype(bool), space.groups, space.least)

    return {
        "crossover": UniformCrossover(repair=KeepOne()),
        "mutation": BitflipMutation(repair=KeepOne()),
        "repair": KeepOne(),
    }


def on_widths() -> dict[str, Any]:
    """Operators for genomes of widths, whole numbers."""
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair

    return {
        "crossover": SBX(vtype=float, repair=RoundingRepair()),
        "mutation": PM(vtype=float, repair=RoundingRepair()),
    }
