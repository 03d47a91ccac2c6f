"""The proof of a layout: cut at random, the slim network must compute what the masked one does,
with the MACs that it says.

It works on a clone with random weights in float64, where nothing but rounding is small. Each round
removes a random half of the filters of some groups: groups are numbered, and round k prunes those
whose number has bit k, so each group is cut without each other one in some round. Further rounds
prune all groups, down to a single filter. What fails is searched for by bisection and kept whole,
with the reason; then all is proved again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .cutting import clone, cut, mask
from .layout import Layout
from .operations import leaves
from .proposing import Proposal, UnsupportedModel
from .watching import evaluating
from .widths import computed_with

TOLERANCE = {
    torch.float64: 1e-8,
    torch.float32: 1e-3,
}  # of the largest output: sums in another order
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

    That is the whole group if its first and its last filter fail alone, else one bit, then twice as
    many each time.
    """
    name, inside = layout.groups[group].name, np.arange(layout.n_bits)[layout.groups[group].bits]
    choices, events = proposal.choices, proposal.watch.events
    for event, (kind, numbers) in enumerate(events):
        if np.isin(inside, proposal.bit_of[numbers]).any() and (turn := choices.get(event, 0)) < 3:
            alike = [
                e
                for e, (other, _) in enumerate(events)
                if other == kind and choices.get(e, 0) == turn
            ]
            choices |= dict.fromkeys(alike, turn + 1)
            return
    strikes[name] = 2 * strikes.get(name, 0) or 1
    alone = [np.arange(layout.n_bits) != bit for bit in (inside[0], inside[-1])]
    hopeless = len(inside) - strikes[name] <= 1 or all(map(fails, alone))
    for bit in inside if hopeless else bits[: strikes[name]]:
        proposal.whole[proposal.first[bit]] = reason


@dataclass
class Subject:
    """A clone with random weights, and inputs for it."""

    model: nn.Module
    x: Tensor
    trains: bool  # whether the unpruned network runs in training mode

    @classmethod
    def of(cls, model: nn.Module, example: Tensor) -> Subject:
        """In float64 if the network runs in it, else in its own precision."""
        problem = "its outputs are not finite"
        for dtype in (torch.float64, None):
            twin, x = randomised(model, dtype), example
            if x.is_floating_point():
                generator = torch.Generator().manual_seed(0)
                x = torch.randn(x.shape, generator=generator).to(x.device, dtype or x.dtype)
            try:
                with evaluating(twin):
                    out = list(leaves(twin(x)))
                if all(t.isfinite().all() for t in out):
                    return cls(twin, x, trains(twin, x))
            except Exception as error:
                problem = first_line(error)
        raise UnsupportedModel(
            f"{type(model).__name__}: cannot be proved, {problem} with random weights; "
            "prove=False skips the proof"
        )

    def fault(self, layout: Layout, training: bool, genome: np.ndarray) -> str:
        """Why a genome is cut wrongly, or nothing."""
        small = cut(clone(self.model), self.model, layout, genome)
        try:
            with evaluating(small), FlopCounterMode(display=False) as counter:
                out = list(leaves(small(self.x)))
            if training and self.trains and not trains(small, self.x):
                return "without it the network does not train"
        except Exception as error:
            return f"the rest does not run without it ({first_line(error)})"
        wanted = list(leaves(mask(self.model, layout, genome)(self.x)))
        for a, b in zip(out, wanted, strict=True):
            limit = TOLERANCE.get(b.dtype, 1e-2) * float(b.abs().max()) if b.numel() else 0
            if a.shape != b.shape or not (a - b).abs().max() <= limit:
                return "without it the rest computes something else"
        if counter.get_total_flops() != 2 * len(self.x) * layout.macs(genome):
            return "without it the MACs are not those in closed form"
        return ""


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def trains(model: nn.Module, x: Tensor) -> bool:
    """Whether a batch of two passes forward and backward in training mode."""
    x = torch.cat([x, x])
    state = {k: v.clone() for k, v in model.state_dict().items()}
    try:
        out = [t for t in leaves(model.train()(x)) if t.requires_grad]
        torch.autograd.grad(
            torch.stack([t.sum() for t in out]).sum(),
            [p for p in model.parameters() if p.requires_grad],
            allow_unused=True,
        )
    except Exception:
        return False
    finally:
        model.eval()
        with torch.no_grad():
            for key, value in model.state_dict().items():
                value.copy_(state[key])
    return True


def randomised(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """A clone with random weights, of the size that keeps signals alive; other buffers than
    statistics stay as they are."""
    twin, generator, new = clone(model), torch.Generator().manual_seed(0), {}
    for module in twin.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is None or id(tensor) in new:
                    continue
                value = tensor.detach().clone()
                if value.is_floating_point():
                    drawn = torch.rand(value.shape, generator=generator, dtype=torch.float64)
                    if table is module._parameters and value.ndim > 1:
                        drawn = (2 * drawn - 1) * math.sqrt(6 / max(1, value[0].numel()))
                    elif name == "running_var" or table is module._parameters:
                        drawn = drawn + 0.5
                    if table is module._parameters or name in ("running_mean", "running_var"):
                        value = drawn.to(value.device, value.dtype)
                    value = value.to(dtype) if dtype else value
                new[id(tensor)] = (
                    nn.Parameter(value, tensor.requires_grad)
                    if isinstance(tensor, nn.Parameter)
                    else value
                )
            for name, tensor in table.items():
                table[name] = None if tensor is None else new[id(tensor)]
    return twin.eval()
