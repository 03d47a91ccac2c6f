"""Rivals: the budget they keep, the filters they choose, and the widths that the variant of the
strategy mutates.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import shake

from dpes.coupling import importance
from dpes.coupling.genome import from_hex
from dpes.coupling.tracing import trace
from dpes.disk import locked
from dpes.errors import SettingsError
from dpes.strategy import es
from dpes.strategy.history import History, read_history
from dpes.strategy.loop import Task, search
from dpes.strategy.settings import Search
from dpes.study import budgets, data, models, rivals, runs
from dpes.study.baseline import load_baseline
from dpes.study.finetune import Work
from dpes.study.finished import load_runs, open_run
from dpes.study.profiles import make_settings


@pytest.fixture(scope="module")
def resnet():
    model = shake(models.build("resnet8", channels=1))
    return model, trace(model, torch.zeros(1, 1, 32, 32))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 1.0])
def test_rivals_cost_what_they_may_and_little_less(share, resnet):
    model, layout = resnet
    budget = share * layout.macs(np.ones(layout.n_bits, dtype=bool))
    norms = importance.l1_norms(model, layout)
    for genome in (budgets.random_mask(layout, budget, 0), budgets.uniform(layout, budget, norms)):
        assert 0.9 * budget <= layout.macs(layout.checked(genome)) <= budget


def test_uniform_comes_close_where_all_groups_have_one_size():
    """Twelve filters in nearly every group: rounded alike, all groups would lose one at once."""
    model = models.build("densenet22").eval()
    layout = trace(model, torch.zeros(1, 3, 32, 32))
    norms, whole = (
        importance.l1_norms(model, layout),
        layout.macs(np.ones(layout.n_bits, dtype=bool)),
    )
    for share in (0.3, 0.528, 0.7):
        genome = budgets.uniform(layout, share * whole, norms)
        assert 0.985 * share * whole <= layout.macs(genome) <= share * whole
        kept, sizes = (
            np.array([genome[g.bits].sum() for g in layout.groups]),
            np.array([g.size for g in layout.groups]),
        )
        # never further than a filter from the common share, up or down
        assert np.ptp(kept - (kept.sum() / sizes.sum()) * sizes) <= 2


def test_random_masks_differ_by_seed_alone(resnet):
    _, layout = resnet
    a, b, again = (budgets.random_mask(layout, 5e6, seed) for seed in (0, 1, 0))
    assert np.array_equal(a, again) and not np.array_equal(a, b)


def test_a_budget_below_every_network_gives_the_smallest(resnet):
    model, layout = resnet
    genome = budgets.uniform(layout, 0, importance.l1_norms(model, layout))
    assert [int(genome[g.bits].sum()) for g in layout.groups] == [1] * len(layout.groups)


def test_l1_norms_are_those_of_the_weights_and_add_up_over_coupled_layers(resnet):
    model, layout = resnet
    norms, modules = importance.l1_norms(model, layout), dict(model.named_modules())
    assert max(len(g.members) for g in layout.groups) > 1
    for group in layout.groups:
        expected = sum(modules[name].weight.detach().abs().sum((1, 2, 3)) for name in group.members)
        np.testing.assert_allclose(norms[group.bits], expected.numpy(), rtol=1e-5)


def test_uniform_keeps_the_largest_norms_of_each_group_in_equal_shares(resnet):
    model, layout = resnet
    norms = importance.l1_norms(model, layout)
    genome = budgets.uniform(layout, 4e6, norms)
    for group in layout.groups:
        kept, scores = genome[group.bits], norms[group.bits]
        assert kept.all() or scores[kept].min() >= scores[~kept].max()
    shares = [genome[g.bits].mean() for g in layout.groups]
    assert max(shares) - min(shares) < 0.1


# ---- the strategy on widths ----------------------------------------------------------------------
def test_widths_mutate_and_the_highest_ranks_stay(resnet):
    model, layout = resnet
    rank, groups = (
        importance.ranking(layout.group_of_bit, importance.l1_norms(model, layout)),
        layout.group_of_bit,
    )
    state = es.start([0.1, 1.0], layout.n_bits)
    genomes, _ = es.ask(
        state, np.random.default_rng(0), Search(population=200, p_mutation=0.3), groups, rank
    )
    widths = np.array([[g[group.bits].sum() for group in layout.groups] for g in genomes])
    for group in layout.groups:
        ordered = genomes[:, group.bits][:, np.argsort(rank[group.bits])]
        assert (np.diff(ordered.astype(int), axis=1) <= 0).all() and ordered[:, 0].all()
    sizes = np.array([g.size for g in layout.groups])
    # from full width half of the steps shrink a group, less those that round to nothing
    assert (widths >= 1).all() and 0.1 < (widths < sizes).mean() < 0.16


def test_widths_change_as_told_one_group_at_a_time():
    """Recomputed group by group: 15 % of a group's size is the standard deviation, one filter the
    least, its size the most.
    """
    sizes, parents = [1, 4, 40], np.ones((300, 45), dtype=bool)
    # the second half starts narrow, with three filters in the last group
    parents[150:, 5:42] = False
    groups, rank = (
        np.repeat(range(3), sizes),
        np.concatenate([np.random.default_rng(1).permutation(n) for n in sizes]),
    )
    genomes = es.mutate_widths(parents, np.random.default_rng(0), 0.7, groups, rank)
    rng = np.random.default_rng(0)
    normal, uniform = rng.normal(0, 0.15, (300, 3)), rng.random((300, 3))
    for child in range(300):
        for g, size in enumerate(sizes):
            width = parents[child, groups == g].sum() + (
                round(normal[child, g] * size) if uniform[child, g] < 0.7 else 0
            )
            kept = genomes[child, groups == g]
            assert kept.sum() == min(max(width, 1), size)
            assert set(rank[groups == g][kept]) == set(range(kept.sum()))


def test_a_search_on_widths_reaches_only_prefixes_of_the_ranking(resnet):
    model, layout = resnet
    rank = importance.ranking(layout.group_of_bit, importance.l1_norms(model, layout))
    settings = make_settings(
        "smoke", population=8, generations=4, encoding="widths", p_mutation=0.3
    ).search

    def errors(genomes):
        for genome in genomes:
            yield float(1 - genome.mean())

    history = History()
    end = search(Task(layout, errors, settings, 0, rank), history)
    for parent in end.parents:
        for group in layout.groups:
            assert parent[group.bits].sum() == rank[group.bits][parent[group.bits]].max() + 1
    assert len(history.known) > 15


def test_a_study_on_widths(tmp_path):
    """From the command line's settings to three solutions that keep the filters of largest norm."""
    run = runs.run(
        make_settings("smoke", encoding="widths", p_mutation=0.5, finetune_epochs=0), tmp_path
    )
    network = load_baseline(run.settings, data.load("digits"))
    layout = trace(network, torch.zeros(1, 1, 32, 32))
    norms = importance.l1_norms(network, layout)
    for text in run.solutions.set_index("solution").loc[list(es.ROLES)].genome:
        genome = from_hex(text, layout.n_bits)
        for group in layout.groups:
            kept, scores = genome[group.bits], norms[group.bits]
            assert kept.all() or scores[kept].min() >= scores[~kept].max()


