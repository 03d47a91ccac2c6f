"""Tables and sentences say what the run holds."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest

from dpes.errors import DpesError
from dpes.report import tables, verdicts
from dpes.strategy import es
from dpes.study import models
from dpes.study.settings import Training


def test_table_holds_every_step(finished):
    table = tables.table(finished)
    assert list(table) == ["unpruned", "boundary heavy", "knee", "boundary light"]
    assert table.loc["fine-tuned (%)", "knee"] == 100 * finished.result["knee"]["error"]
    assert (
        np.isnan(table.loc["fine-tuned (%)", "unpruned"])
        and table.loc["MACs left (%)", "unpruned"] == 100
    )
    html = tables.styled(table).to_html()
    assert "–" in html and f"{finished.result['light']['params']:,}" in html


def test_runs_of_one_network_are_told_apart_by_fitness_and_ceiling(finished, other):
    def searched(**changes):
        s = finished.settings
        return dataclasses.replace(
            finished,
            settings=dataclasses.replace(s, search=dataclasses.replace(s.search, **changes)),
        )

    named = tables.titles(
        [finished, other, searched(fitness="partial"), searched(error_ceiling=0.6)]
    )
    assert named == [
        "resnet8, recalibrate",
        "resnet20",
        "resnet8, partial",
        "resnet8, recalibrate, ceiling 60 %",
    ]


def test_the_table_of_rivals_holds_the_knee_and_them(rivals, finished):
    table = tables.rivals_table(rivals)
    assert list(table.index) == ["knee", "uniform L1", "random mask 1", "random mask 2"]
    assert table.loc["knee", "fine-tuned (%)"] == 100 * finished.result["knee"]["error"]
    assert table.loc["random mask 2", "fine-tuned (%)"] == pytest.approx(12)
    assert ">12.00<" in tables.styled_rows(table).to_html()


def test_summary_has_a_row_for_each_network_and_one_for_all_random_masks(finished, other, rivals):
    table = tables.summary([finished, other], [rivals, None])
    names = ["unpruned", "boundary heavy", "knee", "boundary light"]
    assert list(table.index.get_level_values(1)) == [
        *names,
        "uniform L1",
        "random masks, mean",
        *names,
    ]
    error = table["test error (%)"].iloc[5]
    assert error == pytest.approx(11.5) and table["lost (points)"].iloc[5] == pytest.approx(
        error - 100 * finished.result["baseline"]["error"]
    )
    assert table.xs("unpruned", level=1)["MACs left (%)"].eq(100).all()
    html = tables.styled_rows(table).to_html()
    assert (
        html == tables.styled_rows(table.copy()).to_html() and "11.50" in html and "nan" not in html
    )


def test_how_well_the_order_is_foretold(finished, other, rivals):
    # four networks, the best two exchanged
    rivals["error_recalibrated"] = rivals.error.rank().replace({1: 2, 2: 1})
    assert (
        verdicts.rank_correlations([finished, other], [rivals, None])
        == "- **resnet8**: +0.80 over 4 networks"
    )


def test_in_short_the_least_loss_comes_first(finished, other, rivals):
    whole, knee = finished.result["baseline"], finished.result["knee"]
    lost = [100 * (error - whole["error"]) for error in (knee["error"], 0.1, 0.115)]
    named = zip(
        lost, ("**knee** {:.2f}", "uniform L1 {:.2f}", "random masks, mean {:.2f}"), strict=True
    )
    order = "; ".join(name.format(points) for points, name in sorted(named))
    left = 100 * knee["macs"] / whole["macs"]
    assert verdicts.in_short([finished, other], [rivals, None]).split("\n") == [
        f"- **resnet8**, {left:.0f} % of the MACs, points lost: {order}",
        f"- **resnet20**, {left:.0f} % of the MACs, points lost: **knee** {lost[0]:.2f}",
    ]


def test_the_headline_counts_masks_and_needs_nineteen_to_speak_of_chance(finished, other, rivals):
    knee = rivals.solution == "knee"
    rivals = rivals.assign(error=np.where(knee, 0.11, [0.0, 0.1, 0.12, 0.115]))
    text = verdicts.headline([finished, other], [rivals, None])
    assert "In 2 searches on 2 networks" in text and "ahead of 2 of 2 random masks" in text
    assert "better than chance in 0 of 1 searches, and behind uniform L1 in 1" in text
    masks = [rivals.iloc[[2]].assign(solution=f"random {k}") for k in range(19)]
    many = pd.concat([rivals[:2], *masks])
    assert "better than chance in 1 of 1" in verdicts.headline([finished], [many])
    many.iloc[-1, many.columns.get_loc("error")] = 0.1
    assert "ahead of 18 of 19" in (text := verdicts.headline([finished], [many]))
    assert "better than chance in 0 of 1" in text


def test_orders_before_and_after_fine_tuning(finished, other, rivals):
    # knee, L1, two masks
    rivals = rivals.assign(error_recalibrated=[0.5, 0.4, 0.2, 0.4], error=[0.1, 0.3, 0.2, 0.2])
    table = tables.places_before_and_after([finished, other], [rivals, None]).loc["resnet8"]
    assert list(table.index) == ["knee", "random masks, mean", "uniform L1"]
    assert list(table["fine-tuned (%)"]) == pytest.approx([10, 20, 30]) and list(
        table["recalibrated (%)"]
    ) == pytest.approx([50, 30, 40])
    assert list(table["place"]) == [3, 1, 2] and list(table["place then"]) == [1, 2, 3]
    rivals.loc[:, "error"] = 0.1
    assert set(tables.places_before_and_after([finished], [rivals])["place then"]) == {1}
    assert tables.places_before_and_after([finished], [None]).empty


NOT_SHOWN = "**So this run does not show that it is better than chance.**"


@pytest.mark.parametrize(
    "knee, masks, rank, lucky, verdict",
    [
        (0.02, 1, "ahead of 1 of 1 random mask;", "1 of 2", NOT_SHOWN),
        (0.02, 2, "ahead of 2 of 2 random masks;", "1 of 3", NOT_SHOWN),
        (0.115, 2, "ahead of 1 of 2 random masks;", "2 of 3", NOT_SHOWN),
        (0.12, 2, "behind 1 of 2 random masks;", "2 of 3", NOT_SHOWN),  # level with the other
        (0.02, 18, "ahead of 18 of 18 random masks;", "1 of 19", NOT_SHOWN),
        (
            0.02,
            19,
            "ahead of 19 of 19 random masks;",
            "1 of 20",
            "**So it is better than chance.**",
        ),
        (0.115, 19, "ahead of 18 of 19 random masks;", "2 of 20", NOT_SHOWN),
        (0.4, 19, "behind 19 of 19 random masks;", "1 of 20", "**So it is worse than chance.**"),
    ],
)
def test_chance_is_judged_by_how_often_luck_would_do_as_well(
    rivals, knee, masks, rank, lucky, verdict
):
    rivals.loc[rivals.solution == "knee", "error"] = knee
    one = rivals[rivals.solution == "random0"]
    more = pd.concat(
        [
            rivals[:2],
            *(one.assign(solution=f"random{k}", error=0.11 + k / 100) for k in range(masks)),
        ]
    )
    text = verdicts.against_chance(more, 10_000)
    assert text.endswith(
        f"The knee is {rank} one more random mask would be so in {lucky} cases, by luck. {verdict}"
    )
    assert f"The knee errs on {100 * knee:.2f} %" in text
    assert masks == 1 or f"11.00 to {10 + masks}.00 %, {10.5 + masks / 2:.2f} % in the mean" in text


def test_networks_are_compared_image_by_image_where_that_was_counted(rivals):
    rivals["error"] = [0.1, 0.106, 0.106, 0.106]
    assert "0.9 points (two standard errors, as if" in verdicts.against_chance(rivals, 10_000)
    assert "wrong" not in "".join(tables.rivals_table(rivals))
    paired = rivals.assign(
        wrong_alone=[np.nan, np.nan, 110, 110], knee_wrong_alone=[np.nan, np.nan, 50, 50]
    )
    noise = verdicts.uncertainty(paired, 10_000)
    assert noise[0] == 0 and noise[1] == pytest.approx(verdicts.uncertainty(rivals, 10_000)[1])
    # 160 images tell them apart, 60 of which are the difference
    assert noise[2] == noise[3] == pytest.approx(200 * ((160 - 60**2 / 10_000) ** 0.5 / 10_000))
    assert "0.3 points (two standard errors, compared image by image)" in verdicts.against_chance(
        paired, 10_000
    )
    html = tables.styled_rows(tables.rivals_table(paired)).to_html()
    assert "images: wrong, knee right" in html and ">110<" in html and "nan" not in html


@pytest.mark.parametrize(
    "counts, verdict",
    [
        ([(0, 11), (0, 11), (1, 9)], "worse than uniform L1, random mask 1, random mask 2"),
        ([(11, 0), (12, 1), (9, 9)], "better than uniform L1, random mask 1; not told apart from"),
        ([(5, 1), (1, 1), (0, 0)], "not told apart from uniform L1, random mask 1, random mask 2"),
    ],
)
def test_the_knee_is_better_worse_or_not_told_apart_from_each_rival(rivals, counts, verdict):
    alone, knees = zip(*counts, strict=True)
    apart = [0, *((a - b) / 300 for a, b in counts)]
    paired = rivals.assign(wrong_alone=[np.nan, *alone], knee_wrong_alone=[np.nan, *knees])
    paired["error"] = 0.1 + np.array(apart)
    assert f"the knee is **{verdict}" in verdicts.against_chance(paired, 300)
    # 11 : 0 by chance: once in 1,024 cases
    assert verdicts.mcnemar(11, 0) == pytest.approx(2 / 2**11) and verdicts.mcnemar(0, 0) == 1


def test_a_cheaper_network_that_errs_less_is_said(finished):
    errors = dict(zip(("heavy", "knee", "light"), (0.1, 0.2, 0.15), strict=True))
    result = finished.result | {r: finished.result[r] | {"error": e} for r, e in errors.items()}
    text = verdicts.inversion(dataclasses.replace(finished, result=result))
    assert text.startswith("Here boundary light errs less than knee") and text.count("Here") == 1


def test_a_second_training_tells_what_one_is_worth(rivals):
    again = rivals.assign(error=rivals.error + [0, 0.003, 0, -0.001])[:4]
    errors = tables.trained_twice(rivals, again)
    assert list(errors.index) == ["uniform L1", "random mask 1", "random mask 2"]
    assert errors["points apart"].tolist() == pytest.approx([0.3, 0, 0.1])
    # 2 sqrt(2) standard deviations of one training, which are sqrt(mean of squares / 2)
    noise = 2 * 2**0.5 * ((0.3**2 + 0.1**2) / 2 / 2) ** 0.5
    assert f"{noise:.1f}" == "0.4"
    text = verdicts.apart_by_rounding(errors)
    assert (
        text.startswith("2 of 3 networks end 0.10 to 0.30 points from")
        and "up to 0.4 points" in text
        and "from 2 differences" in text
    )
    assert (
        verdicts.apart_by_rounding(tables.trained_twice(rivals, rivals))
        == "All 3 networks erred as before, to the last image."
    )
    # only what was trained twice
    assert tables.trained_twice(rivals, again[:2]).index.tolist() == ["uniform L1"]


def test_chance_without_random_masks_is_not_judged(rivals):
    text = verdicts.against_chance(rivals[~rivals.solution.str.startswith("random")], 10_000)
    assert "there are no random masks" in text and "chance" not in text and "nan" not in text


def test_networks_trained_here_are_told_by_their_logs(tmp_path, monkeypatch, finished):
    monkeypatch.setenv("DPES_DATA", str(tmp_path))
    # a row for nothing, and yet the columns that the page asks for
    none = tables.trained([finished])
    assert none.empty and {"training error (%)", "test error (%)", "hours"} <= set(none)
    (tmp_path / "baselines").mkdir()
    log = [{"seconds": 1800, "train_error": 0.5}, {"seconds": 5400, "train_error": 0.125}]
    (tmp_path / "baselines" / f"{finished.settings.baseline_id}.json").write_text(
        json.dumps({"log": log})
    )
    row = tables.trained([finished]).loc[finished.settings.model]
    assert (
        row["epochs"],
        row["of them on small images"],
        row["training error (%)"],
        row["hours"],
    ) == (2, 0, 12.5, 2)
    assert row["test error (%)"] == 100 * finished.result["baseline"]["error"]


def test_a_budget_in_words():
    assert (
        verdicts.budget(Training(epochs=1)) == "1 epoch"
        and verdicts.budget(Training(epochs=4)) == "4 epochs"
    )
    assert verdicts.budget(Training(epochs=2, images=30_000)) == "2 epochs of 30,000 images"


def test_boundary_light_beside_that_of_a_second_search(finished):
    light, s = finished.result["light"], finished.settings
    # in a search without such
    other = dataclasses.replace(
        s, search=dataclasses.replace(s.search, error_ceiling=0.5, partial_lr=0.5)
    )
    second = dataclasses.replace(
        finished,
        settings=other,
        result=finished.result
        | {"light": light | {"search_error": 0.123, "error": 0.0456, "macs": 0}},
    )
    text = verdicts.second_search(finished, second)
    assert "differs in `error_ceiling` 0.5 (here unset)." in text
    assert (
        f"errs on {100 * light['search_error']:.1f} % of the search images on this page and on "
        "12.3 % in the second" in text
    )
    assert (
        f"boundary light errs on {100 * light['error']:.2f} % of the test images here and on 4.56 "
        "% there" in text
    )
    assert "and 0 % of the unpruned MACs; the knee errs on" in text
    assert "differs in nothing." in verdicts.second_search(finished, finished)


def test_variants_stand_side_by_side(finished):
    table = tables.variants({"plain": finished, "again": finished})
    assert list(table.index) == [
        (name, tables.LABELS[role]) for name in ("plain", "again") for role in es.ROLES
    ]
    light = table.loc[("again", "boundary light")]
    assert light["search error (%)"] == 100 * finished.result["light"]["search_error"]
    assert (
        light["MACs left (%)"]
        == 100 * finished.result["light"]["macs"] / finished.result["baseline"]["macs"]
    )


def test_a_single_random_mask_and_the_strategy_on_widths_are_named(rivals):
    one = rivals[rivals.solution.isin(["knee", "l1", "random0"])]
    widths = one[one.solution == "l1"].assign(solution="widths", error=0.0987)
    text = verdicts.against_chance(pd.concat([one, widths]), 10_000)
    assert (
        "what the strategy finds on widths on 9.87 %, a random mask on" in text
        and "in the mean" not in text
    )


def test_missing_results_of_others_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "folders", lambda: [tmp_path])
    with pytest.raises(DpesError, match="published.csv is in none of .*: restore it"):
        tables.published()


def test_published_results_have_sources():
    table = tables.published()
    assert set(table.model) <= set(models.MODELS) and table.source.notna().all() and len(table) >= 3
    assert (
        table.macs_left_percent.between(0, 100).all()
        and table.error_after_percent.between(0, 100).all()
    )


def test_hours_are_those_of_the_run(finished, rivals):
    table = tables.hours([finished], [rivals])
    assert table.loc[finished.path.name, "rivals"] * 3600 == pytest.approx(
        3 * sum(e["seconds"] for e in finished.result["knee"]["log"])
    )
    assert table.loc[finished.path.name, "search"] * 3600 == pytest.approx(
        finished.env["seconds"]["search"]
    )


def test_a_table_has_the_same_html_each_time_and_another_table_other_ids(finished):
    table = tables.table(finished)
    html = tables.styled(table).to_html()
    assert tables.styled(table.copy()).to_html() == html
    ids = [
        set(re.findall('id="(.*?)"', text))
        for text in (html, tables.styled(table.drop(columns="knee")).to_html())
    ]
    assert len(ids[0]) > 10 and not ids[0] & ids[1]


def test_tables_look_alike_and_their_numbers_stand_under_each_other():
    html = tables.fixed(pd.DataFrame({"note": ["a", "b"], "error (%)": [9.5, 12.25]})).to_html()
    assert 'class="dataframe"' in html
    rules = re.findall(r"(\.col\d).*?\{(.*?)\}", html.split("</style>")[0], re.S)
    assert [(column, rule.strip()) for column, rule in rules] == [(".col1", "text-align: right;")]


def test_reported_numbers_stand_beside_ours(finished, tmp_path, monkeypatch):
    assert "reported in the paper (%)" not in tables.table(finished).index
    monkeypatch.setenv("DPES_DATA", str(tmp_path))
    header = "family,model,dataset,solution,error_percent,flops_reduction_percent,source"
    (tmp_path / "reported.csv").write_text(
        f"{header}\nresnet,resnet8,digits,knee,7.5,50,table 1\nresnet,resnet8,cifar10,knee,9,50,x\n"
    )
    row = tables.table(finished).loc["reported in the paper (%)"]
    assert row["knee"] == 7.5 and row.drop("knee").isna().all()


def test_provenance_names_the_run(finished):
    made = tables.provenance(finished)
    assert made["run"] == finished.path.name and "seconds, search" in made.index
