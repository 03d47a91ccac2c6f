"""The proof of a layout: cut at random, the slim network must compute what the masked one does,
with the MACs that it says.

It works on a clone with random weights in float64, where nothing but rounding is small. Each round
removes a random half of the filters of some groups: groups are numbered, and round k prunes those
whose number has bit k, so each group is cut without each other one in some round. Further rounds
prune all groups, down to a single filter. What fails is searched for by bisection and kept whole,
with the reason; then all is proved again.

What it does not see: faults before an output that saturates, and branches that other images, more
of them, other resolutions or values read by Python would take.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from torch import Tensor, nn

from .layout import Layout
from .proposing import Proposal, UnsupportedModel
from .subject import OTHERWISE, Subject
from .widths import computed_with

SHARES = (0.9, 0.5, 0.2, 0.0)  # kept by the rounds that prune all groups; 0: one filter each


def proved(model: nn.Module, proposal: Proposal, layout: Layout) -> Layout:
    """The layout after all of it has been proved; what could not be is kept whole (see the module).

    Source: ours.
    """
    strikes: dict[str, int] = {}
    example = proposal.example
    proposal.example = small_example(model, proposal, layout)
    subject = Subject.of(model, proposal.example)
    layout = proposal.layout()
    for bit, why in computed_with(subject.model, subject.x, layout).items():
        proposal.whole[proposal.first[bit]] = why
    while True:
        layout = proposal.layout()
        for genome, training in rounds(layout):
            if reason := subject.fault(layout, training, genome):
                break
        else:
            break
        fails = partial(subject.fault, layout, training)
        group, bits = culprit(layout, genome, fails)
        refuse(proposal, layout, group, bits, reason, strikes, fails)
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


def rounds(layout: Layout) -> Iterator[tuple[np.ndarray, bool]]:
    """The genomes that are tried, bool [n_bits], and whether their network shall train as well."""
    rng, groups = np.random.default_rng(0), layout.group_of_bit
    half = repaired(layout, rng.random(layout.n_bits) < 0.5)
    for k in range(max(1, math.ceil(math.log2(len(layout.groups))))):
        yield half | ((groups >> k) % 2 == 0), False
    for share in SHARES:
        yield repaired(layout, rng.random(layout.n_bits) < share), share == 0.5


def repaired(layout: Layout, genome: np.ndarray) -> np.ndarray:
    """The genome with one more filter, a random one of the same every time, in each group that has
    none."""
    for k, group in enumerate(layout.groups):
        if not genome[group.bits].any():
            genome[group.start + k % group.size] = True
    return genome


def culprit(
    layout: Layout, genome: np.ndarray, fails: Callable[[np.ndarray], object]
) -> tuple[int, np.ndarray]:
    """The first group at which a failing genome begins to fail, and within it the bits from the
    first at which it does.

    Groups are pruned one after the other, in their order, and the least number of them that fails
    is found by bisection; so are the bits of the last of these groups.
    """

    def first(count: int, prefix: Callable[[int], np.ndarray]) -> int:
        low, high = 0, count  # prefix(low) passes, prefix(high) fails
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if fails(prefix(middle)) else (middle, high)
        return high

    groups = layout.group_of_bit
    k = first(len(layout.groups), lambda n: genome | (groups >= n)) - 1
    start = genome | (groups >= k)
    removed = np.flatnonzero(~genome & (groups == k))

    def without(n: int) -> np.ndarray:
        some = start.copy()
        some[removed[:n]] = False
        return some

    return k, removed[first(len(removed), without) - 1 :]


def refuse(
    proposal: Proposal,
    layout: Layout,
    group: int,
    bits: np.ndarray,
    reason: str,
    strikes: dict[str, int],
    fails: Callable[[np.ndarray], object],
) -> None:
    """Read the network another way where that is possible, else keep what was found whole.

    That is the whole group if the rest computes otherwise, or if its first and its last filter fail
    alone, and with it those of other blocks of which the same is true. Else it is one bit in each
    of them, then twice as many each time.
    """
    name, inside = layout.groups[group].name, np.arange(layout.n_bits)[layout.groups[group].bits]
    choices, events = proposal.choices, proposal.watch.events
    for event, (kind, numbers) in enumerate(events):
        if np.isin(inside, proposal.bit_of[numbers]).any() and (turn := choices.get(event, 0)) < 3:
            for e, (other, _) in enumerate(events):
                if other == kind and choices.get(e, 0) == turn:
                    choices[e] = turn + 1
            return
    strikes[name] = 2 * strikes.get(name, 0) or 1

    def alone(bit: int) -> object:
        return fails(np.arange(layout.n_bits) != bit)

    twins = [g for g in layout.groups if pattern(g.name) == pattern(name) and g.size == len(inside)]
    places = bits[: strikes[name]] - inside[0]
    # one that computes otherwise at some widths may do so at others that were not tried
    hopeless = reason == OTHERWISE or len(inside) - strikes[name] <= 1
    if hopeless or (alone(inside[0]) and alone(inside[-1])):
        twins = [g for g in twins if g.name == name or alone(g.start)]
        places = np.arange(len(inside))
    for twin in twins:
        for place in places:
            proposal.whole[proposal.first[twin.start + place]] = reason


def pattern(name: str) -> str:
    """The name of a layer without the numbers that tell repeated blocks apart."""
    return re.sub(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)", "#", name)