def test_rivals_are_trained_like_the_knee_and_continue(tmp_path, monkeypatch):
    run = runs.run(make_settings("smoke"), tmp_path)
    before = {p.name: p.read_bytes() for p in run.path.iterdir()}
    finetuned = Work.finetuned

    def stop_at_the_second(self, name, genome, error):
        if name == "random1":
            raise KeyboardInterrupt
        return finetuned(self, name, genome, error)

    assert rivals.read_rivals(run) is None
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Work, "finetuned", stop_at_the_second)
        rivals.train_rivals(run, masks=2)
    table = rivals.train_rivals(run, masks=2, workers=2).set_index("solution")
    assert list(table.index) == ["knee", "l1", "random0", "random1"]
    assert (table.macs <= table.macs["knee"]).all() and (
        table.macs > 0.85 * table.macs["knee"]
    ).all()
    assert table.error.between(0, 1).all() and len(set(table.genome)) == 4
    stored = json.loads((run.path / "rivals.json").read_text())["l1"]
    assert (
        run.result["knee"]["log"][0].keys() == stored["log"][0].keys()
        and stored["env"].items() <= run.env.items()
    )
    n = len(data.load("digits").test)
    for row in table.drop(index="knee").itertuples():  # both errors, less what both get wrong
        assert row.wrong_alone - row.knee_wrong_alone == pytest.approx(
            n * (row.error - table.error["knee"])
        )
        assert 0 <= row.wrong_alone <= n * row.error and row.wrong_alone + row.knee_wrong_alone > 0
    files = {p.name: p.read_bytes() for p in run.path.iterdir()}
    assert set(files) - set(before) == {"rivals.json"} and all(
        files[name] == content for name, content in before.items()
    )
    with locked(run.path):  # what is there is read whoever holds the run
        assert rivals.train_rivals(run, masks=2).equals(rivals.read_rivals(open_run(run.path)))
    assert {p.name: p.read_bytes() for p in run.path.iterdir()}.items() >= files.items()
    (run.path / "rivals.json").unlink()
    assert rivals.knee_is_here(run)
    # restored to other bits
    other = replace(run, result=run.result | {"knee": run.result["knee"] | {"error": 0.123}})
    assert not rivals.knee_is_here(other)
    (run.path / "knee.safetensors").unlink()  # large ones are not published
    assert rivals.train_rivals(run, masks=0).error.tolist() == table.error[
        :2
    ].tolist() and "wrong_alone" not in rivals.read_rivals(run)


