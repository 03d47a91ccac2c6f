"""Finds widths that a network's own code computes with: no genome that is tried need show that."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from .cutting import clone
from .layout import Layout
from .watching import evaluating


class Spied(int):
    """A width that notices when Python computes with it, or asks for it; layers hand theirs on
    unseen."""

    __hash__ = int.__hash__
    noticed: set[str]
    place: str


def _notices(method: str) -> Callable[..., object]:
    def ask(self: Spied, *others: object) -> object:
        self.noticed.add(self.place)
        return getattr(int, method)(self, *others)

    return ask


SIGNS = (
    "add sub mul floordiv truediv mod pow divmod radd rsub rmul rfloordiv rtruediv rmod "
    "eq ne lt le gt ge neg float bool"
)
for _sign in SIGNS.split():
    setattr(Spied, f"__{_sign}__", _notices(f"__{_sign}__"))


def computed_with(model: nn.Module, x: Tensor, layout: Layout) -> dict[int, str]:
    """Bits of widths that forward itself computes with, or branches on, and why they must stay.

    A branch may differ at a single width, which no genome that is tried need have.
    """
    noticed: set[str] = set()
    twin = clone(model)
    modules = dict(twin.named_modules(remove_duplicate=False))
    own = ("num_features", "num_groups")  # which torch's own layers check
    spied = [w for w in layout.widths if w.attribute not in own]
    for w in spied:
        width = Spied(getattr(modules[w.module], w.attribute))
        width.noticed, width.place = noticed, f"{w.module}.{w.attribute}"
        setattr(modules[w.module], w.attribute, width)
    with evaluating(twin):
        twin(x)
    found = [w for w in spied if f"{w.module}.{w.attribute}" in noticed]
    return {
        bit: f"forward computes with {w.module}.{w.attribute}"
        for w in found
        for bit in w.bits.tolist()
        if bit >= 0
    }
