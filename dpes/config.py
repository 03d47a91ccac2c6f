"""Every setting of a study: frozen dataclasses, their named profiles, and the identity of a run.

A setting's origin is part of its definition: ``paper`` (Fernandes & Yen 2021), ``authors`` (their later
public code, DNNDeepeningPruning at 4b61ca1) or ``ours``. Help texts are made from it; the book's table of settings is kept by hand.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from dataclasses import dataclass, field, fields
from typing import Any

SCHEMA = 1  # of run directories; a run of another schema is refused
SEEDS = 2**63 - 1  # torch takes twice as many; fine-tuning adds a genome's own number


class DpesError(Exception):
    """Base of every error a user can cause; its message is one line that names the cure."""


class SettingsError(DpesError):
    """A setting, profile or parameter that does not exist or lies outside its range."""


def setting(default: Any, help: str, origin: str = "ours", **limits: Any) -> Any:
    """A dataclass field that knows its help text, its origin and its limits (``choices``, ``low``, ``high``, ``above``)."""
    return field(default=default, metadata={"help": help, "origin": origin, **limits})


def suggest(name: str, known: Any) -> str:
    """The end of an error message: the nearest known name, and all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"choose from {', '.join(known)}"


class Checked:
    """Validates each field against the limits in its own definition."""

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]
            value, m = getattr(self, f.name), f.metadata
            if value is None or dataclasses.is_dataclass(value):
                continue
            kind = f.type.split(" | ")[0]
            if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
                object.__setattr__(self, f.name, value)
            if kind in TYPES and type(value) is not TYPES[kind]:
                raise SettingsError(f"{f.name} = {value!r}: must be {ARTICLES[kind]}")
            if "choices" in m and value not in m["choices"]:
                raise SettingsError(f"{f.name} = {value!r}: {suggest(str(value), m['choices'])}")
            low, above, high = m.get("low"), m.get("above"), m.get("high")
            if (
                value != value
                or (low is not None and value < low)
                or (above is not None and value <= above)
                or (high is not None and value > high)
            ):
                raise SettingsError(f"{f.name} = {value!r}: must be {limits(m)}")


TYPES = {"int": int, "float": float, "bool": bool, "str": str}
ARTICLES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


def limits(metadata: Any) -> str:
    """A field's limits in words, for help texts and errors."""
    parts = [f"{words} {metadata[key]}" for key, words in (("low", "at least"), ("above", "above"), ("high", "at most")) if key in metadata]
    return " and ".join(parts)


@dataclass(frozen=True)
class Search(Checked):
    """How the evolution strategy searches and what it calls fitness."""

    population: int = setting(30, "offspring per generation", "authors", low=4)
    generations: int = setting(10, "generations, the last one competes too", "authors", low=1)
    p_mutation: float = setting(0.1, "probability of flipping each bit (encoding widths: of changing each group)", "ours", above=0, high=1)
    encoding: str | None = setting(
        None,
        "widths: how many filters a group keeps, by L1 norm (uses knowledge); each filter when unset",
        choices=("widths",),
    )
    knee: str = setting("mmd", "knee: minimum Manhattan distance, or weighted 2/3 error + 1/3 cost", "paper", choices=("mmd", "win"))
    keep_unpruned: bool = setting(False, "let the unpruned network compete with its children", "authors")
    cost: str = setting("macs", "second objective", "paper", choices=("macs", "params", "activations"))
    error_on: str = setting(
        "search", "images that count as error: the search split, or training images (paper)", "authors", choices=("search", "train")
    )
    search_images: int = setting(2000, "images on which a candidate's errors are counted", "ours", low=1)
    fitness: str = setting(
        "recalibrate",
        "before counting: re-estimate batch norm, train partially (paper), do one after the other, or nothing",
        "ours",
        choices=("recalibrate", "partial", "partial-recalibrate", "none"),
    )
    calibration_images: int = setting(1000, "training images that re-estimate the batch-norm statistics", "ours", low=1)
    partial_epochs: int = setting(3, "epochs of partial training", "authors", low=1)
    partial_images: int | None = setting(None, "training images of a partial epoch; all when unset", "paper", low=2)
    partial_lr: float = setting(1e-3, "constant learning rate of partial training", "authors", above=0)
    batch_size: int = setting(250, "images per batch in evaluation; partial training uses half", "ours", low=2)
    precision: str | None = setting(None, "autocast when evaluating candidates; float32 when unset", "ours", choices=("bfloat16",))
    error_ceiling: float | None = setting(None, "a candidate above this error is dominated by each one below it", "ours", above=0, high=1)
    patience: int | None = setting(None, "stop early after so many generations without a better archive (hypervolume)", "ours", low=1)
    racing: float | None = setting(
        None, "stop counting a candidate's errors once a parent dominates it: 0 when certain, else at this risk", "ours", low=0, high=0.5
    )
    round_to: int | None = setting(None, "repair: leave each group a multiple of so many filters", "ours", low=2)


