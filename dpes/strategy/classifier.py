"""The samples that a network is judged by and recalibrated on: whether it classifies them, and how
often it errs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SettingsError, first_line
from . import judging
from .samples import Reader, Samples, SamplesError
from .settings import Search


@dataclass
class Judge:
    """Share of misclassified images among labelled batches."""

    batches: list[Samples]

    def __call__(self, network: nn.Module) -> float:
        pairs = [(b.x, b.y) for b in self.batches if b.y is not None]
        return int(judging.errors(network, pairs)) / sum(len(y) for _, y in pairs)


OWN = "give evaluate=, a function from network to error, in place of data="


@torch.no_grad()
def check_classifier(network: nn.Module, samples: Samples) -> Samples:
    """The samples with labels that can be counted, if the network, in evaluation mode, classifies
    them; else ``SamplesError`` with the cure.
    """
    x, y = samples.x[:2], samples.y
    try:
        logits = network(x)
    except Exception as error:  # whatever a user's own network raises
        reason = f"{type(error).__name__}: {first_line(error)}"
        images = f"images of shape {list(x.shape[1:])}"
        raise SamplesError(f"the network cannot read {images} of data ({reason})") from error
    if not isinstance(logits, Tensor):
        raise SamplesError(f"the network returns a {type(logits).__name__}, not logits; {OWN}")
    shape = list(logits.shape)
    if logits.ndim != 2 or shape[0] != len(x) or shape[1] < 2 or not logits.is_floating_point():
        wants = "data= needs logits [images, classes] of at least two classes"
        raise SamplesError(f"the network returns {logits.dtype} {shape}: {wants}; {OWN}")
    if not logits.isfinite().all():
        cure = "look at its weights, and at the scale of the images"
        raise SamplesError(f"the network returns values that are not finite: {cure}")
    assert y is not None
    return Samples(samples.x, class_numbers(y, shape[1]).to(logits.device))


def class_numbers(y: Tensor, classes: int) -> Tensor:
    """Labels as int64 [n]; raises ``SamplesError`` for all but class numbers from 0."""
    found = f"labels are {y.dtype} {list(y.shape)}".replace("torch.", "")
    if y.ndim > 1:
        cure = "segmentation and many labels an image need evaluate="
        if y.ndim == 2 and y.shape[1] == 1:
            cure = "squeeze them: y[:, 0]"
        elif y.ndim == 2 and y.shape[1] == classes and ((y == 0) | (y == 1)).all():
            cure = "of one-hot ones take y.argmax(1); many labels an image need evaluate="
        raise SamplesError(f"{found}, not class numbers [images]; {cure}")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        cure = "convert them by y.long(); a regression needs evaluate="
        raise SamplesError(f"{found}, not class numbers; {cure}")
    y = y.long()  # of unsigned ones torch finds no least
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= classes:
        cure = "leave out what has no class"
        if low >= 1 and high == classes:
            cure = "count them from 0: y - 1"
        limits = f"the network's {classes} classes are 0 to {classes - 1}"
        raise SamplesError(f"labels run from {low} to {high}, {limits}; {cure}")
    return y


def samples(
    network: nn.Module, reader: Reader, settings: Search, data: Any, calibration: Any
) -> tuple[Samples | None, Samples | None]:
    """Images to judge by, and images to recalibrate on: what is not needed is None."""
    most, judged = settings.search_images, None
    if data is not None:
        read = reader.read(data, most, "data", labelled=True)
        judged = check_classifier(network, read)
    has_norm = any(getattr(m, "running_mean", None) is not None for m in network.modules())
    if settings.fitness != "recalibrate" or not has_norm:
        return judged, None
    most = settings.calibration_images
    if calibration is not None:
        inputs = reader.read(calibration, most, "calibration", labelled=False)
    elif judged is not None:
        inputs = Samples(judged.x[:most], None)
    else:
        cure = "give training images, or set fitness='none'"
        raise SettingsError(f"batch norm needs calibration= images after a cut; {cure}")
    if len(inputs.x) < 2:
        cure = "give training images as calibration=, or set fitness='none'"
        raise SettingsError(f"batch norm needs two images or more, there is one; {cure}")
    return judged, inputs


def parts(samples: Samples | None, settings: Search) -> list[Samples]:
    return samples.parts(settings.batch_size) if samples else []
