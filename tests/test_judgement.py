"""Statistics of the tournament against known values and SciPy's own tests."""

from __future__ import annotations

import re
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dpes.errors import DpesError
from dpes.report import arena as report
from dpes.report import contest, judgement, parts
from dpes.study import methods

matplotlib.use("agg")


def test_interquartile_mean_leaves_out_the_outer_quarters():
    assert judgement.iqm([0, 1, 2, 3, 4, 5, 6, 100]) == 3.5
    assert judgement.iqm([1, 2, 3, 4, 1000]) == 3


def test_bootstrap_interval_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        e = judgement.estimate(rng.normal(0, 1, 40), np.mean, resamples=400)
        hits += e.low <= 0 <= e.high
    assert 50 <= hits <= 60


def test_an_estimate_of_one_value_or_of_equal_values_has_no_width():
    assert judgement.estimate([0.3]) == judgement.Estimate(0.3, 0.3, 0.3, 1)
    assert judgement.estimate([0.3, 0.3]).low == 0.3
    assert judgement.paired([0.1], [0.3]).text(100) == "-20.0 (one run)"
    assert judgement.Estimate(0.123, 0.119, 0.128, 5).text(100) == "12.3 [11.9, 12.8]"


def test_same_values_same_interval():
    assert judgement.estimate([1, 2, 3, 4, 6]) == judgement.estimate([1, 2, 3, 4, 6])


def test_paired_interval_is_students():
    a, b = np.array([1.0, 2, 3.5, 4]), np.array([1.5, 2.9, 3.6, 5])
    e, theirs = judgement.paired(a, b), stats.ttest_rel(a, b).confidence_interval(0.95)
    assert np.allclose([e.low, e.high], theirs)
    assert (e.high < 0) == (judgement.p_value(a, b) < 0.05)
    assert judgement.p_value(a, b) == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert judgement.p_value([1], [2]) == judgement.p_value([1, 2], [1, 2]) == 1


def test_holm_by_hand():
    assert judgement.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert judgement.holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_probability_of_improvement_is_mann_whitneys():
    a, b = [1.0, 2, 3, 3], [2.0, 3, 4]
    u = stats.mannwhitneyu(b, a).statistic
    assert judgement.improvement(a, b) == pytest.approx(u / 12)
    assert judgement.improvement(a, b) + judgement.improvement(b, a) == pytest.approx(1)


