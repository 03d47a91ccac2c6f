"""Whether a network is a classifier of the samples that it is given, and how often it errs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import first_line
from . import judging
from .samples import Samples, SamplesError


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
