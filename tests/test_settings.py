"""Settings: profiles, flat names, limits, and the identity of a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from dpes.errors import SettingsError
from dpes.fields import to_dict
from dpes.strategy.settings import Search
from dpes.study.profiles import PROFILES, make_settings
from dpes.study.settings import differences, flat_fields, from_dict


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_survive_json(profile):
    settings = make_settings(profile)
    assert settings.profile == profile
    assert from_dict(to_dict(settings)) == settings


def test_differences_are_told_by_flat_name():
    a, b = (
        make_settings("smoke", seed=3),
        make_settings("smoke", p_mutation=0.3, finetune_images=50),
    )
    assert differences(a, b) == {
        "seed": (3, 0),
        "p_mutation": (a.search.p_mutation, 0.3),
        "finetune_images": (512, 50),
    }
    assert differences(a, a) == {}


def test_every_setting_changes_the_name_of_the_run():
    base = make_settings("smoke")
    seen = {base.run_id}
    for name, (_, f) in flat_fields().items():
        value = f.default
        if name == "profile":
            continue
        if "choices" in f.metadata:
            changed = next(c for c in f.metadata["choices"] if c != value)
        elif f.type.startswith("bool"):
            changed = not value
        elif f.type.startswith("str"):
            changed = "other"
        else:
            changed = 0.123 if f.type.startswith("float") else 1 if "small_epochs" in name else 37
        changes = {name: changed} | ({"weights": "train"} if name in ("model", "dataset") else {})
        seen.add(make_settings("smoke", **changes).run_id)
    assert len(seen) == len(flat_fields())  # all but profile, and the base


def test_settings_that_are_off_do_not_enter_the_name():
    """A later version can add a setting, off by default, without renaming the runs made before."""
    assert all(value is not None for value in to_dict(Search()).values())
    assert (
        "error_ceiling" not in to_dict(Search())
        and to_dict(Search(error_ceiling=0.5))["error_ceiling"] == 0.5
    )


def test_runs_keep_their_names():
    """Another name for the same settings would orphan every run made before."""
    names = {profile: make_settings(profile).run_id.rsplit("-", 1)[1] for profile in PROFILES}
    assert names == {
        "smoke": "5fcd5023",
        "quick": "5f52f3ae",
        "cpu": "b1c306d3",
        "paper": "cba74c4f",
    }
    for file in (Path(__file__).parents[1] / "data" / "runs").glob("*-cpu-*/settings.json"):
        stored = json.loads(file.read_text())["settings"]
        assert from_dict(stored).run_id == file.parent.name and to_dict(from_dict(stored)) == stored


def test_a_setting_given_as_unset_is_one_not_given():
    unset = {name: None for name, (_, f) in flat_fields().items() if f.default is None}
    assert len(unset) >= 5
    assert make_settings("quick", **unset) == make_settings("quick")
    assert make_settings("quick", **unset).run_id == make_settings("quick").run_id


def test_names_are_readable():
    assert make_settings("cpu", seed=3).run_id.startswith("resnet56-cifar10-cpu-s3-")
    assert make_settings("cpu").baseline_id == "resnet56-cifar10-akamaster"
    seeds = {make_settings("quick", seed=s).baseline_id for s in range(3)}
    assert len(seeds) == 1  # searches of several seeds start from one trained network


def test_weights_of_a_profile_are_those_of_its_own_network():
    assert make_settings("cpu").weights == "akamaster"
    assert make_settings("cpu", model="vgg16").weights == "train"
    assert (
        make_settings("cpu", model="densenet22").baseline.small_epochs == 12
        and make_settings("cpu").baseline.small_epochs is None
    )
    assert (
        make_settings("cpu", model="vgg16").finetune.epochs == 4
        and make_settings("cpu").finetune.epochs == 8
    )
    assert make_settings("cpu", model="vgg16", baseline_epochs=12).baseline.epochs == 12
    assert make_settings("quick", model="vgg16").search == make_settings("quick").search
    assert make_settings("cpu", model="resnet20", weights="akamaster").weights == "akamaster"


def test_flat_names_reach_their_part():
    settings = make_settings("smoke", population=7, finetune_lr=0.3, baseline_epochs=9)
    assert (settings.search.population, settings.finetune.lr, settings.baseline.epochs) == (
        7,
        0.3,
        9,
    )


def test_settings_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_settings("smoke").seed = 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"profile": "cpuu"}, "unknown profile 'cpuu': did you mean 'cpu'"),
        ({"popultion": 5}, "unknown setting 'popultion': did you mean 'population'"),
        ({"population": 4.0}, "population = 4.0: must be a whole number"),
        ({"population": True}, "must be a whole number"),
        ({"keep_unpruned": 1}, "must be true or false"),
        ({"model": 20}, "model = 20: must be a text"),
        ({"p_mutation": "x"}, "must be a number"),
        ({"p_mutation": float("inf")}, "must be above 0 and at most 1"),
        ({"partial_images": 1}, "must be at least 2"),
        ({"finetune_images": 1}, "images = 1: must be at least 2"),
        ({"partial_images": 1}, "partial_images = 1: must be at least 2"),
        ({"seed": 2**63}, "seed = 9223372036854775808: must be at least 0 and at most"),
        ({"baseline_seed": 2**64}, "must be at least 0 and at most"),
    ],
)
def test_mistakes_name_the_cure(arguments, message):
    with pytest.raises(SettingsError, match=message) as caught:
        make_settings(**arguments)
    assert "\n" not in str(caught.value)


def test_settings_of_another_version_are_refused():
    values = to_dict(make_settings("smoke"))
    values["search"]["crossover"] = 0.5
    with pytest.raises(
        SettingsError, match="unknown setting 'crossover': written by another version"
    ):
        from_dict(values)


@pytest.mark.parametrize(
    "values", [[], None, 5, {"search": 5}, {"baseline": None}, {"finetune": ["lr"]}]
)
def test_settings_of_another_shape_are_refused(values):
    with pytest.raises(SettingsError, match="settings are .*: must be names with their values"):
        from_dict(values)


def test_whole_numbers_are_numbers():
    assert make_settings("smoke", p_mutation=1).search.p_mutation == 1.0
    assert (
        make_settings("smoke", p_mutation=1).run_id == make_settings("smoke", p_mutation=1.0).run_id
    )


def test_small_images_end_before_training_does():
    with pytest.raises(SettingsError, match="small_epochs = 4: must be at most epochs, which is 3"):
        make_settings("smoke", finetune_epochs=3, finetune_small_epochs=4)