def made_up(differences: dict[str, float]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(5):
        base = 0.2 + rng.normal(0, 0.02)
        for method, d in differences.items():
            for training in (0, 1):
                rows.append(
                    {
                        "method": method,
                        "seed": seed,
                        "share": 0.5,
                        "training": training,
                        "test_error": base + d + rng.normal(0, 0.001),
                    }
                )
    return pd.DataFrame(rows)


def test_comparisons_are_paired_by_seed_and_say_who_is_beaten():
    tests = made_up(
        {
            "surrogate": 0.0,
            "random-widths": 0.02,
            "archive": -0.02,
            "nsga2-widths": 0.0,
            "uniform-l1": 0.2,
        }
    )
    table = contest.comparisons(tests, "test_error", "surrogate").set_index("method")
    assert table.loc["random-widths", "difference"].value == pytest.approx(
        -0.02, abs=0.002
    )  # far smaller than the noise of one seed
    assert (
        table.loc["random-widths", "p_holm"] < 0.01 and table.loc["nsga2-widths", "p_holm"] > 0.05
    )
    assert list(table.index) == sorted(table.index, key=lambda m: table.loc[m, "difference"].value)
    text = contest.sentence(tests, "surrogate", 0.5)
    assert re.search(
        r"% of the test images, 0\.\d \[-?0\.\d, 0\.\d\] points (less|more) than NSGA-II", text
    )
    table = table.won.to_dict()
    assert table["random-widths"] == table["uniform-l1"] == 5 and table["archive"] == 0
    cuts = pd.concat([tests, tests.assign(share=0.7)])
    larger = {"Net": tests[tests.method != "archive"], "One": tests[tests.seed < 1]}
    everywhere = contest.sentence(cuts, "surrogate", 0.5, larger)
    assert everywhere.endswith(  # one pair decides nothing on One
        "the nearest rival. Corrected for so many comparisons, it beats 2 of 4 rivals with "
        "these seeds and loses to 1; at 70 % of the MACs 2 of 4 and loses to 1; on Net 2 of 3. That it "
        "beats random search is shown at 50 % of the MACs, at 70 % of the MACs, on Net."
    )
    assert "random widths" not in text and "yet" in contest.sentence(tests, "surrogate", 0.7)
    one = contest.sentence(tests[tests.seed < 1], "surrogate", 0.5)  # one pair decides nothing
    assert one.endswith("% of the test images; no rival has two seeds yet.")
    # a place without anything to compare is left out; ours is often the first that is there
    for part in (tests[tests.method == "surrogate"], tests[tests.method != "surrogate"], tests[:0]):
        assert contest.sentence(tests, "surrogate", 0.5, {"Net": part}) == text
        also = pd.concat([tests, part.assign(share=0.7)])
        assert contest.sentence(also, "surrogate", 0.5) == text
    assert contest.comparisons(tests[tests.seed < 1], "test_error", "surrogate").p_holm.isna().all()
    near = made_up({"surrogate": 0.0, "random-widths": 0.02, "uniform-l1": 0.0, "scratch": 0.3})
    text = contest.sentence(near, "surrogate", 0.5)
    assert "beats 1 of 2 rivals" in text  # what is trained from scratch is no rival
    assert text.endswith("and simpler, as no search is needed: uniform L1.")
    alone = contest.sentence(tests[tests.method == "surrogate"], "surrogate", 0.5)
    assert alone.endswith("no rivals yet.")


def test_the_outcome_says_where_random_search_is_beaten_and_where_not():
    tests = made_up({"surrogate": 0.0, "random-widths": 0.02, "random-fpgm": 0.02})
    level = made_up({"surrogate": 0.0, "random-widths": 0.02, "random-fpgm": 0.0})
    only = made_up({"surrogate": 0.0, "uniform-l1": 0.02})
    text = contest.sentence(tests, "surrogate", 0.5, {"A": level, "B": only})
    assert text.endswith("is shown at 50 % of the MACs, not on A.")  # B has no random search
    text = contest.sentence(level, "surrogate", 0.5)
    assert text.endswith("is shown not at 50 % of the MACs.")
    assert "random widths (FPGM), the nearest rival" in text  # the least told apart


def test_a_distance_reads_as_less_or_more():
    worse = judgement.Estimate(0.02, -0.01, 0.05, 5)
    assert contest.distance(worse) == "2.0 [-1.0, 5.0] points more"
    better = judgement.Estimate(-0.02, -0.05, 0.01, 5)
    assert contest.distance(better) == "2.0 [-1.0, 5.0] points less"
    assert (
        contest.distance(judgement.Estimate(-0.02, -0.02, -0.02, 1)) == "2.0 (one run) points less"
    )


def test_how_many_forms_of_ours_are_tried_says_nothing_of_a_rival():
    """Holm's correction: 2 p for two rivals, whatever else ours was compared with."""
    means = {"surrogate": 0.0, "random-widths": 0.02, "uniform-l1": 0.2}
    forms = {"surrogate-half": 0.02, "surrogate-floor": 0.0, "learned": 0.01}
    tests = made_up(means | forms)
    few = tests[tests.method.isin(list(means))]
    alone = contest.comparisons(few, "test_error", "surrogate").set_index("method")
    table = contest.comparisons(tests, "test_error", "surrogate")
    assert table.method[table.form].tolist() == ["surrogate-half", "learned", "surrogate-floor"]
    many = table.set_index("method").p_holm
    for rival in ("random-widths", "uniform-l1"):
        assert many[rival] == pytest.approx(alone.p_holm[rival])
    text = contest.sentence(tests, "surrogate", 0.5)
    assert text.endswith(
        "2 of 2 rivals with these seeds. That it beats random search is shown at 50 % of the MACs."
    )  # forms of ours are no rivals
    # among searches on widths that have no surrogate, none is a form of another
    assert not contest.comparisons(few, "test_error", "random-widths").form.any()


def test_ours_minus_each_rival_at_a_glance():
    one = made_up({"surrogate": 0.0, "random-widths": 0.02, "uniform-l1": 0.2})
    two = one[one.method != "random-widths"]
    frames = {"small": one, "large": two, "none yet": one[one.method == "uniform-l1"]}
    rivals = ["random-widths", "global-l2", "uniform-l1"]
    table = contest.at_a_glance(frames, "surrogate", 0.5, rivals)
    assert list(table) == ["small", "large"] and list(table.index) == [
        "random widths (L1)",
        "uniform L1",
    ]
    assert table.large.iloc[0] == "–" and table.small.iloc[1] == table.large.iloc[1]
    assert table.small.iloc[1].startswith("-20.0 [")
    assert table.small.iloc[1].endswith("] *")  # told apart
    level = made_up({"surrogate": 0.0, "random-widths": 0.0})
    assert "*" not in contest.at_a_glance({"small": level}, "surrogate", 0.5, rivals).small.iloc[0]


def test_networks_trained_long_are_compared_as_most_of_ours_were_trained():
    one = made_up({"surrogate": 0.0, "uniform-l1": 0.2})
    gentle = one[(one.method == "surrogate") & (one.seed < 2)].assign(lr=0.01, test_error=0.9)
    rates = pd.concat([one.assign(lr=0.05), gentle]).assign(device="CPU")
    few = one[one.seed < 1].assign(lr=0.05, device="GPU")
    found = contest.alike_trained(pd.concat([rates, few]), "surrogate")
    assert len(found) == len(one) and set(found.lr) == {0.05} and set(found.device) == {"CPU"}
    # where the networks of this share were trained counts, not where most of all were
    more = [one.assign(share=s, device="GPU", lr=0.01) for s in (0.7, 0.8)]
    found = contest.alike_trained(pd.concat([rates, *more]), "surrogate")
    assert set(found.device[found.share == 0.5]) == {"CPU"} and len(found) == 3 * len(one)
    assert contest.alike_trained(rates[:0], "surrogate").empty


def test_the_figure_describes_itself():
    import matplotlib.pyplot as plt

    tests = made_up({"surrogate": 0.0, "random-widths": 0.02})
    figure, ax = plt.subplots()
    text = contest.forest(contest.comparisons(tests, "test_error", "surrogate"), "surrogate", ax)
    plt.close(figure)
    assert "random widths (L1) -2.0 [" in text and ax.get_xlabel()


def test_attained_errors_and_hypervolumes_by_hand():
    F = [(0.1, 0.75), (0.3, 0.55), (0.6, 0.3), (0.0, 1.0)]
    frame = pd.DataFrame([
        {"method": "archive", "seed": 0, "index": i, "error": e, "macs_left": m, "unpruned": False, "genome": str(i)}
        for i, (e, m) in enumerate(F)
    ])  # fmt: skip
    (row,) = report.scores(frame).to_dict("records")
    assert [row[f"error_{s}"] for s in (80, 70, 60, 50)] == [0.1, 0.3, 0.3, 0.6]
    assert row["hypervolume"] == pytest.approx(0.25 * 0.2 + 0.45 * 0.3 + 0.7 * 0.4)
    assert row["useful"] == pytest.approx(0.25 * 0.2 + 0.45 * 0.2)
    (first,) = report.scores(frame, evaluations=1).to_dict("records")
    assert first["error_50"] == 1.0 and first["evaluations"] == 1


def test_steps_compare_each_change_with_the_one_before_or_with_one():
    tests = made_up({"deeppruning": 0.1, "bits-spread": 0.06, "surrogate": 0.0})
    changes = [
        ("deeppruning", "as it is"),
        ("bits-spread", "start"),
        ("archive", "no rows yet"),
        ("surrogate", "all"),
    ]
    values = {"error": (tests, "test_error")}
    chain = parts.table(values, changes)
    assert list(chain.index) == ["as it is", "start", "all"]
    gains = chain["error, change"]
    assert gains["as it is"] == "–" and gains["start"].startswith(("-4.", "-3.9"))
    assert gains["start"].endswith("] (5)") and chain.error["start"].endswith(" (5)")
    assert gains["all"] == "–"  # what it would be compared with has no rows
    one = parts.table(values, changes[1:], against="deeppruning")["error, change"]
    assert one["all"].startswith(("-10.", "-9.9"))
    few = {"error": (tests[tests.seed < 2], "test_error")}
    assert parts.table(few, changes[:2])["error, change"]["start"].endswith(" (2 runs)")
    assert parts.table(values, [("archive", "no rows yet")]).empty


def test_the_sentence_on_parts_counts_fresh_seeds_and_its_verdicts_are_corrected():
    tests = made_up({"deeppruning": 0.1, "bits-spread": 0.09, "surrogate": 0.0})
    changes = [("deeppruning", "as it is"), ("bits-spread", "a start"), ("surrogate", "a model")]
    text = parts.sentence(tests, 0.5, changes, 2)
    assert text.startswith(
        "From the paper's way to the surrogate search (L1, no floor), at 50 % of"
    )
    assert re.search(r"by -(9\.9|10\.\d) \[-\S+, -\S+\] points, over 3 seeds that were not", text)
    help_ = r"time: shown to help: a start \(-(0\.9|1\.\d) \[.*\]\); a model \(-\S+ \[.*\]\)\.$"
    assert re.search(help_, text)
    worse = made_up({"deeppruning": 0.0, "bits-spread": 0.1, "surrogate": 0.1})
    harm = r"time: shown to harm: a start \([^;]*\)\.$"
    assert re.search(harm, parts.sentence(worse, 0.5, changes, 0))
    assert parts.sentence(tests, 0.7, changes, 0).endswith("networks at 70 % of the MACs yet.")
    assert parts.sentence(tests, 0.5, changes, 5).endswith("networks at 50 % of the MACs yet.")
    two = parts.steps(tests[tests.seed < 2], "test_error", changes)
    assert parts.verdict(two) == "too few runs to tell."
    level = parts.steps(made_up({"deeppruning": 0.0, "bits-spread": 0.0}), "test_error", changes)
    assert parts.verdict(level) == "no step is shown to help or to harm."
    # one of many: its interval leaves zero out, but corrected for all it is not told apart
    one = parts.Step("a", "a", np.ones(5), judgement.Estimate(-0.1, -0.19, -0.01, 5), 0.04)
    rest = [replace(one, change=f"no {k}", p=0.9) for k in range(4)]
    assert "a (-10.0" in parts.verdict([one])
    assert parts.verdict([one, *rest]) == "no step is shown to help or to harm."


def test_a_seed_that_found_no_network_so_light_is_told():
    tests = made_up({"deeppruning": 0.1, "surrogate": 0.0})
    tests.loc[(tests.method == "surrogate") & (tests.seed == 3), "test_error"] = np.nan
    _, step = parts.steps(tests, "test_error", [("deeppruning", ""), ("surrogate", "all")])
    assert step.mean().endswith(" (4 of 5)") and step.difference.n == 4


def test_the_staircase_shows_every_seed_and_describes_itself():
    import matplotlib.pyplot as plt

    tests = made_up({"deeppruning": 0.1, "surrogate": 0.0})
    figure, ax = plt.subplots()
    changes = [("deeppruning", "as it is"), ("archive", "none"), ("surrogate", "all")]
    alt = parts.staircase(tests, "test_error", changes, ax, "At half")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["as it is", "none", "all"]
    assert [len(line.get_xdata()) for line in ax.lines] == [5, 5, 2]
    assert ax.lines[1].get_ydata().tolist() == [2] * 5 and ax.get_ylim() == (2.5, -0.5)
    mean = 100 * tests[tests.method == "surrogate"].test_error.mean()
    assert f"all {mean:.1f}." in alt and "At half" in alt
    plt.close(figure)


def test_only_networks_trained_with_the_same_draws_are_compared():
    """A second training of ours, which the rival lacks, changes nothing; nor does a lost seed."""
    tests = made_up({"surrogate": 0.0, "random-widths": 0.02})
    other = (tests.method == "random-widths") & ((tests.training == 1) | (tests.seed == 4))
    some = tests[~other].copy()
    a, b = report.pairs(some, "test_error", "surrogate", "random-widths")
    first = tests[(tests.training == 0) & (tests.seed < 4)].pivot(
        index="seed", columns="method", values="test_error"
    )
    assert a.tolist() == first["surrogate"].tolist()
    assert b.tolist() == first["random-widths"].tolist()
    some.loc[(some.method == "surrogate") & (some.training == 1), "test_error"] = 0.9
    again, _ = report.pairs(some, "test_error", "surrogate", "random-widths")
    assert again.tolist() == a.tolist()
    lost = some.assign(training=some.training + 100 * (some.method == "surrogate"))
    assert not len(report.pairs(lost, "test_error", "surrogate", "random-widths")[0])


def test_before_fine_tuning_what_has_no_seed_counts_for_all():
    rows = [("surrogate", 0, 0.1), ("surrogate", 1, 0.2), ("uniform-l1", 0, 0.4)]
    frame = pd.DataFrame(rows, columns=["method", "seed", "error_50"])
    a, b = report.pairs(frame, "error_50", "surrogate", "uniform-l1")
    assert a.tolist() == [0.1, 0.2] and b.tolist() == [0.4, 0.4]
    b, a = report.pairs(frame, "error_50", "uniform-l1", "surrogate")
    assert a.tolist() == [0.1, 0.2] and b.tolist() == [0.4, 0.4]


def test_rank_agreement_is_kendalls():
    a, b = np.arange(12.0), np.array([0, 1, 3, 2, 4, 5, 6, 8, 7, 9, 10, 11.0])
    e = judgement.rank_agreement(a, b, 200)
    assert (
        e.value == pytest.approx(stats.kendalltau(a, b).statistic)
        and e.low <= e.value <= e.high <= 1
    )
    assert judgement.rank_agreement(a, -a, 50).value == pytest.approx(-1)
    assert judgement.rank_agreement(a, np.ones(12), 50).value == 0


def test_rows_are_found_from_any_directory(tmp_path, monkeypatch):
    (tmp_path / "arena").mkdir()
    monkeypatch.setenv("DPES_DATA", str(tmp_path))
    assert report.located("arena") == tmp_path / "arena" == report.located(str(tmp_path / "arena"))
    with pytest.raises(DpesError, match="^nowhere: no such folder of rows"):
        report.located("nowhere")


def test_every_method_has_a_title_of_its_own():
    titles = [report.TITLES[name] for name in methods.METHODS]
    assert len(set(titles)) == len(titles)