@dataclass(frozen=True)
class Training(Checked):
    """How a network is trained: the baseline before the search, the three solutions after it."""

    epochs: int = setting(8, "passes over the training images", "ours", low=0)
    lr: float = setting(0.05, "peak learning rate", "ours", above=0)
    schedule: str = setting("one-cycle", "course of the learning rate", "ours", choices=("one-cycle", "cosine", "constant"))
    batch_size: int = setting(128, "images per step", "ours", low=2)
    momentum: float = setting(0.9, "Nesterov momentum", "authors", low=0, high=0.999)
    weight_decay: float = setting(5e-4, "weight decay of convolution and linear weights", "ours", low=0)
    label_smoothing: float = setting(0.0, "label smoothing", "ours", low=0, high=0.9)
    images: int | None = setting(None, "training images per epoch; all when unset", "ours", low=2)
    small_epochs: int | None = setting(None, "first epochs, on images scaled to 3/4 of their side; none when unset", "ours", low=1)
    precision: str | None = setting(None, "autocast of the forward pass; float32 when unset", "ours", choices=("bfloat16",))
    seed: int = setting(0, "seed of initial weights, of the order of images and of augmentation", "ours", low=0, high=SEEDS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.small_epochs is not None and self.small_epochs > self.epochs:
            raise SettingsError(f"small_epochs = {self.small_epochs}: must be at most epochs, which is {self.epochs}")


@dataclass(frozen=True)
class Settings(Checked):
    """All settings of one run; two runs with equal settings are the same run."""

    model: str = setting("resnet20", "network")
    dataset: str = setting("digits", "data")
    profile: str = setting("quick", "named set of defaults")
    seed: int = setting(0, "seed of the search and of fine-tuning", low=0, high=SEEDS)
    weights: str = setting("train", "trained weights: by the baseline recipe here, or published ones")
    search: Search = field(default_factory=Search)
    baseline: Training = field(default_factory=Training)
    finetune: Training = field(default_factory=Training)

    @property
    def run_id(self) -> str:
        """Readable name + first 8 hex digits of the hash of all settings."""
        return f"{self.model}-{self.dataset}-{self.profile}-s{self.seed}-{fingerprint(self)}"

    @property
    def baseline_id(self) -> str:
        """Identity of the trained network that the search starts from; shared by all runs that start from it."""
        if self.weights != "train":
            return f"{self.model}-{self.dataset}-{self.weights}"
        return f"{self.model}-{self.dataset}-{fingerprint((self.model, self.dataset, self.baseline))}"


PROFILES: dict[str, dict[str, Any]] = {
    "smoke": {
        "model": "resnet8", "dataset": "digits",
        "search": {"population": 4, "generations": 2, "calibration_images": 64, "search_images": 100},
        "baseline": {"epochs": 2, "lr": 0.1, "batch_size": 32},
        "finetune": {"epochs": 1, "lr": 0.02, "batch_size": 32},
    },
    "quick": {
        "model": "resnet20", "dataset": "digits",
        "search": {"population": 12, "generations": 8, "p_mutation": 0.1, "calibration_images": 256, "search_images": 300},
        "baseline": {"epochs": 8, "lr": 0.1, "batch_size": 32},
        "finetune": {"epochs": 1, "lr": 0.02, "batch_size": 32},
    },
    "cpu": {
        "model": "resnet56", "dataset": "cifar10", "weights": "akamaster",
        "search": {"population": 20, "generations": 10, "p_mutation": 0.05, "precision": "bfloat16",
                   "fitness": "partial-recalibrate", "partial_epochs": 1, "partial_images": 1000, "partial_lr": 0.01},
        "baseline": {"epochs": 12, "lr": 0.1, "label_smoothing": 0.1},
        "finetune": {"epochs": 8, "lr": 0.05, "precision": "bfloat16"},
    },
    "paper": {
        "model": "resnet56", "dataset": "cifar10", "weights": "akamaster",
        "search": {"population": 30, "generations": 11, "p_mutation": 0.2,
                   "fitness": "partial", "error_on": "train", "search_images": 45000},
        "baseline": {"epochs": 200, "lr": 0.1},
        "finetune": {"epochs": 200, "lr": 0.05},
    },
}  # fmt: skip

CPU_MODELS: dict[str, dict[str, Any]] = {  # what the profile cpu says of a network other than its own
    "vgg16": {
        "baseline": {"epochs": 16, "precision": "bfloat16"},
        "finetune": {"epochs": 4},
    },
    "densenet22": {
        "baseline": {"epochs": 24, "small_epochs": 12, "label_smoothing": 0.05, "precision": "bfloat16"},
        "finetune": {"epochs": 6},
    },
}  # fmt: skip

NESTED = {"search": Search, "baseline": Training, "finetune": Training}


def flat_fields() -> dict[str, tuple[str | None, dataclasses.Field]]:
    """Every setting under the one flat name that the command line and the notebooks use.

    ``Search`` fields keep their names; ``Training`` fields carry ``baseline_`` or ``finetune_`` in front.
    """
    flat: dict[str, tuple[str | None, dataclasses.Field]] = {f.name: (None, f) for f in fields(Settings) if f.name not in NESTED}
    for part, cls in NESTED.items():
        prefix = "" if part == "search" else f"{part}_"
        flat.update({prefix + f.name: (part, f) for f in fields(cls)})
    return flat


def make_settings(profile: str = "quick", **overrides: Any) -> Settings:
    """The settings of a profile with single values replaced by their flat names (see ``flat_fields``).

    Raises ``SettingsError`` for an unknown profile or name and for a value outside its limits.
    """
    if profile not in PROFILES:
        raise SettingsError(f"unknown profile {profile!r}: {suggest(profile, PROFILES)}")
    flat, preset = flat_fields(), PROFILES[profile]
    top = {k: v for k, v in preset.items() if k not in NESTED} | {"profile": profile}
    if overrides.get("model", top["model"]) != top["model"] or overrides.get("dataset", top["dataset"]) != top["dataset"]:
        top.pop("weights", None)  # a profile's weights are those of its own network
    special = CPU_MODELS.get(overrides.get("model", top["model"]), {}) if profile == "cpu" else {}
    parts = {part: preset.get(part, {}) | special.get(part, {}) for part in NESTED}
    for name, value in overrides.items():
        if name not in flat:
            raise SettingsError(f"unknown setting {name!r}: {suggest(name, flat)}")
        part, f = flat[name]
        (parts[part] if part else top)[f.name] = value
    return Settings(**top, **{part: cls(**parts[part]) for part, cls in NESTED.items()})


def to_dict(settings: Any) -> Any:
    """Settings as plain JSON values; a setting that is off (``None``) is left out.

    Leaving it out lets a later version add a feature without renaming the runs made before it.
    """
    if dataclasses.is_dataclass(settings):
        return {f.name: to_dict(getattr(settings, f.name)) for f in fields(settings) if getattr(settings, f.name) is not None}
    return [to_dict(v) for v in settings] if isinstance(settings, tuple) else settings


def differences(a: Settings, b: Settings) -> dict[str, tuple[Any, Any]]:
    """The settings in which two runs differ, by flat name, with the value of each."""
    pairs = {}
    for name, (part, f) in flat_fields().items():
        values = tuple(getattr(getattr(s, part) if part else s, f.name) for s in (a, b))
        if values[0] != values[1]:
            pairs[name] = values
    return pairs


def from_dict(values: dict[str, Any]) -> Settings:
    """The inverse of ``to_dict``; raises ``SettingsError`` for a name this version does not know, or another shape."""
    parts = values if isinstance(values, dict) else {}
    for cls, given in ((Settings, values), *((c, parts.get(p, {})) for p, c in NESTED.items())):
        if not isinstance(given, dict):
            raise SettingsError(f"settings are {given!r}: must be names with their values")
        if unknown := set(given) - {f.name for f in fields(cls)}:
            raise SettingsError(f"unknown setting {min(unknown)!r}: written by another version of dpes?")
    return Settings(**{k: NESTED[k](**v) if k in NESTED else v for k, v in values.items()})


def fingerprint(settings: Any) -> str:
    """First 8 hex digits of the SHA-256 of the canonical JSON of the settings."""
    text = json.dumps(to_dict(settings), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]
