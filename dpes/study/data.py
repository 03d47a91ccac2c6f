"""Four image classification data sets as uint8 tensors of 32x32 pixels, split once and for all into
train, search and test.

The search split is cut from the training images by a fixed permutation, not stratified: with 5,000
of 50,000 images every class stays within a few percent of its share. The test images are those that
the data set's makers set apart (digits: cut here). Published CIFAR-10 weights were trained on all
50,000 training images: they have seen the search images, so the search error of the unpruned
network is optimistic; its test error is not.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..disk import path_of
from ..errors import DpesError, require, suggest


class DataError(DpesError):
    """A data set that does not exist, is damaged or cannot be had."""


@dataclass(frozen=True)
class Split:
    """Images x: uint8 [n, channels, 32, 32] and their classes y: int64 [n]."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def first(self, n: int | None) -> Split:
        """The first ``n`` images (a view); all when None."""
        return self if n is None else Split(self.x[:n], self.y[:n])

    def to(self, device: str | torch.device) -> Split:
        return Split(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Dataset:
    """Three splits, the channel means and standard deviations (of pixels in [0, 1]), and whether
    mirror images keep their class.
    """

    name: str
    train: Split
    search: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    classes: tuple[str, ...]

    @property
    def channels(self) -> int:
        return self.train.x.shape[1]

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @cached_property
    def scales(self) -> Tensor:
        """255 x mean and 255 x deviation of each channel, float32 [2, 1, channels, 1, 1], where the
        images are.
        """
        scales = torch.tensor((self.mean, self.std), device=self.train.x.device)
        return 255 * scales.view(2, 1, -1, 1, 1)

    def to(self, device: str | torch.device) -> Dataset:
        splits = {name: getattr(self, name).to(device) for name in ("train", "search", "test")}
        return replace(self, **splits)


def load(
    name: str, device: str | torch.device = "cpu", folder: str | Path | None = None
) -> Dataset:
    """A data set, from ``folder`` or else one of ``folders()``; downloaded when in none of them.

    Raises ``DataError`` for an unknown name, and for files that are damaged or cannot be had.
    """
    if name not in DATASETS:
        raise DataError(f"unknown dataset {name!r}: {suggest(name, DATASETS)}")
    return DATASETS[name](folders(folder)).to(device)


def folders(folder: str | Path | None = None) -> list[Path]:
    """Where data files may lie; a download goes to the first.

    ``folder`` alone if given, else $DPES_DATA if set, ``data/`` in the working directory and in the
    repository.
    """
    if folder is not None:
        return [path_of(folder, "folder")]
    repository = Path(__file__).resolve().parents[2]
    places = [path_of(os.environ["DPES_DATA"], "DPES_DATA")] if os.environ.get("DPES_DATA") else []
    places += [Path("data")]
    if (repository / "pyproject.toml").exists() and Path.cwd() != repository:
        places.append(repository / "data")
    return places


DIGITS = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def digits(places: list[Path]) -> Dataset:
    """scikit-learn's handwritten digits of 8x8 pixels, enlarged: 1,197 / 300 / 300 images.

    They come inside scikit-learn, so nothing is downloaded. A mirrored digit is no digit: no flips.
    """
    require("sklearn", extra="study")
    from sklearn.datasets import load_digits

    raw = load_digits()
    values = raw.images.astype("u1").tobytes() + raw.target.astype("u1").tobytes()
    if hashlib.sha256(values).hexdigest() != DIGITS:
        raise DataError("the digits of scikit-learn are damaged: install scikit-learn anew")
    small = torch.from_numpy(raw.images).float().unsqueeze(1) * (255 / 16)
    large = F.interpolate(small, size=(32, 32), mode="bilinear", align_corners=False)
    x = large.round().to(torch.uint8)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))
    everything = Split(x[order], torch.from_numpy(raw.target).long()[order])
    train, rest = cut(everything, 1197)
    search, test = cut(rest, 300)
    return Dataset("digits", train, search, test, (0.305,), (0.323,), False, tuple("0123456789"))


# Labels in the order of the data set's own README (zalandoresearch/fashion-mnist).
FASHION = tuple(
    "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(",")
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the Debian package dataset-fashion-mnist


def fashion_mnist(places: list[Path]) -> Dataset:
    """Fashion-MNIST (Xiao et al. 2017) in a black frame: 55,000 / 5,000 / 10,000 images."""
    kinds = ("images-idx3", "labels-idx1")
    names = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in kinds]
    homes = [*(p / "FashionMNIST" / "raw" for p in places), DEBIAN]
    home = next((h for h in homes if any(idx_file(h, names[0]))), None)
    if home is None:
        require("torchvision", extra="study")
        from torchvision.datasets import FashionMNIST

        download("fashion-mnist", homes, lambda: FashionMNIST(places[0], download=True))
        home = homes[0]
    arrays = [torch.from_numpy(read_idx(home, name)) for name in names]
    pairs = arrays[:2], arrays[2:]
    whole, test = (Split(F.pad(x, (2, 2, 2, 2)).unsqueeze(1), y.long()) for x, y in pairs)
    splits = *train_and_search(whole), test
    return Dataset("fashion-mnist", *splits, (0.219,), (0.332,), True, FASHION)


def idx_file(home: Path, name: str) -> list[Path]:
    """The file of that name, as far as it exists: gzipped, which holds a checksum, or plain."""
    return [p for p in (home / f"{name}.gz", home / name) if p.exists()]


