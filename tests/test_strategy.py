"""Laws of the strategy's parts: what they propose is valid, a function of the history, and better
than chance.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpes.coupling.genome import to_hex
from dpes.coupling.importance import ranking
from dpes.strategy import es, loop, parents, starts, surrogate
from dpes.strategy.history import Candidate, History
from dpes.strategy.settings import Search
from dpes.strategy.space import Space, order_of
from dpes.study import families
from dpes.study.methods import METHODS, REFERENCES, MethodError, is_search, method, seeded

SIZES = np.array([16, 20, 32, 24, 16, 32, 8, 16])
PRICE = np.array(
    [3.0, 1.0, 0.5, 1.0, 1.0, 0.5, 2.0, 1.0]
)  # of a kept filter; the first group is dear
WORTH = np.array([0.4, 2.0, 0.3, 0.8, 0.1, 1.0, 0.2, 0.5])  # of a group's share to the error


def made_up() -> Space:
    groups = np.repeat(np.arange(len(SIZES)), SIZES)
    scores = {
        name: np.random.default_rng(k).random(len(groups))
        for k, name in enumerate(("l1", "l2", "bn", "taylor", "fpgm", "group"))
    }
    plain = Space(groups, lambda genomes: (genomes @ PRICE[groups] / (PRICE @ SIZES)) ** 2)
    return Space(
        groups, plain.cost, {name: ranking(groups, s) for name, s in scores.items()}, scores
    )


SPACE = made_up()


def error(genomes: np.ndarray) -> np.ndarray:
    """A smooth error of the shares, with a little of single filters."""
    lost = (1 - SPACE.shares(genomes)) ** 1.5 @ WORTH
    return np.clip(0.05 + lost / 2 + 0.02 * (~genomes[:, ::5]).mean(1), 0, 0.9)


def history_of(genomes: np.ndarray, errors: np.ndarray, costs: np.ndarray) -> History:
    return History(
        [
            Candidate(genome=to_hex(g), error=e, macs=c)
            for g, e, c in zip(genomes, errors, costs, strict=True)
        ],
        n_bits=SPACE.n_bits,
    )


NOTHING = History(n_bits=SPACE.n_bits)


def run(one, seed: int, n: int, history: History = NOTHING, space: Space = SPACE) -> History:
    while len(history) < n and len(genomes := one(space, history, seed)):
        more = history_of(genomes, error(genomes), SPACE.cost(genomes))
        history = History([*history.candidates, *more.candidates], n_bits=SPACE.n_bits)
    return history


@pytest.mark.parametrize("name", [n for n in METHODS if n not in REFERENCES])
def test_valid_deterministic_and_resumed_from_the_history_alone(name):
    one, n = METHODS[name], 60
    history = run(one, 5, n)
    assert len(history) >= min(n, one.evaluations)
    assert (SPACE.widths(history.genomes) >= 1).all()
    again = run(
        one, 5, n, History(history.candidates[: len(one(SPACE, NOTHING, 5))], n_bits=SPACE.n_bits)
    )
    assert (again.genomes == history.genomes).all()
    other = run(one, 6, n)
    assert (other.genomes[: len(history)] != history.genomes[: len(other)]).any() == seeded(name)


ELSEWHERE = (
    "deeppruning",
    "widths",
    "bits-archive-unpruned",
    "surrogate-uniform",
)  # begin at other networks


@pytest.mark.parametrize("name", [n for n in METHODS if n not in ELSEWHERE and is_search(n)])
def test_searches_from_a_spread_start_begin_at_the_same_widths(name):
    first = METHODS[name](SPACE, NOTHING, 2)[:15]
    assert (SPACE.widths(first) == starts.spread_widths(SPACE, 2, 0, 15)).all()


def test_the_papers_way_is_todays_search_bit_by_bit(layout_like):
    ours = run(METHODS["deeppruning"], 3, 61)
    settings = Search(population=15, generations=4, p_mutation=0.05)
    task = loop.Task(
        layout_like, lambda genomes: (float(error(g[None])[0]) for g in genomes), settings, seed=3
    )
    loop.search(task, told := History())
    assert [c.genome for c in told.candidates] == [to_hex(g) for g in ours.genomes]


@pytest.fixture
def layout_like(monkeypatch):
    """As much of a layout as the search looks at, with the costs of the made-up space."""
    from dpes.coupling import cost

    class Like:
        n_bits, group_of_bit = SPACE.n_bits, SPACE.groups
        least = np.ones(len(SIZES), dtype=int)

        def macs(self, genome: np.ndarray) -> float:
            return float(SPACE.cost(genome[None])[0])

        def params(self, genome: np.ndarray) -> int:
            return 0

    monkeypatch.setitem(cost.COSTS, "macs", Like.macs)
    return Like()


@given(st.integers(0, 2**31), st.integers(0, 50), st.integers(1, 20))
def test_a_sample_is_the_same_however_it_is_cut_into_pieces(seed, first, n):
    whole = starts.spread(SPACE, seed, None, 0, first + n)
    assert (whole[first:] == starts.spread(SPACE, seed, None, first, n)).all()


@given(st.lists(st.integers(0, 40), min_size=8, max_size=8), st.integers(0, 2**31))
def test_widths_and_genomes_are_inverse(widths, seed):
    rank = order_of(SPACE, "random", seed)
    genome = SPACE.genomes(np.array(widths), rank)
    assert (SPACE.widths(genome) == np.clip(widths, 1, SIZES)).all()
    kept, gone = rank[genome], rank[~genome]
    for g in range(len(SIZES)):
        inside = SPACE.groups == g
        assert genome[inside].all() or rank[inside & genome].max() < rank[inside & ~genome].min()
    assert len(kept) + len(gone) == SPACE.n_bits


@given(st.integers(0, 2**31))
def test_a_ranking_orders_each_group_by_falling_score(seed):
    scores = np.random.default_rng(seed).integers(0, 5, (3, SPACE.n_bits)).astype(float)
    rank = ranking(SPACE.groups, scores)
    for row, places in zip(scores, rank, strict=True):
        for g in range(len(SIZES)):
            inside = np.flatnonzero(SPACE.groups == g)
            expected = inside[np.argsort(-row[inside], kind="stable")]
            assert (places[expected] == np.arange(len(inside))).all()


def test_the_surrogate_predicts_better_than_chance_and_finds_better_networks_than_a_sample():
    known, fresh = starts.spread(SPACE, 0, None, 0, 60), starts.spread(SPACE, 1, None, 0, 200)
    predicted = surrogate.fit(SPACE.shares(known), error(known)).predict(SPACE.shares(fresh))
    assert np.corrcoef(predicted, surrogate.logit(error(fresh)))[0, 1] > 0.9
    gains = []
    for seed in range(3):
        found, drawn = (run(METHODS[name], seed, 90).F for name in ("surrogate", "random-widths"))
        gains += [
            found[found[:, 1] <= s, 0].min() - drawn[drawn[:, 1] <= s, 0].min() for s in (0.5, 0.7)
        ]
    assert np.mean(gains) < 0 and max(gains) < 0.02


def test_the_surrogates_choice_covers_the_levels_and_repeats_nothing():
    history = run(METHODS["surrogate"], 0, 90)
    assert len({g.tobytes() for g in history.genomes}) == 90
    cost = history.F[30:45, 1]
    assert cost.min() < 0.5 and cost.max() > 0.85


def test_logit_is_finite_at_both_ends_and_for_failures():
    values = surrogate.logit(np.array([0.0, 0.5, 1.0, np.inf, np.nan]))
    assert np.isfinite(values).all() and values[1] == 0 and values[3] == values[2] == values[4]


def test_archive_parents_are_non_dominated_and_the_lonely_ones_come_more_often():
    F = np.array([[0.1, 0.9], [0.2, 0.8], [0.21, 0.79], [0.22, 0.78], [0.5, 0.3], [0.6, 0.9]])
    genomes = np.eye(6, SPACE.n_bits, dtype=bool)
    drawn = parents.archive(history_of(genomes, *F.T), np.random.default_rng(0), 3000).argmax(
        axis=1
    )
    counts = np.bincount(drawn, minlength=6)
    assert counts[5] == 0 and (counts[[0, 4]] > 1.5 * counts[2]).all()
    assert parents.crowding(F[:2]).tolist() == [np.inf, np.inf]


def test_above_the_ceiling_nobody_has_offspring_while_others_are_below_it():
    history = run(method("random-widths"), 0, 60)
    drawn = [
        {g.tobytes() for g in parents.archive(history, np.random.default_rng(0), 400, ceiling)}
        for ceiling in (None, 0.4, 0.0)
    ]
    errs = {g.tobytes(): e for g, e in zip(history.genomes, history.F[:, 0], strict=True)}
    assert max(map(errs.get, drawn[0])) > 0.4 >= max(map(errs.get, drawn[1]))
    assert drawn[2] == drawn[0]  # nobody is below: all may


def test_steps_are_longer_where_the_archive_disagrees():
    whole = np.ones((4, SPACE.n_bits), dtype=bool)
    widths = np.array([SIZES] * 4)
    widths[:, 2] = [32, 24, 16, 8]
    genomes = SPACE.genomes(widths, order_of(SPACE, "l1", 0))
    history = history_of(genomes, np.array([0.1, 0.2, 0.3, 0.4]), SPACE.cost(genomes))
    scale = parents.disagreement(SPACE, history)
    assert scale.argmax() == 2 and scale.min() > 0 and np.isclose(scale.mean(), 1)
    same = history_of(whole[:1], np.array([0.1]), np.array([1.0]))
    assert (parents.disagreement(SPACE, same) == 1).all()
    rank, rng = order_of(SPACE, "l1", 0), np.random.default_rng
    step = method("surrogate-steps").mutated(
        SPACE, history, genomes[:1].repeat(500, 0), rank, rng(0)
    )
    moved = np.abs(SPACE.shares(step) - SPACE.shares(genomes[:1])).mean(0)
    assert moved.argmax() == 2


def test_three_parents_are_those_of_the_papers_selection():
    history = run(METHODS["bits-spread"], 0, 30)
    rows = es.select(history.F)
    assert (parents.three(SPACE, history, 30, 15) == history.genomes[list(rows)]).all()


@given(st.integers(0, 2**31), st.floats(0.2, 1.0))
def test_a_genome_grows_to_its_share_and_loses_nothing(seed, share):
    genome = starts.spread(SPACE, seed, None, 0, 1)[0]
    before = SPACE.cost(genome[None])[0]
    rank = order_of(SPACE, "random", seed)
    after = families.grown(SPACE, genome, max(share, before), rank)
    assert (after >= genome).all()
    cost = SPACE.cost(after[None])[0]
    assert cost <= max(share, before) + 1e-12
    assert after.all() or cost > max(share, before) - 2.5 * PRICE.max() / (PRICE @ SIZES)
    for g in range(len(SIZES)):  # filters return in the order of the rank
        back, gone = after & ~genome & (SPACE.groups == g), ~after & (SPACE.groups == g)
        assert not back.any() or not gone.any() or rank[back].max() < rank[gone].min()


@pytest.mark.parametrize("name", ["uniform-l1", "uniform-random", "global-l2"])
def test_families_come_just_below_their_cuts(name):
    genomes = METHODS[name](SPACE, NOTHING, 0)
    gaps = np.array(families.CUTS) - SPACE.cost(genomes)
    assert (gaps >= -1e-12).all() and gaps.max() < 0.1
    assert (np.diff(SPACE.cost(genomes)) <= 0).all()


def test_a_global_criterion_keeps_the_highest_scores():
    genomes = METHODS["global-l2"](SPACE, NOTHING, 0)
    scores, best = SPACE.scores["l2"], SPACE.orders["l2"] == 0
    for genome in genomes:
        assert genome[best].all()
        assert scores[genome & ~best].min(initial=np.inf) > scores[~genome].max(initial=-np.inf)


def test_nsga2_competes_from_the_spread_sample_and_improves_on_it():
    history = run(METHODS["nsga2-widths"], 0, 150)
    assert (history.genomes[:30] == starts.spread(SPACE, 0, SPACE.orders["l1"], 0, 30)).all()
    for one, encoding in ((history, True), (run(METHODS["nsga2-bits"], 0, 90), False)):
        if encoding:  # widths: only sets that the order allows
            assert (
                one.genomes == SPACE.genomes(SPACE.widths(one.genomes), SPACE.orders["l1"])
            ).all()
        at = [one.F[:n] for n in (30, len(one))]
        assert at[1][at[1][:, 1] <= 0.7, 0].min() < at[0][at[0][:, 1] <= 0.7, 0].min()


@pytest.mark.parametrize("name", [n for n in METHODS if n not in REFERENCES])
def test_no_group_goes_below_its_least(name):
    space = replace(SPACE, least=np.array([5, 1, 9, 2, 1, 32, 3, 40]))
    history = run(METHODS[name], 1, 46, space=space)
    assert (space.widths(history.genomes) >= np.minimum(space.least, SIZES)).all()


def test_who_has_knowledge():
    assert {n for n, one in METHODS.items() if not one.knowledge} == {
        "deeppruning", "random-bits", "random-blind", "surrogate-blind", "nsga2-bits", "uniform-random", "bits-spread", "bits-archive",
        "bits-archive-unpruned", "bits-surrogate", "archive-blind", "learned-blind",
    }  # fmt: skip


def test_an_unknown_method_is_named_with_its_cure():
    with pytest.raises(MethodError, match="did you mean 'surrogate'"):
        method("surogate")


def test_a_learned_order_finds_the_filters_that_matter():
    """Hidden worth of each filter; after 90 evaluations the learned order knows more of it than
    chance, and a criterion helps.
    """
    from dpes.strategy import learned

    worth = np.random.default_rng(7).random(SPACE.n_bits)

    def hidden(genomes: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(3.0 - 8 * (~genomes @ worth) / worth.sum()))

    known = Space(
        SPACE.groups,
        SPACE.cost,
        {
            "l1": ranking(
                SPACE.groups, worth + np.random.default_rng(1).normal(0, 0.2, SPACE.n_bits)
            )
        },
    )
    genomes = starts.spread(SPACE, 0, None, 0, 120)
    history = history_of(genomes, hidden(genomes), SPACE.cost(genomes))
    centred = worth - (np.bincount(SPACE.groups, worth) / SIZES)[SPACE.groups]
    blind = np.corrcoef(-learned.Belief(SPACE, history).mean, centred)[0, 1]
    told = np.corrcoef(-learned.Belief(known, history, ("l1",)).mean, centred)[0, 1]
    assert 0.3 < blind < told


def test_a_floor_leaves_no_bottleneck_among_the_offspring():
    history = run(METHODS["surrogate-floor"], 0, 90)
    assert (SPACE.widths(history.genomes[30:]) >= np.ceil(0.3 * SIZES)).all()
    assert (SPACE.shares(run(METHODS["surrogate"], 0, 90).genomes[30:]) < 0.25).any()


def test_a_bottleneck_costs_what_its_variant_says():
    """Of two groups one keeps half, one all: a mean 1 / share of 1.5, half more than of a whole."""
    space = Space(np.repeat([0, 1], 4), lambda genomes: genomes.mean(1))
    genomes = np.array([[1, 1, 0, 0, 1, 1, 1, 1], [1] * 8], dtype=bool)
    variant = replace(method("surrogate"), bottleneck=0.2)
    assert variant.toll(space, genomes) == pytest.approx([0.1, 0])
    lines = [Candidate(genome=to_hex(g), error=0.3, macs=8) for g in genomes]
    history = History(lines, n_bits=8, whole=8)
    assert variant.seen(space, history).F[:, 0] == pytest.approx([0.4, 0.3])
    assert method("surrogate").seen(space, history) is history


def test_a_search_that_pays_for_bottlenecks_has_fewer_of_them():
    """Nothing but the toll tells the two searches apart."""
    plain = replace(method("surrogate-toll"), order="l1", least=None, bottleneck=None)
    kept = []
    for variant in (plain, replace(plain, bottleneck=1.0)):
        offspring = run(variant, 0, 90).genomes[variant.first :]
        near = np.abs(SPACE.cost(offspring) - 0.5) < 0.1
        kept.append((1 / SPACE.shares(offspring[near])).mean())
    assert kept[1] < kept[0] - 0.05
