"""How the strategy searches: the settings of a search.

A setting's origin is part of its definition: ``paper`` (Fernandes & Yen 2021), ``authors`` (their
later public code, DNNDeepeningPruning at 4b61ca1) or ``ours``. Help texts are made from it; the
book's table of settings is kept by hand.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SettingsError
from ..fields import Checked, setting

MOST = 1000  # candidates of a surrogate, whose time grows with their cube
NEEDS_MACS = "proposals by a surrogate are made for levels of MACs; leave cost or proposals unset"


@dataclass(frozen=True)
class Search(Checked):
    """How the evolution strategy searches and what it calls fitness."""

    population: int = setting(30, "offspring per generation", "authors", low=4, high=100_000)
    generations: int = setting(10, "generations, the last one competes too", "authors", low=1)
    p_mutation: float = setting(
        0.1,
        "probability of flipping each bit (encoding widths: of changing each group; proposals: no "
        "effect)",
        "ours",
        above=0,
        high=1,
    )
    encoding: str | None = setting(
        None,
        "widths: how many filters a group keeps, by L1 norm (uses knowledge); each filter when "
        "unset",
        choices=("widths",),
    )
    proposals: str | None = setting(
        None,
        "surrogate: how many filters a group keeps, by the norm of coupled weights (uses "
        "knowledge), proposed by a model of all errors so far; mutation of the parents when unset",
        "ours",
        choices=("surrogate",),
    )
    knee: str = setting(
        "mmd",
        "knee: minimum Manhattan distance, or weighted 2/3 error + 1/3 cost",
        "paper",
        choices=("mmd", "win"),
    )
    keep_unpruned: bool = setting(
        False, "let the unpruned network compete with its children", "authors"
    )
    cost: str = setting(
        "macs", "second objective", "paper", choices=("macs", "params", "activations")
    )
    error_on: str = setting(
        "search",
        "images that count as error: the search split, or training images (paper)",
        "authors",
        choices=("search", "train"),
    )
    search_images: int = setting(
        2000, "images on which a candidate's errors are counted", "ours", low=1
    )
    fitness: str = setting(
        "recalibrate",
        "before counting: re-estimate batch norm, train partially (paper), do one after the other, "
        "or nothing",
        "ours",
        choices=("recalibrate", "partial", "partial-recalibrate", "none"),
    )
    calibration_images: int = setting(
        1000, "training images that re-estimate the batch-norm statistics", "ours", low=1
    )
    partial_epochs: int = setting(3, "epochs of partial training", "authors", low=1)
    partial_images: int | None = setting(
        None, "training images of a partial epoch; all when unset", "paper", low=2
    )
    partial_lr: float = setting(
        1e-3, "constant learning rate of partial training", "authors", above=0, high=1e6
    )
    batch_size: int = setting(
        250, "images per batch in evaluation; partial training uses half", "ours", low=2
    )
    precision: str | None = setting(
        None,
        "autocast when evaluating candidates; float32 when unset",
        "ours",
        choices=("bfloat16",),
    )
    shape: str | None = setting(
        None,
        "full: candidates keep their shape, removed filters zero, so that a GPU runs all by one "
        "CUDA graph; cut when unset",
        "ours",
        choices=("full",),
    )
    error_ceiling: float | None = setting(
        None,
        "a candidate above this error is dominated by each one below it (proposals: when the three "
        "are chosen)",
        "ours",
        above=0,
        high=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.proposals is None:
            return
        if self.cost != "macs":
            raise SettingsError(f"cost = {self.cost!r}: {NEEDS_MACS}")
        if self.encoding is not None:
            raise SettingsError("proposals by a surrogate are widths already: leave encoding unset")
        if (n := self.population * self.generations) > MOST:
            found = f"population {self.population} times generations {self.generations}"
            raise SettingsError(
                f"{found}: a surrogate learns from at most {MOST} candidates, not {n}"
            )