def read_idx(home: Path, name: str) -> np.ndarray:
    """An IDX file: two zero bytes, type 8, the number of dimensions, their sizes, the bytes."""
    files = idx_file(home, name)
    if not files:
        cure = f"delete the folder {home} and start again to download it"
        raise DataError(f"{home / name} is missing: {cure}")
    try:
        raw = files[0].read_bytes()
        raw = gzip.decompress(raw) if files[0].suffix == ".gz" else raw
        shape = np.frombuffer(raw, ">i4", raw[3], 4)
        return np.frombuffer(bytearray(raw), np.uint8, offset=4 + 4 * raw[3]).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        cure = "delete it and start again to download it"
        raise DataError(f"{files[0]} is damaged ({error}): {cure}") from error


def cifar(name: str, places: list[Path]) -> Dataset:
    """CIFAR-10 or CIFAR-100 (Krizhevsky 2009), checked by MD5: 45,000 / 5,000 / 10,000 images."""
    require("torchvision", extra="study")
    from torchvision import datasets

    cls = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    home = next((p for p in places if (p / cls.base_folder).is_dir()), None)
    if home is None:
        home = places[0]
        download(name, [p / cls.base_folder for p in places], lambda: cls(home, download=True))
    try:
        parts = [cls(home, train=train, download=False) for train in (True, False)]
    except RuntimeError as error:
        raise DataError(first_damaged(cls, home)) from error
    images = (torch.from_numpy(p.data).permute(0, 3, 1, 2).contiguous() for p in parts)
    whole, test = (Split(x, torch.tensor(p.targets)) for x, p in zip(images, parts, strict=True))
    splits = *train_and_search(whole), test
    # The means and deviations of ImageNet, not of CIFAR: the published weights were trained with
    # them, and to a network that is trained from scratch any fixed scale near these will do.
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Dataset(name, *splits, mean, std, True, tuple(parts[0].classes))


def first_damaged(cls: Any, home: Path) -> str:
    """The message for the first file of a CIFAR folder that is missing or has another MD5."""
    from torchvision.datasets.utils import check_integrity

    base = home / cls.base_folder
    wanted = [*cls.train_list, *cls.test_list, (cls.meta["filename"], cls.meta["md5"])]
    name = next((file for file, md5 in wanted if not check_integrity(str(base / file), md5)), "")
    what = "is damaged (MD5 differs)" if (base / name).is_file() else "is missing"
    cure = f"delete the folder {base} and start again to download it, or put the whole file there"
    return f"{base / name} {what}: {cure}"


def download(name: str, homes: list[Path], fetch: Callable[[], object]) -> None:
    """Run ``fetch``; raises a ``DataError`` that names where the files are expected."""
    try:
        fetch()
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        places = " or ".join(map(str, homes))
        message = f"{name} could not be downloaded ({reason}): expected in {places}"
        raise DataError(message) from error


DATASETS: dict[str, Callable[[list[Path]], Dataset]] = {
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "cifar10": lambda places: cifar("cifar10", places),
    "cifar100": lambda places: cifar("cifar100", places),
}
# known without the files
TEST_IMAGES = {"digits": 300, "fashion-mnist": 10_000, "cifar10": 10_000, "cifar100": 10_000}


def cut(split: Split, n: int) -> tuple[Split, Split]:
    """The first ``n`` images, and the rest."""
    return Split(split.x[:n], split.y[:n]), Split(split.x[n:], split.y[n:])


def train_and_search(split: Split) -> tuple[Split, Split]:
    """All but 5,000 images for training and 5,000 for the search, by one fixed permutation."""
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(split)))
    return cut(Split(split.x[order], split.y[order]), len(split) - 5000)


def normalise(x: Tensor, dataset: Dataset) -> Tensor:
    """Pixels 0..255 to mean 0 and deviation 1 a channel, channels-last in memory."""
    mean, std = dataset.scales
    return x.to(torch.float32, memory_format=torch.channels_last).sub_(mean).div_(std)


def augment(x: Tensor, generator: torch.Generator, flip: bool = True, pad: int = 4) -> Tensor:
    """Each image shifted by up to ``pad`` pixels into black, and every second one mirrored.

    x: uint8 [n, c, h, w], any device; the draws are made on the generator's device. The usual
    augmentation of CIFAR (He et al. 2016, section 4.2).
    """
    n, _, h, w = x.shape
    where = generator.device
    top, left = torch.randint(2 * pad + 1, (2, n), generator=generator, device=where).to(x.device)
    # a view: [n, c, 2 pad + 1, 2 pad + 1, h, w]
    windows = F.pad(x, (pad, pad, pad, pad)).unfold(2, h, 1).unfold(3, w, 1)
    shifted = windows[torch.arange(n, device=x.device), :, top, left]
    if not flip:
        return shifted
    mirrored = torch.randint(2, (n, 1, 1, 1), generator=generator, device=where).bool().to(x.device)
    return torch.where(mirrored, shifted.flip(3), shifted)


def batches(
    split: Split,
    batch_size: int,
    generator: torch.Generator | None = None,
    limit: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (x uint8, y) in the split's order, or shuffled when a generator is given.

    limit: at most so many images; the first ones, or a random choice when shuffled.
    """
    n = len(split) if limit is None else min(limit, len(split))
    if generator is None:
        for i in range(0, n, batch_size):
            yield split.x[i : min(i + batch_size, n)], split.y[i : min(i + batch_size, n)]
        return
    order = torch.randperm(len(split), generator=generator, device=generator.device)[:n]
    for chosen in order.to(split.y.device).split(batch_size):
        yield split.x[chosen], split.y[chosen]
