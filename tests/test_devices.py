"""What a GPU wants otherwise, found out without one: copies counted on pretended CUDA tensors,
launches with a pretended graph, spread of processes by their names.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import genomes_of, trained_on_digits
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dpes import make_settings
from dpes.coupling.tracing import trace
from dpes.coupling.zeroing import NotAtFullShape
from dpes.strategy import judging
from dpes.study import data, devices, models, train
from dpes.study.fitness import Fitness
from dpes.study.settings import Training


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


class Counted(TorchDispatchMode):
    """Counts operations that launch something, and those that bring numbers from the host."""

    def __init__(self):
        super().__init__()
        self.launches, self.from_host = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        if len({t.device.type for t in tensors}) > 1 or "lift_fresh" in str(func):
            self.from_host.append(str(func))
        idle = func.is_view or "detach" in str(func) or "empty" in str(func)
        if tensors and not idle:
            self.launches.append(str(func))
        return out


def on_pretended_gpu(network, digits):
    """The network and a data set whose tensors say that they are on a GPU; inside FakeTensorMode."""
    for module in network.modules():
        for table in (module._parameters, module._buffers):
            for name, value in table.items():
                if value is not None:
                    there = torch.empty(value.shape, dtype=value.dtype, device="cuda")
                    table[name] = nn.Parameter(there) if table is module._parameters else there
    x = torch.empty(256, 1, 32, 32, dtype=torch.uint8, device="cuda")
    split = data.Split(x, torch.empty(256, dtype=torch.int64, device="cuda"))
    return network, dataclasses.replace(digits, train=split, search=split, test=split)


@pytest.mark.parametrize("flip", [False, True])
def test_no_batch_brings_anything_from_the_host(digits, flip):
    """A pretended GPU has no generator: that of the CPU draws in its place, where it is told to."""
    recipe, network = Training(batch_size=64), models.build("resnet8", 10, 1)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        network, there = on_pretended_gpu(network, dataclasses.replace(digits, flip=flip))
        generator = Pretended()
        course = train.Course(
            network, there, recipe, 0, train.sgd(models.build("resnet8"), recipe), generator
        )
        steps = course.prepared(0)
        next(steps)  # the order of an epoch and the scales of the pixels are there now
        with Counted() as counted:
            for x, y in steps:
                F.cross_entropy(network.train()(x), y)
            train.mistakes(network, there.search, there)
            judging.recalibrate(network, [x])
        assert counted.from_host == [] and len(counted.launches) > 100


class Pretended(torch.Generator):
    """A generator that says it draws on the GPU."""

    device = torch.device("cuda")


def test_copies_are_seen():
    with FakeTensorMode(), Counted() as counted:
        x = torch.empty(3, device="cuda")
        x + torch.empty(3).to("cuda")
        torch.tensor([1.0], device="cuda")
    assert len(counted.from_host) >= 2


def test_draws_on_the_cpu_are_those_that_were_published():
    assert torch.equal(
        torch.rand(5, generator=devices.draws(3, "cpu")),
        torch.rand(5, generator=torch.Generator().manual_seed(3)),
    )
    assert devices.draws(3, torch.device("cpu")).device.type == "cpu"


def test_scales_are_those_of_the_pixels(digits):
    x = digits.train.x[:50]
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (digits.mean, digits.std))
    assert torch.equal(data.normalise(x, digits), (x.float() - 255 * mean) / (255 * std))
    assert digits.scales is digits.scales and digits.to("cpu").scales.shape == (2, 1, 1, 1, 1)


# ---- batches -------------------------------------------------------------------------------------
def test_evaluation_batches_fill_a_gpu_and_stay_as_they_are_on_a_cpu(monkeypatch):
    assert devices.images_at_once("cpu", 10**6, 250) == 250
    sizes = {}
    for gib in (1, 8, 80):
        monkeypatch.setattr(devices, "memory", lambda device, gib=gib: gib * 2**30)
        sizes[gib] = devices.images_at_once("cuda:1", 600_000, 250)
    assert sizes[1] == 250 < sizes[8] < sizes[80] <= devices.AT_MOST
    assert sizes[8] * 600_000 * 4 <= 8 * 2**30 / 8


# ---- several GPUs --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("process", "device", "gpus", "chosen"),
    [
        ("SpawnProcess-1", "cuda", 4, "cuda:0"),
        ("SpawnProcess-4", "cuda", 4, "cuda:3"),
        ("SpawnProcess-6", "cuda", 4, "cuda:1"),
        ("SpawnProcess-3", "cuda", 1, "cuda:0"),
        ("SpawnProcess-3", "cuda:2", 4, "cuda:2"),
        ("SpawnProcess-3", "cpu", 0, "cpu"),
        ("Dask Worker process (from Nanny)", "cuda", 4, "cuda"),
    ],
)
def test_processes_take_the_gpus_in_turn(monkeypatch, process, device, gpus, chosen):
    taken = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(name=process))
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: None)
    assert devices.of_worker(device) == device  # the process that was started by hand
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: process)
    assert devices.of_worker(device) == chosen
    assert taken == ([chosen] if chosen != device else [])


# ---- full shape ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def setting():
    return trained_on_digits("resnet8")


def genomes(layout, n):
    return genomes_of(layout, n, 0.8)


@pytest.mark.parametrize("kind", ["recalibrate", "partial", "partial-recalibrate", "none"])
def test_candidates_at_full_shape_have_the_errors_of_those_that_are_cut(kind, setting):
    changes = {"fitness": kind, "partial_epochs": 1, "partial_images": 128}
    cut, full = (
        Fitness(*setting, make_settings("smoke", shape=shape, **changes).search)
        for shape in (None, "full")
    )
    errors = [(cut(g), full(g)) for g in genomes(setting[1], 4)]
    assert all(abs(a - b) <= 0.01 for a, b in errors)  # of 100 images one may be tipped by rounding
    assert len({a for a, _ in errors}) > 1
    assert [full(g) for g in genomes(setting[1], 4)] == [b for _, b in errors]


def test_a_network_that_computes_something_else_so_is_refused(digits):
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.Sigmoid(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )  # fmt: skip
    layout = trace(network, torch.zeros(1, 1, 32, 32))
    with pytest.raises(NotAtFullShape, match="sigmoid in 1 makes something of zero"):
        Fitness(network, layout, digits, make_settings("smoke", shape="full").search)


def course_of(network, digits, recorded=None, **recipe):
    """A training on the CPU whose step may be ``recorded`` by a pretended graph."""
    recipe = Training(**{"epochs": 1, "batch_size": 16, "images": 16} | recipe)
    course = train.Course.begun(network, digits, recipe, 0)
    assert digits.scales.ndim == 5  # made once for a data set
    if recorded:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train, "Recorded", recorded)
            patch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
            course.record()
    return course


class Emulated(devices.Recorded):
    """Runs what a graph would replay."""

    def __init__(self, do, *inputs):
        self.do, self.inputs = do, inputs
        for _ in range(4):
            do(*inputs)

    def __call__(self, *inputs):
        return self.do(*inputs)


class Launch(Emulated):
    """One launch in place of a step's."""

    def __call__(self, x, y):
        return y.new_zeros(2).unbind()


