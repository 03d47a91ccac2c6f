"""What networks are made of beside layers, and what holds their layers: cut with them, or refused in one line."""

from __future__ import annotations

import functools
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kinds import Net, images
from test_hostile import Ends
from torch import nn

from dpes import UnsupportedModel, load, macs, mask, save, slim, trace


class Holder:
    """An object of one's own."""

    def __init__(self, layer):
        self.layer = layer


HELD = {  # where forward finds a layer that the network knows
    "an object": (Holder, lambda held, x: held.layer(x)),
    "a weak reference": (weakref.ref, lambda held, x: held()(x)),
    "a partial": (lambda c: functools.partial(nn.Module.__call__, c), lambda held, x: held(x)),
    "a closure": (lambda c: lambda x: c(x), lambda held, x: held(x)),
    "a default": (lambda c: lambda x, c=c: c(x), lambda held, x: held(x)),
    "a bound method": (lambda c: c.forward, lambda held, x: held(x)),
    "a list of weights": (
        lambda c: [c.weight, c.bias], lambda held, x: F.conv2d(x, *held, padding=1),
    ),
    "a dict of weights": (
        lambda c: {"w": c.weight}, lambda held, x: F.conv2d(x, held["w"], padding=1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("hold, run", HELD.values(), ids=HELD)
def test_a_layer_is_cut_wherever_it_is_held(hold, run, tmp_path):
    def built():
        model = Net(lambda m, x: run(m.held, x), k=nn.Conv2d(8, 8, 3, padding=1)).eval()
        model.held = hold(model.k)
        return model

    model, x = built(), images()
    layout = trace(model, x)
    assert [(g.name, g.size) for g in layout.groups] == [(n, 8) for n in ("c1", "k", "c2", "c3")]
    genome = np.arange(layout.n_bits) % 3 > 0
    small = slim(model, layout, genome)
    wanted = mask(model, layout, genome)(x)
    save(tmp_path / "small.safetensors", small, layout, genome)
    again = load(tmp_path / "small.safetensors", built())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(small(x), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again(x), wanted, rtol=1e-4, atol=1e-5)


def test_an_encoder_of_one_operation_is_cut_inside():
    """In evaluation torch runs it as one operation, which has no rule and no MACs in its counter."""
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = Net(
        lambda m, x: m.e(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape), e=encoder
    ).eval()
    x = images()
    layout = trace(model, x)
    assert [g.name for g in layout.groups] == ["e.linear1", "c2", "c3"]
    assert layout.macs(np.ones(layout.n_bits)) == macs(model, x)
    genome = np.arange(layout.n_bits) % 3 > 0
    with torch.no_grad():
        small, wanted = slim(model, layout, genome)(x), mask(model, layout, genome)(x)
    torch.testing.assert_close(small, wanted, rtol=1e-4, atol=1e-5)


def partial_of(layer):
    return functools.partial(nn.Module.__call__, layer)


@pytest.mark.parametrize("hold", [lambda c: [c], partial_of, lambda c: lambda x: c(x)])
def test_a_slim_network_shares_no_memory_however_a_layer_is_held(hold):
    layer = nn.Conv2d(8, 8, 1)
    model = Net(lambda m, x: m.held[0](x) if isinstance(m.held, list) else m.held(x))
    model.held = hold(layer)
    layout = trace(model, images())
    small = slim(model, layout, np.ones(layout.n_bits, dtype=bool))
    before = small(images())
    with torch.no_grad():
        layer.weight.add_(1)
    assert torch.equal(small(images()), before)
    assert not torch.allclose(model.eval()(images()), before)


def test_a_network_compiled_in_place_is_cut_as_it_was_written():
    model = Net()
    model.compile(backend="eager")
    layout = trace(model, images())
    small = slim(model, layout, np.arange(24) % 3 > 0)
    assert layout.n_bits == 24 and small._compiled_call_impl is None
    assert model._compiled_call_impl is not None


def test_objects_that_hold_themselves_end():
    class Cycle:
        def __init__(self, y):
            self.y, self.me, self.list = y, self, [self]

    assert trace(Ends(lambda m, x: x, Cycle), images()).n_bits == 24


class Quantized(nn.Module):
    __module__ = "torch.ao.nn.quantized.modules"


@pytest.mark.parametrize(
    "layer, cure",
    [
        (lambda: torch.jit.script(nn.Conv2d(8, 8, 1)), "the network that it was made from"),
        (Quantized, "before quantisation"),
        (lambda: nn.LazyConv2d(8, 1), "run the network once"),
        (lambda: nn.Conv2d(8, 8, 1, device="meta"), "load them"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_layers_that_cannot_be_cut_are_refused_in_one_line(layer, cure):
    with pytest.raises(UnsupportedModel, match=cure) as caught:
        trace(Net(layer=layer()), images())
    assert "\n" not in str(caught.value) and "layer is a" in str(caught.value)


@pytest.mark.parametrize(
    "mid, why",
    [
        (
            lambda m, x: x.clone().transpose_(1, 2).transpose(1, 2),
            "transpose has no rule, as it writes into what it is given",
        ),
        (
            lambda m, x: x.clone().resize_(x.shape),
            "resize has no rule, as it writes into what it is given",
        ),
        (
            lambda m, x: torch.cat([x, x], 1, out=torch.empty(0, dtype=x.dtype))[:, :8],
            "cat has no rule, as it writes into what it is given",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_changes_of_shape_in_place_are_named(mid, why):
    assert ("c1", 8, why) in trace(Net(mid), images()).kept


def test_a_network_made_in_inference_mode_is_cut_and_its_slim_one_trains():
    with torch.inference_mode():
        model = Net()
        layout = trace(model, images())
    assert trace(model, images()).n_bits == layout.n_bits == 24
    slim(model, layout, np.arange(24) % 3 > 0).train()(images()).sum().backward()
