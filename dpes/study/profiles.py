"""Named sets of settings, and the settings made from one of them."""

from __future__ import annotations

from typing import Any

from ..errors import SettingsError, suggest
from .settings import NESTED, Settings, Training, flat_fields

PROFILES: dict[str, dict[str, Any]] = {
    "smoke": {
        "model": "resnet8", "dataset": "digits",
        "search": {"population": 4, "generations": 2,
                   "calibration_images": 64, "search_images": 100},
        "baseline": {"epochs": 2, "lr": 0.1, "batch_size": 32},
        "finetune": {"epochs": 1, "images": 512, "lr": 0.02, "batch_size": 32},
    },
    "quick": {
        "model": "resnet20", "dataset": "digits", "weights": "digits",
        "search": {"population": 12, "generations": 6, "p_mutation": 0.1,
                   "calibration_images": 256, "search_images": 300},
        "baseline": {"epochs": 8, "lr": 0.1, "batch_size": 32},
        "finetune": {"epochs": 1, "lr": 0.02, "batch_size": 32},
    },
    "cpu": {
        "model": "resnet56", "dataset": "cifar10", "weights": "akamaster",
        "search": {"population": 20, "generations": 10, "p_mutation": 0.05, "precision": "bfloat16",
                   "fitness": "partial-recalibrate", "partial_epochs": 1,
                   "partial_images": 1000, "partial_lr": 0.01},
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

# what the profile cpu says of a network other than its own
CPU_MODELS: dict[str, dict[str, Any]] = {
    "vgg16": {
        "baseline": {"epochs": 16, "precision": "bfloat16"},
        "finetune": {"epochs": 4},
    },
    "densenet22": {
        "baseline": {"epochs": 24, "small_epochs": 12, "label_smoothing": 0.05,
                     "precision": "bfloat16"},
        "finetune": {"epochs": 6},
    },
}  # fmt: skip

# the networks of the paper, and DenseNet-40, on which others report
PAPER = ("vgg16", "vgg19", "resnet56", "resnet110", "densenet40", "densenet50", "densenet100")

# networks beside a profile's own that its weights exist for
ALSO: dict[str, tuple[str, ...]] = {"quick": ("vgg-narrow", "densenet16")}


def make_settings(profile: str = "quick", **overrides: Any) -> Settings:
    """The settings of a profile, with single values replaced.

    Parameters
    ----------
    profile
        A name in ``PROFILES``.
    overrides
        Values by their flat names (see ``flat_fields``), such as ``finetune_epochs=4``.

    Raises
    ------
    SettingsError
        An unknown profile or name, or a value outside its limits.
    """
    if not isinstance(profile, str) or profile not in PROFILES:
        raise SettingsError(f"unknown profile {profile!r}: {suggest(str(profile), PROFILES)}")
    flat, preset = flat_fields(), PROFILES[profile]
    top = {k: v for k, v in preset.items() if k not in NESTED} | {"profile": profile}
    model = overrides.get("model", top["model"])
    special = CPU_MODELS.get(model, {}) if profile == "cpu" else {}
    parts = {part: preset.get(part, {}) | special.get(part, {}) for part in NESTED}
    recipe = dict(parts["baseline"])
    for name, value in overrides.items():
        if name not in flat:
            raise SettingsError(f"unknown setting {name!r}: {suggest(name, flat)}")
        part, f = flat[name]
        (parts[part] if part else top)[f.name] = value
    own = model in (preset["model"], *ALSO.get(profile, ()))
    own &= top["dataset"] == preset["dataset"] and Training(**recipe) == Training(
        **parts["baseline"]
    )
    if not own and "weights" not in overrides:
        top.pop("weights", None)  # a profile's weights are of its own networks, by its own recipe
    return Settings(**top, **{part: cls(**parts[part]) for part, cls in NESTED.items()})
