"""The networks of the study by name, untrained or with published weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import suggest
from . import vgg
from .densenet import DenseNet
from .resnet import ResNet
from .vgg import VGG
from .weights import WEIGHTS, ModelError, find, project_shortcuts, published, read

__all__ = ["MODELS", "WEIGHTS", "ModelError", "Spec", "build", "load_weights", "published"]


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


def load_weights(
    name: str, source: str, n_classes: int = 10, channels: int = 3, folder: str | Path | None = None
) -> nn.Module:
    """The network ``name`` in evaluation mode with the published weights ``source``, a name in
    ``WEIGHTS``.

    The file is looked for in ``folder``, or in ``weights/`` of the data folders (see
    ``dpes.study.data.folders``), else downloaded there; those trained here lie in ``baselines/``.
    Parameter-free padded shortcuts become convolutions that compute the same (see
    ``project_shortcuts``).
    Raises ``ModelError`` for unknown names, for a file that is damaged or cannot be had, and for
    other shapes.
    """
    weights = published(name, source)
    model = build(name, n_classes, channels, source=source)
    state = project_shortcuts(model, read(find(weights, folder)))
    for key, value in model.state_dict().items():
        if key in state and state[key].shape != value.shape:
            shapes = f"{key} is {tuple(state[key].shape)}, not {tuple(value.shape)}"
            raise ModelError(
                f"weights {source!r} of {name!r} do not fit ({shapes}): they were made for "
                f"{weights.dataset}"
            )
    model.load_state_dict(state)
    return model.eval()
