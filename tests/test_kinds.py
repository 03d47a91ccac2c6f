"""Each kind of network is cut rightly where it can be cut, and kept whole for a reason where it cannot."""

from __future__ import annotations

import copy
import functools
import pickle

import kinds_layers  # noqa: F401 - enters its networks
import kinds_shapes  # noqa: F401
import numpy as np
import pytest
import torch
from conftest import shake
from kinds import KINDS, Net, images
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dpes import UnsupportedModel, load, mask, repair, save, slim, trace
from dpes.coupling.cutting import plain
from dpes.coupling.operations import leaves

SHARES = (0.9, 0.5, 0.2)


def built(name):
    """The network in double precision, and a batch for it."""
    torch.manual_seed(0)
    kind = KINDS[name]
    model, x = shake(kind.build()).double(), kind.x()
    return model, x.double() if x.is_floating_point() else x


@functools.cache
def traced(name):
    """(model, batch, layout, three genomes)"""
    model, x = built(name)
    layout = trace(model, x)
    rng = np.random.default_rng(1)
    genomes = [
        repair(rng.random(layout.n_bits) < share, layout.group_of_bit, layout.least)
        for share in SHARES
    ]
    return model, x, layout, genomes


def outputs(model, x):
    with torch.no_grad():
        return list(leaves(model(x)))


def alike(a, b):
    assert len(a) == len(b) > 0
    for one, other in zip(a, b, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= 1e-10 * max(1.0, float(other.abs().max()))


each_kind = pytest.mark.parametrize("name", KINDS)


@each_kind
def test_what_can_leave_may_leave_and_what_stays_has_a_reason(name):
    layout = traced(name)[2]
    assert (tuple(g.name for g in layout.groups), layout.n_bits) == (
        KINDS[name].pruned,
        KINDS[name].bits,
    )
    assert all(reason and "\n" not in reason for _, _, reason in layout.kept)


@each_kind
def test_slim_equals_masked(name):
    model, x, layout, genomes = traced(name)
    for genome in genomes:
        alike(outputs(slim(model, layout, genome), x), outputs(mask(model, layout, genome), x))


@each_kind
def test_nothing_removed_is_the_model(name):
    model, x, layout, _ = traced(name)
    whole = np.ones(layout.n_bits, dtype=bool)
    alike(outputs(mask(model, layout, whole), x), outputs(model, x))
    alike(outputs(slim(model, layout, whole), x), outputs(model, x))


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.weights_tell])
def test_slim_equals_the_network_whose_removed_filters_have_no_weights(name):
    """Neither computed nor read: a second witness beside ``mask``, which follows the filters through every operation."""
    model, x, layout, genomes = traced(name)
    model = plain(model)
    for genome in genomes:
        before = [p.detach().clone() for p in model.parameters()]
        small = slim(model, layout, genome)
        removed = ~np.append(genome, True)
        with torch.no_grad():
            for owned in layout.tensors:
                tensor = model.get_submodule(owned.places[0][0])._parameters.get(owned.places[0][1])
                for dim, bits in owned.cuts if tensor is not None else ():
                    tensor.index_fill_(dim, torch.from_numpy(np.flatnonzero(removed[bits])), 0)
            silenced = outputs(model, x)
            for parameter, value in zip(model.parameters(), before, strict=True):
                parameter.copy_(value)
        alike(outputs(small, x), silenced)


@each_kind
def test_costs_are_those_of_one_image(name):
    model, x, layout, genomes = traced(name)
    for genome in genomes:
        small = slim(model, layout, genome)
        with FlopCounterMode(display=False) as counter:
            outputs(small, x[:1])
        assert layout.macs(genome) == counter.get_total_flops() / 2
        if not any(
            "layers" in vars(m) for m in model.modules()
        ):  # a plain list hides its parameters
            assert layout.params(genome) == sum(p.numel() for p in small.parameters())


@each_kind
def test_saved_and_loaded_it_is_the_same(name, tmp_path):
    model, x, layout, genomes = traced(name)
    small = slim(model, layout, genomes[1])
    save(tmp_path / "small.safetensors", small, layout, genomes[1])
    torch.manual_seed(7)
    fresh = KINDS[name].build().double()
    if "layers" in vars(fresh) and "known" not in name:
        fresh.layers = model.layers  # which no state of the network holds
    alike(outputs(load(tmp_path / "small.safetensors", fresh), x), outputs(small, x))


