"""Files of slim networks: they last, and a wrong one is refused by name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_genome, shake
from safetensors.torch import load_file, save_file

from dpes import load, save, slim, trace
from dpes.coupling.genome import from_hex, to_hex
from dpes.coupling.slimfile import FileError, read_header
from dpes.disk import digest
from dpes.study import models

X = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def saved(tmp_path, rng):
    """(path, slim network) of half a ResNet-8."""
    model = shake(models.build("resnet8", channels=1))
    layout = trace(model, X[:1])
    genome = random_genome(layout, rng)
    small = slim(model, layout, genome)
    save(tmp_path / "small.safetensors", small, layout, genome, model="resnet8", error=0.25)
    return tmp_path / "small.safetensors", small


def refused(path, model):
    with pytest.raises(FileError) as caught:
        load(path, model)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def test_round_trip_into_a_model_of_other_weights(saved):
    path, small = saved
    again = load(path, models.build("resnet8", channels=1, seed=9))
    with torch.no_grad():
        assert torch.equal(again(X), small(X))
    header = read_header(path)
    assert (
        header["model"] == "resnet8"
        and header["metrics"] == {"error": 0.25}
        and header["input"] == [1, 32, 32]
    )


def test_loads_in_a_fresh_process(saved):
    path, small = saved
    code = (
        "import sys, torch; from dpes import load; from dpes.study import models\n"
        "x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))\n"
        "torch.set_num_threads(1)\n"
        "print(load(sys.argv[1], models.build('resnet8', "
        "channels=1)).double()(x.double()).sum().item())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == pytest.approx(small.double()(X.double()).sum().item(), rel=1e-12)


def test_saving_twice_gives_the_same_bytes(saved, tmp_path):
    path, small = saved
    layout = trace(models.build("resnet8", channels=1), X[:1])
    genome = from_hex(read_header(path)["genome"], layout.n_bits)
    save(tmp_path / "again.safetensors", small, layout, genome, model="resnet8", error=0.25)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_other_architectures_are_refused_by_their_first_difference(saved):
    path, _ = saved
    assert "group 0 is conv1 with 16 filters there, features.0 with 8 here" in refused(
        path, models.build("vgg-tiny", channels=1)
    )
    assert "6 coupled groups; this ResNet has 12" not in refused(
        path, models.build("resnet20", channels=1)
    )
    wide = models.build("resnet8", channels=1, width=24)
    assert "group 0 is conv1 with 16 filters there, conv1 with 24 here" in refused(path, wide)
    other = models.build("resnet8", channels=1, n_classes=7)
    assert "fc.weight is [10, " in refused(path, other)


def test_damaged_missing_and_foreign_files_are_refused(saved, tmp_path):
    path, _ = saved
    model = models.build("resnet8", channels=1)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\xff" * 100, whole[8:]):
        path.write_bytes(damaged)
        assert "damaged" in refused(path, model)
    assert "no such file" in refused(tmp_path / "nothing.safetensors", model)
    save_file({"x": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    assert "not a slim network of dpes" in refused(tmp_path / "foreign.safetensors", model)


@pytest.mark.parametrize("change, words", [
    (lambda h: "{", "its header is no JSON object"),
    (lambda h: "[]", "its header is no JSON object"),
    (lambda h: {k: v for k, v in h.items() if k != "genome"}, "no 'genome' in its header"),
    (lambda h: {k: v for k, v in h.items() if k != "input"}, "no 'input' in its header"),
    (lambda h: h | {"genome": "zz" + h["genome"][2:]}, "damaged (its genome: "),
    (lambda h: h | {"genome": h["genome"][:-2]}, "damaged (its genome: "),
    (lambda h: h | {"format": "dpes slim network 9"}, "of another version (dpes slim network 9)"),
    (lambda h: h | {"groups": h["groups"][:-1]}, "with 5 coupled groups; this ResNet has 6"),
])  # fmt: skip
def test_damaged_headers_are_refused(change, words, saved):
    path, _ = saved
    header = change(read_header(path))
    save_file(
        load_file(path),
        path,
        metadata={"dpes": header if isinstance(header, str) else json.dumps(header)},
    )
    assert words in refused(path, models.build("resnet8", channels=1))


HOSTILE = {
    "input": [
        [1, 20000, 20000],
        [],
        [0, 4, 4],
        [-1, 4, 4],
        [1.5, 2, 2],
        "32",
        None,
        [[1]],
        {},
        [1] * 40,
    ],
    "genome": [5, None, ["ff"], {}],
    "groups": [5, None, [[1, 2]], [["a", "b"]], [["a"]], {"a": 1}, "a"],
    "model": [5, {}],
    "metrics": [5, [1], "x"],
    "keep": [5, "conv1", [1], {}],
    "integers": [1, "yes"],
    "format": [5, [], {}],
}


@pytest.mark.parametrize("entry", HOSTILE)
@pytest.mark.parametrize("sealed", [True, False])
def test_hostile_headers_are_refused_in_one_line(entry, sealed, saved):
    """Also with a checksum that fits: whoever makes the file can make that, too."""
    path, _ = saved
    whole, tensors = read_header(path), load_file(path)
    for value in HOSTILE[entry]:
        header = whole | {entry: value}
        if sealed:
            header["sha256"] = digest(tensors, json.dumps(header))
        save_file(tensors, path, metadata={"dpes": json.dumps(header)})
        refused(path, models.build("resnet8", channels=1))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "1" * 5000, "\x00", "nan"])
def test_headers_that_are_no_headers_are_refused(text, saved):
    path, _ = saved
    save_file(load_file(path), path, metadata={"dpes": text})
    refused(path, models.build("resnet8", channels=1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_saved_and_loaded(dtype, saved, tmp_path):
    model = shake(models.build("resnet8", channels=1)).to(dtype)
    layout = trace(model, X[:1].to(dtype))
    genome = random_genome(layout, np.random.default_rng(0))
    small = slim(model, layout, genome)
    save(tmp_path / "s.safetensors", small, layout, genome)
    again = load(tmp_path / "s.safetensors", models.build("resnet8", channels=1).to(dtype))
    assert all(map(torch.equal, small.state_dict().values(), again.state_dict().values()))


def test_wrappers_are_taken_off(saved, tmp_path):
    _, small = saved
    model = models.build("resnet8", channels=1)
    layout = trace(model, X[:1])
    genome = from_hex(read_header(saved[0])["genome"], layout.n_bits)
    for wrap in (torch.nn.DataParallel, torch.compile):
        save(tmp_path / "s.safetensors", wrap(small), layout, genome)
        again = load(tmp_path / "s.safetensors", wrap(model))
        assert all(map(torch.equal, small.state_dict().values(), again.state_dict().values()))


def test_a_missing_tensor_is_named(saved):
    path, _ = saved
    header, tensors = read_header(path), load_file(path)
    del tensors["fc.weight"]
    save_file(tensors, path, metadata={"dpes": json.dumps(header)})
    assert "has no tensor 'fc.weight'" in refused(path, models.build("resnet8", channels=1))


def test_files_are_as_readable_as_any_other(saved, tmp_path):
    """safetensors' own files are for their owner alone: a colleague on a cluster could list a run
    and not load it.
    """
    (tmp_path / "any").touch()
    assert os.stat(saved[0]).st_mode == os.stat(tmp_path / "any").st_mode


def test_genomes_as_text():
    for n in (1, 7, 8, 9, 224):
        genome = np.random.default_rng(n).random(n) < 0.5
        assert np.array_equal(from_hex(to_hex(genome), n), genome)
    with pytest.raises(ValueError, match="8 bits, not 9"):
        from_hex("ff", 9)


def test_no_file_is_pickled_or_unpickled():
    """torch.load only with weights_only, numpy never with allow_pickle; ``cluster`` pickles in
    memory, what it sends to workers, ``workers`` in a folder of its own that lasts as long as they.
    """
    for path in (Path(__file__).parents[1] / "dpes").rglob("*.py"):
        text = path.read_text()
        if path.name == "workers.py":
            text = text.replace("torch.save((build, arguments), path)", "", 1)
            text = text.replace(
                'torch.load(sent, map_location="cpu", mmap=True, weights_only=False)', "", 1
            )
        assert path.name == "cluster.py" or not re.search(r"import (c?pickle|dill|joblib)", text), (
            path
        )
        assert not re.search(r"torch\.save\(|allow_pickle=True|pickle\.(load|dump)\(", text), path
        assert all(
            "weights_only=True" in call for call in re.findall(r"torch\.load\([^\n]*", text)
        ), path
