"""Small networks on 8x8 digits, which train in a second, and the steps that lessons repeat."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dpes
from dpes.disk import read_json
from dpes.study.finished import located

Pair = tuple[Tensor, Tensor]  # images float [n, 1, 8, 8] and their classes int64 [n]
EXAMPLE = torch.zeros(1, 1, 8, 8)


@dataclass(frozen=True)
class Digits:
    """1,797 handwritten digits: 897 to train on, 400 to judge candidates by, 500 to test with."""

    train: Pair
    validation: Pair
    test: Pair


def digits() -> Digits:
    """scikit-learn's digits, mean 0, deviation 1, in a fixed order; nothing is downloaded."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    order = np.random.default_rng(0).permutation(len(raw.target))
    x = torch.from_numpy(raw.images[order]).float().unsqueeze(1)
    x, y = (x - x[:897].mean()) / x[:897].std(), torch.from_numpy(raw.target[order]).long()
    return Digits((x[:897], y[:897]), (x[897:1297], y[897:1297]), (x[1297:], y[1297:]))


def digits_as_files(folder: Path) -> Path:
    """scikit-learn's digits as images, ``folder/part/class/number.png``; returns the folder."""
    from torchvision.transforms.functional import to_pil_image

    mean, deviation = 4.8, 6.0  # about those of the raw values, 0 to 16
    for part, (x, y) in vars(digits()).items():
        for i, (image, label) in enumerate(zip(x, y.tolist(), strict=True)):
            place = folder / part.replace("validation", "valid") / str(label)
            place.mkdir(parents=True, exist_ok=True)
            to_pil_image((image * deviation + mean).clamp(0, 16) / 16).save(place / f"{i}.png")
    return folder


def plain(widths: tuple[int, ...] = (16, 32, 32), seed: int = 0) -> nn.Sequential:
    """3x3 convolutions with batch norm and ReLU, pools between them, one linear layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for inputs, filters in zip((1, *widths), widths, strict=False):
            layers += [nn.MaxPool2d(2)] if layers else []
            layers += [
                nn.Conv2d(inputs, filters, 3, padding=1, bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(),
            ]
        return nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10)
        )


class Block(nn.Module):
    """Two 3x3 convolutions whose output is added to their input: x [n, filters, h, w]."""

    def __init__(self, filters: int, inside: int | None = None):
        super().__init__()
        inside = inside or filters
        self.conv1 = nn.Conv2d(filters, inside, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(y)))


def residual(filters: int = 8, inside: int = 12, blocks: int = 2, seed: int = 0) -> nn.Sequential:
    """A first convolution, residual blocks of equal width, one linear layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stem = nn.Conv2d(1, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()
        body = [Block(filters, inside) for _ in range(blocks)]
        return nn.Sequential(
            *stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(filters, 10)
        )


def fit(
    model: nn.Module, pair: Pair, epochs: int = 10, lr: float = 0.05, seed: int = 0
) -> nn.Module:
    """Train in place by SGD, one-cycle learning rate; returns the model in evaluation mode."""
    x, y = pair
    draw, size = torch.Generator().manual_seed(seed), 64
    steps = len(x) // size
    optimizer = torch.optim.SGD(
        model.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * steps)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=draw).split(size)[:steps]:
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def error(model: nn.Module, pair: Pair) -> float:
    """The share of images that the model gets wrong, 0 to 1."""
    x, y = pair
    return float((model.eval()(x).argmax(1) != y).float().mean())


@torch.no_grad()
def recalibrate(model: nn.Module, x: Tensor) -> nn.Module:
    """Estimate all batch-norm statistics anew on images ``x``, in place; returns the model."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    model.train()
    for batch in x.chunk(max(1, len(x) // 128)):
        model(batch)
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def l1(model: nn.Module, layout: dpes.Layout) -> np.ndarray:
    """float [n_bits]: the absolute weights of each filter, added up over all coupled layers."""
    weights = {name: p.detach() for name, p in model.named_parameters()}
    sums = [
        torch.stack([weights[f"{name}.weight"].abs().flatten(1).sum(1) for name in group.members])
        for group in layout.groups
    ]
    return torch.cat([s.sum(0) for s in sums]).numpy()


def best(layout: dpes.Layout, scores: np.ndarray, share: float | np.ndarray) -> np.ndarray:
    """bool [n_bits]: each group keeps this share of its filters, at least one, of highest score.

    share: 0 to 1, one for all groups or one for each.
    """
    genome = np.zeros(layout.n_bits, dtype=bool)
    for group, part in zip(layout.groups, np.broadcast_to(share, len(layout.groups)), strict=True):
        n = max(1, round(part * group.size))
        genome[group.start + np.argsort(-scores[group.bits], kind="stable")[:n]] = True
    return genome


def run(name: str) -> dpes.Run:
    """A published run by its name; see ``dpes.study.finished.runs_folder``."""
    return located(name)


def rivals(run: dpes.Run) -> dict[str, dict[str, Any]]:
    """What was trained beside the knee of a published run: name -> its errors and counts."""
    files = (run.path / name for name in ("rivals.json", "controls.json"))
    return read_json(next(f for f in files if f.exists()))


def trained(run: dpes.Run) -> nn.Module:
    """The unpruned network that a published run started from; weights from ``data/baselines``."""
    from safetensors.torch import load_file

    file = f"{run.settings.baseline_id}.safetensors"
    run.full.load_state_dict(
        load_file(Path(dpes.__file__).parents[1] / "data" / "baselines" / file)
    )
    return run.full.eval()


def theme() -> None:
    """The style of the lessons' figures: legible on a telephone, a white ground for dark pages."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    sns.set_theme(style="whitegrid")
    plt.rc("figure", figsize=(4.6, 3.2), dpi=160)
    plt.rc("figure.constrained_layout", use=True)
    plt.rc("savefig", facecolor="white")
