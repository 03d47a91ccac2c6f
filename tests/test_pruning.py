"""dpes.prune: a network of one's own, its data, its notion of error and cost."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import torch
from conftest import shake
from torch import nn

import dpes
from dpes.coupling.genome import from_hex, to_hex
from dpes.errors import RunError, SettingsError
from dpes.strategy.history import Candidate

SEARCH = dpes.Search(
    population=5, generations=3, calibration_images=64, search_images=100, batch_size=50
)

SURROGATE = dataclasses.replace(SEARCH, proposals="surrogate")


class Own(nn.Module):
    """A small classifier that is in no registry."""

    def __init__(self, norm: bool = True):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU(),
            nn.Conv2d(8, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(120, 1, 16, 16, generator=generator), torch.randint(
        4, (120,), generator=generator
    )


def test_three_networks_of_the_users_class(data):
    model = shake(Own())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = dpes.prune(model, data[0][:1], data=data, settings=SEARCH, progress=False)
    macs = [dpes.macs(m, data[0][:1]) for m in (found.heavy, found.knee, found.light)]
    assert macs == sorted(macs, reverse=True) and macs[0] <= dpes.macs(model, data[0][:1])
    assert all(
        isinstance(m, Own) and not m.training for m in (found.heavy, found.knee, found.light)
    )
    assert len(found.history) == 1 + 5 * 3 and (found.history.cost == found.history.macs).all()
    assert (
        found.archive.cost.is_monotonic_decreasing and found.archive.error.is_monotonic_increasing
    )
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(("seed", "reborn"), [(0, False), (13, True)])
def test_returned_networks_have_the_errors_of_the_history(seed, reborn, data):
    """Heavy, recalibrated again outside, errs as often as the search says, also where the unpruned
    network is born again and errs less.
    """
    torch.manual_seed(seed)
    model = shake(Own())
    found = dpes.prune(model, data[0][:1], data=data, settings=SEARCH, progress=False)
    wrong = (found.heavy(data[0][:100]).argmax(1) != data[1][:100]).float().mean()
    assert float(wrong) == pytest.approx(found.archive.error.min())
    assert (found.archive.error.min() > found.history.error[1:].min()) == reborn
    assert dpes.macs(found.heavy, data[0][:1]) == found.archive.cost.iloc[0]


def test_tensors_batches_and_functions_agree(data):
    model, x, y = shake(Own()), *data
    batches = [(x[i : i + 50], y[i : i + 50]) for i in range(0, 100, 50)]

    def error(network):
        assert not network.training
        return float((network(x[:100]).argmax(1) != y[:100]).float().mean())

    frames = [
        dpes.prune(
            model, x[:1], settings=SEARCH, progress=False, calibration=x[:64], **given
        ).history.drop(columns="error")
        for given in ({"data": (x, y)}, {"data": batches}, {"evaluate": error})
    ]
    assert frames[0].equals(frames[1]) and frames[0].equals(frames[2])


@pytest.mark.parametrize(
    "cost",
    [
        "params",
        "activations",
        "latency",
        lambda network: sum(p.numel() for p in network.parameters()),
    ],
)
def test_any_cost(cost, data):
    found = dpes.prune(
        shake(Own()), data[0][:1], data=data, cost=cost, settings=SEARCH, progress=False
    )
    assert (found.history.cost > 0).all()
    if callable(cost) or cost == "params":
        assert (found.history.cost == found.history.params).all()


def test_networks_without_batch_norm_need_no_calibration(data):
    found = dpes.prune(
        Own(norm=False).eval(), data[0][:1], evaluate=lambda n: 0.5, settings=SEARCH, progress=False
    )
    assert len(found.history) == 16


def test_folder_continues_and_refuses_other_settings(tmp_path, data):
    model, calls = shake(Own()), []

    def error(network):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return float((network(data[0]).argmax(1) != data[1]).float().mean())

    arguments = {"evaluate": error, "calibration": data[0], "settings": SEARCH, "progress": False}
    whole = dpes.prune(
        model,
        data[0][:1],
        **arguments
        | {"evaluate": lambda n: float((n(data[0]).argmax(1) != data[1]).float().mean())},
    )
    with pytest.raises(KeyboardInterrupt):
        dpes.prune(model, data[0][:1], folder=tmp_path, **arguments)
    found = dpes.prune(model, data[0][:1], folder=tmp_path, **arguments)
    assert found.history.equals(whole.history)
    assert all(np.array_equal(found.genomes[r], whole.genomes[r]) for r in whole.genomes)
    with pytest.raises(RunError, match="search.population is 5, not 6"):
        dpes.prune(
            model,
            data[0][:1],
            folder=tmp_path,
            **arguments | {"settings": dpes.Search(**vars(SEARCH) | {"population": 6})},
        )


def test_a_surrogate_proposes_what_the_tournaments_winner_would(data, tmp_path):
    """Also where the search was stopped and goes on from its folder."""
    from dpes.coupling.importance import group_norms, ranking
    from dpes.strategy.history import History
    from dpes.strategy.loop import space_of
    from dpes.study.methods import OURS, method

    def error(network):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return float((network(data[0]).argmax(1) != data[1]).float().mean())

    model, calls = shake(Own()), []
    given = {"evaluate": error, "calibration": data[0], "settings": SURROGATE, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        dpes.prune(model, data[0][:1], folder=tmp_path, **given)
    found = dpes.prune(model, data[0][:1], folder=tmp_path, **given)
    assert found.history.equals(dpes.prune(model, data[0][:1], **given).history)
    assert set(found.history.parent[1:]) == {"archive"} and len(found.history) == 16
    layout = found.layout
    winner = dataclasses.replace(method(OURS), population=5, first=5)
    space = space_of(layout, ranking(layout.group_of_bit, group_norms(model, layout)))
    lines = [
        Candidate(genome=c.genome, error=c.error, macs=c.macs) for c in found.history.itertuples()
    ]
    whole = layout.macs(np.ones(layout.n_bits, dtype=bool))
    for n in (0, 5, 10):
        seen = History(lines[1 : 1 + n], n_bits=layout.n_bits, whole=whole)
        genomes = [to_hex(g) for g in winner(space, seen, 0)]
        assert genomes == found.history.genome[1 + n : 6 + n].tolist()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cost": "params"}, "cost = 'params': proposals by a surrogate"),
        ({"encoding": "widths"}, "are widths already: leave encoding unset"),
        ({"population": 500, "generations": 3}, "at most 1000 candidates, not 1500"),
    ],
)
def test_settings_that_do_not_go_with_a_surrogate_are_refused(values, message):
    with pytest.raises(SettingsError, match=message):
        dataclasses.replace(SURROGATE, **values)


def test_a_surrogate_has_enough_in_a_space_that_is_all_known():
    """Two groups of two filters have nine networks."""
    tiny = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU(),
                         nn.Flatten(), nn.Linear(2 * 4 * 4, 3))  # fmt: skip
    found = dpes.prune(
        tiny.eval(),
        torch.zeros(1, 1, 8, 8),
        evaluate=lambda network: 0.5,
        settings=dataclasses.replace(SURROGATE, fitness="none"),
        progress=False,
    )
    assert len(found.history) == 16 and found.history.genome.nunique() <= 9


def test_a_network_at_a_budget_is_the_best_so_light_with_bottlenecks_counted(data):
    from dpes.strategy import variants
    from dpes.strategy.loop import space_of

    found = dpes.prune(shake(Own()), data[0][:1], data=data, settings=SURROGATE, progress=False)
    history, genome = found.history, found.at(0.6)
    assert found.layout.macs(genome) <= 0.6 * history.macs[0]
    genomes = np.array([from_hex(g, found.layout.n_bits) for g in history.genome])
    price = history.error + variants.SURROGATE.toll(space_of(found.layout), genomes)
    light = history.macs <= 0.6 * history.macs[0]
    assert price[history.genome == to_hex(genome)].iloc[0] == price[light].min()
    with pytest.raises(SettingsError, match=r"share = 0.001: the lightest candidate has 0\.\d+ of"):
        found.at(0.001)
    for share in (0, 2, float("nan"), "half", None, -1, True):
        with pytest.raises(SettingsError, match=f"share = {share!r}: must be a number above 0"):
            found.at(share)
    assert found.layout.macs(found.at(np.float32(0.6))) <= 0.61 * history.macs[0]


@pytest.mark.parametrize("proposals", [None, "surrogate"])
def test_a_failed_candidate_may_have_twins_in_its_generation(proposals, tmp_path):
    """Eight filters have few networks by width: the first pruned one fails once, and comes again."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.Linear(8, 4)).eval()  # fmt: skip
    settings = dpes.Search(population=8, generations=3, proposals=proposals, fitness="none")
    for seed in range(12):
        calls = []

        def error(network, calls=calls):
            calls.append(1)
            if len(calls) == 2:
                raise ValueError("once")
            return 1 - network[0].out_channels / 10

        given = {"evaluate": error, "settings": settings, "seed": seed, "progress": False}
        folder = tmp_path / str(seed)
        with pytest.warns(UserWarning, match="once"):
            found = dpes.prune(net, torch.zeros(1, 3, 8, 8), folder=folder, **given)
        lines = found.history[np.isfinite(found.history.error)]
        kept = lines.genome.map(lambda g: from_hex(g, 8).sum())
        assert np.allclose(lines.error, 1 - kept / 10)
        assert dpes.prune(net, torch.zeros(1, 3, 8, 8), folder=folder, **given).history.equals(
            found.history
        )


