"""Fronts drawn by hand, laws on random ones, and two other libraries as oracles."""

from __future__ import annotations

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymoo.indicators.hv import HV
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from dpes.strategy import pareto
from dpes.strategy.pareto import FrontError

NAN, INF = np.nan, np.inf
#            0       1       2       3       4       5 = 1   6 (dominated by 2)
DRAWN = [[0.1, 90], [0.2, 50], [0.3, 40], [0.7, 20], [0.9, 10], [0.2, 50], [0.3, 60]]

small = st.integers(0, 5).map(float)  # few values: many ties and duplicates
anything = st.one_of(small, st.floats(-1e3, 1e3), st.sampled_from([NAN, INF, -INF]))


def rows(value=small, least=1, most=25):
    return st.lists(st.tuples(value, value), min_size=least, max_size=most).map(
        lambda r: np.array(r, dtype=float).reshape(-1, 2)
    )


def random_fronts():
    """Uniform, integer-valued with many ties, and curved ones that are all front."""
    rng = np.random.default_rng(1)
    for n in (1, 2, 3, 10, 60):
        for _ in range(5):
            yield rng.random((n, 2))
            yield rng.integers(0, 6, (n, 2)).astype(float)
            x = np.sort(rng.random(n))
            yield np.stack([x, 1 - np.sqrt(x)], axis=1)


# ---- domination ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((1, 1), (2, 2), True),
        ((1, 2), (2, 2), True),
        ((2, 1), (2, 2), True),
        ((2, 2), (2, 2), False),
        ((1, 3), (2, 2), False),
        ((2, 2), (1, 3), False),
        ((3, 3), (2, 2), False),
        ((1, 1), (INF, 1), True),
        ((1, 1), (INF, INF), True),
        ((1, 1), (NAN, 2), False),
        ((NAN, 1), (2, 2), False),
    ],
)
def test_domination_needs_one_strict_gain_and_no_loss(a, b, expected):
    assert pareto.dominates(a, b) is expected


def test_drawn_front():
    assert pareto.front(DRAWN).tolist() == [0, 1, 2, 3, 4]
    assert pareto.non_dominated(DRAWN).tolist() == [True] * 5 + [False] * 2


@pytest.mark.parametrize(
    ("F", "expected"),
    [
        ([[0.5, 3]], [0]),
        ([[0.5, 3], [0.5, 3], [0.5, 3]], [0]),
        ([[0.2, 3], [0.1, 4]], [1, 0]),
        ([[0.2, 3], [0.1, 3]], [1]),  # equal cost
        ([[0.2, 3], [0.2, 2]], [1]),  # equal error
        ([[0.2, 3], [0.1, 4], [0.2, 3], [0.1, 4]], [1, 0]),
        # failed rows neither enter nor dominate
        ([[NAN, 1], [0.3, NAN], [INF, 0], [0, INF], [-INF, 5], [0.4, 7]], [5]),
        ([[NAN, NAN], [INF, INF]], []),
        (np.empty((0, 2)), []),
    ],
)
def test_front_is_sorted_and_of_equal_rows_keeps_the_first(F, expected):
    assert pareto.front(F).tolist() == expected
    assert np.flatnonzero(pareto.non_dominated(F)).tolist() == sorted(expected)


@given(rows(anything))
def test_front_holds_exactly_what_no_row_dominates(F):
    finite = np.isfinite(F).all(axis=1)
    expected = [
        bool(finite[i])
        and not any(pareto.dominates(F[j], F[i]) for j in np.flatnonzero(finite))
        and not any((F[j] == F[i]).all() for j in range(i))
        for i in range(len(F))
    ]
    assert pareto.non_dominated(F).tolist() == expected
    order = pareto.front(F)
    assert (np.diff(F[order, 0]) > 0).all() and (np.diff(F[order, 1]) < 0).all()


@given(rows(), st.randoms(use_true_random=False))
def test_front_does_not_depend_on_the_order_of_rows(F, random):
    shuffled = F[random.sample(range(len(F)), len(F))]
    np.testing.assert_array_equal(F[pareto.front(F)], shuffled[pareto.front(shuffled)])
    np.testing.assert_array_equal(
        F[list(pareto.boundaries(F))], shuffled[list(pareto.boundaries(shuffled))]
    )
    for how in pareto.KNEES:
        np.testing.assert_array_equal(F[pareto.knee(F, how)], shuffled[pareto.knee(shuffled, how)])


