"""Fitness of candidates: what it may depend on, what may fail, and who computes it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from dpes import data, es, evaluate, make_settings, models, train
from dpes.channels import trace
from dpes.search import Candidate, search
from dpes.slim import slim, to_hex


@pytest.fixture(scope="module")
def setting():
    digits = data.load("digits")
    network = models.build("vgg-tiny", channels=1)
    train.fit(network, digits, make_settings("smoke").baseline, 0)
    return network, trace(network, torch.zeros(1, 1, 32, 32)), digits


def fitness(setting, **changes):
    return evaluate.Fitness(*setting, make_settings("smoke", **changes).search)


def draws(layout, n):
    rng = np.random.default_rng(0)
    return es.repair(rng.random((n, layout.n_bits)) < 0.7, layout.group_of_bit)


@pytest.mark.parametrize("kind", ["recalibrate", "partial", "none"])
def test_errors_depend_on_nothing_but_the_genome(kind, setting):
    changes = {"fitness": kind, "partial_epochs": 1, "partial_images": 100}
    genomes = draws(setting[1], 5)
    forwards = list(evaluate.serial(fitness(setting, **changes), genomes))
    backwards = list(evaluate.serial(fitness(setting, **changes), genomes[::-1]))[::-1]
    assert forwards == backwards and len(set(forwards)) > 1


@pytest.mark.parametrize("kind", ["recalibrate", "partial"])
def test_a_genome_that_returns_has_the_same_error(kind, setting):
    """No candidate leaves widths, statistics or momenta behind for the next one."""
    one = fitness(setting, fitness=kind, partial_epochs=1, partial_images=100)
    a, b = draws(setting[1], 2)
    whole = np.ones_like(a)
    first = [one(a), one(b), one(whole)]
    assert [one(a), one(a), one(whole), one(b)] == [first[0], first[0], first[2], first[1]]


def test_partial_training_has_a_stream_for_each_seed_and_genome(setting):
    a, b = draws(setting[1], 2)
    assert len({evaluate.genome_seed(s, g) for s in (0, 1, 2**63 - 1) for g in (a, b)}) == 6
    settings = make_settings("smoke", fitness="partial", partial_epochs=1, partial_images=100, partial_lr=0.1).search
    weights = []
    for seed in (0, 0, 1):
        one = evaluate.Fitness(*setting, settings, seed)
        one(a)
        weights.append(next(one.bench.parameters()).detach().clone())  # of the candidate that was evaluated last
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_processes_give_the_same_bits_even_when_one_dies(setting):
    one, genomes = fitness(setting), draws(setting[1], 12)
    expected = list(evaluate.serial(one, genomes))
    with evaluate.processes(one, 2) as errors:
        assert list(errors(genomes)) == expected
        answers = errors(genomes)
        first = next(answers)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        assert [first, *answers] == expected


@pytest.mark.parametrize("kind", ["recalibrate", "partial", "none"])
def test_fitness_leaves_the_network_alone(kind, setting):
    network, layout, _ = setting
    before = {k: v.clone() for k, v in network.state_dict().items()}
    momenta = [m.momentum for m in network.modules() if hasattr(m, "momentum")]
    one = fitness(setting, fitness=kind, partial_epochs=1, partial_images=64)
    one(draws(layout, 1)[0])
    one(np.ones(layout.n_bits, dtype=bool))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert momenta == [m.momentum for m in network.modules() if hasattr(m, "momentum")] and not network.training


def test_fitness_none_is_the_error_of_the_cut(setting):
    network, layout, digits = setting
    genome = draws(layout, 1)[0]
    cut = slim(network, layout, genome)
    assert fitness(setting, fitness="none")(genome) == train.error_rate(cut, digits.search.first(100), digits)
    assert fitness(setting, fitness="none", error_on="train")(genome) == train.error_rate(cut, digits.train.first(100), digits)


def test_a_failed_candidate_is_worst_and_said(setting, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory\nand more")

    one = fitness(setting)
    monkeypatch.setattr(train, "recalibrate", fail)
    with pytest.warns(UserWarning, match="counts as worst: out of memory$"):
        assert one(draws(setting[1], 1)[0]) == float("inf")


def test_a_failed_candidate_is_never_a_parent(setting):
    """Every second candidate fails; a search that is taken up from its history ends alike."""
    layout, settings = setting[1], make_settings("smoke", population=8, generations=3).search
    failed = {}

    def some(genomes):
        for genome in genomes:
            failed[to_hex(genome)] = bool(genome[1]) and not genome.all()
            yield evaluate.FAILED if failed[to_hex(genome)] else float(genome.mean())

    history, ends = [], []
    for known in ([], history):
        ends.append(
            search(layout, some, settings, 0, history=list(known), record=lambda c, s: history.append(c), checkpoint=lambda s: None)
        )
    assert 0 < sum(failed.values()) < len(failed)
    assert not any(failed[to_hex(p)] for p in ends[0].parents) and np.isfinite(ends[0].F).all()
    again = [Candidate(**json.loads(c.line())) for c in history]
    assert again == history and sum(c.error == float("inf") for c in history) > 0
    assert np.array_equal(ends[0].parents, ends[1].parents)


def test_workers_end_with_a_parent_that_is_killed(setting, tmp_path):
    """They hold the pipe to this process open as long as they live."""
    code = (
        "import numpy as np, os, signal, torch\n"
        "from dpes import data, evaluate, make_settings, models, trace\n"
        "network, digits = models.build('vgg-tiny', channels=1), data.load('digits')\n"
        "layout = trace(network, torch.zeros(1, 1, 32, 32))\n"
        "one = evaluate.Fitness(network, layout, digits, make_settings('smoke').search)\n"
        "with evaluate.processes(one, 2) as errors:\n"
        "    print(next(errors(np.ones((2, layout.n_bits), dtype=bool))), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        try:
            out, _ = parent.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(parent.pid, signal.SIGKILL)  # the workers, too
            raise
    assert parent.returncode == -signal.SIGKILL and 0 <= float(out) <= 1


def test_search_reevaluates_nothing(setting):
    """A genome that comes back, and all of a history, cost nothing."""
    layout, settings = setting[1], make_settings("smoke", population=8, generations=3, p_mutation=0.02).search
    asked, history = [], []

    def errors(genomes):
        for genome in genomes:
            asked.append(to_hex(genome))
            yield float(genome.mean())

    arguments = {"checkpoint": lambda s: None}
    first = search(layout, errors, settings, 0, history=[], record=lambda c, s: history.append(c), **arguments)
    assert len(asked) == len(set(asked)) and len(history) == 1 + 8 * 3
    asked.clear()
    second = search(layout, errors, settings, 0, history=history, record=lambda c, s: None, **arguments)
    assert not asked and np.array_equal(first.parents, second.parents)
