"""Published weights of networks: where they come from, and the checks before they are used."""

from __future__ import annotations

import hashlib
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ...disk import write_bytes
from ...errors import DpesError, suggest
from ..data import folders


class ModelError(DpesError):
    """A network or its weights that do not exist, do not fit or cannot be read."""


@dataclass(frozen=True)
class Weights:
    """A published checkpoint; ``error`` is its test error as its author reports it.

    url: where to download it, or its path in a data folder, for networks that were trained here.
    """

    url: str
    sha256: str
    dataset: str
    error: float
    note: str
    # constructor arguments of the network that fits
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[1]

    @property
    def trained_here(self) -> bool:
        return "://" not in self.url


def published(name: str, source: str) -> Weights:
    """The checkpoint of ``source`` for the network ``name``; raises ``ModelError`` when there is
    none.
    """
    if source not in WEIGHTS:
        raise ModelError(f"unknown weights {source!r}: {suggest(source, ['train', *WEIGHTS])}")
    if name not in WEIGHTS[source]:
        raise ModelError(f"no weights of {source!r} for {name!r}: {suggest(name, WEIGHTS[source])}")
    return WEIGHTS[source][name]


IDELBAYEV = (
    "https://raw.githubusercontent.com/akamaster/pytorch_resnet_cifar10/master/pretrained_models/"
)
NOTICE = (
    "Copyright (c) 2018 Yerlan Idelbayev; redistribution with or without modification under the "
    "notice of its repository, "
    "akamaster/pytorch_resnet_cifar10. Trained on all 50,000 CIFAR-10 training images."
)
# Their shortcuts are padded (option A). The convolutions that replace them have no batch norm: one
# that is the identity in evaluation mode would normalise as soon as it is recalibrated or trained,
# and be another function.
PADDED = {"shortcut_norm": False}
HERE = "MIT. Trained here by the recipe of the profile quick; recipe and log lie beside it."
# Inputs of these networks are normalised as dpes.study.data does.
WEIGHTS: dict[str, dict[str, Weights]] = {
    "akamaster": {
        "resnet20": Weights(
            IDELBAYEV + "resnet20-12fca82f.th",
            "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
            "cifar10", 0.0827, NOTICE, PADDED,
        ),
        "resnet56": Weights(
            IDELBAYEV + "resnet56-4bfd9763.th",
            "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
            "cifar10", 0.0661, NOTICE, PADDED,
        ),
    },
    "digits": {
        "vgg-narrow": Weights(
            "baselines/vgg-narrow-digits.safetensors",
            "263494f20c36dea624b015aeeb84b38abc990c215e146b1ce83a9842b8aef817",
            "digits", 3 / 300, HERE,
        ),
        "resnet20": Weights(
            "baselines/resnet20-digits.safetensors",
            "b46774b9b8c57415507debf377d900a7842cd023f2623bf6a94845561718da99",
            "digits", 4 / 300, HERE,
        ),
        "densenet16": Weights(
            "baselines/densenet16-digits.safetensors",
            "1f3fbd66d1366f0c571398524bdb4c6b2dcc043e27f91e2a913af70c742c6966",
            "digits", 15 / 300, HERE,
        ),
    },
}  # fmt: skip


def project_shortcuts(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``state`` of a ResNet with padded shortcuts (option A), completed for ``model`` with
    projections, outputs equal.

    Option A takes every second pixel and pads the maps with zeros, as many before as after. A
    strided 1x1 convolution with one 1 for each map that passes does the same, and has filters that
    can be pruned. Counters of batches, which older checkpoints lack, start at 0.
    """
    full = dict(state)
    for key, value in model.state_dict().items():
        if key in state:
            continue
        full[key] = torch.zeros_like(value)
        if key.endswith("shortcut.0.weight"):
            filters, inputs = value.shape[:2]
            before = (filters - inputs) // 2
            full[key][before : before + inputs, :, 0, 0] = torch.eye(inputs)
    return full


def find(weights: Weights, folder: str | Path | None = None) -> Path:
    """The checkpoint file, downloaded when it is nowhere; raises ``ModelError`` when its SHA-256 is
    wrong.
    """
    shelf = "baselines" if weights.trained_here else "weights"
    places = [Path(folder)] if folder else [f / shelf for f in folders()]
    path = next((p / weights.file for p in places if (p / weights.file).exists()), None)
    if path is None and weights.trained_here:
        expected = " or ".join(map(str, places))
        raise ModelError(
            f"{weights.file} is missing: put it into {expected}, or train it by --weights train"
        )
    if path is None:
        path = places[0] / weights.file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(weights.url) as response:
                write_bytes(path, response.read())
        except OSError as error:  # URLError and ContentTooShortError are OSErrors
            expected = " or ".join(map(str, places))
            raise ModelError(
                f"{weights.file} could not be downloaded ({error}): put {weights.url} into "
                f"{expected}"
            ) from error
    if hashlib.sha256(path.read_bytes()).hexdigest() != weights.sha256:
        cure = f"delete it and start again, it will be downloaded from {weights.url}"
        if weights.trained_here:
            cure = "restore it, or train it by --weights train"
        raise ModelError(f"{path} is damaged (SHA-256 differs): {cure}")
    return path


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint, under the names of this project's networks."""
    if path.suffix == ".safetensors":
        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return {k.removeprefix("module.").replace("linear.", "fc."): v for k, v in state.items()}
