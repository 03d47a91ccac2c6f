"""What networks do that no kind foresees: none of it may be cut wrongly without a word."""

from __future__ import annotations

import dataclasses
import threading
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import shake
from kinds import Net, images
from torch import nn

from dpes import UnsupportedModel, macs, mask, repair, slim, trace
from dpes.coupling.evaluating import evaluating
from dpes.coupling.operations import leaves
from dpes.coupling.watching import Watch


class Ends(nn.Module):
    """A network whose first filters are changed by ``mid`` and whose outputs by ``end``."""

    def __init__(self, mid, end):
        super().__init__()
        self.net, self.end = Net(mid), end

    def forward(self, x):
        return self.end(self.net(x))


@dataclasses.dataclass(slots=True)
class Slots:
    logits: torch.Tensor


def wrong(model, x):
    """Whether some slim network differs from the masked one."""
    model, x = shake(model).double(), x.double()
    try:
        layout = trace(model, x)
    except UnsupportedModel:
        return False
    rng = np.random.default_rng(3)
    for share in (0.9, 0.8, 0.5, 0.5, 0.3, 0.2, 0.1):
        genome = repair(rng.random(layout.n_bits) < share, layout.group_of_bit, layout.least)
        with torch.no_grad():
            a = list(leaves(slim(model, layout, genome)(x)))
            b = list(leaves(mask(model, layout, genome)(x)))
        if not all(torch.allclose(p.double(), q.double()) for p, q in zip(a, b, strict=True)):
            return True
    return False


HIDDEN = {  # a width written into the code, and an end that hides most of what it does
    "clamp": (lambda m, x: x / x.shape[1], lambda y: (y * 5).clamp(0, 1)),
    "argmax": (lambda m, x: x - x.shape[1] / 3, lambda y: y.argmax(1)),
    "softmax": (lambda m, x: x + x.shape[1] / 100, lambda y: (y * 100).softmax(1)),
}
BRANCHES = {
    "at one width": lambda m, x: x * 2 if x.shape[1] == 5 else x,
    "on more than one image": lambda m, x: x - x.mean(1, keepdim=True) if len(x) > 1 else x,
    "on a list": lambda m, x: x if x.sum((0, 2, 3)).tolist()[0] > 3 else -x,
}


def test_an_end_that_saturates_hides_nothing():
    assert not any(wrong(Ends(*parts), images()) for parts in HIDDEN.values())


@pytest.mark.parametrize("name", BRANCHES)
def test_a_branch_is_cut_rightly(name):
    assert not wrong(Net(BRANCHES[name]), images())


@pytest.mark.parametrize("end", [Slots, lambda y: iter([y]), lambda y: y.numpy()])
def test_outputs_in_unknown_containers_are_refused_or_kept(end):
    try:
        layout = trace(Ends(lambda m, x: x, end), images())
    except UnsupportedModel:
        return
    assert "net.fc" not in [g.name for g in layout.groups]


@pytest.mark.parametrize("end", [lambda y: (y, y > 0), lambda y: (y, y[:0])])
def test_outputs_of_truth_values_and_empty_ones_are_compared(end):
    assert trace(Ends(lambda m, x: x, end), images()).n_bits == 24


def test_a_mask_silences_in_inference_mode_as_well():
    model, x = shake(Net()), images()
    layout = trace(model, x)
    genome = np.arange(layout.n_bits) % 3 > 0
    masked = mask(model, layout, genome)
    wanted = masked(x)
    with torch.inference_mode():
        assert macs(model, x) == macs(Net(), x) > 0
        torch.testing.assert_close(masked(x), wanted)


def test_threads_trace_side_by_side():
    x, found = images(), []
    start = threading.Barrier(4)

    def work():
        start.wait()
        for _ in range(3):
            try:
                found.append(trace(Net(), x).n_bits)
            except Exception as error:
                found.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [24] * 12


def test_watching_holds_no_activation():
    """All of them together may be more than memory has."""
    seen = []

    def mid(m, x):
        seen.append(weakref.ref(y := x * 2))
        return y

    model = Net(mid)
    watch = Watch(model)
    with evaluating(model), watch:
        model(images()[:1])
    assert seen[0]() is None and len(watch.producers) == 4


