"""Networks: sizes against published figures, seeds, and checkpoints that compute what their
author's network computes.
"""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dpes.errors import SettingsError
from dpes.study import data, models
from dpes.study.models.densenet import DenseNet
from dpes.study.models.resnet import ResNet

MACS = {  # by hand and by torch's own counter; DenseNet-100 and -50 have no figure to compare with
    "vgg16": 313_201_664,
    "resnet20": 40_551_040 + 262_144,  # the second term: two projection shortcuts
    "resnet56": 125_485_696 + 262_144,
    "resnet110": 252_887_680 + 262_144,
    "densenet22": 72_906_000,
    "densenet40": 282_917_328,
}


def macs(model: nn.Module, channels: int = 3) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, channels, 32, 32))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("name", MACS)
def test_macs_of_the_literature(name):
    assert macs(models.build(name)) == MACS[name]


def test_densenet_stem_and_known_parameter_count():
    assert macs(models.build("densenet40", stem=16)) == 264_812_928
    # 0.8 M in table 2 of Huang et al. 2017; the exact count follows from the same layers.
    assert sum(p.numel() for p in models.build("densenet100").parameters()) == 769_162


@pytest.mark.parametrize(("name", "filters"), [("vgg16", 4224), ("vgg19", 5504)])
def test_vgg_filters(name, filters):
    assert (
        sum(m.out_channels for m in models.build(name).modules() if isinstance(m, nn.Conv2d))
        == filters
    )


@pytest.mark.parametrize("name", [n for n in models.MODELS if n not in ("vgg19", "resnet110")])
def test_every_network_takes_other_channels_and_classes_and_can_be_traced(name):
    model = models.build(name, n_classes=7, channels=1).eval()
    x = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        y = model(x)
        assert y.shape == (2, 7)
        torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), y)


def test_layer_names_follow_the_convention_of_residual_networks():
    names = dict(models.build("resnet20").named_modules())
    assert {"conv1", "bn1", "layer1.0.conv1", "layer2.0.shortcut.1", "layer3.2.bn2", "fc"} <= set(
        names
    )
    assert not [n for n in names if n.startswith("layer1.0.shortcut.")]


def test_seed_decides_the_weights_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    a, b, c = (models.build("resnet8", seed=s).state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a[k], b[k]) for k in a)
    for key in ("conv1.weight", "fc.weight"):
        assert not torch.equal(a[key], c[key])


def test_mistakes_name_the_cure():
    with pytest.raises(models.ModelError, match="did you mean 'resnet56'"):
        models.build("resnet-56")
    with pytest.raises(models.ModelError, match="did you mean 'akamaster'"):
        models.load_weights("resnet56", "akamastr")
    with pytest.raises(models.ModelError, match="choose from resnet20, resnet56"):
        models.load_weights("vgg16", "akamaster")
    with pytest.raises(SettingsError, match="6 n \\+ 2"):
        ResNet(21)
    with pytest.raises(SettingsError, match="6 n \\+ 4"):
        DenseNet(50, bottleneck=True)


class PaddedBlock(nn.Module):
    def __init__(self, inputs, filters, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.stride, self.extra = stride, filters - inputs

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        side = self.extra // 2
        return F.relu(y + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, side, side)))


class PaddedResNet(nn.Module):
    """The reference: shortcuts without parameters (option A of He et al. 2016), the classifier
    called ``linear``.
    """

    def __init__(self, depth):
        super().__init__()
        n = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [16] * (n + 1) + [32] * n + [64] * n
        blocks = [
            PaddedBlock(i, o, 1 if i == o else 2) for i, o in zip(widths, widths[1:], strict=False)
        ]
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*blocks[k * n : k * n + n]) for k in range(3)
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def shake(model: nn.Module, seed: int = 0) -> None:
    """Running statistics and affine weights that are not the identity."""
    generator = torch.Generator().manual_seed(seed)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            for t in (m.weight.data, m.running_var):
                t.copy_(torch.rand(t.shape, generator=generator) + 0.5)
            for t in (m.bias.data, m.running_mean):
                t.copy_(torch.randn(t.shape, generator=generator) / 4)


