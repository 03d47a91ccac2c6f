"""The strategy on hand-made candidates, on toy problems, and through kill and resume."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpes.coupling import GenomeError
from dpes.errors import DpesError
from dpes.strategy import es, pareto
from dpes.strategy.es import State, StrategyError
from dpes.strategy.settings import Search

NAN, INF = np.nan, np.inf
GROUPS = np.repeat(np.arange(4), [1, 3, 8, 20])


def bits(*texts: str) -> np.ndarray:
    return np.array([[c == "1" for c in t.replace(" ", "")] for t in texts])


def text(genomes: np.ndarray) -> list[str]:
    return ["".join("01"[int(b)] for b in g) for g in genomes]


def same(a: State, b: State) -> bool:
    return (
        a.generation == b.generation
        and np.array_equal(a.parents, b.parents)
        and np.array_equal(a.F, b.F)
    )


def state_of(*texts: str, F, generation: int = 1) -> State:
    return State(generation, bits(*texts), np.array(F, dtype=float))


@st.composite
def genomes_and_groups(draw, most=6):
    """Genomes with empty, full and mixed groups, and the groups of their bits."""
    sizes = draw(st.lists(st.integers(1, 20), min_size=1, max_size=6))
    n, n_bits = draw(st.integers(1, most)), sum(sizes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    genomes = rng.random((n, n_bits)) < rng.choice([0, 0.1, 0.5, 0.9, 1], (n, len(sizes))).repeat(
        sizes, axis=1
    )
    return genomes, np.repeat(np.arange(len(sizes)), sizes)


# ---- a toy problem: half of the bits are useful, bits differ in cost -----------------------------
N_BITS = 40
TOY_GROUPS = np.repeat(np.arange(5), 8)
USEFUL = np.arange(N_BITS) % 2 == 0


def toy(genomes: np.ndarray) -> np.ndarray:
    """[n, 2]: the share of useful bits that are gone, and the bits that are kept."""
    return np.stack([(~genomes & USEFUL).sum(axis=1) / USEFUL.sum(), genomes.sum(axis=1)], axis=1)


def generation(state: State, seed: int = 0, **options) -> tuple[State, np.ndarray]:
    """One generation on the toy problem: the next state and the offspring's objectives."""
    rng, settings = (
        np.random.default_rng([seed, state.generation]),
        Search(population=30, p_mutation=0.1, **options),
    )
    genomes, _ = es.ask(state, rng, settings, TOY_GROUPS)
    return es.tell(state, genomes, toy(genomes), settings), toy(genomes)


def toy_start() -> State:
    return es.start(toy(np.ones((1, N_BITS), dtype=bool))[0], N_BITS)


# ---- start ---------------------------------------------------------------------------------------
def test_start_is_the_unpruned_network_thrice():
    state = es.start([0.1, 100], 5)
    assert state.generation == 0
    assert state.parents.dtype == bool and text(state.parents) == ["11111"] * 3
    assert state.F.tolist() == [[0.1, 100]] * 3
    assert state.coincident == (("heavy", "knee"), ("heavy", "light"), ("knee", "light"))


@pytest.mark.parametrize("F", [[NAN, 1], [0.1, INF], [0.1], [[0.1, 1]]])
def test_start_refuses_an_unpruned_network_that_failed(F):
    with pytest.raises(StrategyError, match="the unpruned network has objectives"):
        es.start(F, 5)


def test_coincident_names_the_roles_of_equal_genomes():
    F = [[0, 2], [1, 1], [2, 0]]
    assert state_of("10", "01", "11", F=F).coincident == ()
    assert state_of("10", "10", "11", F=F).coincident == (("heavy", "knee"),)
    assert state_of("10", "01", "01", F=F).coincident == (("knee", "light"),)
    assert state_of("10", "01", "10", F=F).coincident == (("heavy", "light"),)


