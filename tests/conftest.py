"""Shared fixtures and helpers of the tests."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
import sys

import filelock
import numpy as np
import pytest
import torch
from hypothesis import settings

from dpes import make_settings, repair, trace
from dpes.coupling.layout import Layout
from dpes.study import data, models, train


@pytest.fixture
def born():
    """Says which processes were started since the test began; a ``DataLoader`` of an earlier one
    may have left some.
    """
    before = set(multiprocessing.active_children())
    return lambda: set(multiprocessing.active_children()) - before


def random_genome(layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """bool [n_bits]: each bit kept with a probability drawn anew, each group alive."""
    genome = rng.random(layout.n_bits) < rng.uniform(0.15, 0.95)
    for group in layout.groups:
        if not genome[group.bits].any():
            genome[group.start + rng.integers(group.size)] = True
    return genome


def genomes_of(layout: Layout, n: int, share: float) -> np.ndarray:
    """bool [n, n_bits]: each filter kept with the same probability."""
    drawn = np.random.default_rng(0).random((n, layout.n_bits)) < share
    return repair(drawn, layout.group_of_bit)


def trained_on_digits(name: str) -> tuple[torch.nn.Module, Layout, data.Dataset]:
    """A network after a short training, its layout and its data: what a fitness is made of."""
    digits = data.load("digits")
    network = models.build(name, channels=1)
    train.fit(network, digits, make_settings("smoke").baseline, 0)
    return network, trace(network, torch.zeros(1, 1, 32, 32)), digits


def shake(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give norms random statistics and shifts, so that a silenced filter that still speaks is
    heard; returns the model in eval mode.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            for name, value in (
                *module.named_parameters(recurse=False),
                *module.named_buffers(recurse=False),
            ):
                if name == "running_var":
                    value.uniform_(0.5, 1.5, generator=generator)
                elif name == "running_mean" or (
                    name in ("bias", "layer_scale") and value.is_floating_point()
                ):
                    value.normal_(0, 0.3, generator=generator)
                elif name == "weight" and value.ndim == 1:
                    value.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# the command line in a process of its own; a shell that puts the tests into the background has
# Ctrl-C ignored
DPES = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom dpes.__main__ "
    "import main; raise SystemExit(main())",
]

# The same numbers every time: what fails is found by the one whose change it is. More are drawn by
# --hypothesis-profile=random. No deadlines: another program on the machine would make them fail.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None, max_examples=1000)
settings.load_profile("same")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Networks built without a seed are the same ones, whichever tests ran before."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Two threads of torch on a busy machine are several times slower than one, and other bits; so are
    those of the commands that tests start.
    """
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory):
    """Where baselines of the tests are trained to, once."""
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture
def own_weights(weights_folder, monkeypatch):
    """Baselines come from and go to the tests' own folder."""
    monkeypatch.setenv("DPES_DATA", weights_folder)


@pytest.fixture(scope="session")
def finished(weights_folder, tmp_path_factory, worker_id):
    """The smoke run, made once, by whichever worker comes first; each has a copy of its own."""
    from dpes.study import runs

    base = tmp_path_factory.getbasetemp()
    common = (base if worker_id == "master" else base.parent) / "finished"
    settings, folder = make_settings("smoke"), tmp_path_factory.mktemp("runs")
    with filelock.FileLock(f"{common}.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPES_DATA", str(common / "data"))
        runs.run(settings, common / "runs")
    for made, own in (("data", weights_folder), ("runs", folder)):
        shutil.copytree(common / made, own, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPES_DATA", weights_folder)
        return runs.run(settings, folder)  # reads it


@pytest.fixture
def rivals(finished):
    """Rivals with errors made up."""
    from dpes.study.rivals import frame

    rows = [
        finished.result["knee"] | {"solution": name, "error": 0.1 + k / 100}
        for k, name in enumerate(("l1", "random0", "random1"))
    ]
    done = {row["solution"]: row for row in rows}
    return frame(finished, done)


@pytest.fixture
def other(finished):
    """The same run under the name of another network."""
    return dataclasses.replace(
        finished, settings=dataclasses.replace(finished.settings, model="resnet20")
    )