@each_kind
def test_it_trains(name):
    """Every parameter that has a gradient in the whole network."""
    model, x, layout, genomes = traced(name)
    found = []
    for genome in (np.ones(layout.n_bits, dtype=bool), genomes[1]):
        network = slim(model, layout, genome)
        network.train(KINDS[name].trains)
        sum(t.sum() for t in leaves(network(x))).backward()
        assert all(p.grad is None or p.grad.shape == p.shape for p in network.parameters())
        found.append({n for n, p in network.named_parameters() if p.grad is not None})
    assert found[0] == found[1]


@each_kind
def test_tracing_changes_nothing(name):
    model, x = built(name)
    before, out = copy.deepcopy(model.state_dict()), outputs(model, x)
    model.train(KINDS[name].trains)
    modes = [m.training for m in model.modules()]
    first = trace(model, x)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert trace(model, x).groups == first.groups
    alike(outputs(model.eval(), x), out)


def test_a_slim_network_is_traced_and_cut_like_any_other():
    model, x, layout, genomes = traced("pixel shuffle")
    small = slim(model, layout, genomes[1])
    again = trace(small, x)
    left = [int(genomes[1][g.bits].sum()) for g in layout.groups]
    assert [g.size for g in again.groups] == [n for n in left if n > 1]
    alike(outputs(slim(small, again, np.ones(again.n_bits, bool)), x), outputs(small, x))


def test_attributes_count_the_channels_that_are_left():
    model, x, layout, genomes = traced("transposed in groups")
    small = slim(model, layout, genomes[1])
    left = len(small.t.weight)
    assert left < 8 and small.t.in_channels == small.t.out_channels == left
    assert small.t.groups == left // 2 and small.c2.in_channels == left


# ---- options --------------------------------------------------------------------------------------------------------------------
def test_layers_that_shall_be_kept_are_and_least_numbers_hold():
    x = images()
    layout = trace(Net(), x, keep=["c2"], min_filters=3, min_share=0.5)
    assert [(g.name, g.size, g.least) for g in layout.groups] == [("c1", 8, 4), ("c3", 8, 4)]
    assert ("c2", 8, "asked to be kept") in layout.kept
    assert (
        trace(Net(), x, min_filters=3).groups[0].least == 3
        and trace(Net(), x, min_filters=99).groups[0].least == 8
    )
    layout = trace(nn.Sequential(Net(), nn.Linear(5, 3)), x, keep=["0.c1", "0.c2", "0.b1"])
    assert [(g.name, g.size) for g in layout.groups] == [("0.c3", 8), ("0.fc", 5)]
    with pytest.raises(UnsupportedModel, match="asked to be kept"):
        trace(Net(), x, keep=[""])


def test_a_network_some_of_which_was_kept_on_demand_is_saved_and_loaded(tmp_path):
    x, model = images(), shake(Net())
    layout = trace(model, x, keep=["c2"])
    genome = np.arange(layout.n_bits) % 3 > 0
    small = slim(model, layout, genome)
    save(tmp_path / "small.safetensors", small, layout, genome)
    alike(outputs(load(tmp_path / "small.safetensors", Net()), x), outputs(small, x))


def test_without_a_proof_the_same_groups_are_proposed():
    for name in ("plain", "gated by its own half", "convolution of 2 groups"):
        model, x, layout, _ = traced(name)
        assert trace(model, x, prove=False).groups == layout.groups


@pytest.mark.parametrize("wrong, words", [
    ({"keep": ["c9"]}, "c9"), ({"min_filters": 0}, "min_filters = 0"), ({"min_share": 1.5}, "min_share = 1.5"),
])  # fmt: skip
def test_wrong_options_are_named(wrong, words):
    with pytest.raises(UnsupportedModel, match=words) as caught:
        trace(Net(), images(), **wrong)
    assert "\n" not in str(caught.value)


def test_wrappers_and_reasons_are_printed():
    assert "wrapped" in str(traced("compiled")[2]) and "wrapped" in str(traced("data parallel")[2])
    text = str(traced("layer norm over channels")[2])
    assert (
        "kept whole:" in text
        and "8 x c1: native_layer_norm in n takes statistics over all channels" in text
    )


def test_a_layout_is_kept_in_a_pickle():
    model, x, layout, genomes = traced("convolution of 2 groups")
    again = pickle.loads(pickle.dumps(layout))
    assert again.groups == layout.groups and str(again) == str(layout)
    alike(outputs(slim(model, again, genomes[1]), x), outputs(slim(model, layout, genomes[1]), x))
    alike(outputs(mask(model, again, genomes[1]), x), outputs(slim(model, layout, genomes[1]), x))