# ---- repair --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("genome", "expected"),
    [
        #   1  3   8        20
        ("0 000 00000000 00000000000000000000", "1 100 10000000 10000000000000000000"),
        ("0 001 00010000 00000000000000000001", "1 001 00010000 00000000000000000001"),
        ("1 111 11111111 11111111111111111111", "1 111 11111111 11111111111111111111"),
    ],
)
def test_repair_by_hand(genome, expected):
    genomes = bits(genome)
    before = genomes.copy()
    repaired = es.repair(genomes, GROUPS)
    assert text(repaired) == [expected.replace(" ", "")]
    assert repaired.dtype == bool
    np.testing.assert_array_equal(genomes, before)  # a copy
    np.testing.assert_array_equal(es.repair(genomes[0], GROUPS), repaired[0])  # one genome alone


@given(genomes_and_groups())
def test_repair_leaves_every_group_alive(case):
    genomes, groups = case
    plain = es.repair(genomes, groups)
    for group in np.unique(groups):
        before = genomes[:, groups == group]
        kept = before.sum(axis=1)
        alone = plain[:, groups == group]
        np.testing.assert_array_equal(alone[kept > 0], before[kept > 0])
        assert alone[kept == 0].sum() == alone[kept == 0, 0].sum() == (kept == 0).sum()
    np.testing.assert_array_equal(es.repair(plain, groups), plain)


@pytest.mark.parametrize("groups", [[0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1], [0, 0, 1, 1, 1]])
def test_repair_refuses_groups_that_do_not_fit(groups):
    with pytest.raises(GenomeError, match="groups of 4 bits: must be as many numbers, ascending"):
        es.repair(bits("1010"), np.array(groups))


# ---- ask -----------------------------------------------------------------------------------------
@given(st.integers(0, 1000), st.sampled_from([0.01, 0.5, 1.0]))
def test_ask_never_returns_an_empty_group(seed, p):
    state = es.start([0.1, 100], len(GROUPS))
    genomes, parent_of = es.ask(
        state, np.random.default_rng(seed), Search(population=7, p_mutation=p), GROUPS
    )
    assert genomes.shape == (7, len(GROUPS)) and genomes.dtype == bool
    assert parent_of.shape == (7,) and set(parent_of) <= {0, 1, 2}
    assert np.logical_or.reduceat(genomes, [0, 1, 4, 12], axis=1).all()
    if p == 1:
        # all bits of the all-ones genome flip, four groups get one back
        assert (genomes.sum(axis=1) == 4).all()


def test_ask_draws_each_parent_equally_and_flips_both_ways():
    """20,000 children of three parents; bounds are 5 standard deviations."""
    n, p, n_bits = 20_000, 0.2, 12
    state = state_of("1" * n_bits, "1" * 6 + "0" * 6, "0" * 11 + "1", F=[[0, 2], [1, 1], [2, 0]])
    genomes, parent_of = es.ask(
        state,
        np.random.default_rng(3),
        Search(population=n, p_mutation=p),
        np.zeros(n_bits, dtype=int),
    )
    shares = np.bincount(parent_of, minlength=3) / n
    assert abs(shares - 1 / 3).max() < 5 * np.sqrt(2 / 9 / n)
    flipped = genomes != state.parents[parent_of]
    for role in range(2):  # light is left out: repair adds to its first bit
        mine = flipped[parent_of == role]
        assert abs(mine.mean(axis=0) - p).max() < 5 * np.sqrt(p * (1 - p) / len(mine))


def test_ask_takes_all_randomness_from_the_generator_and_leaves_the_state():
    state = toy_start()
    asked = [
        es.ask(
            state, np.random.default_rng(seed), Search(population=30, p_mutation=0.1), TOY_GROUPS
        )
        for seed in ([0, 1], [0, 1], [0, 2])
    ]
    np.testing.assert_array_equal(asked[0][0], asked[1][0])
    np.testing.assert_array_equal(asked[0][1], asked[1][1])
    assert (asked[0][0] != asked[2][0]).any()
    assert state.parents.all()


@pytest.mark.parametrize("p", [0.05, 0.2])
@pytest.mark.parametrize("k", [1.0, 0.7, 0.5])
def test_one_generation_without_selection_keeps_p_plus_1_minus_2p_k(p, k):
    """Literature: bit flips drive the kept fraction k towards one half; the bound is 5 standard
    deviations of 300,000 bits.
    """
    n_bits = 3000
    parent = np.arange(n_bits) < k * n_bits
    state = State(1, np.stack([parent] * 3), np.zeros((3, 2)))
    genomes, _ = es.ask(
        state,
        np.random.default_rng(0),
        Search(population=100, p_mutation=p),
        np.zeros(n_bits, dtype=int),
    )
    assert abs(genomes.mean() - (p + (1 - 2 * p) * k)) < 5 * np.sqrt(p * (1 - p) / genomes.size)


