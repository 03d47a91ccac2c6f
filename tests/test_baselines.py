"""The small trained networks of the quick study: they are what their recipe trains, and a recipe of
one's own is trained.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from dpes.fields import to_dict
from dpes.study import baseline, data, models, train
from dpes.study.models.weights import find
from dpes.study.profiles import make_settings

DIGITS = models.WEIGHTS["digits"]
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.mark.parametrize("name", DIGITS)
def test_the_quick_study_starts_from_a_network_that_is_kept_with_its_origin(name, digits):
    settings, weights = make_settings("quick", model=name), DIGITS[name]
    assert settings.weights == "digits" and settings.baseline_id == f"{name}-digits-digits"
    entry = json.loads(find(weights).with_suffix(".json").read_text())
    assert entry["sha256"] == weights.sha256 and entry["recipe"] == to_dict(settings.baseline)
    network = baseline.load_baseline(settings, digits)
    assert train.error_rate(network, digits.test, digits) == pytest.approx(weights.error, abs=0.005)


class Enough(Exception):
    """One epoch says whether it is the same training."""


@pytest.mark.parametrize("name", ["resnet20", "densenet16"])
def test_it_is_what_its_recipe_trains(name, digits):
    recipe = make_settings("quick", model=name).baseline
    log = json.loads(find(DIGITS[name]).with_suffix(".json").read_text())["log"]
    assert len(log) == recipe.epochs
    seen = []

    def progress(epoch, loss, seconds):
        seen.append(loss)
        raise Enough

    with pytest.raises(Enough):
        train.fit(models.build(name, 10, 1, recipe.seed), digits, recipe, recipe.seed, progress)
    # a processor that sums in another order ends an epoch elsewhere: 1.3 % off on Zen 5
    assert seen == [pytest.approx(log[0]["loss"], rel=0.03)]


@pytest.mark.slow
def test_all_epochs_give_a_network_like_the_one_that_is_kept(digits):
    name = "vgg-narrow"
    recipe, network = make_settings("quick", model=name).baseline, models.build(name, 10, 1)
    log = train.fit(network, digits, recipe, recipe.seed)
    kept = models.load_weights(name, "digits", channels=1)
    entry = json.loads(find(DIGITS[name]).with_suffix(".json").read_text())
    assert 1 / 3 < log[-1]["loss"] / entry["log"][-1]["loss"] < 3
    x, y = data.normalise(digits.test.x, digits), digits.test.y
    with torch.no_grad():
        errors = [(net(x).argmax(1) != y).float().mean().item() for net in (network, kept)]
    assert abs(errors[0] - errors[1]) <= 0.01  # the same bits on the same processor only


@pytest.mark.parametrize(
    "changes",
    [
        {"baseline_epochs": 3},
        {"model": "resnet8"},
        {"dataset": "fashion-mnist"},
        {"weights": "train"},
    ],
)
def test_another_recipe_network_or_data_set_is_trained(changes):
    settings = make_settings("quick", **changes)
    assert (
        settings.weights == "train" and settings.baseline_id != make_settings("quick").baseline_id
    )
    assert make_settings("quick", baseline_precision=None) == make_settings("quick")


def test_training_it_anew_does_not_take_the_one_that_is_kept(tmp_path, monkeypatch, digits):
    monkeypatch.setenv("DPES_DATA", str(tmp_path))
    trained = []

    def instead(network, dataset, settings, path, progress):
        trained.append(path)
        path.write_bytes(baseline.weights_of(network))

    monkeypatch.setattr(baseline, "train_baseline", instead)
    baseline.load_baseline(make_settings("quick", weights="train"), digits)
    assert [p.parent for p in trained] == [tmp_path / "weights"]


@pytest.mark.parametrize("damage", [None, b"half a file"])
def test_one_that_is_missing_or_damaged_can_be_trained(tmp_path, damage):
    if damage:
        (tmp_path / "resnet20-digits.safetensors").write_bytes(damage)
    with pytest.raises(models.ModelError, match="resnet20-digits.safetensors is .*--weights train"):
        models.load_weights("resnet20", "digits", channels=1, folder=tmp_path)


def test_the_file_is_named_by_what_it_holds():
    for name, weights in DIGITS.items():
        file = ROOT / "data" / weights.url
        assert file.name == f"{name}-digits.safetensors" and file.stat().st_size < 2.5e6
        assert hashlib.sha256(file.read_bytes()).hexdigest() == weights.sha256