def launches(course):
    course.optimizer.step = lambda: None  # fused on a GPU: a few launches for all weights
    with Counted() as counted:
        course.epoch(0)
    assert counted.from_host == []
    return counted.launches


def test_a_recorded_step_launches_a_tenth(digits):
    network = models.build("resnet56", 10, 1)
    plain = launches(course_of(network, digits))
    recorded = launches(course_of(network, digits, Launch))
    assert len(plain) > 450 and len(recorded) < 30


def test_recording_leaves_no_trace_and_odd_batches_are_not_replayed(digits):
    """40 images in batches of 16: two full ones and one of 8, three epochs of which one is small."""
    ends = []
    for recorded in (None, Emulated):
        network = models.build("resnet8", 10, 1, seed=0)
        course = course_of(network, digits, recorded, images=40, epochs=3, small_epochs=1)
        replayed = 0
        if recorded:
            whole = course.recorded.do

            def counted(*batch, whole=whole):
                nonlocal replayed
                replayed += 1
                return whole(*batch)

            course.recorded.do = counted
        log = course.run([])
        ends.append(([e["loss"] for e in log], network.state_dict()))
        assert replayed == (4 if recorded else 0) and not network.training
    (losses, plain), (same, other) = ends
    assert losses == same and all(torch.equal(plain[key], other[key]) for key in plain)


