"""The trained, unpruned network that a run starts from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import filelock
import torch
from safetensors.torch import load as to_tensors
from torch import Tensor, nn

from ..disk import damaged, read_entries, tensor_bytes, write_bytes, write_json
from ..errors import RunError, first_line
from ..fields import to_dict
from ..strategy.workers import keep_freed_memory
from . import data, models, train
from .environment import Progress
from .settings import Settings


def load_baseline(
    settings: Settings, dataset: data.Dataset, device: str = "cpu", progress: bool = False
) -> nn.Module:
    """The trained network that a run starts from: loaded by name, or trained by the baseline recipe
    once and kept.

    Looked for in ``baselines/`` of the data folders, which is published with the study, then in
    ``weights/``, where a training here leaves it, with its recipe, log and checksum beside it.

    Source: ours.

    Raises
    ------
    RunError
        The file is damaged.
    """
    shape = dataset.n_classes, dataset.channels
    if settings.weights != "train":
        return models.load_weights(settings.model, settings.weights, *shape).to(device)
    network = models.build(settings.model, *shape, seed=settings.baseline.seed).to(device)
    path = file_of(settings)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # several runs may want the same baseline: one trains, the others wait
        with filelock.FileLock(f"{path}.lock"):
            if not path.exists():
                train_baseline(network, dataset, settings, path, progress)
    try:
        network.load_state_dict(read_weights(path))
    except Exception as error:
        cure = "restore it, or delete it to train it again"
        raise damaged(path, first_line(error), cure) from None
    return network.to(device).eval()


def file_of(settings: Settings) -> Path:
    """Where the weights of a network that is trained here are, or will be."""
    name, places = f"{settings.baseline_id}.safetensors", data.folders()
    published = (place / "baselines" / name for place in places)
    return next((file for file in published if file.exists()), places[0] / "weights" / name)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a trained network; raises whatever is wrong with the file, or differs from the
    checksum beside it.
    """
    raw, beside = path.read_bytes(), path.with_suffix(".json")
    if beside.exists():
        wanted = read_entries(beside, "sha256")["sha256"]
        if hashlib.sha256(raw).hexdigest() != wanted:
            raise RunError(f"not as {beside.name} says")
    tensors = to_tensors(raw)
    if bad := [name for name, t in tensors.items() if not t.isfinite().all()]:
        raise RunError(f"{bad[0]} has values that are not finite")
    return tensors


def train_baseline(
    network: nn.Module, dataset: data.Dataset, settings: Settings, path: Path, progress: bool
) -> None:
    """Train a network by the baseline recipe and write it to ``path``; an interrupted training is
    continued.
    """
    keep_freed_memory()
    recipe, checkpoint = settings.baseline, path.with_suffix(".training")
    report = Progress("baseline", recipe.epochs, progress)
    log = train.fit(network, dataset, recipe, recipe.seed, report, checkpoint)
    entry = {"model": settings.model, "dataset": settings.dataset, "recipe": to_dict(recipe)}
    entry |= {"torch": torch.__version__, "sha256": checksum(network), "log": log}
    write_json(path.with_suffix(".json"), entry)
    write_bytes(path, weights_of(network))
    checkpoint.unlink(missing_ok=True)


def checksum(network: nn.Module) -> str:
    """SHA-256 of the weights as a safetensors file, like that beside a network trained here."""
    return hashlib.sha256(weights_of(network)).hexdigest()


def weights_of(network: nn.Module) -> bytes:
    """The bytes of a safetensors file of its parameters and buffers."""
    return tensor_bytes(network.state_dict())
