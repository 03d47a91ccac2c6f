"""The paper's networks on its data sets, tiny: no name, shape or file format is untried. Data are
synthetic, in the format of the real files.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from dpes.coupling import cost
from dpes.study import data, models, runs
from dpes.study.profiles import PAPER, make_settings

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import paper  # noqa: E402

# five candidates may well leave fewer than three points
pytestmark = pytest.mark.filterwarnings("ignore:the front has fewer than three points")

TINY = {
    "population": 4, "generations": 1, "search_images": 8, "calibration_images": 8, "batch_size": 8,
    "partial_epochs": 1, "partial_images": 4, "baseline_epochs": 1, "baseline_images": 4,
    "baseline_batch_size": 4, "finetune_epochs": 1, "finetune_images": 4, "finetune_batch_size": 4,
}  # fmt: skip
TRAIN, TEST = 5100, 12  # images; 5,000 of them are set apart for the search


def write(folder: Path, name: str, content: dict) -> str:
    """A pickle as the data sets' authors wrote them; its MD5."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return hashlib.md5((folder / name).read_bytes()).hexdigest()


def batch(n: int, classes: int, key: str, seed: int) -> dict:
    """n images, first row of pixels first, red before green before blue."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
    return {"data": pixels, key: rng.integers(0, classes, n).tolist()}


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Both data sets, small, and their checksums by class of torchvision."""
    folder = tmp_path_factory.mktemp("cifar")
    ten, hundred = folder / "cifar-10-batches-py", folder / "cifar-100-python"
    lists = {datasets.CIFAR10: {}, datasets.CIFAR100: {}}
    parts = [(f"data_batch_{k}", TRAIN // 5, k) for k in range(1, 6)]
    for cls, base, key, n, train in (
        (datasets.CIFAR10, ten, "labels", 10, parts),
        (datasets.CIFAR100, hundred, "fine_labels", 100, [("train", TRAIN, 1)]),
    ):
        names = [f"class {k}" for k in range(n)]
        meta = {"filename": cls.meta["filename"], "key": cls.meta["key"]}
        test = cls.test_list[0][0]
        lists[cls] = {
            "train_list": [[name, write(base, name, batch(m, n, key, s))] for name, m, s in train],
            "test_list": [[test, write(base, test, batch(TEST, n, key, 9))]],
            "meta": meta | {"md5": write(base, meta["filename"], {meta["key"]: names})},
        }
    return folder, lists


@pytest.fixture
def synthetic(files, monkeypatch, tmp_path):
    """Data and new weights in folders of their own; published weights are drawn, timing is not."""
    folder, lists = files
    for cls, attributes in lists.items():
        for name, value in attributes.items():
            monkeypatch.setattr(cls, name, value)
    monkeypatch.setenv("DPES_DATA", str(folder))
    monkeypatch.setenv("DPES_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(
        models, "load_weights", lambda name, source, n_classes, channels: models.build(name, n_classes, channels, source=source).eval()
    )  # fmt: skip
    monkeypatch.setattr(cost, "latency", lambda nets, x: {name: [1.0] for name in nets})
    return folder


@pytest.mark.parametrize("name", paper.DATASETS)
def test_files_of_the_right_format_become_images_and_classes(synthetic, files, name):
    dataset = data.load(name)
    n = {"cifar10": 10, "cifar100": 100}[name]
    assert (len(dataset.train), len(dataset.search), len(dataset.test)) == (
        TRAIN - 5000,
        5000,
        TEST,
    )
    assert dataset.n_classes == n and dataset.classes[-1] == f"class {n - 1}"
    assert dataset.train.x.shape[1:] == (3, 32, 32) and dataset.train.y.max() < n
    key = "labels" if n == 10 else "fine_labels"
    stored = batch(TEST, n, key, 9)
    x = torch.from_numpy(stored["data"]).view(TEST, 3, 32, 32)
    assert torch.equal(dataset.test.x, x) and dataset.test.y.tolist() == stored[key]


@pytest.mark.parametrize("dataset", paper.DATASETS)
@pytest.mark.parametrize("model", PAPER)
def test_every_network_of_the_paper_runs_through(synthetic, model, dataset, tmp_path):
    """On one data set to the end, on the other one to a candidate's error."""
    (settings,) = (s for s in paper.series("cpu", [model], **TINY) if s.dataset == dataset)
    whole = make_settings("paper", model=model, dataset=dataset)
    assert (settings.weights, settings.search.fitness) == (whole.weights, "partial")
    assert runs.where(settings).name.startswith(f"{model}-{dataset}-paper-s0-")
    classes = {"cifar10": 10, "cifar100": 100}[dataset]
    if PAPER.index(model) % 2 == paper.DATASETS.index(dataset):
        run = runs.run(settings)
        assert run.result["n_classes"] == classes and len(run.history) == 5
        assert set(run.solutions.solution) == {"baseline", "heavy", "knee", "light"}
    else:
        work = runs.prepare(settings, tmp_path, "cpu", False)
        genome = np.arange(work.layout.n_bits) % 5 > 0
        assert 0 <= work.fitness(genome) <= 1
        assert list(work.network.parameters())[-1].shape == (classes,)


def test_the_series_is_the_papers_and_a_gpu_keeps_shapes():
    series = paper.series("cpu")
    assert len({s.run_id for s in series}) == 14 and {s.model for s in series} == set(PAPER)
    assert all(s.search.shape is None for s in series)
    there = paper.series("cuda:1", ["resnet56"])
    assert [s.search.shape for s in there] == ["full", "full"]
    assert {there[0].baseline.precision, there[0].finetune.precision} == {"bfloat16"}
    assert [s.weights for s in there] == ["akamaster", "train"]


def test_pieces_continue_until_nothing_is_left(synthetic, capsys, monkeypatch):
    small = ["--only", "densenet50", "--minutes", "10"]
    whole, calls = runs.run, []

    def interrupted(settings, **means):
        calls.append(settings.dataset)
        if len(calls) == 2:
            raise paper.PieceOver  # as the alarm does
        return whole(settings, **means)

    monkeypatch.setattr(runs, "run", interrupted)
    assert paper.main(small, **TINY) == paper.MORE
    assert "10 minutes are over, 1 of 2 runs are left" in capsys.readouterr().out
    assert paper.main([*small, "--left"], **TINY) == 0
    assert "densenet50-cifar100-paper" in capsys.readouterr().out
    assert paper.main(small, **TINY) == 0
    assert calls == ["cifar10", "cifar100", "cifar100"]
    results = Path(runs.where(paper.series("cpu", ["densenet50"], **TINY)[0]))
    assert json.loads((results / "result.json").read_text())["n_classes"] == 10


def test_a_piece_ends_by_itself_and_leaves_no_alarm():
    import time

    with pytest.raises(paper.PieceOver), paper.piece(1e-4):
        time.sleep(20)
    with paper.piece(None):
        time.sleep(0.02)


def test_a_mistake_is_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("DPES_RUNS", str(tmp_path))
    with pytest.raises(SystemExit):
        paper.main(["--only", "vgg17"])
    assert "unknown network 'vgg17': choose from vgg16, vgg19" in capsys.readouterr().err
    assert paper.main(["--device", "gpu"]) == 2
    assert capsys.readouterr().err.startswith("paper: device 'gpu' cannot be used")
