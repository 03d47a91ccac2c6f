"""All methods of the tournament by name: variants of the strategy and their rivals, in one
interface.

A method is (space, history, seed) -> the next genomes, with ``evaluations``, ``knowledge`` (has it
looked at weights?) and ``rank(space, seed)``, the order in which it would take filters back (None:
any).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from ..errors import DpesError
from ..fields import suggest
from ..strategy import variants
from ..strategy.history import History
from ..strategy.space import Space
from ..strategy.variants import Variant
from .families import Global, Reference, Uniform
from .nsga2 import NSGA2


class Method(Protocol):
    """What the tournament asks of a method, see above."""

    @property
    def evaluations(self) -> int: ...

    @property
    def knowledge(self) -> bool: ...

    def rank(self, space: Space, seed: int) -> np.ndarray | None: ...

    def __call__(self, space: Space, history: History, seed: int) -> np.ndarray: ...


BITS: dict[str, Any] = {"encoding": "bits", "p_mutation": 0.05}
BLIND: dict[str, Any] = {"order": "random"}
SURROGATE = Variant(proposals="surrogate")

TOP: dict[str, Method] = {  # who decides the question, seed by seed before all others
    "surrogate-toll-group": variants.SURROGATE,
    "surrogate-fpgm": replace(SURROGATE, least=0.3, order="fpgm"),
    "global-fpgm": Global("fpgm"),
    "global-group": Global("group"),
    "uniform-l1": Uniform("l1"),
    "random-fpgm": Variant(order="fpgm", proposals="sample"),
    "random-group": Variant(order="group", proposals="sample"),
}
CORE: dict[str, Method] = {
    "nsga2-widths": NSGA2(),
    "random-widths": Variant(proposals="sample"),
    "uniform-random": Uniform("random"),
    "deeppruning": Variant(**BITS, start="unpruned", parents="three"),
    "surrogate-floor": replace(SURROGATE, least=0.3),
    "global-taylor": Global("taylor"),
    "surrogate-blind": replace(SURROGATE, **BLIND),
}
BRIEF: dict[str, Any] = {
    "fitness": "8 steps, recalibrated",
    "evaluations": 50,
    "first": 20,
    "population": 10,
}
MORE: dict[str, Method] = {
    "surrogate-brief": Variant(proposals="surrogate", least=0.3, order="fpgm", **BRIEF),
    "nsga2-fpgm": NSGA2(order="fpgm"),
    "surrogate-half": replace(SURROGATE, least=0.5, order="fpgm"),
    "surrogate-group": replace(SURROGATE, least=0.5, order="group"),
    "surrogate-group-30": replace(SURROGATE, least=0.3, order="group"),
    "surrogate-toll": replace(SURROGATE, least=0.3, order="fpgm", bottleneck=0.1),
    "surrogate": SURROGATE,
    "learned": replace(SURROGATE, order="learned", criteria=("l1", "fpgm", "taylor", "group")),
    "random-bits": Variant(**BITS, proposals="sample"),
    "global-l2": Global("l2"),
    "global-bn": Global("bn"),
    "learned-blind": replace(SURROGATE, order="learned"),
    "archive": Variant(),
    "nsga2-bits": NSGA2("bits"),
    "random-blind": Variant(**BLIND, proposals="sample"),
    "uniform-fpgm": Uniform("fpgm"),
    "uniform-taylor": Uniform("taylor"),
    "uniform-bn": Uniform("bn"),
}
PARTS: dict[str, Method] = {  # from the paper's way to ours, and back, one part at a time
    "widths": Variant(start="unpruned", parents="three"),
    "bits-spread": Variant(**BITS, parents="three"),
    "bits-archive": Variant(**BITS),
    "bits-archive-unpruned": Variant(**BITS, start="unpruned"),
    "bits-surrogate": Variant(**BITS, proposals="surrogate"),
    "surrogate-uniform": replace(SURROGATE, start="uniform"),
    "surrogate-bn": replace(SURROGATE, order="bn"),
    "surrogate-taylor": replace(SURROGATE, order="taylor"),
    "surrogate-steps": replace(SURROGATE, steps="history"),
    "surrogate-ceiling": replace(SURROGATE, ceiling=0.5),
    "archive-blind": Variant(**BLIND),
    "surrogate-300": replace(SURROGATE, evaluations=300),
    "random-widths-300": Variant(proposals="sample", evaluations=300),
}
REFERENCES: dict[str, Method] = {"unpruned": Reference(), "scratch": Reference(of="surrogate-fpgm")}
METHODS: dict[str, Method] = TOP | CORE | MORE | PARTS | REFERENCES

OURS = "surrogate-toll-group"
FRESH = 10  # no row of any method had seeds from this one on when ours was settled

# Who is confirmed on larger networks: ours, its like without a price on bottlenecks, the two that
# come nearest, the paper's way, the plain ones, and by what they are measured
CONFIRMED = (
    OURS, "surrogate-fpgm", "global-group", "random-fpgm", "deeppruning", "uniform-l1",
    "uniform-random", "unpruned",
)  # fmt: skip

# who is trained long, too
LONG = (
    OURS, "surrogate-fpgm", "global-group", "global-fpgm", "random-fpgm", "random-group",
    "nsga2-fpgm", "uniform-l1", "uniform-random", "deeppruning", "unpruned",
)  # fmt: skip

# Comparisons of neighbours in which one part changes: (method, what changed since the one before).
FROM_THE_PAPER = (
    ("deeppruning", "the paper's way: bits, three parents, from the unpruned network"),
    ("bits-spread", "a spread sample to start from"),
    ("bits-archive", "the whole archive as parents"),
    ("bits-surrogate", "a surrogate screens the offspring"),
    ("surrogate", "widths, filters by L1 norm"),
    ("surrogate-floor", "no group below 30 % of its filters"),
    ("surrogate-fpgm", "filters by FPGM instead of L1"),
    ("surrogate-group-30", "filters by group L2 instead of FPGM"),
    ("surrogate-toll-group", "a price on bottlenecks"),
)
LEFT_OUT = (  # each against ``surrogate``
    ("surrogate-floor", "no group below 30 % of its filters"),
    ("archive", "no surrogate"),
    ("surrogate-blind", "a random order instead of L1"),
    ("learned-blind", "an order learned from nothing instead of L1"),
    ("bits-surrogate", "any filters instead of L1 and widths"),
    ("learned", "an order learned from four criteria and the history instead of L1"),
    ("surrogate-uniform", "30 uniform fractions to start from"),
    ("random-widths", "random widths"),
    ("surrogate-steps", "steps as long as the archive disagrees on a group's width"),
    ("surrogate-ceiling", "no offspring of candidates that err on more than half"),
)
ADDED = (  # each against ``deeppruning``: which single change brings the paper's way most?
    ("widths", "widths by L1 norm instead of bits"),
    ("bits-spread", "a spread sample to start from"),
    ("bits-archive-unpruned", "the whole archive as parents"),
)


class MethodError(DpesError):
    """A method that does not exist."""


def method(name: str) -> Method:
    """The method of that name; raises ``MethodError``."""
    if name not in METHODS:
        raise MethodError(f"unknown method {name!r}: {suggest(name, METHODS)}")
    return METHODS[name]


def seen(name: str, space: Space, history: History) -> History:
    """The history with the errors that a method goes by: those that were measured, and what a
    variant adds for bottlenecks.
    """
    one = method(name)
    return one.seen(space, history) if isinstance(one, Variant) else history


def is_search(name: str) -> bool:
    """Whether it evaluates networks to choose the next ones by."""
    return not isinstance(METHODS[name], Uniform | Global | Reference)


def alike(name: str, other: str) -> bool:
    """Whether two methods are surrogate searches, so forms of one method that differ in parts."""
    pair = [METHODS.get(n) for n in (name, other)]
    return all(isinstance(m, Variant) and m.proposals == "surrogate" for m in pair)


def seeded(name: str) -> bool:
    """Whether its networks depend on the seed; those of the other families are the same for all
    seeds.
    """
    method = METHODS[name]
    return not isinstance(method, Uniform | Global) or method.order == "random"
