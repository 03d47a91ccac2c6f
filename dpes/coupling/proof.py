"""The proof of a layout: cut at random, each operation of the slim network must compute what it
does in the masked one, with the MACs that the layout says.

It works on a clone with random weights in float64, where nothing but rounding is small. Each round
removes a random half of the filters of some groups: groups are numbered, and round k prunes those
whose number has bit k, so each group is cut without each other one in some round. Further rounds
prune all groups, down to a single filter; two of them run two images and train as well. What fails
is read in another way, or kept whole with the reason: of the groups that meet at the operation
that differs the ones that fail by themselves, else what bisection finds. After so many runs the
search ends, and all that is under suspicion is kept.

What it does not see: branches that other resolutions, more images or other values would take. That
Python reads values at all is noted in the layout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from .layout import Group, Layout, UnsupportedModel
from .lockstep import ELSE, Fault, faults
from .proposing import Proposal
from .reading import computed_with
from .subject import Subject, outputs

SHARES = (0.9, 0.5, 0.2, 0.0)  # kept by the rounds that prune all groups; 0: one filter each


def proved(proposal: Proposal) -> Layout:
    """The layout after all of it has been proved; what could not be is kept whole (see the module).

    Source: ours.
    """
    layout, example = proposal.layout(), proposal.example
    proposal.example = small_example(proposal, layout)
    subject = Subject.of(proposal.model, proposal.example)
    layout = proposal.layout()
    noticed = computed_with(subject.model, lambda: outputs(subject.model, subject.x), layout)
    for bit, why in noticed.items():
        proposal.whole[proposal.first[bit]] = why
    layout, search = proposal.layout(), Search(proposal, subject)
    tests = rounds(layout)
    turn = passed = 0
    while passed < len(tests):  # one after the other, until the same layout has passed all
        genome, thorough = tests[turn % len(tests)]
        if found := faults(subject, layout, genome, thorough):
            search.refuse(found, layout, genome, thorough)
            layout, passed = proposal.layout(), 0
            tests = rounds(layout)
        else:
            turn, passed = turn + 1, passed + 1
    proposal.example = example
    return proposal.layout()


def small_example(proposal: Proposal, layout: Layout) -> Tensor:
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


@dataclass
class Search:
    """The search for the filters that failing genomes should not have lost."""

    proposal: Proposal
    subject: Subject
    runs: int = 100  # that it may still take
    struck: set[str] = field(default_factory=set)  # groups that have failed before

    def refuse(
        self, found: list[Fault], layout: Layout, genome: np.ndarray, thorough: bool
    ) -> None:
        """Has the network read in another way where that is possible, and keeps what is at fault
        whole elsewhere."""
        groups = layout.group_of_bit

        def fails(pruned: np.ndarray) -> bool:
            self.runs -= 1
            some = genome | ~np.isin(groups, pruned)
            return bool(faults(self.subject, layout, some, thorough))

        for fault in found:
            hit = np.unique(groups[fault.bits if len(fault.bits) else ~genome])
            for g in blamed(hit, fails) if self.runs > 0 else hit:
                if self.read_otherwise(layout, g, fault.op):
                    return
                self.keep(layout.groups[g], np.flatnonzero(~genome & (groups == g)), fault.reason)

    def read_otherwise(self, layout: Layout, group: int, op: str) -> bool:
        """Takes the next reading of the first choice that concerns a group, those at the operation
        that failed before others, and of all of its kind; False where there is none left."""
        bits = np.arange(layout.n_bits)[layout.groups[group].bits]
        choices, events = self.proposal.choices, self.proposal.watch.events
        for event in sorted(events, key=lambda event: event[1] != op):
            kind, numbers = events[event]
            turn = choices.get(event, 0)
            if turn < 3 and np.isin(bits, self.proposal.bit_of[numbers]).any():
                alike = [e for e in events if events[e][0] == kind and choices.get(e, 0) == turn]
                choices.update(dict.fromkeys(alike, turn + 1))
                return True
        return False

    def keep(self, group: Group, removed: np.ndarray, reason: str) -> None:
        """Keeps a group whole; at first one filter of it, where two may do: forward may drop
        dimensions of size one."""
        bits = removed[:1]
        if reason.endswith(ELSE) or group.name in self.struck or group.size == 2:
            bits = np.arange(group.start, group.start + group.size)
        self.struck.add(group.name)
        for bit in bits:
            self.proposal.whole[self.proposal.first[bit]] = reason


def blamed(hit: np.ndarray, fails: Callable[[np.ndarray], bool]) -> list[int]:
    """Of groups that meet at a fault, those that fail by themselves; else, and of many, the one at
    which it begins to fail when they are pruned one after the other."""
    alone = [g for g in hit if fails(hit[hit == g])] if len(hit) <= 8 else []
    passes, fail = 0, len(hit)  # so many of them
    while not alone and fail - passes > 1:
        middle = (passes + fail) // 2
        passes, fail = (passes, middle) if fails(hit[:middle]) else (middle, fail)
    return alone or [hit[fail - 1]]
