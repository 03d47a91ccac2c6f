"""Fitness of candidates: what it may depend on, what may fail, and who computes it."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from conftest import genomes_of, trained_on_digits

from dpes import make_settings
from dpes.coupling.cutting import slim
from dpes.coupling.genome import to_hex
from dpes.strategy import judging, workers
from dpes.strategy.history import Candidate, History
from dpes.strategy.loop import Task, search
from dpes.study import train
from dpes.study.fitness import Fitness, build, genome_seed


@pytest.fixture(scope="module")
def setting():
    return trained_on_digits("vgg-tiny")


def fitness(setting, **changes):
    return Fitness(*setting, make_settings("smoke", **changes).search)


def draws(layout, n):
    return genomes_of(layout, n, 0.7)


@pytest.mark.parametrize("kind", ["recalibrate", "partial", "partial-recalibrate", "none"])
def test_errors_depend_on_nothing_but_the_genome(kind, setting):
    changes = {"fitness": kind, "partial_epochs": 1, "partial_images": 100}
    jobs = draws(setting[1], 5)
    forwards = list(workers.serial(fitness(setting, **changes), jobs))
    backwards = list(workers.serial(fitness(setting, **changes), jobs[::-1]))[::-1]
    assert forwards == backwards and len(set(forwards)) > 1


@pytest.mark.parametrize("kind", ["recalibrate", "partial", "partial-recalibrate", "none"])
def test_half_precision_changes_few_errors(kind, setting):
    jobs = draws(setting[1], 4)
    changes = {"fitness": kind, "partial_epochs": 1, "partial_images": 200, "search_images": 300}
    single, half = (
        np.array(list(workers.serial(fitness(setting, precision=p, **changes), jobs)))
        for p in (None, "bfloat16")
    )
    assert np.abs(single - half).max() <= 0.03
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("kind", ["recalibrate", "partial", "partial-recalibrate"])
def test_a_genome_that_returns_has_the_same_error(kind, setting):
    """No candidate leaves widths, statistics or momenta behind for the next one."""
    one = fitness(setting, fitness=kind, partial_epochs=1, partial_images=100)
    a, b = draws(setting[1], 2)
    whole = np.ones_like(a)
    first = [one(a), one(b), one(whole)]
    assert [one(a), one(a), one(whole), one(b)] == [first[0], first[0], first[2], first[1]]


def test_partial_training_has_a_stream_for_each_seed_and_genome(setting):
    a, b = draws(setting[1], 2)
    assert len({genome_seed(s, g) for s in (0, 1, 2**63 - 1) for g in (a, b)}) == 6
    settings = make_settings(
        "smoke", fitness="partial", partial_epochs=1, partial_images=100, partial_lr=0.1
    ).search
    weights = []
    for seed in (0, 0, 1):
        one = Fitness(*setting, settings, seed)
        one(a)
        # of the candidate that was evaluated last
        weights.append(next(one.scratch.parameters()).detach().clone())
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_brief_training_is_judged_by_statistics_of_the_cut_network(setting):
    """A few steps leave most of the full network's running averages in batch norm; recalibration
    after them does not.
    """
    changes = {
        "fitness": "partial-recalibrate",
        "partial_epochs": 1,
        "partial_images": 100,
        "partial_lr": 0.01,
    }
    one, genome = fitness(setting, **changes), draws(setting[1], 1)[0]
    one(genome)
    trained = {k: v.clone() for k, v in one.scratch.state_dict().items()}
    judging.recalibrate(one.scratch, one.calibration_batches())
    assert all(
        torch.equal(v, trained[k]) for k, v in one.scratch.state_dict().items() if "running" in k
    )
    start = fitness(setting, **changes | {"fitness": "recalibrate"})
    start(genome)
    assert not torch.equal(next(start.scratch.parameters()), next(one.scratch.parameters()))


def test_processes_give_the_same_bits_even_when_one_dies(setting, born):
    one, jobs = fitness(setting), draws(setting[1], 12)
    expected = list(workers.serial(one, jobs))
    with workers.processes(build, one.parts(), 2) as errors:
        assert list(errors(jobs)) == expected
        answers = errors(jobs)
        first = next(answers)
        next(iter(born())).kill()
        assert [first, *answers] == expected


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_a_process_that_is_killed_as_it_is_born_is_replaced(seconds, setting, born):
    one, jobs = fitness(setting), draws(setting[1], 4)

    def kill_one():
        while not (processes := born()):
            time.sleep(0.001)
        time.sleep(seconds)
        processes.pop().kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    with workers.processes(build, one.parts(), 2) as errors:
        assert list(errors(jobs)) == list(workers.serial(one, jobs))
    killer.join()
    assert not born()


def test_processes_leave_nothing_behind(tmp_path):
    """Nothing that Python would complain of when it ends, such as a semaphore."""
    (tmp_path / "script.py").write_text(
        "import numpy as np, torch\n"
        "from dpes import Search, trace\nfrom dpes.strategy import workers\nfrom dpes.study import "
        "data, models\n"
        "from dpes.study.fitness import Fitness, build\n"
        "if __name__ == '__main__':\n"
        "    net = models.build('resnet8', channels=1).eval()\n"
        "    layout = trace(net, torch.zeros(1, 1, 32, 32))\n"
        "    one = Fitness(net, layout, data.load('digits'), Search(calibration_images=20, "
        "search_images=20, batch_size=20))\n"
        "    with workers.processes(build, one.parts(), 2) as errors:\n"
        "        print(len(list(errors([np.ones(layout.n_bits, dtype=bool)] * 2))))\n"
    )
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("2\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_processes_are_born(number):
    came, before = [], signal.signal(number, lambda *_: came.append("heard"))
    try:
        with workers.undisturbed():
            signal.raise_signal(number)
            came.append("born")
        assert came == ["born", "heard"]
        signal.raise_signal(number)
        assert came == ["born", "heard", "heard"]
    finally:
        signal.signal(number, before)


def test_processes_that_are_left_in_the_midst_of_their_work_end_at_once(born):
    """By an exception, such as Ctrl-C; else the pool would wait for what they are doing."""
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), workers.workers_of(2, print, ()) as pool:
        for _ in range(4):
            pool.submit(time.sleep, 60)
        while len(born()) < 2:
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert time.monotonic() - start < 30 and not born()


@pytest.mark.parametrize("kind", ["recalibrate", "partial", "partial-recalibrate", "none"])
def test_fitness_leaves_the_network_alone(kind, setting):
    network, layout, _ = setting
    before = {k: v.clone() for k, v in network.state_dict().items()}
    momenta = [m.momentum for m in network.modules() if hasattr(m, "momentum")]
    one = fitness(setting, fitness=kind, partial_epochs=1, partial_images=64)
    one(draws(layout, 1)[0])
    one(np.ones(layout.n_bits, dtype=bool))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert (
        momenta == [m.momentum for m in network.modules() if hasattr(m, "momentum")]
        and not network.training
    )


def test_the_order_in_which_weights_lie_changes_nothing(setting):
    network, layout, digits = setting
    search, (genome,) = make_settings("smoke", search_images=300).search, draws(layout, 1)
    cuts = []
    for order in (torch.contiguous_format, torch.channels_last):
        one = Fitness(copy.deepcopy(network).to(memory_format=order), layout, digits, search)
        cuts.append([one(genome), *(p.clone() for p in one.scratch.parameters())])
    assert cuts[0][0] == cuts[1][0] and all(
        torch.equal(a, b) for a, b in zip(cuts[0][1:], cuts[1][1:], strict=True)
    )
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            slim(last, layout, genome).parameters(),
            slim(network, layout, genome).parameters(),
            strict=True,
        )
    )


def test_freed_memory_is_kept_where_the_c_library_can(monkeypatch):
    workers.keep_freed_memory()
    for problem in (OSError, AttributeError, TypeError):
        monkeypatch.setattr(
            workers.ctypes, "CDLL", lambda _, problem=problem: (_ for _ in ()).throw(problem)
        )
        workers.keep_freed_memory()


def test_fitness_none_is_the_error_of_the_cut(setting):
    network, layout, digits = setting
    genome = draws(layout, 1)[0]
    cut = slim(network, layout, genome)
    assert fitness(setting, fitness="none")(genome) == train.error_rate(
        cut, digits.search.first(100), digits
    )
    assert fitness(setting, fitness="none", error_on="train")(genome) == train.error_rate(
        cut, digits.train.first(100), digits
    )


def test_a_failed_candidate_is_worst_and_said(setting, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory\nand more")

    one = fitness(setting)
    monkeypatch.setattr(judging, "recalibrate", fail)
    with pytest.warns(UserWarning, match="counts as worst: out of memory$"):
        assert list(workers.serial(one, draws(setting[1], 1))) == [float("inf")]


def test_a_failed_candidate_is_never_a_parent(setting):
    """Every second candidate fails; a search that is taken up from its history ends alike."""
    layout, settings = setting[1], make_settings("smoke", population=8, generations=3).search
    failed = {}

    def some(genomes):
        for genome in genomes:
            failed[to_hex(genome)] = bool(genome[:9].sum() % 2) and not genome.all()
            yield workers.FAILED if failed[to_hex(genome)] else float(genome.mean())

    history, task = [], Task(layout, some, settings, 0)
    ends = [search(task, History(known, lambda c, _: history.append(c))) for known in ([], history)]
    assert 0 < sum(failed.values()) < len(failed)
    assert not any(failed[to_hex(p)] for p in ends[0].parents) and np.isfinite(ends[0].F).all()
    again = [Candidate(**json.loads(c.line())) for c in history]
    assert again == history and sum(c.error == float("inf") for c in history) > 0
    assert np.array_equal(ends[0].parents, ends[1].parents)


def test_workers_end_with_a_parent_that_is_killed(setting, tmp_path):
    """They hold the pipe to this process open as long as they live."""
    code = (
        "import numpy as np, os, signal, torch\n"
        "from dpes import make_settings, trace\nfrom dpes.strategy import workers\nfrom dpes.study "
        "import data, models\n"
        "from dpes.study.fitness import Fitness, build\n"
        "network, digits = models.build('vgg-tiny', channels=1), data.load('digits')\n"
        "layout = trace(network, torch.zeros(1, 1, 32, 32))\n"
        "one = Fitness(network, layout, digits, make_settings('smoke').search)\n"
        "with workers.processes(build, one.parts(), 2) as errors:\n"
        "    print(next(errors([np.ones(layout.n_bits, dtype=bool)] * 2)), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        try:
            out, _ = parent.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(parent.pid, signal.SIGKILL)  # the workers, too
            raise
    assert parent.returncode == -signal.SIGKILL and 0 <= float(out) <= 1


def test_search_reevaluates_nothing(setting):
    """A genome that comes back, and all of a history, cost nothing."""
    layout, settings = (
        setting[1],
        make_settings("smoke", population=8, generations=3, p_mutation=0.02).search,
    )
    asked, history = [], []

    def errors(genomes):
        for genome in genomes:
            asked.append(to_hex(genome))
            yield float(genome.mean())

    first = search(Task(layout, errors, settings, 0), History(write=lambda c, _: history.append(c)))
    assert len(asked) == len(set(asked)) and len(history) == 1 + 8 * 3
    asked.clear()
    second = search(Task(layout, errors, settings, 0), History(history))
    assert not asked and np.array_equal(first.parents, second.parents)
