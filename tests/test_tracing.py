"""Coupling: what trace finds, and that a slim network computes what a masked one computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import random_genome, shake
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dpes.coupling.cutting import mask, slim
from dpes.coupling.layout import GenomeError
from dpes.coupling.tracing import UnsupportedModel, macs, trace
from dpes.study import models

X = torch.zeros(1, 3, 32, 32)

KNOWN = {  # bits, MACs; computed twice: by hooks and by FlopCounterMode / 2
    "vgg16": (4224, 313_201_664),
    "vgg19": (5504, None),
    "resnet20": (None, 40_551_040 + 262_144),
    "resnet56": (1120, 125_485_696 + 262_144),
    "resnet110": (2128, 252_887_680 + 262_144),
    "densenet22": (None, 72_906_000),
    "densenet40": (None, 282_917_328),
}


@pytest.mark.parametrize("name", KNOWN)
def test_bits_and_macs_of_the_study(name):
    layout = trace(models.build(name), X)
    bits, known = KNOWN[name]
    whole = np.ones(layout.n_bits, dtype=bool)
    assert bits is None or layout.n_bits == bits
    assert known is None or layout.macs(whole) == known


def test_resnet56_without_projections_costs_the_published_macs():
    """The two 1x1 projections cost 262,144 MACs; padded shortcuts are free."""
    layout = trace(models.build("resnet56"), X)
    free = sum(
        w.factor * len(w.out_bits) * len(w.in_bits)
        for w in layout.calls
        if "shortcut" not in w.module
    )
    assert free == 125_485_696


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_slim_equals_mask_on_fifty_genomes(name, rng):
    """float64, where 1e-10 leaves no room for anything but rounding."""
    channels = 1 if name.endswith("tiny") else 3
    model = shake(models.build(name, channels=channels, seed=1)).double()
    layout = trace(model, torch.zeros(1, channels, 32, 32).double())
    x = torch.randn(1, channels, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    big = name in ("vgg19", "densenet50", "densenet100", "resnet110")
    with torch.no_grad():
        for _ in range(5 if big else 50):
            genome = random_genome(layout, rng)
            a, b = slim(model, layout, genome)(x), mask(model, layout, genome)(x)
            assert (a - b).abs().max() <= 1e-10 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("name", ["vgg16", "resnet56", "densenet40"])
def test_slim_equals_mask_in_float32(name, rng):
    model = shake(models.build(name, seed=1))
    layout = trace(model, X)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(10):
            genome = random_genome(layout, rng)
            a, b = slim(model, layout, genome)(x), mask(model, layout, genome)(x)
            assert (a - b).abs().max() <= 1e-4 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("name", ["vgg-narrow", "resnet20", "densenet16", "densenet50"])
def test_costs_equal_those_of_the_slim_network(name, rng):
    model = models.build(name)
    layout = trace(model, X)
    for _ in range(5):
        genome = random_genome(layout, rng)
        small = slim(model, layout, genome).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            small(X)
        assert layout.macs(genome) == counter.get_total_flops() / 2 == macs(small, X)
        assert layout.params(genome) == sum(p.numel() for p in small.parameters())


def test_widths_are_written_into_the_modules(rng):
    model = models.build("resnet8")
    layout = trace(model, X)
    small = slim(model, layout, random_genome(layout, rng))
    for module in small.modules():
        if isinstance(module, nn.Conv2d):
            assert tuple(module.weight.shape[:2]) == (module.out_channels, module.in_channels)
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_features == len(module.weight) == len(module.running_var)
        if isinstance(module, nn.Linear):
            assert tuple(module.weight.shape) == (module.out_features, module.in_features)


def test_slim_shares_no_memory_and_leaves_the_model_alone(rng):
    model = shake(models.build("resnet8"))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    layout = trace(model, X)
    small = slim(model, layout, np.ones(layout.n_bits, dtype=bool)).train()
    with torch.no_grad():
        for p in small.parameters():
            p.add_(1)
        small(torch.randn(4, 3, 32, 32))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_slim_trains():
    model = models.build("densenet10")
    layout = trace(model, X)
    genome = np.arange(layout.n_bits) % 2 == 0
    small = slim(model, layout, genome).train()
    small(torch.randn(4, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())


# ---- coupling, drawn by hand ----------------------------------------------------------------------------------------------------
class Net(nn.Module):
    """Layers by keyword and a forward as a function of them."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.rule = forward

    def forward(self, x):
        return self.rule(self, x)


