"""One changed byte in any file that matters is noticed when the file is read, or changes nothing."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import shake
from test_data_cases import X, model, prune

import dpes
from dpes import make_settings
from dpes.disk import read_json, write_json
from dpes.errors import DpesError, RunError
from dpes.strategy.es import State
from dpes.strategy.history import History, read_history
from dpes.strategy.loop import Task, search
from dpes.study import baseline, data, rivals, runs, train
from dpes.study.finished import open_run

pytestmark = pytest.mark.usefixtures("own_weights")
DATA = Path(__file__).parents[1] / "data"


def flipped(file, read, draws=40, seed=0):
    """Flip bits of bytes drawn at random, one at a time: refused in one line, or the same result.

    Returns how many were refused."""
    whole, before, draw, refused = file.read_bytes(), read(), random.Random(seed), 0
    for place in [0, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(draws))]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        try:
            assert repr(read()) == repr(before), f"byte {place} of {file.name}"
        except DpesError as error:
            assert "\n" not in str(error) and file.name in str(error)
            refused += 1
    file.write_bytes(whole)
    return refused


@pytest.fixture
def copied(finished, tmp_path):
    path = tmp_path / finished.path.name
    shutil.copytree(finished.path, path)
    return path


@pytest.mark.parametrize("name", ["settings.json", "result.json", "env.json"])
def test_files_of_a_run(name, copied):
    def read():
        run = open_run(copied)
        return run.settings, run.result, run.env

    assert flipped(copied / name, read) == 42


def test_histories(copied):
    file = copied / "history.jsonl"
    assert flipped(file, lambda: open_run(copied).history.to_json(), 80) == 82
    timing = copied / "timing.jsonl"
    flipped(timing, lambda: read_history(file, mend=False), 80)


def test_states(copied):
    file = copied / "state.npz"

    def read():
        state = State.load(file)
        return state.generation, state.parents.tobytes(), state.F.tobytes()

    assert flipped(file, read, 80) > 40  # others are dates and names inside the archive


def test_slim_files(copied, finished):
    file = copied / "knee.safetensors"

    def read():
        network = dpes.load(file, finished.full)
        return hashlib.sha256(
            b"".join(t.numpy().tobytes() for t in network.state_dict().values())
        ).hexdigest()

    assert flipped(file, read, 30) == 32


def test_rivals(copied, finished):
    file = copied / "rivals.json"
    write_json(file, {"l1": finished.result["knee"]})
    assert flipped(file, lambda: rivals.stored(file)) == 42


def test_trained_networks(finished, weights_folder, tmp_path, monkeypatch):
    shutil.copytree(Path(weights_folder) / "weights", tmp_path / "weights")
    monkeypatch.setenv("DPES_DATA", str(tmp_path))
    dataset, name = data.load("digits"), finished.settings.baseline_id

    def read():
        network = baseline.load_baseline(finished.settings, dataset)
        return hashlib.sha256(baseline.weights_of(network)).hexdigest()

    assert flipped(tmp_path / "weights" / f"{name}.safetensors", read, 20) == 22
    beside = tmp_path / "weights" / f"{name}.json"

    def read_beside():
        try:
            return read()
        except RunError as error:  # it names the weights that it lies beside
            raise RunError(f"{error} {beside.name}") from None

    assert flipped(beside, read_beside, 20) == 22


def test_checkpoints_of_a_training(tmp_path):
    file, digits = tmp_path / "net.training", data.load("digits")
    recipe = make_settings("smoke", finetune_images=64).finetune
    net = shake(dpes.study.models.build("vgg-tiny", channels=1))
    train.fit(net, digits, recipe, 0, checkpoint=file)

    def read():
        again = dpes.study.models.build("vgg-tiny", channels=1)
        train.fit(again, digits, recipe, 0, checkpoint=file)
        return again.state_dict()[next(iter(again.state_dict()))]

    assert flipped(file, read, 20) == 22


def test_a_folder_of_prune(tmp_path):
    prune(folder=tmp_path)

    def read():
        return prune(folder=tmp_path).history.to_json()

    for name in ("settings.json", "history.jsonl"):
        assert flipped(tmp_path / name, read, 6) >= 7
    flipped(tmp_path / "state.npz", read, 6)


def test_weights_that_are_not_finite_are_refused(tmp_path, finished, weights_folder, monkeypatch):
    net = model()
    layout = dpes.trace(net, X[:1])
    genome = np.ones(layout.n_bits, dtype=bool)
    net.head.weight.data[:] = torch.nan
    dpes.save(tmp_path / "s.safetensors", net, layout, genome)
    with pytest.raises(DpesError, match="head.weight has values that are not finite"):
        dpes.load(tmp_path / "s.safetensors", model())


# ---- histories that go on ------------------------------------------------------------------------
def edited(line, **changes):
    return (json.dumps(json.loads(line) | changes) + "\n").encode()


EDITS = {
    "macs": (lambda lines: [*lines[:3], edited(lines[3], macs=1), *lines[4:]], "has macs 1 in"),
    "params": (lambda lines: [*lines[:8], edited(lines[8], params=1)], "has params 1 in"),
    "genome": (lambda lines: [*lines[:2], edited(lines[2], genome="fe" + "ff" * 27), *lines[3:]], "has genome"),
    "error": (lambda lines: [lines[0], *(edited(line, error=0.0) for line in lines[1:])], "."),
    "swapped": (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], "index 2 in place of"),
    "missing": (lambda lines: lines[:4] + lines[5:], "in place of generation 1, index 3"),
    "of another place": (lambda lines: [*lines[:8], edited(lines[8], index=7)], "in place of"),
}  # fmt: skip


@pytest.mark.parametrize("what", EDITS)
@pytest.mark.parametrize("checked", [True, False])
def test_an_edited_history_is_refused(what, checked, copied, finished):
    """With checksums, and without them, as in older folders: bits and MACs can be computed again."""
    for name in ("result.json", *(() if checked else ("timing.jsonl",))):
        (copied / name).unlink()
    file = copied / "history.jsonl"
    change, words = EDITS[what]
    file.write_bytes(b"".join(change(file.read_bytes().splitlines(keepends=True))))
    before = file.read_bytes()
    with pytest.raises(RunError, match="checksum|in place of" if checked else words):
        runs.run(finished.settings, copied.parent)
    assert file.read_bytes() == before


def test_published_searches_follow_from_their_seeds():
    """Genomes and MACs of the published histories are those that the strategy draws today."""
    for path in sorted((DATA / "runs").iterdir()):
        run = open_run(path)
        task = Task(run.layout, lambda genomes: iter(()), run.settings.search, run.settings.seed)
        history = History(read_history(path / "history.jsonl", mend=False))
        state = search(task, history, State.load(path / "state.npz"))
        assert [
            np.array_equal(g, run.genome(r))
            for g, r in zip(state.parents, dpes.strategy.ROLES, strict=True)
        ] == [True] * 3


# ---- what is published ---------------------------------------------------------------------------
def test_published_files_are_listed_with_their_checksums():
    listed = dict(reversed(x.split("  ")) for x in (DATA / "SHA256SUMS").read_text().splitlines())
    for name, value in listed.items():
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == value, name
    done = subprocess.run(["git", "ls-files", "."], cwd=DATA, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not in a checkout")
    names = {n for n in done.stdout.split() if n.startswith(("runs/", "baselines/", "arena/"))}
    names = {n for n in names if not n.endswith("timing.jsonl")}
    assert names <= {*listed} | {n for n in names if b'"checksum"' in (DATA / n).read_bytes()[:20]}


def test_a_listed_file_that_differs_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    file = tmp_path / "run" / "old.json"
    file.write_text('{"a": 1}')
    total = hashlib.sha256(file.read_bytes()).hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{total}  run/old.json\n")
    assert read_json(file) == {"a": 1}
    file.write_text('{"a": 2}')
    with pytest.raises(RunError, match="damaged .not as in .*SHA256SUMS"):
        read_json(file)
    write_json(file, {"a": 2})  # made again since
    assert read_json(file) == {"a": 2}
