"""Training of a network by a recipe, and its errors on a data set."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..disk import write_tensors
from ..errors import CandidateFailed, DpesError, SettingsError
from ..fields import fingerprint, to_dict
from ..strategy.judging import missed
from .data import Dataset, Split, augment, batches, normalise
from .settings import Training


class TrainingDiverged(CandidateFailed):
    """The loss is no longer a finite number."""


class CheckpointError(DpesError):
    """A checkpoint that is damaged or belongs to another training."""


def fit(
    model: nn.Module,
    dataset: Dataset,
    recipe: Training,
    generator_seed: int,
    split: str | Split = "train",
    progress: Callable[[int, float, float], None] | None = None,
    checkpoint: Path | None = None,
) -> list[dict]:
    """Trains ``model`` in place by ``recipe``, on the device where it and ``dataset`` are, and leaves it in evaluation mode.

    SGD with Nesterov momentum; weight decay on convolution and linear weights only. Order and augmentation come from
    ``generator_seed``, not from ``recipe.seed``. split: a name in ``dataset``, or the images themselves.
    progress: called with (epoch, loss, seconds) after every epoch.
    checkpoint: a file written after every epoch; if it exists, training goes on from it, on the CPU to the very same bits as
    without interruption. The caller deletes it.
    Returns for every epoch {epoch, loss, train_error, seconds}; both figures are means over the augmented training batches.
    Raises ``TrainingDiverged``, and ``CheckpointError`` for a file that is damaged or of another training.
    """
    images = getattr(dataset, split) if isinstance(split, str) else split
    n = min(recipe.images or len(images), len(images))
    # A last batch of one image has no variance for batch norm to divide by; it is left out.
    steps = n // recipe.batch_size + (n % recipe.batch_size > 1)
    model.to(memory_format=torch.channels_last)
    if recipe.small_epochs:
        check_small(model, normalise(images.x[:1], dataset))
    optimizer = sgd(model, recipe)
    generator = torch.Generator().manual_seed(generator_seed)
    identity = fingerprint((to_dict(recipe), generator_seed, dataset.name, n))
    log = resume(checkpoint, model, optimizer, generator, identity) if checkpoint and Path(checkpoint).exists() else []

    for epoch in range(len(log), recipe.epochs):
        started = time.perf_counter()
        model.train()
        total_loss = torch.zeros((), device=images.y.device)
        wrong = torch.zeros((), dtype=torch.int64, device=images.y.device)
        seen = 0
        shuffled = batches(images, recipe.batch_size, generator, limit=n)
        for step, (x, y) in zip(range(steps), shuffled, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, epoch * steps + step, recipe.epochs * steps)
            x = normalise(augment(x, generator, dataset.flip), dataset)
            if epoch < (recipe.small_epochs or 0):
                x = smaller(x)
            with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                logits = model(x)
            loss = F.cross_entropy(logits.float(), y, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                total_loss += loss * len(y)
                wrong += (logits.argmax(1) != y).sum()
            seen += len(y)
        mean_loss = float(total_loss) / seen
        if not mean_loss < float("inf"):  # also true of NaN
            model.eval()
            raise TrainingDiverged(f"the loss became {mean_loss} in epoch {epoch + 1} of {recipe.epochs}: lower lr, now {recipe.lr}")
        seconds = time.perf_counter() - started
        log.append({"epoch": epoch, "loss": mean_loss, "train_error": int(wrong) / seen, "seconds": seconds})
        if checkpoint:
            save_checkpoint(checkpoint, model, optimizer, generator, identity, log)
        if progress:
            progress(epoch, mean_loss, seconds)
    model.eval()
    return log


def smaller(x: Tensor) -> Tensor:
    """Images [n, c, h, w], float, at three quarters of their side; an epoch costs about half (progressive resizing, Howard 2018)."""
    return F.interpolate(x, scale_factor=0.75, mode="bilinear", antialias=True).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def check_small(model: nn.Module, x: Tensor) -> None:
    """Raises ``SettingsError`` if the network cannot read the images of ``small_epochs``."""
    try:
        model.eval()(smaller(x))
    except RuntimeError as error:
        side = smaller(x).shape[-1]
        raise SettingsError(f"small_epochs: {type(model).__name__} cannot read images of {side} x {side} pixels; leave it unset") from error


def learning_rate(recipe: Training, step: int, steps: int) -> float:
    """The rate of step 0 .. steps - 1, by the middle of the step, so that none is zero.

    one-cycle: a straight line up to the peak over the first fifth and one down to zero (after Smith & Topin 2018).
    cosine: half a wave from the peak to zero (Loshchilov & Hutter 2017).
    """
    done = (step + 0.5) / steps
    if recipe.schedule == "one-cycle":
        return recipe.lr * min(done / 0.2, (1 - done) / 0.8)
    if recipe.schedule == "cosine":
        return recipe.lr * (1 + math.cos(math.pi * done)) / 2
    return recipe.lr


def sgd(model: nn.Module, recipe: Training) -> torch.optim.SGD:
    """SGD whose weight decay spares biases and batch norm: shrinking those does not shrink the function."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.SGD, generator: torch.Generator, identity: str, log: list[dict]
) -> None:
    """Weights, momentum and generator as tensors, the rest as JSON in the header; whole or not there at all."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()} | {"generator": generator.get_state()}
    for key, p in model.named_parameters():
        if (buffer := optimizer.state[p].get("momentum_buffer")) is not None:
            tensors[f"momentum.{key}"] = buffer
    write_tensors(path, tensors, {"identity": identity, "log": json.dumps(log)})


def resume(path: Path, model: nn.Module, optimizer: torch.optim.SGD, generator: torch.Generator, identity: str) -> list[dict]:
    """Puts the checkpoint into model, optimizer and generator; returns the log so far."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        written, log, drawn = header["identity"], json.loads(header["log"]), tensors["generator"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: delete it to train from the start") from error
    state = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    shapes = {k: v.shape for k, v in model.state_dict().items()}
    if written != identity or shapes != {k: v.shape for k, v in state.items()}:
        raise CheckpointError(f"{path} belongs to another training: delete it to train from the start")
    model.load_state_dict(state)
    generator.set_state(drawn)
    for key, p in model.named_parameters():
        if f"momentum.{key}" in tensors:
            optimizer.state[p]["momentum_buffer"] = torch.empty_like(p).copy_(tensors[f"momentum.{key}"])
    return log


def inputs(
    split: Split,
    dataset: Dataset,
    batch_size: int,
    generator: torch.Generator | None = None,
    limit: int | None = None,
    augmented: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (x normalised, y) as ``dpes.study.data.batches`` does, shuffled when a generator is given; ``augmented`` needs one."""
    for x, y in batches(split, batch_size, generator, limit):
        if augmented:
            assert generator is not None
            x = augment(x, generator, dataset.flip)
        yield normalise(x, dataset), y


def mistakes(model: nn.Module, split: Split, dataset: Dataset, batch_size: int = 250) -> Tensor:
    """Which images of ``split`` are misclassified: bool [len(split)], on the device; puts the model into evaluation mode."""
    model.eval()
    return torch.cat([missed(model, x, y) for x, y in inputs(split, dataset, batch_size)])


def error_rate(model: nn.Module, split: Split, dataset: Dataset, batch_size: int = 250) -> float:
    """The share of misclassified images of ``split``, in [0, 1]; puts the model into evaluation mode."""
    return int(mistakes(model, split, dataset, batch_size).sum()) / len(split)