# ---- select --------------------------------------------------------------------------------------
F_DRAWN = [[0.30, 40], [0.05, 90], [0.20, 55], [0.90, 10], [0.25, 80], [0.10, 85]]  # 4 is dominated


def test_select_takes_boundaries_and_knee():
    assert es.select(F_DRAWN) == (1, 0, 3)
    assert es.select(F_DRAWN, "win") == (1, 2, 3)
    assert es.select([[0.5, 3]]) == (0, 0, 0)
    assert es.select([[0.5, 3], [0.2, 9]]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("ceiling", "expected"),
    [
        (1.0, (1, 0, 3)),
        (0.90, (1, 0, 3)),  # at the ceiling is below it
        (0.89, (1, 2, 0)),
        (0.29, (1, 5, 2)),
        (0.10, (1, 1, 5)),
        (0.05, (1, 1, 1)),
        (0.01, (1, 1, 1)),  # all above it: the least error dominates
    ],
)
def test_error_ceiling(ceiling, expected):
    assert es.select(F_DRAWN, error_ceiling=ceiling) == expected


def test_select_leaves_its_argument_alone():
    F = np.array(F_DRAWN)
    es.select(F, error_ceiling=0.29)
    assert F.tolist() == F_DRAWN


def test_above_the_ceiling_cost_only_decides_between_equal_errors():
    assert es.select([[0.8, 1], [0.7, 9], [0.7, 8], [0.9, 0]], error_ceiling=0.5) == (2, 2, 2)
    # failed rows set no mark
    assert es.select([[0.8, 1], [NAN, 0], [0.1, INF], [0.9, 0]], error_ceiling=0.5) == (0, 0, 0)


@pytest.mark.parametrize("ceiling", [None, 0.5])
def test_select_refuses_when_every_evaluation_failed(ceiling):
    with pytest.raises(DpesError, match="every evaluation failed"):
        es.select([[NAN, 1], [INF, INF]], error_ceiling=ceiling)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=20),
    st.sampled_from(["mmd", "win"]),
    st.one_of(st.none(), st.integers(0, 6).map(float)),
    st.randoms(use_true_random=False),
)
def test_selection_depends_on_no_order_and_obeys_the_ceiling(F, knee, ceiling, random):
    F = np.array(F, dtype=float)
    chosen = F[list(es.select(F, knee, ceiling))]
    shuffled = F[random.sample(range(len(F)), len(F))]
    np.testing.assert_array_equal(shuffled[list(es.select(shuffled, knee, ceiling))], chosen)

    def beats(a, b):
        if ceiling is None or (a[0] <= ceiling and b[0] <= ceiling):
            return pareto.dominates(a, b)
        return a[0] < b[0]

    assert not any(beats(row, c) for row in F for c in chosen)
    assert chosen[0, 0] == F[:, 0].min()


# ---- tell ----------------------------------------------------------------------------------------
def test_tell_selects_among_parents_and_offspring():
    state = state_of("1110", "0110", "0010", F=[[0.1, 9], [0.4, 6], [0.8, 3]], generation=4)
    offspring = bits("1100", "1000", "0100", "0111").astype(int)  # as other optimisers write them
    after = es.tell(state, offspring, [[0.2, 5], [0.05, 9.5], [0.9, 3], [0.5, 7]])
    assert after.generation == 5
    # knee: (.2, 5); light: the parent stays, its rival is dominated
    assert text(after.parents) == ["1000", "1100", "0010"]
    assert after.F.tolist() == [[0.05, 9.5], [0.2, 5], [0.8, 3]]
    assert after.parents.dtype == bool and after.F.dtype == float
    assert text(state.parents) == ["1110", "0110", "0010"] and state.generation == 4