def publish(folder, monkeypatch, model, name="resnet20") -> None:
    """Writes ``model`` as a checkpoint like the published one and lets the registry expect it."""
    weights = models.WEIGHTS["akamaster"][name]
    state = {
        f"module.{k}": v
        for k, v in model.state_dict().items()
        if not k.endswith("num_batches_tracked")
    }
    torch.save({"state_dict": state, "best_prec1": 1.0}, folder / weights.file)
    digest = hashlib.sha256((folder / weights.file).read_bytes()).hexdigest()
    monkeypatch.setitem(
        models.WEIGHTS["akamaster"], name, dataclasses.replace(weights, sha256=digest)
    )


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    reference = PaddedResNet(20)
    shake(reference)
    publish(tmp_path, monkeypatch, reference)
    return reference, tmp_path


@pytest.mark.parametrize("training", [False, True])
def test_converted_shortcuts_compute_the_same_in_evaluation_and_in_training_mode(
    checkpoint, training
):
    reference, folder = checkpoint
    model = models.load_weights("resnet20", "akamaster", folder=folder)
    assert not model.training
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference.train(training)(x)
        # Summation order is all that differs.
        torch.testing.assert_close(model.train(training)(x), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 1e-3


def test_a_network_built_for_the_weights_takes_their_state(checkpoint):
    state = models.load_weights("resnet20", "akamaster", folder=checkpoint[1]).state_dict()
    models.build("resnet20", source="akamaster").load_state_dict(state)
    with pytest.raises(RuntimeError, match="shortcut.1"):
        models.build("resnet20").load_state_dict(state)


def test_other_number_of_classes_is_refused(checkpoint):
    with pytest.raises(models.ModelError, match="fc.weight.*cifar10"):
        models.load_weights("resnet20", "akamaster", n_classes=100, folder=checkpoint[1])


def test_damaged_weights_are_refused_by_name(tmp_path):
    file = tmp_path / models.WEIGHTS["akamaster"]["resnet20"].file
    file.write_bytes(b"half a file")
    with pytest.raises(models.ModelError, match=f"{file.name} is damaged.*delete it"):
        models.load_weights("resnet20", "akamaster", folder=tmp_path)


def test_weights_are_downloaded_once_and_a_failure_says_where_they_belong(
    checkpoint, tmp_path, monkeypatch
):
    source = tmp_path / models.WEIGHTS["akamaster"]["resnet20"].file
    weights = dataclasses.replace(models.WEIGHTS["akamaster"]["resnet20"], url=source.as_uri())
    monkeypatch.setitem(models.WEIGHTS["akamaster"], "resnet20", weights)
    target = tmp_path / "new"
    models.load_weights("resnet20", "akamaster", folder=target)
    assert [p.name for p in target.iterdir()] == [source.name]
    source.unlink()
    models.load_weights("resnet20", "akamaster", folder=target)
    with pytest.raises(
        models.ModelError, match=f"could not be downloaded.*into {tmp_path / 'empty'}"
    ):
        models.load_weights("resnet20", "akamaster", folder=tmp_path / "empty")
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.cifar
@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_published_weights_equal_the_reference(name):
    weights = models.WEIGHTS["akamaster"][name]
    path = next(
        (
            f / "weights" / weights.file
            for f in data.folders()
            if (f / "weights" / weights.file).exists()
        ),
        None,
    )
    if path is None:
        pytest.skip(f"{weights.file} is in no data folder")
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    reference = PaddedResNet(int(name[6:])).eval()
    result = reference.load_state_dict(
        {k.removeprefix("module."): v for k, v in state.items()}, strict=False
    )
    assert not result.unexpected_keys and all(
        k.endswith("num_batches_tracked") for k in result.missing_keys
    )
    x = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            models.load_weights(name, "akamaster")(x), reference(x), atol=1e-5, rtol=1e-5
        )