def conv(i, o, k=3, **kw):
    return nn.Conv2d(i, o, k, padding=k // 2, **kw)


def groups(model, x=X):
    return [(g.members, g.size) for g in trace(model, x).groups]


def agree(model, x=None, draws=20):
    """slim equals mask, closed forms equal counts, on random genomes."""
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) if x is None else x
    model, x, rng = shake(model).double(), x.double(), np.random.default_rng(1)
    layout = trace(model, x)
    for _ in range(draws):
        genome = random_genome(layout, rng)
        small = slim(model, layout, genome)
        with torch.no_grad():
            a, b = small(x), mask(model, layout, genome)(x)
            with FlopCounterMode(display=False) as counter:
                small(x[:1])
        assert a.shape == b.shape and (a - b).abs().max() <= 1e-10 * max(1.0, float(b.abs().max()))
        assert layout.macs(genome) == counter.get_total_flops() / 2
        assert layout.params(genome) == sum(p.numel() for p in small.parameters())
    return layout


def head(n):
    return nn.Linear(n, 10)


def test_addition_unites():
    model = Net(
        lambda m, x: m.fc((m.a(x) + m.b(x)).mean((2, 3))),
        a=conv(3, 6), b=conv(3, 6), fc=head(6),
    )  # fmt: skip
    assert groups(model) == [(("a", "b"), 6)]
    agree(model)


def test_in_place_addition_and_relu_unite():
    def forward(m, x):
        y = m.a(x)
        y += m.b(x)
        return m.fc(F.adaptive_avg_pool2d(F.relu_(y), 1).flatten(1))

    model = Net(forward, a=conv(3, 6), b=conv(3, 6), fc=head(6))
    assert groups(model) == [(("a", "b"), 6)]
    agree(model)


def test_concatenation_strings_together_and_addition_splits_groups():
    """c's first four filters are a's, its last two are b's."""
    model = Net(
        lambda m, x: m.fc((torch.cat([m.a(x), m.b(x)], 1) + m.c(x)).mean((2, 3))),
        a=conv(3, 4), b=conv(3, 2), c=conv(3, 6), fc=head(6),
    )  # fmt: skip
    assert groups(model) == [(("a", "c"), 4), (("b", "c"), 2)]
    agree(model)


def test_flatten_owns_runs_of_columns():
    for flatten in (
        lambda x: torch.flatten(x, 1), lambda x: x.flatten(1), lambda x: x.view(x.size(0), -1), lambda x: x.reshape(x.shape[0], -1),
        lambda x: x.view(x.size(0), x.size(1) * x.size(2) * x.size(3)),
    ):  # fmt: skip
        model = Net(lambda m, x, f=flatten: m.fc(f(m.a(x))), a=conv(3, 5), fc=head(5 * 16 * 16))
        layout = agree(model, draws=5)
        assert layout.n_bits == 5


def test_flatten_module_and_several_linear_layers():
    model = nn.Sequential(
        conv(3, 4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 8 * 8, 7),
        nn.Sigmoid(),
        nn.Linear(7, 10),
    )
    assert [g.size for g in agree(model).groups] == [4, 7]


def test_written_widths_are_frozen():
    """view(-1, 512) would silently turn half the channels into half the images."""
    model = Net(
        lambda m, x: m.fc(m.b(m.a(x)).view(-1, 5 * 16 * 16)),
        a=conv(3, 4), b=conv(4, 5), fc=head(5 * 16 * 16),
    )  # fmt: skip
    layout = agree(model)
    assert [g.name for g in layout.groups] == ["a"] and "b" in str(layout)


@pytest.mark.parametrize("g, sizes", [(6, [6]), (3, [3]), (2, [3, 6])])
def test_channel_groups_of_a_convolution_leave_as_a_whole_or_all_lose_the_same(g, sizes):
    """Whichever leaves more to choose from: of two groups, each loses the same of its three inputs and six outputs."""
    model = Net(
        lambda m, x: m.fc(m.b(m.a(x)).mean((2, 3))),
        a=conv(3, 6),
        b=conv(6, 12, groups=g),
        fc=head(12),
    )
    assert [group.size for group in agree(model).groups] == sizes