def test_buffers_that_forward_writes_are_restored():
    def mid(m, x):
        m.average.mul_(0.9).add_(x.mean((0, 2, 3)), alpha=0.1)
        return x

    model = Net(mid)
    model.register_buffer("average", torch.zeros(8))
    trace(model.eval(), images())
    assert not model.average.any()


def test_a_buffer_that_forward_replaces_is_restored():
    def mid(m, x):
        m.average = x.mean((0, 2, 3))
        return x + m.average.view(1, -1, 1, 1)

    model = Net(mid)
    model.register_buffer("average", torch.zeros(8))
    assert not wrong(model, images()) and not model.average.any()


def test_a_graph_module_is_cut():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    assert trace(torch.fx.symbolic_trace(model), images()).n_bits == 8


def test_a_parameter_may_be_a_buffer_as_well():
    model = Net()
    model.register_buffer("same", model.c1.weight)
    layout = trace(model, images())
    slim(model, layout, np.arange(layout.n_bits) % 2 > 0)


def test_frozen_batch_norm_is_cut():
    from torchvision.ops import FrozenBatchNorm2d

    model = Net()
    model.b1 = FrozenBatchNorm2d(8)
    assert trace(model, images()).n_bits == 24


def test_a_layer_without_weights_yet_is_refused_in_one_line():
    with pytest.raises(UnsupportedModel):
        trace(nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyConv2d(4, 3)), images())


# ---- what forward reads -------------------------------------------------------------------------
@pytest.mark.parametrize(
    "mid",
    [
        lambda m, x: x * 2 if x.shape[1] == 5 else x,
        lambda m, x: x * 2 if x.size(1) // 2 < 2 else x,
        lambda m, x: x[:, : min(x.shape[1], 4)].repeat(1, 2, 1, 1),
        lambda m, x: x * float(x.sum((0, 2, 3)).numpy()[0] > 0),
        lambda m, x: x * {5: 2.0}.get(x.shape[1], 1.0),
        lambda m, x: x * 2 if f"{x.shape[1]}" == "5" or int(x.shape[1]) == 5 else x,
        lambda m, x: x * 2 if len(m.c1.weight) == 5 or x.numel() == 5 * 256 * len(x) else x,
    ],
)
def test_a_width_or_an_element_that_is_asked_for_stays_without_a_proof(mid):
    assert [g.name for g in trace(Net(mid), images(), prove=False).groups] == ["c2", "c3"]


@pytest.mark.parametrize(
    "mid",
    [
        lambda m, x: x.view(x.shape[0], x.size(1), -1).view(x.shape),
        lambda m, x: x + 1 if x.shape[1] == m.b1(x).shape[1] else x,
        lambda m, x: F.group_norm(x, x.shape[1]),
        lambda m, x: F.normalize(x, dim=1),
    ],
)
def test_a_width_that_is_only_handed_on_may_shrink(mid):
    assert trace(Net(mid), images()).n_bits == 24


def test_values_that_python_reads_are_noted():
    layout = trace(Net(lambda m, x: x if x.sum() > -1e9 else -x), images())
    assert layout.n_bits == 24 and "bool reads values" in str(layout)
    assert "reads values" not in str(trace(Net(lambda m, x: x * m.fc.bias[0].item()), images()))


def test_sizes_that_forward_remembers_are_numbers_again_and_its_attributes_are_restored():
    def mid(m, x):
        m.size, m.first = x.shape, getattr(m, "first", None) or x.shape
        return x

    model = Net(mid)
    trace(model, images())
    assert not hasattr(model, "size") and not hasattr(model, "first")


def test_outputs_that_are_not_finite_are_compared():
    def end(y):
        return y.masked_fill(y > 0, -torch.inf)

    assert not wrong(Ends(lambda m, x: x - x.shape[1] / 3, end), images())
    assert trace(Ends(lambda m, x: x, end), images()).n_bits == 24