def test_of_equal_objectives_the_parent_stays_then_the_earlier_offspring():
    state = state_of("1110", "0110", "0010", F=[[0.1, 9], [0.4, 6], [0.8, 3]])
    after = es.tell(state, bits("1101", "0101", "0001"), state.F)
    assert same(after, State(2, state.parents, state.F))
    better = es.tell(state, bits("1101", "1011"), [[0.0, 1], [0.0, 1]])
    assert text(better.parents) == ["1101"] * 3 and len(better.coincident) == 3


@pytest.mark.parametrize("knee", ["mmd", "win"])
def test_tell_hands_its_knee_and_ceiling_on(knee):
    state = es.start([0.0, 100], 4)
    offspring = bits("1110", "1100", "1000", "0100", "0010", "0001")
    chosen = list(es.select(F_DRAWN, knee, 0.89))
    after = es.tell(state, offspring, F_DRAWN, Search(knee=knee, error_ceiling=0.89))
    np.testing.assert_array_equal(after.parents, offspring[chosen])
    np.testing.assert_array_equal(after.F, np.array(F_DRAWN)[chosen])


def test_unpruned_network_competes_only_when_it_is_kept():
    start, offspring = es.start([0.05, 100], 4), bits("1110", "0110", "0010")
    F = [[0.1, 75], [0.2, 40], [0.9, 25]]
    assert text(es.tell(start, offspring, F).parents) == ["1110", "0110", "0010"]
    kept = es.tell(start, offspring, F, Search(keep_unpruned=True))
    assert text(kept.parents) == ["1111", "0110", "0010"] and kept.F[0].tolist() == [0.05, 100]


def test_later_parents_always_compete_and_unpruned_offspring_never_unless_kept():
    state = state_of("1110", "0110", "0010", F=[[0.1, 75], [0.2, 40], [0.9, 25]])
    offspring, F = bits("1111", "0100"), [[0.01, 100], [0.95, 30]]
    assert same(es.tell(state, offspring, F), State(2, state.parents, state.F))
    assert text(es.tell(state, offspring, F, Search(keep_unpruned=True)).parents) == [
        "1111",
        "0110",
        "0010",
    ]


@pytest.mark.parametrize("keep", [False, True])
def test_failed_generation_leaves_the_parents(keep):
    failed = [[INF, 10], [NAN, NAN], [0.1, INF]]
    for state in (
        es.start([0.1, 100], 4),
        state_of("1110", "0110", "0010", F=[[0.1, 75], [0.2, 40], [0.9, 25]], generation=3),
    ):
        after = es.tell(state, bits("1000", "0100", "0001"), failed, Search(keep_unpruned=keep))
        assert same(after, State(state.generation + 1, state.parents, state.F))
    # the unpruned network does not slip in later because the first generation failed
    lost = es.tell(es.start([0.0, 100], 4), bits("1000"), [[INF, INF]])
    assert text(es.tell(lost, bits("0110"), [[0.2, 40]]).parents) == ["0110"] * 3


def test_failed_offspring_beside_good_ones_never_become_parents():
    after = es.tell(
        es.start([0.1, 100], 4), bits("1000", "0110", "0001"), [[NAN, 1], [0.2, 40], [0.0, INF]]
    )
    assert text(after.parents) == ["0110"] * 3
    assert np.isfinite(after.F).all()


