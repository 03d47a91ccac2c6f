"""The networks of the study by name, untrained or with published weights."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...disk import write_bytes
from ...errors import DpesError, suggest
from ..data import folders
from . import vgg
from .densenet import DenseNet
from .resnet import ResNet
from .vgg import VGG


class ModelError(DpesError):
    """A network or its weights that do not exist, do not fit or cannot be read."""


@dataclass(frozen=True)
class Spec:
    """A network's family (cnn, resnet or densenet), one line about it, and ``builder(channels=,
    n_classes=)``.
    """

    family: str
    about: str
    builder: Callable[..., nn.Module]


# The original work studies VGG-16/19, ResNet-56/110 and DenseNet-50/100; the growth, stem,
# bottleneck and compression of its DenseNets are not known to us. No three equal blocks have 50
# layers by the count of Huang et al. (3 n + 4 or 6 n + 4): densenet50 is our reading, 8 bottleneck
# layers in each block, which is 50 when the two transitions are not counted.
BC: dict[str, Any] = {"growth": 12, "stem": 24, "bottleneck": True, "reduction": 0.5}
MODELS: dict[str, Spec] = {
    "vgg-tiny": Spec(
        "cnn",
        "three convolutions of 8 to 16 filters, 4x4 maps into the linear layer; for tests",
        partial(VGG, vgg.TINY),
    ),
    "vgg-narrow": Spec(
        "cnn", "VGG-11 at a quarter of its width", partial(VGG, vgg.VGG11, width=0.25)
    ),
    "vgg16": Spec("cnn", "VGG-16, 13 convolutions, one linear layer", partial(VGG, vgg.VGG16)),
    "vgg19": Spec("cnn", "VGG-19, 16 convolutions, one linear layer", partial(VGG, vgg.VGG19)),
    "resnet8": Spec("resnet", "ResNet-8, one block a stage; for tests", partial(ResNet, 8)),
    "resnet20": Spec("resnet", "ResNet-20, three blocks a stage", partial(ResNet, 20)),
    "resnet56": Spec("resnet", "ResNet-56, nine blocks a stage", partial(ResNet, 56)),
    "resnet110": Spec("resnet", "ResNet-110, eighteen blocks a stage", partial(ResNet, 110)),
    "densenet10": Spec(
        "densenet",
        "DenseNet-10, growth 8, two layers a block; for tests",
        partial(DenseNet, 10, growth=8),
    ),
    "densenet16": Spec(
        "densenet", "DenseNet-16, growth 8, four layers a block", partial(DenseNet, 16, growth=8)
    ),
    "densenet22": Spec(
        "densenet", "DenseNet-22, growth 12, six layers a block", partial(DenseNet, 22)
    ),
    "densenet40": Spec(
        "densenet",
        "DenseNet-40, growth 12, twelve layers a block, stem of 24 filters",
        partial(DenseNet, 40, stem=24),
    ),
    "densenet50": Spec(
        "densenet",
        "DenseNet-BC, growth 12, eight bottleneck layers a block",
        partial(DenseNet, 52, **BC),
    ),
    "densenet100": Spec(
        "densenet",
        "DenseNet-BC-100, growth 12, sixteen bottleneck layers a block",
        partial(DenseNet, 100, **BC),
    ),
}


def build(
    name: str,
    n_classes: int = 10,
    channels: int = 3,
    seed: int = 0,
    source: str = "train",
    **changes: Any,
) -> nn.Module:
    """The network ``name`` for inputs [n, channels, 32, 32], with weights drawn from ``seed``.

    Convolutions are drawn by He's rule for their outputs, so that the size of gradients survives
    many layers.
    source: gives it the layers that these published weights need (a name in ``WEIGHTS``); 'train'
    for the usual ones.
    changes: constructor arguments that replace the registered ones, such as ``growth=24``. Raises
    ``ModelError``.
    """
    if name not in MODELS:
        raise ModelError(f"unknown model {name!r}: {suggest(name, MODELS)}")
    if source != "train":
        changes = published(name, source).changes | changes
    with torch.random.fork_rng(devices=[]):  # leaves the global generator as it was
        torch.default_generator.manual_seed(seed)
        model = MODELS[name].builder(channels=channels, n_classes=n_classes, **changes)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


@dataclass(frozen=True)
class Weights:
    """A published checkpoint; ``error`` is its test error as its author reports it."""

    url: str
    sha256: str
    dataset: str
    error: float
    note: str
    changes: dict[str, Any]  # constructor arguments of the network that fits

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[1]


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
# Inputs of these networks are normalised as dpes.study.data does for CIFAR.
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
    }
}  # fmt: skip


def load_weights(
    name: str, source: str, n_classes: int = 10, channels: int = 3, folder: str | Path | None = None
) -> nn.Module:
    """The network ``name`` in evaluation mode with the published weights ``source``, a name in
    ``WEIGHTS``.

    The file is looked for in ``folder``, or in ``weights/`` of the data folders (see
    ``dpes.study.data.folders``), else downloaded there. Parameter-free padded shortcuts become
    convolutions that compute the same (see ``project_shortcuts``).
    Raises ``ModelError`` for unknown names, for a file that is damaged or cannot be had, and for
    other shapes.
    """
    weights = published(name, source)
    path = find(weights, folder)
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    state = {
        key.removeprefix("module.").replace("linear.", "fc."): value for key, value in state.items()
    }
    model = build(name, n_classes, channels, source=source)
    state = project_shortcuts(model, state)
    for key, value in model.state_dict().items():
        if key in state and state[key].shape != value.shape:
            shapes = f"{key} is {tuple(state[key].shape)}, not {tuple(value.shape)}"
            raise ModelError(
                f"weights {source!r} of {name!r} do not fit ({shapes}): they were made for "
                f"{weights.dataset}"
            )
    model.load_state_dict(state)
    return model.eval()


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
    places = [Path(folder)] if folder else [f / "weights" for f in folders()]
    path = next((p / weights.file for p in places if (p / weights.file).exists()), None)
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
        raise ModelError(
            f"{path} is damaged (SHA-256 differs): delete it and start again, it will be "
            f"downloaded from {weights.url}"
        )
    return path
