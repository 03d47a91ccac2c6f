"""Every setting of a run: what is trained, searched and fine-tuned, and the identity that these
give it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import SettingsError
from ..fields import Checked, fingerprint, setting
from ..strategy.settings import Search

SCHEMA = 1  # of run directories; a run of another schema is refused

SEEDS = 2**63 - 1  # torch takes twice as many; fine-tuning adds a genome's own number


@dataclass(frozen=True)
class Training(Checked):
    """How a network is trained: the baseline before the search, the three solutions after it."""

    epochs: int = setting(8, "passes over the training images", "ours", low=0)
    lr: float = setting(0.05, "peak learning rate", "ours", above=0, high=1e6)
    schedule: str = setting(
        "one-cycle",
        "course of the learning rate",
        "ours",
        choices=("one-cycle", "cosine", "constant"),
    )
    batch_size: int = setting(128, "images per step", "ours", low=2)
    momentum: float = setting(0.9, "Nesterov momentum", "authors", low=0, high=0.999)
    weight_decay: float = setting(
        5e-4, "weight decay of convolution and linear weights", "ours", low=0, high=1e6
    )
    label_smoothing: float = setting(0.0, "label smoothing", "ours", low=0, high=0.9)
    images: int | None = setting(None, "training images per epoch; all when unset", "ours", low=2)
    small_epochs: int | None = setting(
        None, "first epochs, on images scaled to 3/4 of their side; none when unset", "ours", low=1
    )
    precision: str | None = setting(
        None, "autocast of the forward pass; float32 when unset", "ours", choices=("bfloat16",)
    )
    seed: int = setting(
        0,
        "seed of initial weights, of the order of images and of augmentation",
        "ours",
        low=0,
        high=SEEDS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.small_epochs is not None and self.small_epochs > self.epochs:
            raise SettingsError(
                f"small_epochs = {self.small_epochs}: must be at most epochs, which is "
                f"{self.epochs}"
            )


@dataclass(frozen=True)
class Settings(Checked):
    """All settings of one run; two runs with equal settings are the same run."""

    model: str = setting("resnet20", "network")
    dataset: str = setting("digits", "data")
    profile: str = setting("quick", "named set of defaults")
    seed: int = setting(0, "seed of the search and of fine-tuning", low=0, high=SEEDS)
    weights: str = setting(
        "train", "trained weights: by the baseline recipe here, or published ones"
    )
    search: Search = field(default_factory=Search)
    baseline: Training = field(default_factory=Training)
    finetune: Training = field(default_factory=Training)

    @property
    def run_id(self) -> str:
        """Readable name + first 8 hex digits of the hash of all settings."""
        return f"{self.model}-{self.dataset}-{self.profile}-s{self.seed}-{fingerprint(self)}"

    @property
    def baseline_id(self) -> str:
        """Identity of the trained network that the search starts from; shared by all runs that
        start from it.
        """
        if self.weights != "train":
            return f"{self.model}-{self.dataset}-{self.weights}"
        return (
            f"{self.model}-{self.dataset}-{fingerprint((self.model, self.dataset, self.baseline))}"
        )


NESTED = {"search": Search, "baseline": Training, "finetune": Training}


def flat_fields() -> dict[str, tuple[str | None, dataclasses.Field]]:
    """Every setting under the one flat name that the command line and the notebooks use.

    ``Search`` fields keep their names; ``Training`` fields carry ``baseline_`` or ``finetune_`` in
    front.
    """
    flat: dict[str, tuple[str | None, dataclasses.Field]] = {
        f.name: (None, f) for f in fields(Settings) if f.name not in NESTED
    }
    for part, cls in NESTED.items():
        prefix = "" if part == "search" else f"{part}_"
        flat.update({prefix + f.name: (part, f) for f in fields(cls)})
    return flat


def differences(a: Settings, b: Settings) -> dict[str, tuple[Any, Any]]:
    """The settings in which two runs differ, by flat name, with the value of each."""
    pairs = {}
    for name, (part, f) in flat_fields().items():
        values = tuple(getattr(getattr(s, part) if part else s, f.name) for s in (a, b))
        if values[0] != values[1]:
            pairs[name] = values
    return pairs


def from_dict(values: dict[str, Any]) -> Settings:
    """The inverse of ``to_dict``; raises ``SettingsError`` for a name this version does not know,
    or another shape.
    """
    parts = values if isinstance(values, dict) else {}
    for cls, given in ((Settings, values), *((c, parts.get(p, {})) for p, c in NESTED.items())):
        if not isinstance(given, dict):
            raise SettingsError(f"settings are {given!r}: must be names with their values")
        if unknown := set(given) - {f.name for f in fields(cls)}:
            raise SettingsError(
                f"unknown setting {min(unknown)!r}: written by another version of dpes?"
            )
    return Settings(**{k: NESTED[k](**v) if k in NESTED else v for k, v in values.items()})