def test_proportions_are_kept_at_every_size(resnet):
    model, layout = resnet
    norms, sizes = importance.l1_norms(model, layout), np.array([g.size for g in layout.groups])
    shares = np.random.default_rng(0).uniform(0.3, 1, len(sizes))
    shares[0] = 1
    whole = np.ones(layout.n_bits, dtype=bool)
    before = sizes
    for budget in (1.0, 0.8, 0.5, 0.2):
        genome = budgets.in_proportion(layout, budget * layout.macs(whole), norms, shares)
        widths = np.array([genome[g.bits].sum() for g in layout.groups])
        assert (
            0.9 * budget * layout.macs(whole) <= layout.macs(genome) <= budget * layout.macs(whole)
        )
        assert widths[0] == sizes[0] and (widths <= before).all()
        # one for all, up to a filter
        power = np.log(np.clip(widths / sizes, 1e-9, 1)) / np.log(np.clip(shares, 1e-9, 1 - 1e-9))
        large = (sizes >= 32) & (shares < 0.9)
        assert budget == 1 or np.ptp(power[large]) < 0.5 * power[large].mean() + 0.1
        before = widths


def test_what_a_search_on_widths_finds_is_a_rival_of_equal_cost(tmp_path):
    """As many candidates as the run's own search; the proportions of its knee, at the MACs of the
    run's.
    """
    run = runs.run(make_settings("smoke"), tmp_path)
    table = rivals.train_rivals(run, masks=0, widths=True).set_index("solution")
    assert (
        list(table.index) == ["knee", "l1", "widths"]
        and 0.85 * table.macs["knee"] < table.macs["widths"] <= table.macs["knee"]
    )
    folder = run.path / "widths"
    assert len(read_history(folder / "history.jsonl")) == len(run.history)
    network = load_baseline(run.settings, data.load("digits"))
    layout = trace(network, torch.zeros(1, 1, 32, 32))
    norms, found = (
        importance.l1_norms(network, layout),
        es.State.load(folder / "state.npz").parents[1],
    )
    shares = np.array([found[g.bits].mean() for g in layout.groups])
    expected = budgets.in_proportion(layout, table.macs["knee"], norms, shares)
    assert np.array_equal(from_hex(table.genome["widths"], layout.n_bits), expected)
    # the search inside is no run of its own
    assert load_runs(tmp_path).run.unique().tolist() == [run.path.name]
    with pytest.raises(SettingsError, match="widths: the run searches widths itself"):
        searched = replace(run.settings, search=replace(run.settings.search, encoding="widths"))
        rivals.train_rivals(replace(run, settings=searched), widths=True)
    before = {p: p.read_bytes() for p in folder.iterdir()}
    (run.path / "rivals.json").unlink()
    assert (
        rivals.train_rivals(run, masks=0, widths=True)
        .set_index("solution")
        .error.equals(table.error)
    )
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


def test_published_second_trainings_are_of_the_same_networks():
    """Same genomes, same errors before training; the same bits where both say that they were
    trained on one kind of processor.
    """
    repeats = list((Path(__file__).parents[1] / "data" / "runs").glob("*/rivals-again.json"))
    assert repeats
    for file in repeats:
        first, again = rivals.stored(file.with_name("rivals.json")), rivals.stored(file)
        assert set(again) <= set(first)
        for name, entry in again.items():
            for key in ("genome", "macs", "error_cut", "error_recalibrated"):
                assert entry[key] == first[name][key], (name, key)
            losses = [[epoch["loss"] for epoch in e["log"]] for e in (first[name], entry)]
            alike = first[name].get("env", {}).get("device") == entry["env"]["device"]
            assert len(losses[0]) == len(losses[1]) and (losses[0] == losses[1]) == alike, name
