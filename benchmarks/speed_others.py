"""What our search is compared with: Torch-Pruning, and the steps of the authors' later code."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import alternate, cifar, fitness_of, halves, network, times
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

from dpes import slim
from dpes.coupling.layout import Layout
from dpes.study import data, models


def by_torch_pruning(model: nn.Module, layout: Layout, genome: np.ndarray) -> nn.Module:
    """The same filters removed by Torch-Pruning: a copy, its dependency graph, group by group."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        import torch_pruning as tp

        theirs = copy.deepcopy(model).train()  # it traces through autograd
        example = torch.zeros(2, *layout.example)
        graph = tp.DependencyGraph().build_dependency(theirs, example_inputs=example)
        modules = dict(theirs.named_modules())
        for group in layout.groups:
            if gone := np.flatnonzero(~genome[group.bits]).tolist():
                prune = tp.prune_conv_out_channels
                graph.get_pruning_group(modules[group.name], prune, idxs=gone).prune()
    return theirs.eval()


class Pictures:
    """Images as torchvision's data sets give them, one at a time through PIL."""

    def __init__(self, split: data.Split, transform: Callable[[Image.Image], Tensor]):
        self.images = split.x.permute(0, 2, 3, 1).contiguous().numpy()
        self.classes, self.transform = split.y.tolist(), transform

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[i].squeeze())), self.classes[i]


def loader(split: data.Split, dataset: data.Dataset, batch_size: int) -> DataLoader:
    """Their loader: crop, flip, tensor, normalise, for training and for validation alike."""
    steps = [transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    steps.append(transforms.Normalize(dataset.mean, dataset.std))
    return DataLoader(Pictures(split, transforms.Compose(steps)), batch_size, shuffle=True)


def rebuilt(name: str, file: Path, layout: Layout, genome: np.ndarray, **options: Any) -> nn.Module:
    """Their candidate: the network made anew, its weights read from disk, then cut."""
    model = models.build(name, **options)
    model.load_state_dict(torch.load(file, weights_only=True))
    return slim(model, layout, genome)


def profiled(model: nn.Module, x: Tensor) -> int:
    """MACs as their profiler counts them: hooks on every layer, one forward pass."""
    total = 0

    def count(module: nn.Module, _: Any, y: Tensor) -> None:
        nonlocal total
        total += module.weight.numel() * (y[0, 0].numel() if y.ndim == 4 else 1)

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [m.register_forward_hook(count) for m in layers]
    with torch.no_grad():
        model.eval()(x)
    for hook in hooks:
        hook.remove()
    return total


def by_later_code(
    model: nn.Module, training: DataLoader, validation: DataLoader, epochs: int, example: Tensor
) -> tuple[float, int]:
    """(error, MACs) of a candidate by the steps of the authors' later code, in float32."""
    loss_of = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, nesterov=True)
    model.train()
    for _ in range(epochs):
        for x, y in training:
            optimizer.zero_grad()
            loss = loss_of(model(x), y)
            loss.item()
            loss.backward()
            optimizer.step()
    right = 0
    for x, y in validation:
        model.eval()
        with torch.no_grad():
            logits = model(x)
            loss_of(logits, y).item()
            right += (logits.argmax(1) == y).sum().item()
    return 1 - right / len(validation.dataset), profiled(model, example)


def authors(rounds: int = 3, trained: int = 250, judged: int = 500) -> list[dict]:
    """One candidate by the authors' later code and by ours."""
    name, images = "resnet56", {"calibration_images": trained, "search_images": judged}
    model, layout = network(name)
    genomes, example = halves(layout, rounds), torch.zeros(1, *layout.example)
    partial = images | {"fitness": "partial", "partial_images": trained}
    ours = {f"partial{e}": fitness_of(name, **partial, partial_epochs=e) for e in (3, 1)}
    ours["recalibrate"] = fitness_of(name, **images)
    training = loader(cifar().train.first(trained), cifar(), 125)
    validation = loader(cifar().search.first(judged), cifar(), 250)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pth"
        torch.save({k: v.contiguous() for k, v in model.state_dict().items()}, file)

        def theirs(r: int, epochs: int) -> tuple[float, int]:
            candidate = rebuilt(name, file, layout, genomes[r], source="akamaster")
            return by_later_code(candidate, training, validation, epochs, example)

        ways = {f"theirs{epochs}": lambda r, e=epochs: theirs(r, e) for epochs in (3, 1)}
        for kind, fitness in ours.items():
            ways[kind] = lambda r, f=fitness: (f(genomes[r]), layout.macs(genomes[r]))
        seconds, answers = alternate(ways, rounds)
    assert len({macs for _, macs in answers.values()}) == 1, "not the same MACs"
    three, one = (
        "authors' way, 3 epochs / ours, recalibrated",
        "authors' way, one epoch / ours, recalibrated",
    )
    return [
        times("authors' way / ours, same 3 epochs", seconds, "theirs3", "partial3", at_least=1.3),
        times(three, seconds, "theirs3", "recalibrate", at_least=4),
        times("authors' way / ours, same single epoch", seconds, "theirs1", "partial1"),
        times(one, seconds, "theirs1", "recalibrate"),
    ]