class Refused(Emulated):
    """Takes steps, and then finds something that cannot be recorded."""

    def __init__(self, do, *inputs):
        super().__init__(do, *inputs)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


def test_a_network_that_cannot_be_recorded_is_trained_as_before(digits):
    ends = []
    for recorded in (None, Refused):
        network = models.build("resnet8", 10, 1, seed=0)
        told = pytest.warns(UserWarning, match="of ResNet cannot be recorded, so it is slower: op")
        with told if recorded else nullcontext():
            course = course_of(network, digits, recorded, images=64)
        assert course.recorded is None
        ends.append((course.run([])[0]["loss"], list(network.state_dict().values())))
    assert ends[0][0] == ends[1][0] and all(map(torch.equal, ends[0][1], ends[1][1]))


def test_nothing_is_recorded_for_less_than_a_batch(digits):
    course = course_of(models.build("resnet8", 10, 1), digits, Refused, images=8)
    assert course.recorded is None


def test_a_network_without_trainable_weights_is_refused_as_before():
    frozen = models.build("resnet8", 10, 1).requires_grad_(False)
    assert all(not group["params"] for group in train.sgd(frozen, Training()).param_groups)


def test_a_course_restarts_as_if_it_were_new(digits):
    network = models.build("resnet8", 10, 1, seed=0)
    course = course_of(network, digits, Emulated, images=64)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    course.run([])
    network.load_state_dict(before)
    course.restart(5)
    log = course.run([])
    again = models.build("resnet8", 10, 1, seed=0)
    recipe = Training(epochs=1, batch_size=16, images=64)
    assert train.fit(again, digits, recipe, 5)[0]["loss"] == log[0]["loss"]
    states = network.state_dict(), again.state_dict()
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


def test_a_training_long_enough_is_recorded_on_a_gpu_only(digits, monkeypatch):
    calls = []
    monkeypatch.setattr(train.Course, "record", lambda self: calls.append(self.steps))
    network = models.build("resnet8", 10, 1)
    train.fit(network, digits, Training(epochs=1, batch_size=16, images=32), 0)
    assert calls == []
    monkeypatch.setattr(train, "WORTH", 2)
    train.fit(network, digits, Training(epochs=1, batch_size=16, images=32), 0)
    assert calls == [2]
    assert course_of(network, digits).recorded is None


def test_a_graph_is_recorded_after_three_calls_and_replayed_on_what_is_given(monkeypatch):
    done = []
    graph = SimpleNamespace(replay=lambda: done.append("replay"))
    streams = {n: SimpleNamespace(wait_stream=lambda other: None) for n in ("own", "usual")}
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: streams["own"])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: streams["usual"])
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda what: nullcontext())

    @contextmanager
    def recording(graph, stream):
        assert stream is streams["own"]  # torch's would be on the GPU that recorded first
        yield

    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: done.append(stream))
    out = torch.zeros(1)
    recorded = devices.Recorded(lambda x: done.append("call") or (out,), given := torch.zeros(3))
    assert (
        done == ["call"] * 4 + [streams["usual"]]
        and recorded.fits(torch.ones(3))
        and not recorded.fits(out)
    )
    assert recorded(torch.ones(3)) == (out,) and done[-1] == "replay"
    assert torch.equal(recorded.inputs[0], torch.ones(3)) and not given.any()
