"""ONNX files: one file, any batch size, the outputs of torch, and comparisons of size and speed."""

from __future__ import annotations

import copy
import importlib.util

import numpy as np
import pytest
import torch

from dpes import slim, trace
from dpes.__main__ import main
from dpes.errors import MissingPackage
from dpes.study import exporting, models

X = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def pair():
    """A network and its slim half."""
    model = models.build("vgg-tiny", channels=1).eval()
    layout = trace(model, X[:1])
    return model, slim(model, layout, np.arange(layout.n_bits) % 2 == 0)


def test_one_file_any_batch_same_outputs(pair, tmp_path):
    path = exporting.export(pair[1], X[:1], tmp_path / "small.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnx"]
    assert exporting.check(path, pair[1], X) <= 1e-5
    (out,) = exporting.session(path).run(None, {"x": np.zeros((7, 1, 32, 32), np.float32)})
    assert out.shape == (7, 10)


def test_a_file_of_another_network_is_refused(pair, tmp_path):
    path = exporting.export(pair[1], X, tmp_path / "small.onnx")
    other = models.build("vgg-tiny", channels=1, seed=5).eval()
    with pytest.raises(exporting.ExportError, match="onnxruntime differs from torch"):
        exporting.check(path, other, X)


def test_not_a_number_is_never_agreement(pair, tmp_path):
    broken = copy.deepcopy(pair[1])
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    path = exporting.export(broken, X, tmp_path / "broken.onnx")
    with pytest.raises(exporting.ExportError, match="differs from torch by nan"):
        exporting.check(path, broken, X)


class TurnsWithItsInput(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


def test_what_cannot_be_written_or_read_is_said_in_one_line(pair, tmp_path):
    with pytest.raises(
        exporting.ExportError, match="^TurnsWithItsInput: cannot be written as ONNX"
    ) as caught:
        exporting.export(TurnsWithItsInput(4, 3), torch.randn(2, 4), tmp_path / "x.onnx")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
    (tmp_path / "damaged.onnx").write_text("not a network")
    for name in ("damaged.onnx", "missing.onnx"):
        with pytest.raises(exporting.ExportError, match=f"{name}: not an ONNX file") as caught:
            exporting.check(tmp_path / name, pair[0], X)
        assert "\n" not in str(caught.value)


def test_comparison_measures_size_and_ratio(pair, tmp_path):
    paths = {
        name: exporting.export(net, X, tmp_path / f"{name}.onnx")
        for name, net in zip(("full", "small"), pair, strict=True)
    }
    table = exporting.compare(
        paths, dict(zip(("full", "small"), pair, strict=True)), "full", X, rounds=5
    )
    assert table["full"]["ratio"] == table["full"]["torch_ratio"] == 1.0
    assert table["small"]["bytes"] < table["full"]["bytes"] == paths["full"].stat().st_size
    for runtime in ("", "torch_"):
        low, ratio, high, seconds = (
            table["small"][runtime + key] for key in ("low", "ratio", "high", "seconds")
        )
        assert low <= ratio <= high and seconds > 0


def test_missing_packages_are_named(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"onnx is not installed: pip install 'dpes\[study\]'"):
        exporting.export(pair[0], X, tmp_path / "x.onnx")


@pytest.mark.usefixtures("own_weights")
def test_command(finished, tmp_path, capsys):
    assert main(["export", str(finished.path), "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "baseline.onnx",
        "heavy.onnx",
        "knee.onnx",
        "light.onnx",
    ]
    assert (
        all(role in out for role in ("baseline", "heavy", "knee", "light")) and "differs by" in out
    )
    assert main(["export", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
