"""Training of a network by a recipe, and its errors on a data set."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..disk import digest, write_tensors
from ..errors import CandidateFailed, DpesError, SettingsError, first_line
from ..fields import fingerprint, to_dict
from ..strategy.judging import missed
from .data import Dataset, Split, augment, batches, normalise
from .devices import WORTH, Recorded, draws
from .settings import Training

AFRESH = "delete it to train from the start"
Progress = Callable[[int, float, float], None]  # called with epoch, loss and seconds


class TrainingDiverged(CandidateFailed):
    """The loss is no longer a finite number."""


class CheckpointError(DpesError):
    """A checkpoint that is damaged or belongs to another training."""


def fit(
    model: nn.Module,
    dataset: Dataset,
    recipe: Training,
    seed: int,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> list[dict]:
    """Train ``model`` in place by ``sgd``, on its device; it is left in evaluation mode.

    Parameters
    ----------
    seed
        Of the order of images and of augmentation; ``recipe.seed`` does not count.
    checkpoint
        A file written after every epoch. If it exists, training goes on from it, on the CPU to the
        same bits as without interruption. The caller deletes it.

    Returns
    -------
    For every epoch {epoch, loss, train_error, seconds}, means over the augmented batches.

    Raises
    ------
    TrainingDiverged
        The loss is no longer finite.
    CheckpointError
        The checkpoint is damaged, or of another training.
    """
    course = Course.begun(model, dataset, recipe, seed)
    log = course.resume(checkpoint) if checkpoint and checkpoint.exists() else []
    if (recipe.epochs - len(log)) * course.steps >= WORTH:
        course.record()
    return course.run(log, progress, checkpoint)


@dataclass
class Course:
    """A training under way."""

    model: nn.Module
    dataset: Dataset
    recipe: Training
    seed: int
    optimizer: torch.optim.SGD
    generator: torch.Generator
    recorded: Recorded | None = None

    @classmethod
    def begun(cls, model: nn.Module, dataset: Dataset, recipe: Training, seed: int) -> Course:
        """Before the first epoch."""
        model.to(memory_format=torch.channels_last)
        if recipe.small_epochs:
            check_small(model, normalise(dataset.train.x[:1], dataset))
        generator = draws(seed, dataset.train.y.device)
        return cls(model, dataset, recipe, seed, sgd(model, recipe), generator)

    @property
    def images(self) -> int:
        """Of an epoch."""
        available = len(self.dataset.train)
        return min(self.recipe.images or available, available)

    @property
    def steps(self) -> int:
        """Of an epoch; a last batch of one image has no variance for batch norm to divide by."""
        return self.images // self.recipe.batch_size + (self.images % self.recipe.batch_size > 1)

    def record(self) -> None:
        """On a GPU a step of a full batch is one launch from now on, if the network allows it; on
        the CPU nothing happens.
        """
        if not self.dataset.train.y.is_cuda or self.images < self.recipe.batch_size:
            return
        before = {key: tensor.clone() for key, tensor in self.state().items()}
        batch = self.dataset.train.first(self.recipe.batch_size)
        self.model.train()
        try:
            self.recorded = Recorded(self.plain, normalise(batch.x, self.dataset), batch.y)
        except RuntimeError as error:
            name, reason = type(self.model).__name__, first_line(error)
            warnings.warn(
                f"a training step of {name} cannot be recorded, so it is slower: {reason}",
                stacklevel=2,
            )
        for key, tensor in self.state().items():  # recording took steps
            tensor.copy_(before[key]) if key in before else tensor.zero_()

    @property
    def identity(self) -> str:
        parts = [to_dict(self.recipe), self.seed, self.dataset.name, self.images]
        device = self.generator.device.type  # another one draws otherwise
        return fingerprint(tuple(parts if device == "cpu" else [*parts, device]))

    def restart(self, seed: int) -> None:
        """Back to before the first step, with other draws; the weights are left as they are."""
        self.seed, self.generator = seed, draws(seed, self.generator.device)
        for key, tensor in self.state().items():
            if key.startswith("momentum."):
                tensor.zero_()

    def run(
        self, log: list[dict], progress: Progress | None = None, checkpoint: Path | None = None
    ) -> list[dict]:
        """The epochs that the log lacks, see ``fit``."""
        for epoch in range(len(log), self.recipe.epochs):
            log.append(entry := self.epoch(epoch))
            if checkpoint:
                self.save(checkpoint, log)
            if progress:
                progress(epoch, entry["loss"], entry["seconds"])
        self.model.eval()
        return log

    def epoch(self, epoch: int) -> dict[str, Any]:
        """One pass over the images; its entry of the log."""
        started = time.perf_counter()
        self.model.train()
        device = self.dataset.train.y.device
        total_loss, wrong = torch.zeros((), device=device), torch.zeros((), device=device).long()
        seen = 0
        for x, y in self.prepared(epoch):
            step = self.recorded if self.recorded and self.recorded.fits(x) else self.plain
            loss, mistaken = step(x, y)
            total_loss += loss * len(y)
            wrong += mistaken
            seen += len(y)
        mean = float(total_loss) / seen
        if not mean < float("inf"):  # also true of NaN
            self.model.eval()
            where = f"epoch {epoch + 1} of {self.recipe.epochs}"
            cure = f"lower lr, now {self.recipe.lr}"
            raise TrainingDiverged(f"the loss became {mean} in {where}: {cure}")
        entry = {"epoch": epoch, "loss": mean, "train_error": int(wrong) / seen}
        return entry | {"seconds": time.perf_counter() - started}

    def plain(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One step; its mean loss, and how many images the network missed before it."""
        half = self.recipe.precision == "bfloat16"
        with torch.autocast(x.device.type, torch.bfloat16, half):
            logits = self.model(x)
        smoothing = self.recipe.label_smoothing
        loss = F.cross_entropy(logits.float(), y, label_smoothing=smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach(), (logits.detach().argmax(1) != y).sum()

    def prepared(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, augmented and normalised, at the learning rate of each."""
        train, steps = self.dataset.train, self.steps
        shuffled = batches(train, self.recipe.batch_size, self.generator, limit=self.images)
        for step, (x, y) in zip(range(steps), shuffled, strict=False):
            rate = learning_rate(self.recipe, epoch * steps + step, self.recipe.epochs * steps)
            for group in self.optimizer.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate
            x = normalise(augment(x, self.generator, self.dataset.flip), self.dataset)
            yield smaller(x) if epoch < (self.recipe.small_epochs or 0) else x, y

    def state(self) -> dict[str, Tensor]:
        """Weights, running averages and momentum themselves."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for key, p in self.model.named_parameters():
            if (buffer := self.optimizer.state[p].get("momentum_buffer")) is not None:
                tensors[f"momentum.{key}"] = buffer
        return tensors

    def save(self, path: Path, log: list[dict]) -> None:
        """State and generator as tensors, the rest as JSON in the header."""
        tensors = self.state() | {"generator": self.generator.get_state()}
        header = {"identity": self.identity, "log": json.dumps(log)}
        total = digest(tensors, header["identity"] + header["log"])
        write_tensors(path, tensors, header | {"sha256": total})

    def resume(self, path: Path) -> list[dict]:
        """Put a checkpoint into model, optimizer and generator; returns the log so far."""
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata()
                tensors = {key: file.get_tensor(key) for key in file.keys()}
            if header["sha256"] != digest(tensors, header["identity"] + header["log"]):
                raise ValueError("its checksum differs")
            written, log = header["identity"], json.loads(header["log"])
            drawn = tensors["generator"]
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged: {AFRESH}") from error
        state = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        shapes = {k: v.shape for k, v in self.model.state_dict().items()}
        if written != self.identity or shapes != {k: v.shape for k, v in state.items()}:
            raise CheckpointError(f"{path} belongs to another training: {AFRESH}")
        self.model.load_state_dict(state)
        self.generator.set_state(drawn)
        for key, p in self.model.named_parameters():
            if (momentum := tensors.get(f"momentum.{key}")) is not None:
                self.optimizer.state[p]["momentum_buffer"] = torch.empty_like(p).copy_(momentum)
        return log


def smaller(x: Tensor) -> Tensor:
    """Images [n, c, h, w] at three quarters of their side: about half the time (Howard 2018)."""
    small = F.interpolate(x, scale_factor=0.75, mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def check_small(model: nn.Module, x: Tensor) -> None:
    """Raises ``SettingsError`` if the network cannot read the images of ``small_epochs``."""
    try:
        model.eval()(smaller(x))
    except RuntimeError as error:
        side = smaller(x).shape[-1]
        problem = f"{type(model).__name__} cannot read images of {side} x {side} pixels"
        raise SettingsError(f"small_epochs: {problem}; leave it unset") from error


def learning_rate(recipe: Training, step: int, steps: int) -> float:
    """The rate of step 0 .. steps - 1, by the middle of the step, so that none is zero.

    one-cycle: up to the peak over the first fifth, down to zero after it (Smith & Topin 2018).
    cosine: half a wave from the peak to zero (Loshchilov & Hutter 2017).
    """
    done = (step + 0.5) / steps
    if recipe.schedule == "one-cycle":
        return recipe.lr * min(done / 0.2, (1 - done) / 0.8)
    if recipe.schedule == "cosine":
        return recipe.lr * (1 + math.cos(math.pi * done)) / 2
    return recipe.lr


def sgd(model: nn.Module, recipe: Training) -> torch.optim.SGD:
    """SGD whose weight decay spares biases and batch norm, where it would change no function."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    momentum = recipe.momentum
    on_gpu = bool(parameters) and all(p.is_cuda for p in parameters)
    # a step that is recorded reads its rate from the device
    rate = torch.tensor(recipe.lr, device=parameters[0].device) if on_gpu else recipe.lr
    return torch.optim.SGD(
        groups, lr=rate, momentum=momentum, nesterov=momentum > 0, fused=on_gpu or None
    )


def mistakes(model: nn.Module, split: Split, dataset: Dataset, batch_size: int = 250) -> Tensor:
    """Which images of ``split`` the model, in evaluation mode, gets wrong: bool [n]."""
    model.eval()
    pairs = batches(split, batch_size)
    return torch.cat([missed(model, normalise(x, dataset), y) for x, y in pairs])


def error_rate(model: nn.Module, split: Split, dataset: Dataset, batch_size: int = 250) -> float:
    """The share of misclassified images of ``split``, in [0, 1]."""
    return int(mistakes(model, split, dataset, batch_size).sum()) / len(split)
