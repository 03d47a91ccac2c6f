"""What happens by accident: data, settings and folders that are nearly right give a right answer, or
one line with the cure.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from test_data_cases import Pairs, X, Y, model, prune, refused
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dpes
from dpes.errors import DpesError, RunError

Z = X.numpy()


class Column:
    """Labels as a table keeps them."""

    def __array__(self, dtype=None, copy=None):
        return Y.numpy()


def read_only(array):
    array.setflags(write=False)
    return array


FORMS = {
    "other order of bytes": lambda: (Z.astype(">f4"), Y.numpy().astype(">i8")),
    "steps backwards": lambda: (Z[..., ::-1].copy()[..., ::-1], Y.numpy()[::-1].copy()[::-1]),
    "read-only": lambda: (read_only(Z.copy()), read_only(Y.numpy().copy())),
    "unsigned labels": lambda: (X, Y.numpy().astype(np.uint16)),
    "a column of labels": lambda: (X, Column()),
    "a list of images": lambda: (list(X), Y),
    "lists of arrays": lambda: (list(Z), Y.tolist()),
    "batches as lists": lambda: [[X[:60], Y[:60]], [X[60:], Y[60:]]],
    "an empty batch first": lambda: [(X[:0], Y[:0]), (X, Y)],
}


@pytest.mark.parametrize("form", FORMS)
def test_data_in_odd_forms_gives_the_same_search(form):
    assert prune(data=FORMS[form]()).history.equals(prune().history)


def loaded(x, y):
    raise OSError("image file is truncated")


BAD = {
    "no images": (lambda: {"data": (X[:0], Y[:0])}, "data has no images"),
    "words as labels": (lambda: {"data": (X, ["cat"] * 120)}, "number the classes from 0"),
    "labels once read": (lambda: {"data": (X, (y for y in Y))}, "labels of data has entries of"),
    "a picture cut short": (
        lambda: {"data": Pairs(loaded)}, "data cannot be read (OSError: image file is truncated)"
    ),
    "a picture cut short, in a worker": (
        lambda: {"data": DataLoader(Pairs(loaded), num_workers=1)}, "image file is truncated)"
    ),
    "images on no device": (lambda: {"data": (X.to("meta"), Y)}, "data cannot be read"),
    "sparse images": (lambda: {"data": (X.to_sparse(), Y)}, "data cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_in_one_short_line(case):
    given, words = BAD[case]
    refused(words, **given())
    with pytest.raises(DpesError) as caught:
        prune(**given())
    assert len(str(caught.value)) < 500


OTHERS = {
    "calibration of other channels": (
        lambda: {"calibration": X.repeat(1, 3, 1, 1)}, "the network cannot read batches of calib"
    ),
    "calibration that is too small": (lambda: {"calibration": X[..., :3, :3]}, "cannot read batches"),
    "one image left over for a norm of vectors": (
        lambda: {
            "net": nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)),
            "settings": dpes.Search(population=4, generations=1, batch_size=2, calibration_images=3),
        },
        "batches of calibration, of shape [1, 1, 16, 16] (Expected more than 1 value",
    ),
    "costs": (lambda: {"cost": ["macs"]}, "unknown cost ['macs']"),
    "a seed that is too large": (lambda: {"seed": 2**63}, "at most 9223372036854775807"),
    "training images": (lambda: {"settings": dpes.Search(error_on="train")}, "error_on needs the"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_nearly_right_arguments_are_refused_in_one_line(case):
    given, words = OTHERS[case]
    refused(words, **given())


def shuffled():
    return {"data": DataLoader(TensorDataset(X, Y), batch_size=7, shuffle=True)}


def augmented():
    noise = (torch.randn_like(x) * random.random() * np.random.rand() for x in X.split(9))
    return {"calibration": (x + n for x, n in zip(X.split(9), noise, strict=True))}


@pytest.mark.parametrize("draw", [shuffled, augmented])
def test_a_search_on_images_drawn_at_random_continues(draw, tmp_path):
    """And whoever calls finds the global random numbers as they were."""
    net = model()
    torch.manual_seed(1)
    first = prune(net, folder=tmp_path, **draw())
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert prune(net, folder=tmp_path, **draw()).history.equals(first.history)
    assert torch.equal(torch.get_rng_state(), before)


CURES = {  # a cure that costs least
    "state.npz": (lambda raw: raw[:50], "delete this file: it is made again from the history"),
    "timing.jsonl": (
        lambda raw: b"".join(raw.splitlines(keepends=True)[:5]),
        "line 6 has no checksum in timing.jsonl; delete that file: nothing but seconds",
    ),
}


@pytest.mark.parametrize("name", CURES)
def test_what_is_damaged_and_can_be_made_again_need_not_be_restored(name, tmp_path):
    damage, words = CURES[name]
    first = prune(folder=tmp_path)
    file = tmp_path / name
    file.write_bytes(damage(file.read_bytes()))
    refused(words, folder=tmp_path)
    file.unlink()
    assert prune(folder=tmp_path).history.equals(first.history)


@pytest.mark.parametrize("name", ["settings.json", "package.json"])
def test_nobody_is_told_to_delete_a_folder_of_their_own(name, tmp_path):
    (tmp_path / name).write_text('{"name": "mine"}')
    with pytest.raises(RunError, match="use another folder"):
        prune(folder=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def refuses(function, words):
    with pytest.raises(DpesError) as caught:
        function()
    assert words in str(caught.value) and "\n" not in str(caught.value), str(caught.value)


SETTINGS = {
    "no population": (lambda: dpes.Search(population=None), "population = None: must be a whole"),
    "no knee": (lambda: dpes.make_settings(knee=None), "knee = None: must be a text"),
    "no seed": (lambda: dpes.make_settings(seed=None), "seed = None: must be a whole number"),
    "no model": (lambda: dpes.make_settings(model=None), "model = None: must be a text"),
    "no weights": (lambda: dpes.make_settings(weights=None), "weights = None: must be a text"),
    "no profile": (lambda: dpes.make_settings(None), "unknown profile None"),
    "profiles": (lambda: dpes.make_settings(["quick"]), "unknown profile ['quick']"),
    "infinite rate": (lambda: dpes.make_settings(finetune_lr=float("inf")), "lr = inf: must be above 0"),
    "no float of torch": (lambda: dpes.make_settings(finetune_lr=1e300), "lr = 1e+300: must be above 0"),
    "search as names": (lambda: dpes.Settings(search={"population": 4}), "search is of type dict"),
    "search of training": (lambda: dpes.Settings(search=dpes.Training()), "not Search"),
    "a run of nothing": (lambda: dpes.run(None), "settings is of type NoneType, not Settings"),
    "a run of names": (lambda: dpes.run({"profile": "smoke"}), "give dpes.make_settings('quick')"),
    "no workers": (lambda: dpes.run(dpes.make_settings("smoke"), workers=0), "workers = 0: must be"),
    "workers in words": (lambda: dpes.run(dpes.make_settings("smoke"), workers="2"), "workers = '2'"),
}  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_nobody_can_mean_are_refused_where_they_are_made(case):
    refuses(*SETTINGS[case])


def test_numbers_that_would_never_end_are_refused(finished):
    from dpes.study import rivals, tournament

    many = tournament.Options(Path("rows"), seeds="0-99999999999")
    refuses(many.tasks, "are more than 1000")
    refuses(lambda: rivals.check_asked(finished.settings, 10**8, False), "masks = 100000000: must")


def test_a_network_is_not_saved_with_the_genome_of_another(tmp_path):
    """It could never be loaded again."""
    net = model()
    layout = dpes.trace(net, X[:1])
    genome = np.arange(layout.n_bits) % 3 > 0
    small, file = dpes.slim(net, layout, genome), tmp_path / "small.safetensors"
    for other in (net, nn.Linear(3, 4)):
        refuses(lambda other=other: dpes.save(file, other, layout, genome), "cut by")
    ones = np.ones(layout.n_bits, dtype=bool)
    refuses(
        lambda: dpes.save(file, small, layout, ones),
        "body.0.weight is [5, 1, 3, 3], not [8, 1, 3, 3]; give the layout",
    )
    refuses(lambda: dpes.load(net, file), "path = Own(: must be a path")
    assert not list(tmp_path.iterdir())
    dpes.save(file, small, layout, genome)
    assert dpes.load(file, net).body[0].out_channels == 5


def test_solutions_have_three_names(finished):
    refuses(lambda: finished.network("kne"), "unknown solution 'kne': did you mean 'knee'?")
    refuses(lambda: finished.genome("baseline"), "unknown solution 'baseline'")