def test_front_agrees_with_moocore_and_pymoo():
    for F in random_fronts():
        # also keeps the first of equal rows
        assert pareto.non_dominated(F).tolist() == moocore.is_nondominated(F).tolist()
        theirs = F[NonDominatedSorting().do(F, only_non_dominated_front=True)]  # keeps all of them
        np.testing.assert_array_equal(F[pareto.front(F)], np.unique(theirs, axis=0))


# ---- ideal, nadir, boundaries --------------------------------------------------------------------
def test_ideal_and_nadir_belong_to_the_front_alone():
    F = [*DRAWN, [0.95, 95], [NAN, 0], [0, INF]]
    assert pareto.ideal(F).tolist() == [0.1, 10]
    assert pareto.nadir(F).tolist() == [0.9, 90]
    assert pareto.ideal([[0.5, 3]]).tolist() == pareto.nadir([[0.5, 3]]).tolist() == [0.5, 3]


@pytest.mark.parametrize(
    ("F", "expected"),
    [
        (DRAWN, (0, 4)),
        ([[0.9, 10], [0.1, 90]], (1, 0)),
        ([[0.5, 3]], (0, 0)),
        ([[0.1, 1], [0.9, 9]], (0, 0)),  # one row best in both
        # equal errors: less cost; equal costs: less error
        ([[0.1, 90], [0.1, 80], [0.5, 10], [0.4, 10]], (1, 3)),
        ([[0.1, 80], [0.5, 10], [0.5, 10], [0.1, 80]], (0, 1)),  # equal rows: the first
        ([[NAN, 0], [0.4, 7], [0, NAN], [0.2, 8]], (3, 1)),
    ],
)
def test_boundaries(F, expected):
    assert pareto.boundaries(F) == expected


# ---- knee ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("F", "mmd", "win"),
    [
        # scaled and (mmd, win): 1 (.125, .5) .625, .25; 2 (.25, .375) .625, .29; 3 (.75, .125)
        # .875, .54
        (DRAWN, 1, 1),
        # 1 (.1, .7) .8, .3; 2 (.5, .2) .7, .4
        ([[0, 10], [1, 7], [5, 2], [10, 0]], 2, 1),
        # 1 (.2, .6) .8, .33; 2 (.3, .1) .4, .23
        ([[0, 10], [2, 6], [3, 1], [10, 0]], 2, 2),
        # 1 (.25, .5) .75, .33; 2 (.5, .25) .75, .42
        ([[0, 4], [1, 2], [2, 1], [4, 0]], 1, 1),
        # the same tie: the lower error decides, not the lower index
        ([[0, 4], [2, 1], [4, 0], [1, 2]], 3, 3),
        # bulging away from the ideal point: the boundaries are nearer and do not count
        ([[0, 4], [3, 3], [4, 0]], 1, 1),
        ([[4, 0], [3, 3], [0, 4]], 1, 1),
        ([[5, 3]], 0, 0),
        ([[5, 3], [5, 3], [5, 3]], 0, 0),
        ([[5, 3], [2, 9]], 1, 1),  # two points: heavy
        ([[5, 3], [5, 9], [5, 4]], 0, 0),  # no range of error
        ([[5, 3], [9, 3], [7, 3]], 0, 0),  # no range of cost
        ([[0, 10], [5, 2], [5, 2], [10, 0], [NAN, 0], [0, INF], [9, 9]], 1, 1),
    ],
)
def test_knee_of_drawn_fronts(F, mmd, win):
    assert pareto.knee(F) == pareto.knee(F, "mmd") == mmd
    assert pareto.knee(F, "win") == win