def test_failed_candidates_are_survived(data):
    with pytest.warns(
        UserWarning,
        match="counts as worst: evaluate failed on a network .RuntimeError: out of memory",
    ):
        found = dpes.prune(
            Own(norm=False).eval(), data[0][:1], evaluate=_odd(), settings=SEARCH, progress=False
        )
    assert np.isinf(found.history.error).any() and np.isfinite(found.archive.error).all()


def _odd():
    calls = iter(range(1000))

    def error(network):
        if next(calls) % 3 == 1:
            raise RuntimeError("out of memory")
        return 0.25

    return error


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "needs either evaluate="),
        ({"evaluate": len, "data": (torch.zeros(1), torch.zeros(1))}, "needs either evaluate="),
        ({"evaluate": lambda n: 0.1}, "batch norm needs calibration="),
        (
            {"evaluate": lambda n: 7.0, "calibration": torch.zeros(4, 1, 16, 16)},
            "evaluate returned 7.0",
        ),
        (
            {"data": (torch.zeros(3, 1, 16, 16), torch.zeros(2, dtype=torch.int64))},
            "3 images and 2 labels",
        ),
        (
            {"evaluate": lambda n: 0.1, "settings": dpes.Search(fitness="partial")},
            "train inside your evaluate",
        ),
        (
            {"evaluate": lambda n: 0.1, "settings": dpes.Search(precision="bfloat16")},
            "precision needs the images of a study",
        ),
        (
            {"evaluate": lambda n: 0.1, "settings": dpes.Search(shape="full")},
            "shape = 'full' is for a study on a GPU",
        ),
        (
            {"evaluate": lambda n: 0.1, "settings": SURROGATE, "cost": "latency"},
            "cost = 'latency': proposals by a surrogate are made for levels of MACs",
        ),
        (
            {"evaluate": lambda n: 0.1, "calibration": torch.zeros(4, 1, 16, 16), "cost": "flops"},
            "unknown cost 'flops'",
        ),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(SettingsError, match=message) as caught:
        dpes.prune(
            Own().eval(),
            torch.zeros(1, 1, 16, 16),
            progress=False,
            **{"settings": SEARCH} | arguments,
        )
    assert "\n" not in str(caught.value)


class Awkward(Own):
    """Holds what cannot be copied, and computes the weights of a layer."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        nn.utils.parametrizations.weight_norm(self.body[3])


def test_a_network_that_cannot_be_copied_and_computes_its_weights_is_pruned(data):
    model = shake(Awkward())
    found = dpes.prune(model, data[0][:1], data=data, settings=SEARCH, progress=False)
    assert isinstance(found.light, Awkward) and found.light.lock is model.lock
    assert dpes.macs(found.light, data[0][:1]) < dpes.macs(model, data[0][:1])
    assert hasattr(model.body[3], "parametrizations")


def test_a_layout_of_ones_own_keeps_layers_and_least_widths(data):
    model = shake(Own())
    layout = dpes.trace(model, data[0][:1], keep=["body.0"], min_filters=5)
    found = dpes.prune(
        model, data[0][:1], data=data, settings=SEARCH, layout=layout, progress=False
    )
    for small in (found.heavy, found.knee, found.light):
        assert small.body[0].out_channels == 8 and small.body[3].out_channels >= 5