def test_gate_and_shared_module():
    def gate(m, x):
        y = m.a(x)
        return m.fc(
            (y * torch.sigmoid(m.up(F.relu(m.down(y.mean((2, 3), keepdim=True)))))).mean((2, 3))
        )

    model = Net(gate, a=conv(3, 6), down=conv(6, 2, 1), up=conv(2, 6, 1), fc=head(6))
    assert groups(model) == [(("a", "up"), 6), (("down",), 2)]
    agree(model)
    shared = Net(
        lambda m, x: m.fc(m.b(F.relu(m.b(m.a(x)))).mean((2, 3))),
        a=conv(3, 6),
        b=conv(6, 6),
        fc=head(6),
    )
    assert groups(shared) == [(("a", "b"), 6)]
    agree(shared)


@pytest.mark.parametrize(
    "norm",
    [
        nn.GroupNorm(3, 6),
        nn.GroupNorm(6, 6),
        nn.InstanceNorm2d(6, affine=True),
        nn.BatchNorm2d(6),
        nn.PReLU(6),
    ],
)
def test_norms_that_can_be_sliced(norm):
    layout = agree(
        Net(lambda m, x: m.fc(m.n(m.a(x)).mean((2, 3))), a=conv(3, 6), n=norm, fc=head(6))
    )
    assert layout.n_bits == (3 if getattr(norm, "num_groups", 6) == 3 else 6)


@pytest.mark.parametrize(
    "wake",
    [
        lambda m, x: m.n(x), lambda m, x: F.softmax(x, 1), lambda m, x: x.mean(1, keepdim=True) + x, lambda m, x: torch.cumsum(x, 1),
        lambda m, x: x[:, [0, 1, 2, 3, 4, 5]], lambda m, x: F.pad(x, (0, 0, 0, 0, 1, 1))[:, 1:-1], lambda m, x: x / x.shape[1],
        lambda m, x: x.view(x.shape[0], 2, 3, x.shape[2], x.shape[3]).transpose(1, 2).reshape(x.shape),
        lambda m, x: x * torch.arange(6.0, dtype=torch.float64).view(1, 6, 1, 1), lambda m, x: torch.logcumsumexp(x, 1),
    ],
)  # fmt: skip
def test_what_cannot_be_sliced_is_frozen_not_wrong(wake):
    """An unknown operation keeps its channels; the filters before it are still prunable."""
    model = Net(
        lambda m, x: m.fc(F.relu(m.b(wake(m, m.a(F.relu(m.first(x)))))).mean((2, 3))),
        first=conv(3, 4), a=conv(4, 6), n=nn.GroupNorm(1, 6), b=conv(6, 3), fc=head(3),
    )  # fmt: skip
    layout = agree(model, draws=10)
    assert {"first", "b"} <= {g.name for g in layout.groups}
    assert "a" not in {g.name for g in layout.groups}


class Standardised(nn.Conv2d):
    """A convolution that computes its weights from others."""

    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias, 1, 1)


@pytest.mark.parametrize(
    "product, pruned",
    [
        (lambda m, x: F.conv2d(x, m.w.view(6, 6, 1, 1)), ["b"]),  # six by six is written into it
        (lambda m, x: torch.einsum("bchw,cd->bdhw", x, m.w), ["a", "w", "b"]),
        (lambda m, x: (x.permute(0, 2, 3, 1) @ m.w).permute(0, 3, 1, 2), ["a", "w", "b"]),
        (lambda m, x: m.transposed(x), ["a", "transposed", "b"]),
        (lambda m, x: m.standardised(x), ["standardised", "b"]),  # its mean runs over the inputs
    ],
)
def test_products_of_other_kinds_are_cut_and_counted(product, pruned):
    """``agree`` compares with FlopCounterMode."""
    model = Net(
        lambda m, x: m.fc(F.relu(m.b(product(m, m.a(x)))).mean((2, 3))),
        a=conv(3, 6), b=conv(6, 3), fc=head(3), transposed=nn.ConvTranspose2d(6, 6, 3, 1, 1), standardised=Standardised(6, 6, 3),
    )  # fmt: skip
    model.w = nn.Parameter(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))
    assert [g.name for g in agree(model, draws=5).groups] == pruned


