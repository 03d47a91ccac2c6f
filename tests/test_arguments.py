"""Whatever a caller hands to the coupling in an argument's place is taken or refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kinds import Net, images
from torch import nn

from dpes import DpesError, load, macs, mask, repair, save, slim, trace
from dpes.coupling import GenomeError, UnsupportedModel, read_header, rule
from dpes.coupling.rules import RULES

X, MODEL = images(), Net()
LAYOUT = trace(MODEL, X, prove=False)
GENOME, GROUPS = np.arange(LAYOUT.n_bits) % 3 > 0, LAYOUT.group_of_bit
SMALL = slim(MODEL, LAYOUT, GENOME)
NAN, HALVES, TEXT, NUL = float("nan"), 3.5, "x", "a\0b"
JUNK = (None, HALVES, TEXT, b"c1", ["x"], {"x": 1}, np.zeros(3), torch.ones(3, requires_grad=True),
        object(), NAN, Net, torch.ones((), device="meta"), torch.ones(3).to_sparse(), np.array("a"),
        [np.array(["a", "b"])], [torch.ones((), requires_grad=True, device="meta")] * 3, NUL)  # fmt: skip

CALLS = {  # what is tried in an argument's place
    "trace model": lambda v, f: trace(v, X),
    "trace example": lambda v, f: trace(MODEL, v),
    "trace keep": lambda v, f: trace(MODEL, X, keep=v),
    "trace min_filters": lambda v, f: trace(MODEL, X, min_filters=v),
    "trace min_share": lambda v, f: trace(MODEL, X, min_share=v),
    "trace prove": lambda v, f: trace(MODEL, X, prove=v),
    "macs model": lambda v, f: macs(v, X),
    "macs example": lambda v, f: macs(MODEL, v),
    "slim model": lambda v, f: slim(v, LAYOUT, GENOME),
    "slim layout": lambda v, f: slim(MODEL, v, GENOME),
    "slim genome": lambda v, f: slim(MODEL, LAYOUT, v),
    "mask model": lambda v, f: mask(v, LAYOUT, GENOME),
    "mask layout": lambda v, f: mask(MODEL, v, GENOME),
    "mask genome": lambda v, f: mask(MODEL, LAYOUT, v),
    "save small": lambda v, f: save(f / "f", v, LAYOUT, GENOME),
    "save layout": lambda v, f: save(f / "f", SMALL, v, GENOME),
    "save genome": lambda v, f: save(f / "f", SMALL, LAYOUT, v),
    "save model": lambda v, f: save(f / "f", SMALL, LAYOUT, GENOME, v),
    "save metric": lambda v, f: save(f / "f", SMALL, LAYOUT, GENOME, error=v),
    "load path": lambda v, f: load(v, MODEL),
    "load model": lambda v, f: load(saved(f), v),
    "read_header path": lambda v, f: read_header(v),
    "repair genomes": lambda v, f: repair(v, GROUPS),
    "repair groups": lambda v, f: repair(GENOME, v),
    "repair least": lambda v, f: repair(GENOME, GROUPS, v),
    "rule name": lambda v, f: rule(v),
    "rule function": lambda v, f: rule("dpes_kinds::none")(v),
    "layout.macs": lambda v, f: LAYOUT.macs(v),
    "layout.params": lambda v, f: LAYOUT.params(v),
    "layout.activations": lambda v, f: LAYOUT.activations(v),
}
RIGHT = {  # by identity
    "save model": [TEXT, NUL], "save metric": [HALVES, NAN], "rule name": [TEXT, NUL], "rule function": [Net],
}  # fmt: skip


def saved(folder):
    save(folder / "small", SMALL, LAYOUT, GENOME)
    return folder / "small"


def refused(call):
    with pytest.raises(DpesError) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    return str(caught.value)


@pytest.mark.parametrize("name", CALLS)
def test_what_is_of_another_kind_is_refused_in_one_line(name, tmp_path):
    for value in JUNK:
        if not any(value is right for right in RIGHT.get(name, ())):
            refused(lambda v=value: CALLS[name](v, tmp_path))


SWAPPED = {
    "trace": lambda f: trace(X, MODEL),
    "macs": lambda f: macs(X, MODEL),
    "slim": lambda f: slim(LAYOUT, MODEL, GENOME),
    "slim, last two": lambda f: slim(MODEL, GENOME, LAYOUT),
    "mask": lambda f: mask(LAYOUT, MODEL, GENOME),
    "save": lambda f: save(SMALL, f, LAYOUT, GENOME),
    "load": lambda f: load(MODEL, f),
    "repair": lambda f: repair(GENOME, LAYOUT),
}


@pytest.mark.parametrize("call", SWAPPED.values(), ids=SWAPPED)
def test_arguments_in_another_order_are_refused_in_one_line(call, tmp_path):
    refused(lambda: call(tmp_path / "f"))


class Unnormed(Net):
    def __init__(self):
        super().__init__(b1=nn.BatchNorm2d(8, affine=False))


OTHERS = {  # networks that the layout was not found in
    "another": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)),
    "wider": lambda: Net(c1=nn.Conv2d(3, 16, 3), b1=nn.BatchNorm2d(16), c2=nn.Conv2d(16, 8, 3)),
    "slim already": lambda: SMALL,
    "a norm without weights": Unnormed,
    "no bias": lambda: Net(c1=nn.Conv2d(3, 8, 3, bias=False)),
    "one layer more": lambda: Net(c4=nn.Conv2d(3, 8, 3)),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_layout_of_another_network_is_refused(other):
    for call in (slim, mask):
        assert "the layout that trace found" in refused(lambda c=call: c(other(), LAYOUT, GENOME))


GENOMES = {
    "short": GENOME[:-1], "two": np.stack([GENOME] * 2), "halves": np.full(24, 0.5),
    "not a number": np.full(24, np.nan), "twos": np.full(24, 2), "negative": -np.ones(24),
    "texts": np.full(24, "1"), "objects": np.full(24, None), "ragged": [[1], [1, 0]],
    "empty": np.zeros(24, bool), "complex": np.ones(24) * 1j,
}  # fmt: skip


@pytest.mark.parametrize("genome", GENOMES.values(), ids=GENOMES)
def test_genomes_that_do_not_fit_are_refused(genome):
    for call in (lambda g: slim(MODEL, LAYOUT, g), lambda g: mask(MODEL, LAYOUT, g), LAYOUT.macs):
        with pytest.raises(GenomeError):
            call(genome)


@pytest.mark.parametrize(
    "genome", [GENOME.tolist(), GENOME.astype(float), torch.tensor(GENOME) * 1.0]
)
def test_bits_in_other_containers_are_bits(genome):
    assert LAYOUT.macs(genome) == LAYOUT.macs(GENOME)
    assert (repair(genome, GROUPS.tolist(), 5) == repair(GENOME, GROUPS, 5)).all()
    assert repair(np.zeros(24, int), GROUPS, LAYOUT.least).sum() == 3


OPTIONS = {
    "min_filters": (0, -1, "3", 2.5, True), "min_share": (1.5, -0.1, "0.5", True),
    "keep": ("c9", ["c2", "c9"], b"c2", [2], [MODEL.c2]), "prove": ("no", 0),
}  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_options_out_of_range_are_named(option):
    for value in OPTIONS[option]:
        with pytest.raises(UnsupportedModel, match=option):
            trace(MODEL, X, **{option: value})


def test_one_name_is_a_name_and_a_generator_is_read_once():
    for keep in ("c2", ["c2"], {"c2"}, (name for name in ["c2"])):
        assert [g.name for g in trace(MODEL, X, keep=keep).groups] == ["c1", "c3"]
    outer = nn.Sequential(Net(), nn.Linear(5, 3))
    assert "0.c2" not in [g.name for g in trace(outer, X, keep="0.c2").groups]


@pytest.mark.parametrize(
    "example", [X[0], X[:0], X[:, :2], X.double(), X.to("meta"), X.to_sparse(), [X]]
)
def test_examples_that_do_not_run_are_refused(example):
    for call in (trace, macs):
        refused(lambda c=call: c(MODEL, example))


@pytest.mark.parametrize(
    "answer", [None, 3, {1: 3}, {9: np.zeros(8, int)}, {1: np.zeros(3, int)}, {1: np.zeros(8)},
               {1: np.arange(8) + 10**6}, [3]],
)  # fmt: skip
def test_a_rule_that_answers_something_else_is_named(answer, monkeypatch):
    monkeypatch.setitem(RULES, "aten::leaky_relu", lambda watch, op: answer)
    assert "the rule of aten::leaky_relu must return" in refused(lambda: trace(MODEL, X))


def test_files_of_and_for_what_cannot_be_cut_are_refused(tmp_path):
    file = saved(tmp_path)
    for model in (nn.ReLU(), SMALL, nn.Sequential(nn.LazyConv2d(8, 3))):
        refused(lambda m=model: load(file, m))
    for path in (tmp_path, tmp_path / "none" / "file", file / "file"):
        assert "a folder that is there" in refused(lambda p=path: save(p, SMALL, LAYOUT, GENOME))
    assert "c1.weight is [5," in refused(lambda: save(file, SMALL, LAYOUT, np.ones(24)))


def test_genomes_of_any_number_type_are_taken():
    for dtype in (torch.bfloat16, torch.float16, torch.int8, torch.float64):
        bits = torch.tensor(GENOME).to(dtype)
        assert (LAYOUT.checked(bits) == GENOME).all()
    refused(lambda: repair(True, 0))