def test_every_generation_competes_the_last_one_too():
    """What the authors' later code drops: a better child of the last generation is in the result."""
    state = toy_start()
    for _ in range(4):
        state, _ = generation(state)
    best = bits("10" * (N_BITS // 2))
    last = es.tell(state, best, toy(best))
    assert text(last.parents)[0] == text(best)[0] and last.F[0].tolist() == [0, N_BITS // 2]


@pytest.mark.parametrize(
    ("n_bits", "F"), [(4, [[0.1, 1], [0.2, 1]]), (4, [0.1, 1]), (5, [[0.1, 1]])]
)
def test_tell_refuses_genomes_and_objectives_that_do_not_fit(n_bits, F):
    with pytest.raises(StrategyError, match=r"must be \[n, 4\] and \[n, 2\]"):
        es.tell(es.start([0.1, 100], 4), np.zeros((1, n_bits), dtype=bool), F)


# ---- whole searches ------------------------------------------------------------------------------
@pytest.mark.parametrize("knee", ["mmd", "win"])
@pytest.mark.parametrize("keep_unpruned", [False, True])
def test_search_improves_and_its_roles_separate(knee, keep_unpruned):
    reference, state, archive = (1.0, N_BITS + 1), toy_start(), np.empty((0, 2))
    volumes = []
    for _ in range(30):
        state, F = generation(state, knee=knee, keep_unpruned=keep_unpruned)
        archive = np.concatenate([archive, F])
        volumes.append(pareto.hypervolume(archive, reference))
        heavy, knee_, light = state.F
        assert heavy[0] <= knee_[0] <= light[0] and heavy[1] >= knee_[1] >= light[1]
    # the best front runs from (0, 20) to (1, 5): error e costs 20 (1 - e) bits
    assert (np.diff(volumes) >= 0).all() and volumes[-1] > 1.3 * volumes[0]
    assert state.coincident == ()
    assert (np.diff(state.F[:, 0]) > 0).all() and (np.diff(state.F[:, 1]) < 0).all()
    assert state.F[2, 1] < 0.35 * N_BITS < state.F[0, 1]
    np.testing.assert_array_equal(state.F, toy(state.parents))
    # heavy and light keep the best error and the least cost ever seen
    assert (
        state.F[0, 0] == (0 if keep_unpruned else archive[:, 0].min())
        and state.F[2, 1] == archive[:, 1].min()
    )


def test_killed_and_resumed_search_draws_the_same_bits(tmp_path):
    """As the study does it: a generator from (seed, generation), the state saved after every
    generation.
    """
    whole, cut = toy_start(), toy_start()
    for _ in range(8):
        whole, _ = generation(whole, seed=5)
    for _ in range(8):
        cut.save(tmp_path / "state.npz")
        # a killed attempt leaves nothing behind
        np.random.default_rng([5, cut.generation]).random(17)
        cut, _ = generation(State.load(tmp_path / "state.npz"), seed=5)
    assert same(whole, cut)
    other = toy_start()
    for _ in range(8):
        other, _ = generation(other, seed=6)
    assert not same(whole, other)


# ---- files ---------------------------------------------------------------------------------------
def test_state_round_trip(tmp_path):
    state = state_of(
        "1110", "0110", "0010", F=[[0.1, 75.5], [1 / 3, 40], [0.9, 2.5e8]], generation=7
    )
    path = tmp_path / "state.npz"
    state.save(path)
    loaded = State.load(str(path))
    assert same(loaded, state)
    assert (
        type(loaded.generation) is int and loaded.parents.dtype == bool and loaded.F.dtype == float
    )
    first = path.read_bytes()
    loaded.save(str(path))  # over the old one
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]


def test_interrupted_save_leaves_the_old_state(tmp_path, monkeypatch):
    path, old = tmp_path / "state.npz", es.start([0.1, 100], 4)
    old.save(path)

    def killed(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", killed)
    with pytest.raises(KeyboardInterrupt):
        State(1, old.parents, old.F).save(path)
    assert same(State.load(path), old)


def test_load_refuses_what_is_no_state(tmp_path):
    path, good = tmp_path / "state.npz", es.start([0.1, 100], 4)
    good.save(path)
    whole = path.read_bytes()

    def refused(match):
        with pytest.raises(StrategyError, match=match) as caught:
            State.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    for content in (b"", b"garbage", whole[: len(whole) // 2], whole.replace(b"NUMPY", b"GUMPY")):
        path.write_bytes(content)
        refused("not a saved state of the search")
    fine = {"generation": 1, "parents": good.parents, "F": good.F}
    for wrong in (
        {"parents": good.parents[:2]},
        {"parents": good.parents.astype(int)},
        {"parents": good.parents[:, 0]},
        {"F": good.F[:, :1]},
        {"F": good.F.astype(int)},
    ):
        np.savez(path, **(fine | wrong))
        refused("wrong shapes")
    np.savez(path, generation=1, parents=good.parents)
    refused("KeyError")
    np.savez(path, **(fine | {"parents": np.array([object()])}), allow_pickle=True)
    refused("ValueError")
    path.unlink()
    refused("FileNotFoundError")