@pytest.mark.parametrize(
    "read, pruned",
    [
        (lambda m, x: m.c(x) * m.c.weight.norm(), ["b", "last"]),
        (lambda m, x: m.c(x) / m.c.weight.size(0), ["a", "b", "last"]),
        (lambda m, x: F.conv2d(m.d(m.c(x)), m.c.weight, padding=1), ["a", "c", "b", "last"]),
        (
            lambda m, x: F.batch_norm(m.c(x), m.n.running_mean, m.n.running_var) + m.n(m.c(x)),
            ["a", "c", "b", "last"],
        ),
        (lambda m, x: m.c(x) + m.last.bias, ["a", "c", "b"]),  # along the pixels; owned only later
    ],
)
def test_a_parameter_that_forward_reads_by_itself_is_cut_only_where_that_is_right(read, pruned):
    model = Net(
        lambda m, x: m.fc(F.relu(m.b(read(m, m.a(x)))).mean((2, 3))) + m.end(m.last(x.mean((2, 3)))),
        a=conv(3, 6), c=conv(6, 6), d=conv(6, 6), n=nn.BatchNorm2d(6), b=conv(6, 3), fc=head(3), last=nn.Linear(3, 16), end=head(16),
    )  # fmt: skip
    layout = agree(model, draws=10)
    assert [g.name for g in layout.groups] == pruned


def test_channels_last_linear_layers_and_layer_scale():
    """The inside of a ConvNeXt block: hidden units are prunable, the normalised stream is not."""

    def forward(m, x):
        x = m.stem(x)
        y = m.down(F.gelu(m.up(m.n(m.dw(x).permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)
        return m.fc((x + m.layer_scale * y).mean((2, 3)))

    model = Net(
        forward,
        stem=conv(3, 4),
        dw=conv(4, 4, groups=4),
        n=nn.LayerNorm(4),
        up=nn.Linear(4, 8),
        down=nn.Linear(8, 4),
        fc=head(4),
    )
    model.layer_scale = nn.Parameter(torch.ones(4, 1, 1))
    layout = agree(model)
    assert [(g.members, g.size) for g in layout.groups] == [(("up",), 8)]


def test_padded_shortcuts_freeze_what_they_reach():
    def forward(m, x):
        x = m.stem(x)
        y = m.b(F.relu(m.a(x)))
        return m.fc((y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))).mean((2, 3)))

    model = Net(forward, stem=conv(3, 4), a=nn.Conv2d(4, 5, 3, 2, 1), b=conv(5, 8), fc=head(8))
    layout = agree(model)
    assert [g.name for g in layout.groups] == ["stem", "a"]


def test_pixels_strung_together():
    for flatten in (
        lambda x: x.flatten(2),
        lambda x: torch.flatten(x, start_dim=2),
        lambda x: x.flatten(2).unsqueeze(-1).squeeze(3),
    ):
        model = Net(lambda m, x, f=flatten: m.fc(f(m.a(x)).mean(2)), a=conv(3, 5), fc=head(5))
        assert agree(model, draws=5).n_bits == 5


def test_what_a_hook_does_is_followed():
    """This one takes a softmax over all channels of its layer."""
    model = Net(
        lambda m, x: m.fc(m.b(m.a(m.first(x))).mean((2, 3))),
        first=conv(3, 3),
        a=conv(3, 4),
        b=conv(4, 5),
        fc=head(5),
    )
    model.b.register_forward_hook(lambda layer, inputs, output: output.softmax(1))
    assert [g.name for g in agree(model, draws=5).groups] == ["first", "a"]


def test_operations_with_a_second_tensor():
    model = Net(
        lambda m, x: m.fc(torch.pow(m.a(m.first(x)).abs(), m.power).mean((2, 3))), first=conv(3, 3), a=conv(3, 4), fc=head(4)
    )  # fmt: skip
    model.power = nn.Parameter(torch.ones(4, 1, 1))
    assert [g.name for g in agree(model, draws=5).groups] == ["first", "a"]


def test_unpruned_genome_changes_nothing():
    model = shake(models.build("densenet10"))
    layout = trace(model, X)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(slim(model, layout, np.ones(layout.n_bits, dtype=bool))(x), model(x))


@pytest.mark.parametrize("name", ["vgg-tiny", "resnet8", "densenet10"])
def test_images_and_weights_may_lie_channels_last(name):
    model = models.build(name)
    plain = trace(model, X)
    other = trace(
        model.to(memory_format=torch.channels_last), X.to(memory_format=torch.channels_last)
    )
    assert other.groups == plain.groups and other.kept == plain.kept


def test_trace_restores_training_modes():
    model = models.build("resnet8").train()
    model.bn1.eval()
    trace(model, X)
    assert model.training and not model.bn1.training


def test_printed_layout_teaches_the_coupling():
    text = str(trace(models.build("resnet8"), X))
    assert "224 bits in 6 coupled groups" in text
    assert "conv1, layer1.0.conv2" in text and "reaches the output" in text


# ---- refusals -------------------------------------------------------------------------------------------------------------------
def refusal(model, x=X):
    with pytest.raises(UnsupportedModel) as caught:
        trace(model, x)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refusals_name_node_and_reason():
    assert "argument: 'y'" in refusal(TwoInputs())
    assert "Net: the example does not run" in refusal(
        Net(lambda m, x: m.b(m.a(x)), a=conv(3, 4), b=conv(5, 4))
    )
    assert "reaches the output" in refusal(Net(lambda m, x: m.a(x), a=conv(3, 4)))
    assert "torch.nn.Module" in refusal(lambda x: x)
    assert "example batch" in refusal(models.build("resnet8"), torch.zeros(3))


COMPUTED = {  # what forward does with a width, and with copies of it
    "divides": lambda m, x: x / m.a.out_channels,
    "makes a constant": lambda m, x: x * torch.full((1,), float(m.a.out_channels)),
    "asks whether two differ": lambda m, x: x.relu() if m.a.in_channels != m.a.out_channels else x,
    "asks whether two are equal": lambda m, x: (
        x.relu() if m.b.in_channels == m.b.out_channels else x
    ),
    "asks whether it is large": lambda m, x: x.relu() if m.a.out_channels > 4 else x,
    "cannot do without": lambda m, x: [x.relu()][m.a.out_channels - 8],
}
HARMLESS = {
    "a constant": lambda m, x: x * torch.tensor([0.5]),
    "a number of its own": lambda m, x: x / m.width,
    "the shape": lambda m, x: x * x.shape[2],
}


class Widths(nn.Module):
    """Two layers and in between something computed."""

    def __init__(self, between):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3), nn.Linear(8, 5)
        self.between, self.width = between, 8

    def forward(self, x):
        return self.fc(self.b(self.between(self, self.a(x))).mean((2, 3)))