def test_knees_weigh_error_and_cost_as_they_say():
    """Two points between the boundaries (0, 1) and (1, 0) whose sums are equal at d = 0, so a hair
    decides.
    """
    for d, expected in ((0.001, 1), (-0.001, 2)):
        assert pareto.knee([[0, 1], [0.2, 0.4 - d], [0.4, 0.2], [1, 0]], "mmd") == expected
        F = [[0, 1], [0.2, 0.8 - d], [0.4, 0.4], [1, 0]]
        assert pareto.knee(F, "win") == expected
        assert pareto.knee(F, "mmd") == 2


@given(rows(least=1), st.integers(1, 8), st.integers(-5, 5))
def test_knee_ignores_units(F, factor, shift):
    """Powers of two scale without rounding, so that even ties stay."""
    for how in pareto.KNEES:
        assert pareto.knee(F, how) == pareto.knee(F * [1, 2.0**factor] + [shift, 0], how)


@given(rows(anything))
def test_knee_lies_on_the_front_and_between_the_boundaries_where_it_can(F):
    order = pareto.front(F)
    for how in pareto.KNEES:
        if len(order) == 0:
            with pytest.raises(FrontError, match="every evaluation failed"):
                pareto.knee(F, how)
        else:
            assert pareto.knee(F, how) in (order[1:-1] if len(order) > 2 else order[:1])


def test_knee_of_one_point_between_is_that_point():
    assert pareto.knee([[0, 1], [0.999, 0.998], [1, 0]], "win") == 1


# ---- hypervolume ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("F", "reference", "expected"),
    [
        ([[1, 1]], (3, 4), 6),
        ([[1, 2], [2, 1]], (3, 3), 3),
        ([[2, 1], [1, 2], [1, 2], [2, 2]], (3, 3), 3),
        ([[0, 5], [1, 2], [2, 1], [5, 0]], (3, 3), 3),  # rows beyond the reference
        ([[0, 3], [3, 0], [1, 1]], (3, 3), 4),  # rows on its edge
        ([[3, 3]], (3, 3), 0),
        ([[NAN, 0], [INF, INF], [1, 1]], (2, 2), 1),
        ([[-1, -2]], (1, 1), 6),
        (np.empty((0, 2)), (1, 1), 0),
    ],
)
def test_hypervolume_of_drawn_fronts(F, reference, expected):
    assert pareto.hypervolume(F, reference) == expected


def test_hypervolume_agrees_with_moocore_and_pymoo():
    for F in random_fronts():
        for reference in ([1.1, 1.1], [0.6, 0.8], [7.0, 6.0], [4.0, 3.0]):
            mine = pareto.hypervolume(F, reference)
            # sums in another order
            assert mine == pytest.approx(
                moocore.hypervolume(F, ref=reference), rel=1e-12, abs=1e-12
            )
            assert mine == pytest.approx(
                float(HV(ref_point=np.array(reference))(F)), rel=1e-12, abs=1e-12
            )


@given(rows(anything), rows(anything))
def test_hypervolume_of_an_archive_never_falls(old, new):
    """Neither when candidates join nor when dominated ones are dropped."""
    F = np.concatenate([old, new])
    before, after = pareto.hypervolume(old, (6, 6)), pareto.hypervolume(F, (6, 6))
    assert after >= before * (1 - 1e-12)  # rounding of a sum
    assert pareto.hypervolume(F[pareto.non_dominated(F)], (6, 6)) == after


# ---- mistakes ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pareto.non_dominated([1.0, 2.0]), r"objectives of shape \(2,\): must be \[n, 2\]"),
        (lambda: pareto.non_dominated([[1.0, 2.0, 3.0]]), r"shape \(1, 3\)"),
        (lambda: pareto.knee(DRAWN, "mdm"), "unknown knee 'mdm': did you mean 'mmd'"),
        (lambda: pareto.boundaries([[NAN, 1]]), "every evaluation failed"),
        (lambda: pareto.ideal(np.empty((0, 2))), "every evaluation failed"),
        (lambda: pareto.nadir([[INF, 1]]), "every evaluation failed"),
        (lambda: pareto.hypervolume(DRAWN, (1, NAN)), "reference = .* two finite numbers"),
        (lambda: pareto.hypervolume(DRAWN, (1, 2, 3)), "reference = .* two finite numbers"),
    ],
)
def test_mistakes_are_named_in_one_line(call, message):
    with pytest.raises(FrontError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
