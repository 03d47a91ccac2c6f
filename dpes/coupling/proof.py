"""The proof of a layout: cut at random, each operation of the slim network must compute what it
does in the masked one, with the MACs that the layout says.

It works on a clone with random weights in float64, where nothing but rounding is small. Each round
removes a random half of the filters of some groups: groups are numbered, and round k prunes those
whose number has bit k, so each group is cut without each other one in some round. Further rounds
prune all groups, down to a single filter; two of them run two images and train as well. What fails
is kept whole, with the reason: the filters that meet at the operation that differs, or what
bisection finds. After so many runs the search ends, and whatever fails then is kept.

What it does not see: branches that other resolutions, more images or other values would take. That
Python reads values at all is noted in the layout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor, nn

from .layout import Layout, UnsupportedModel
from .lockstep import ELSE, Fault, faults
from .proposing import Proposal
from .reading import computed_with
from .subject import Subject, outputs

SHARES = (0.9, 0.5, 0.2, 0.0)  # kept by the rounds that prune all groups; 0: one filter each


def proved(model: nn.Module, proposal: Proposal, layout: Layout) -> Layout:
    """The layout after all of it has been proved; what could not be is kept whole (see the module).

    Source: ours.
    """
    example = proposal.example
    proposal.example = small_example(model, proposal, layout)
    subject = Subject.of(model, proposal.example)
    layout = proposal.layout()
    noticed = computed_with(subject.model, lambda: outputs(subject.model, subject.x), layout)
    for bit, why in noticed.items():
        proposal.whole[proposal.first[bit]] = why
    layout, strikes = proposal.layout(), Strikes()
    tests = rounds(layout)
    turn = passed = 0
    while passed < len(tests):  # one after the other, until the same layout has passed all
        genome, thorough = tests[turn % len(tests)]
        find = partial(faults, subject, layout, thorough=thorough)
        if found := find(genome):
            Search(proposal, layout, genome, find, strikes).refuse(found)
            layout, passed = proposal.layout(), 0
            tests = rounds(layout)
        else:
            turn, passed = turn + 1, passed + 1
    proposal.example = example
    return proposal.layout()


def small_example(model: nn.Module, proposal: Proposal, layout: Layout) -> Tensor:
    """One image at a quarter or half of its sides where the network finds the same filters in it;
    large ones would take long."""
    example = proposal.example
    for part in (4, 2):
        if example.ndim == 4 and min(example.shape[2:]) >= 32 * part:
            proposal.example = example[:, :, : example.shape[2] // part, : example.shape[3] // part]
            try:
                if proposal.layout().groups == layout.groups:
                    return proposal.example
            except UnsupportedModel:
                pass
    return example


def rounds(layout: Layout) -> list[tuple[np.ndarray, bool]]:
    """The genomes that are tried, bool [n_bits], and whether thoroughly (see ``faults``)."""
    rng, groups = np.random.default_rng(0), layout.group_of_bit
    half = repaired(layout, rng.random(layout.n_bits) < 0.5)
    apart = range(max(1, math.ceil(math.log2(len(layout.groups)))))
    tests = [(half | ((groups >> k) % 2 == 0), False) for k in apart]
    for share in SHARES:
        tests.append((repaired(layout, rng.random(layout.n_bits) < share), share in (0.5, 0.2)))
    return tests


def repaired(layout: Layout, genome: np.ndarray) -> np.ndarray:
    """The genome with one more filter, a random one of the same every time, in each group that has
    none."""
    for k, group in enumerate(layout.groups):
        if not genome[group.bits].any():
            genome[group.start + k % group.size] = True
    return genome


class Strikes(dict[str, int]):
    """How often groups have failed, and how many runs the search may still take."""

    runs = 100


@dataclass
class Search:
    """The search for the filters that a failing genome should not have lost."""

    proposal: Proposal
    layout: Layout
    genome: np.ndarray
    find: Callable[[np.ndarray], list[Fault]]
    strikes: Strikes

    def fails(self, genome: np.ndarray) -> bool:
        self.strikes.runs -= 1
        return bool(self.find(genome))

    def refuse(self, found: list[Fault]) -> None:
        """Has the network read in another way where that is possible, and keeps what is at fault
        whole elsewhere."""
        for fault in found:
            for group, bits in self.blamed(fault.bits):
                if self.read_otherwise(group):
                    return
                self.keep(group, bits, fault.reason)

    def blamed(self, bits: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """(group, removed bits): those known to meet at the fault that fail by themselves; else
        what bisection finds."""
        groups, removed = self.layout.group_of_bit, ~self.genome
        hit = [(g, np.flatnonzero(removed & (groups == g))) for g in np.unique(groups[bits])]
        if self.strikes.runs <= 0:
            return hit or [(g, np.flatnonzero(removed & (groups == g))) for g in set(groups)]
        return [h for h in hit if self.fails(~removed | (groups != h[0]))] or [self.bisected()]

    def bisected(self) -> tuple[int, np.ndarray]:
        """The first group at which the genome begins to fail, and within it the bits from the first
        at which it does.

        Groups are pruned one after the other, in their order, and the least number of them that
        fails is found by bisection; so are the bits of the last of these groups.
        """

        def first(count: int, prefix: Callable[[int], np.ndarray]) -> int:
            low, high = 0, count  # prefix(low) passes, prefix(high) fails
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if self.fails(prefix(middle)) else (middle, high)
            return high

        groups = self.layout.group_of_bit
        k = first(len(self.layout.groups), lambda n: self.genome | (groups >= n)) - 1
        start = self.genome | (groups >= k)
        removed = np.flatnonzero(~self.genome & (groups == k))

        def without(n: int) -> np.ndarray:
            some = start.copy()
            some[removed[:n]] = False
            return some

        return k, removed[first(len(removed), without) - 1 :]

    def read_otherwise(self, group: int) -> bool:
        """Takes the next reading of the first choice that concerns a group, and of all of its kind;
        False where there is none left."""
        bits = np.arange(self.layout.n_bits)[self.layout.groups[group].bits]
        choices, events = self.proposal.choices, self.proposal.watch.events
        for event, (kind, numbers) in enumerate(events):
            turn = choices.get(event, 0)
            if turn < 3 and np.isin(bits, self.proposal.bit_of[numbers]).any():
                for e, (other, _) in enumerate(events):
                    if other == kind and choices.get(e, 0) == turn:
                        choices[e] = turn + 1
                return True
        return False

    def keep(self, group: int, bits: np.ndarray, reason: str) -> None:
        """Keeps what was found whole.

        That is the whole group if something else is computed, or if its first and its last filter
        fail alone, and with it those of other blocks of which the same is true. Else it is one bit
        in each of them, then twice as many each time.
        """
        layout, name = self.layout, self.layout.groups[group].name
        size, start = layout.groups[group].size, layout.groups[group].start
        self.strikes[name] = 2 * self.strikes.get(name, 0) or 1

        def alone(bit: int) -> bool:
            return self.strikes.runs <= 0 or self.fails(np.arange(layout.n_bits) != bit)

        twins = [g for g in layout.groups if pattern(g.name) == pattern(name) and g.size == size]
        places = bits[: self.strikes[name]] - start
        # one that computes otherwise at some widths may do so at others that were not tried
        hopeless = reason.endswith(ELSE) or size - self.strikes[name] <= 1
        if hopeless or (alone(start) and alone(start + size - 1)):
            twins = [g for g in twins if g.name == name or alone(g.start)]
            places = np.arange(size)
        for twin in twins:
            for place in places:
                self.proposal.whole[self.proposal.first[twin.start + place]] = reason


def pattern(name: str) -> str:
    """The name of a layer without the numbers that tell repeated blocks apart."""
    return re.sub(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)", "#", name)