@pytest.mark.parametrize("between", COMPUTED.values(), ids=COMPUTED)
def test_a_width_that_forward_computes_with_is_kept(between):
    """Even where it only asks whether it is three, which few of the genomes that are tried would show."""
    model = Widths(between)
    try:
        layout = trace(model, X)
        assert [g.name for g in layout.groups] == ["b"]
        assert any(
            why in str(layout)
            for why in ("computes with a.out_channels", "computes something else")
        )
    except UnsupportedModel as error:  # noqa: PT017 - the other outcome that is right
        assert "forward computes with" in str(error)
    assert (model.a.out_channels, model.b.in_channels, model.fc.in_features) == (8, 8, 8)


@pytest.mark.parametrize("between", HARMLESS.values(), ids=HARMLESS)
def test_what_only_looks_like_a_width_is_pruned(between, rng):
    model = Widths(between).eval()
    layout, x = trace(model, X), torch.randn(2, 3, 32, 32)
    assert layout.n_bits == 16
    genome = random_genome(layout, rng)
    torch.testing.assert_close(
        slim(model, layout, genome)(x), mask(model, layout, genome)(x), rtol=1e-4, atol=1e-5
    )


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x + y


def test_genomes_that_do_not_fit_are_refused():
    model = models.build("resnet8")
    layout = trace(model, X)
    with pytest.raises(GenomeError, match="has 224 bits"):
        slim(model, layout, np.ones(223, dtype=bool))
    with pytest.raises(GenomeError, match="group 'conv1'"):
        mask(model, layout, np.arange(224) >= 16)
    with pytest.raises(GenomeError, match="0 .removed. or 1"):
        slim(model, layout, np.full(224, 0.5))


ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus,
    nn.Softsign, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.LogSigmoid, nn.Tanhshrink, nn.Hardshrink, nn.Softshrink,
)  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.__name__)
@pytest.mark.parametrize("inplace", [False, True])
def test_every_activation_works_element_by_element(activation, inplace):
    """Torch marks most of these operations as such, but not all; their variants in place are operations of their own."""
    try:
        layer = activation(inplace=True) if inplace else activation()
    except TypeError:
        pytest.skip("has no variant in place")
    assert (
        agree(
            Net(lambda m, x: m.fc(m.act(m.a(x)).mean((2, 3))), a=conv(3, 6), act=layer, fc=head(6)),
            draws=2,
        ).n_bits
        == 6
    )
