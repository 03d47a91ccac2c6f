"""How long a run takes, by hand."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpes import make_settings

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import forecast  # noqa: E402

RECALIBRATED = make_settings(
    "cpu",
    population=10,
    generations=4,
    fitness="recalibrate",
    calibration_images=1000,
    search_images=2000,
    finetune_epochs=2,
)


def predicted(settings=RECALIBRATED, **changes):
    known = {"macs_per_image": 1e8, "macs_per_second": 1e10, "train_images": 45000}
    return forecast.search_seconds(settings, **known | changes)


def total(seconds):
    return seconds.searching_seconds + seconds.finetuning_seconds


def test_seconds_by_hand():
    """41 candidates, 0.01 s an image; one worker, then four: 1 + 4 * 3 rounds."""
    alone = predicted()
    assert (alone.candidates, alone.rounds, alone.idle_share) == (41, 41, 0)
    assert alone.calibration_seconds == pytest.approx(
        41 * 10
    ) and alone.judging_seconds == pytest.approx(41 * 20)
    assert alone.training_seconds == alone.start_seconds == alone.overhead_seconds == 0
    assert alone.finetuning_seconds == pytest.approx(3 * 2 * 45000 * 0.03)
    assert total(alone) == pytest.approx(41 * 30 + 8100)
    four = predicted(workers=4, start_seconds=3, overhead_seconds_per_candidate=0.5)
    assert (four.rounds, four.idle_share) == (13, pytest.approx(1 - 41 / 52))
    assert four.overhead_seconds == pytest.approx(13 * 0.5)
    assert four.searching_seconds == pytest.approx(3 + 13 * 30 + 6.5)


def test_seconds_of_slim_networks_and_of_loading_by_hand():
    half = predicted(macs_left=[1, 0.5, 0.5, 0.5], slim_rate=0.5)
    # the unpruned network runs at its own rate
    assert half.judging_seconds == pytest.approx(20 + 10 * (40 + 20 + 20 + 20))
    partial = make_settings(
        "cpu", population=10, generations=4, fitness="partial", partial_epochs=3, partial_images=100
    )
    trained = predicted(partial, training_rate=0.5)
    assert trained.calibration_seconds == 0 and trained.training_seconds == pytest.approx(
        41 * 300 * 0.06
    )
    assert predicted(
        replace(partial, search=replace(partial.search, partial_images=None))
    ).training_seconds == pytest.approx(41 * 3 * 45000 * 0.03)
    # storage is the slower one
    assert predicted(load_images_per_second=50).judging_seconds == pytest.approx(41 * 2000 / 50)
    # computation is
    assert predicted(load_images_per_second=50).finetuning_seconds == pytest.approx(8100)
    assert predicted(make_settings("cpu", fitness="none")).calibration_seconds == 0


@pytest.mark.parametrize("at_once, share", [(1, 1.7), (2, 1.0), (3, 1.0), (9, 1.0)])
def test_seconds_of_fine_tunings_at_once(at_once, share):
    seconds = predicted(
        solutions_left=(1.0, 0.5, 0.2), finetunings_at_once=at_once
    ).finetuning_seconds
    assert seconds == pytest.approx(2 * 45000 * 0.03 * share)


@pytest.mark.parametrize(
    "wrong", [{"macs_left": [1, 1]}, {"workers": 0}, {"finetunings_at_once": 0}]
)
def test_seconds_of_what_cannot_be(wrong):
    with pytest.raises(ValueError, match="must be"):
        predicted(**wrong)


shares = st.floats(0.01, 1)
machines = st.fixed_dictionaries(
    {"macs_left": shares, "solutions_left": st.tuples(shares, shares, shares), "slim_rate": shares, "training_rate": shares,
     "load_images_per_second": st.floats(1, 1e6), "overhead_seconds_per_candidate": st.floats(0, 10), "start_seconds": st.floats(0, 10),
     "workers": st.integers(1, 200), "finetunings_at_once": st.integers(1, 4)}
)  # fmt: skip
searches = st.builds(
    lambda **s: make_settings("cpu", **s),
    population=st.integers(4, 100), generations=st.integers(1, 20),
    fitness=st.sampled_from(["recalibrate", "partial", "partial-recalibrate", "none"]),
    search_images=st.integers(1, 5000), partial_images=st.integers(2, 5000), finetune_epochs=st.integers(0, 5),
)  # fmt: skip
PHASES = [
    f"{p}_seconds"
    for p in ("start", "calibration", "training", "judging", "overhead", "finetuning")
]


@given(searches, machines, st.integers(1, 50), st.integers(1, 3))
def test_more_workers_are_never_slower(settings, machine, more, finetunings):
    few = predicted(settings, **machine)
    machine |= {
        "workers": machine["workers"] + more,
        "finetunings_at_once": machine["finetunings_at_once"] + finetunings,
    }
    many = predicted(settings, **machine)
    assert (
        many.searching_seconds <= few.searching_seconds
        and many.finetuning_seconds <= few.finetuning_seconds * (1 + 1e-9)
    )


@given(searches, machines, st.integers(2, 5))
def test_seconds_are_proportional_to_images(settings, machine, times):
    more = replace(
        settings,
        search=replace(settings.search, search_images=times * settings.search.search_images),
    )
    once, often = predicted(settings, **machine), predicted(more, **machine)
    assert often.judging_seconds == pytest.approx(times * once.judging_seconds)
    assert all(
        getattr(once, phase) == getattr(often, phase)
        for phase in PHASES
        if phase != "judging_seconds"
    )


@given(searches, machines, st.floats(1, 100))
def test_a_machine_so_much_faster_in_everything_takes_so_much_less(settings, machine, times):
    slow = predicted(settings, **machine)
    machine |= {"load_images_per_second": times * machine["load_images_per_second"]}
    machine |= {
        key: machine[key] / times for key in ("overhead_seconds_per_candidate", "start_seconds")
    }
    fast = predicted(settings, macs_per_second=times * 1e10, **machine)
    assert total(fast) * times == pytest.approx(total(slow))


@given(searches, machines)
def test_workers_are_never_busier_than_they_can_be(settings, machine):
    s = predicted(settings, **machine)
    assert (
        0 <= s.idle_share < 1
        and s.rounds * machine["workers"]
        >= s.candidates
        == 1 + settings.search.population * settings.search.generations
    )
    assert total(s) == pytest.approx(sum(getattr(s, phase) for phase in PHASES))


@given(searches, machines, shares)
def test_fewer_macs_are_never_slower(settings, machine, share):
    whole = predicted(settings, **machine)
    machine |= {
        "macs_left": share * machine["macs_left"],
        "solutions_left": tuple(share * s for s in machine["solutions_left"]),
    }
    less = predicted(settings, **machine)
    assert all(getattr(less, phase) <= getattr(whole, phase) * (1 + 1e-9) for phase in PHASES)
