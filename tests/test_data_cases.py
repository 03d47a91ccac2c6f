"""Whoever brings a network, data and a metric gets a right answer, or one line before the search."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import shake
from test_pruning import Own
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import dpes
from dpes.errors import DpesError, RunError, SettingsError

SEARCH = dpes.Search(
    population=4, generations=2, calibration_images=64, search_images=100, batch_size=50
)
G = torch.Generator().manual_seed(0)
X, Y = torch.randn(120, 1, 16, 16, generator=G), torch.randint(4, (120,), generator=G)


def model():
    torch.manual_seed(0)
    return shake(Own())


def prune(net=None, *args, **given):
    given = {"data": (X, Y)} | given if not args and "evaluate" not in given else given
    options = {"settings": SEARCH, "progress": False} | given
    return dpes.prune(net or model(), X[:1], *args, **options)


def refused(words, **given):
    """One line, of this package, that says these words."""
    with pytest.raises(DpesError) as caught:
        prune(**given)
    assert words in str(caught.value) and "\n" not in str(caught.value), str(caught.value)


class Pairs(Dataset):
    """Samples one by one, without an end that iteration would find."""

    def __init__(self, wrap=lambda x, y: (x, y)):
        self.wrap = wrap

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return self.wrap(X[i % 120], int(Y[i % 120]))


def loader(source=None, **options):
    return DataLoader(source or TensorDataset(X, Y), **{"batch_size": 32} | options)


def dictionaries(batch):
    return {"image": torch.stack([x for x, _ in batch]), "class": [y for _, y in batch]}


NAMED = {"input": "image", "label": "class"}
FORMS = {
    "lists": lambda: {"data": [X, Y.tolist()]},
    "arrays": lambda: {"data": (X.numpy(), Y.numpy())},
    "float64": lambda: {"data": (X.double(), Y.int())},
    "batches": lambda: {"data": [(X[:70], Y[:70]), (X[70:], Y[70:])]},
    "generator": lambda: {"data": ((x, y) for x, y in zip(X.split(7), Y.split(7), strict=True))},
    "map": lambda: {"data": map(lambda i: (X[i : i + 9], Y[i : i + 9]), range(0, 120, 9))},
    "tensor data set": lambda: {"data": TensorDataset(X, Y)},
    "own data set": lambda: {"data": Pairs()},
    "loader": lambda: {"data": loader()},
    "loader of single images": lambda: {"data": loader(batch_size=1)},
    "loader of own data": lambda: {"data": loader(Pairs(), batch_size=120)},
    "batches of three": lambda: {"data": loader(TensorDataset(X, Y, torch.arange(120)))},
    "indices first": lambda: {
        "data": loader(TensorDataset(torch.arange(120), X, Y)), "input": 1, "label": 2
    },
    "dictionary": lambda: {"data": {"image": X, "class": Y}} | NAMED,
    "dictionaries": lambda: {"data": loader(Pairs(), collate_fn=dictionaries)} | NAMED,
    "samples as dictionaries": lambda: {
        "data": Pairs(lambda x, y: {"image": x, "class": y})
    } | NAMED,
    "samples as arrays": lambda: {"data": Pairs(lambda x, y: (x.numpy(), np.int64(y)))},
    "one-shot calibration": lambda: {"calibration": (x for x in X.split(10))},
    "calibration with labels": lambda: {"calibration": (X, Y)},
    "two batches of calibration": lambda: {"calibration": [X[:40], X[40:]]},
    "labelled batches of calibration": lambda: {"calibration": loader()},
}  # fmt: skip


@pytest.fixture(scope="module")
def plain():
    return prune().history


@pytest.mark.parametrize("form", FORMS)
def test_data_in_every_form_gives_one_and_the_same_search(form, plain):
    assert prune(**FORMS[form]()).history.equals(plain)


def test_unequal_batches_give_the_statistics_of_all_images():
    """Of 250 and 1 image, the one made half of every statistic; the first layer is exact."""
    x = X.repeat(3, 1, 1, 1)[:251] + torch.linspace(0, 3, 251).view(-1, 1, 1, 1)
    net = model()
    with torch.no_grad():
        mean = net.body[0](x).mean((0, 2, 3))
    found = prune(
        net, lambda n: 0.1, calibration=[x[:250], x[250:]],
        settings=dpes.Search(population=4, generations=1, calibration_images=251),
    )  # fmt: skip
    torch.testing.assert_close(
        found.heavy.body[1].running_mean, mean[found.genomes["heavy"][:8]], rtol=1e-4, atol=1e-5
    )


BAD = {  # what is wrong -> what is said
    "no samples": (lambda: {"data": []}, "data has no images"),
    "an empty generator": (lambda: {"data": iter(())}, "data has no images"),
    "no calibration": (lambda: {"calibration": []}, "calibration has no images"),
    "one calibration image": (lambda: {"calibration": X[:1]}, "two images or more"),
    "labels [n, 1]": (lambda: {"data": (X, Y[:, None])}, "squeeze them"),
    "one-hot": (lambda: {"data": (X, torch.eye(4).long()[Y])}, "y.argmax(1)"),
    "one-hot floats": (lambda: {"data": (X, torch.eye(4)[Y])}, "y.argmax(1)"),
    "many labels": (lambda: {"data": (X, torch.zeros(120, 7))}, "many labels an image need evaluate="),
    "label maps": (lambda: {"data": (X, torch.zeros(120, 16, 16).long())}, "segmentation"),
    "from 1": (lambda: {"data": (X, Y + 1)}, "count them from 0: y - 1"),
    "negative labels": (lambda: {"data": (X, Y - 1)}, "labels run from -1 to 2"),
    "too many classes": (lambda: {"data": (X, Y * 9)}, "the network's 4 classes are 0 to 3"),
    "float labels": (lambda: {"data": (X, Y.float())}, "y.long()"),
    "truth values": (lambda: {"data": (X, Y > 1)}, "y.long()"),
    "too few labels": (lambda: {"data": (X, Y[:50])}, "120 images and 50 labels"),
    "no labels": (lambda: {"data": X}, "images without labels"),
    "batches without labels": (lambda: {"data": loader(TensorDataset(X))}, "labels are missing"),
    "two batches of images": (lambda: {"data": [X, X]}, "labels are float32"),
    "words as labels": (lambda: {"data": (X, ["cat"] * 120)}, "not arrays of numbers"),
    "pictures": (lambda: {"data": [("x.png", 0)]}, "entries of type str"),
    "a path": (lambda: {"data": "images/"}, "data is of type str"),
    "a function": (lambda: {"data": lambda: (X, Y)}, "data is of type function"),
    "a number": (lambda: {"data": 3}, "data is of type int"),
    "dictionaries without names": (
        lambda: {"data": [{"image": X, "class": Y}]}, "name the entries: input=['image']"
    ),
    "a wrong name": (
        lambda: {"data": {"image": X, "class": Y}, "input": "image", "label": "y"},
        "gives dictionaries of ['image', 'class'], not 'y'",
    ),
    "uint8 images": (lambda: {"data": (X.byte(), Y)}, "convert and scale them as in training"),
    "images that are not finite": (lambda: {"data": (X / 0, Y)}, "not finite"),
    "another number of channels": (lambda: {"data": (X.repeat(1, 3, 1, 1), Y)}, "cannot read images of shape [3, 16, 16]"),
    "images without channels": (lambda: {"data": (X[:, 0, 0], Y)}, "must be batches alike"),
    "images of many sizes": (
        lambda: {"data": [(X, Y), (X[..., :9], Y)], "settings": dpes.Search(population=4, generations=1)},
        "entries of different shapes",
    ),
    "a data set that fails": (
        lambda: {"data": Pairs(lambda x, y: 1 / 0)}, "data cannot be read (ZeroDivisionError"
    ),
    "samples that are no pairs": (lambda: {"data": Pairs(lambda x, y: y)}, "its batches are of int"),
    "a dictionary of settings": (lambda: {"settings": {"population": 4}}, "is of type dict, not Search"),
    "settings of a study": (lambda: {"settings": dpes.make_settings("smoke")}, "give its .search"),
    "seed -1": (lambda: {"seed": -1}, "seed = -1: must be a whole number of at least 0"),
    "seed None": (lambda: {"seed": None}, "seed = None"),
    "seed 0.5": (lambda: {"seed": 0.5}, "seed = 0.5"),
    "both": (lambda: {"data": (X, Y), "evaluate": lambda n: 0.1}, "needs either evaluate="),
    "evaluate=0.1": (lambda: {"evaluate": 0.1}, "evaluate is of type float"),
    "another layout": (
        lambda: {"layout": dpes.trace(nn.Sequential(nn.Conv2d(1, 9, 3), nn.Conv2d(9, 2, 3)), X[:1])},
        "give the layout that trace found in this model",
    ),
    "a number as layout": (lambda: {"layout": 0}, "layout must be a Layout, not a int"),
    "no settings": (lambda: {"settings": {}}, "settings is of type dict, not Search"),
    "cost by no name": (lambda: {"cost": "flops"}, "unknown cost 'flops'"),
    "cost as a number": (lambda: {"cost": 3}, "unknown cost 3"),
    "a cost that fails": (lambda: {"cost": lambda n: n.weight}, "cost failed on a network (AttributeError"),
    "a cost below 0": (lambda: {"cost": lambda n: -1}, "cost returned -1"),
    "an infinite cost": (lambda: {"cost": lambda n: math.inf}, "cost returned inf"),
    "folder of no path": (lambda: {"folder": 3}, "folder = 3: must be a path"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_in_one_line(case):
    given, words = BAD[case]
    refused(words, **given())


EVALUATE = {
    "accuracies in percent": (lambda n: 93.0, "1 - accuracy, for example"),
    "NaN": (lambda n: float("nan"), "evaluate returned nan"),
    "None": (lambda n: None, "evaluate returned None"),
    "several numbers": (lambda n: torch.zeros(3), "evaluate returned tensor([0., 0., 0.])"),
    "an error of its own": (lambda n: {}["top1"], "evaluate failed on a network (KeyError: 'top1')"),
    "a value error": (lambda n: int("x"), "evaluate failed on a network (ValueError: "),
}  # fmt: skip


@pytest.mark.parametrize("case", EVALUATE)
def test_the_unpruned_network_shows_what_is_wrong_with_a_metric(case):
    function, words = EVALUATE[case]
    refused(words, evaluate=function, calibration=X)


class Ending(Own):
    """Its logits changed by ``end``."""

    def __init__(self, end):
        super().__init__()
        self.end = end

    def forward(self, x):
        return self.end(super().forward(x))


NETWORKS = {
    "one logit": (lambda y: y[:, :1], "at least two classes"),
    "a tuple": (lambda y: (y, y), "returns a tuple, not logits"),
    "a dictionary": (lambda y: {"logits": y}, "returns a dict, not logits"),
    "maps": (lambda y: y[:, :, None, None].expand(-1, -1, 4, 4), "returns torch.float32 [2, 4, 4, 4]"),
    "classes": (lambda y: y.argmax(1), "returns torch.int64 [2]"),
    "NaN": (lambda y: y / 0 * 0, "its outputs are no numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", NETWORKS)
def test_a_network_that_is_no_classifier_is_led_to_evaluate(case):
    end, words = NETWORKS[case]
    refused(words, net=shake(Ending(end)))


def test_damaged_weights_are_seen():
    net = model()
    net.head.weight.data[0, 0] = math.nan
    refused("not finite", net=net)


def test_a_wrong_direction_is_said():
    """An accuracy in place of an error; labels that belong to other images."""

    def accuracy(net):
        return 0.9 if sum(p.numel() for p in net.parameters()) > 900 else 0.2

    with pytest.warns(UserWarning, match="must return an error, not an accuracy"):
        prune(evaluate=accuracy, calibration=X)


@pytest.mark.parametrize("bad", [math.nan, 7.0, ValueError("one class only"), IndexError("empty")])
def test_one_candidate_that_cannot_be_judged_is_worst(bad):
    calls = iter(range(99))

    def error(net):
        if next(calls) != 2:
            return 0.2
        if isinstance(bad, Exception):
            raise bad
        return bad

    with pytest.warns(UserWarning, match="candidate failed and counts as worst: evaluate"):
        found = prune(evaluate=error, calibration=X)
    assert np.isinf(found.history.error).sum() == 1


def test_one_candidate_whose_cost_is_unknown_is_worst():
    calls = iter(range(99))
    with pytest.warns(UserWarning, match="counts as worst: cost returned nan"):
        found = prune(cost=lambda net: math.nan if next(calls) == 3 else 5.0)
    assert np.isinf(found.history.cost).sum() == 1


def test_what_a_metric_keeps_of_a_network_never_changes():
    kept, heard = [], []

    def error(net):
        with torch.no_grad():
            kept.append((net, net(X[:4])))
        net.register_forward_hook(lambda *_: heard.append(1))
        return 0.2

    prune(evaluate=error, calibration=X)
    heard.clear()
    with torch.no_grad():
        assert all(torch.equal(net(X[:4]), then) for net, then in kept)
    assert len(heard) == len(kept) >= 7


def test_numbers_of_numpy_and_torch_are_numbers(tmp_path):
    settings = dpes.Search(
        population=np.int64(4), generations=torch.tensor(2), p_mutation=np.float32(0.5),
        calibration_images=np.int32(64), search_images=100, batch_size=50,
    )  # fmt: skip
    assert type(settings.population) is int and type(settings.p_mutation) is float
    found = prune(settings=settings, seed=np.int64(3))
    row = found.archive.iloc[0]
    path = tmp_path / "small.safetensors"
    dpes.save(
        path, found.heavy, found.layout, found.genomes["heavy"], error=row.error, macs=row.macs
    )
    dpes.load(path, model())


@pytest.mark.parametrize("value", [np.float64(4.5), np.array([4, 4]), "4", True, 3, 10**9])
def test_other_numbers_are_refused(value):
    with pytest.raises(SettingsError, match="population = ") as caught:
        dpes.Search(population=value)
    assert "\n" not in str(caught.value)


# ---- a folder of another search -------------------------------------------------------------------
OTHERS = {
    "weights": (lambda: {"net": shake(model(), 1)}, "weights is"),
    "labels": (lambda: {"data": (X, 3 - Y)}, "labels is"),
    "images": (lambda: {"data": (-X, Y)}, "images is"),
    "calibration": (lambda: {"calibration": X / 2}, "calibration is"),
    "cost": (lambda: {"cost": "params"}, "cost is"),
    "seed": (lambda: {"seed": 1}, "seed is"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_folder_of_other_inputs_is_refused(what, tmp_path):
    given, words = OTHERS[what]
    prune(folder=tmp_path)
    with pytest.raises(RunError, match=words) as caught:
        prune(folder=tmp_path, **given())
    assert "\n" not in str(caught.value) and "other" in str(caught.value)


def test_a_folder_of_another_function_is_refused(tmp_path):
    given = {"calibration": X, "folder": tmp_path}
    first = prune(evaluate=lambda n: 0.1, cost=lambda n: 5.0, **given)
    again = prune(evaluate=lambda n: 0.1, cost=lambda n: 5.0, **given)
    assert again.history.equals(first.history)
    with pytest.raises(RunError, match="evaluate says 0.2 of the unpruned network, 0.1 in the"):
        prune(evaluate=lambda n: 0.2, cost=lambda n: 5.0, **given)
    with pytest.raises(RunError, match="cost says 4 of the unpruned network, 5 in the folder"):
        prune(evaluate=lambda n: 0.1, cost=lambda n: 4.0, **given)


def test_a_measure_that_varies_by_itself_may_continue(tmp_path):
    draws = np.random.default_rng(0)
    given = {"calibration": X, "folder": tmp_path, "cost": lambda n: 5 + draws.random()}
    first = prune(evaluate=lambda n: 0.1, **given)
    assert prune(evaluate=lambda n: 0.1, **given).history.equals(first.history)


def test_paths_of_all_kinds(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = prune(folder="~/sübfolder")
    assert (tmp_path / "sübfolder" / "history.jsonl").exists()
    dpes.save("~/s.safetensors", found.knee, found.layout, found.genomes["knee"])
    assert dpes.load("~/s.safetensors", model()) is not None
    (tmp_path / "file").write_text("")
    refused("is a file, not a folder", folder=tmp_path / "file")
    refused("is a file, not a folder", folder=tmp_path / "file" / "below")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_data_on_another_device_comes_to_the_network():
    found = dpes.prune(model().cuda(), X[:1].cuda(), data=(X, Y), settings=SEARCH, progress=False)
    assert len(found.history) == 9


def test_batches_are_equal_but_for_one_image():
    from dpes.strategy.samples import Reader

    read = Reader(X[:1]).read((X, Y), 101, "data", True)
    assert [len(s.x) for s in read.parts(50)] == [34, 34, 33]
