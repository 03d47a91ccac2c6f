"""Figures and the table show what the run holds."""

from __future__ import annotations

import dataclasses
import json
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("agg")

from dpes import baselines, es, models, plots  # noqa: E402
from dpes.config import DpesError, Training  # noqa: E402


@pytest.fixture(autouse=True)
def closed():
    yield
    plots.plt.close("all")


def test_front_marks_the_three_solutions(finished):
    figure, alt = plots.front(finished)
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels[-3:] == ["boundary heavy", "knee", "boundary light"] and "unpruned" in labels
    dots = figure.axes[0].collections[0].get_offsets()
    assert len(dots) == 8 and f"{len(dots)} candidates" in alt
    assert "MACs left (%)" == figure.axes[0].get_xlabel() and "(%)" in figure.axes[0].get_ylabel()


def test_survivors_counts_filters(finished):
    figure, alt = plots.survivors(finished, finished.layout)
    for axes, role in zip(figure.axes, es.ROLES, strict=True):
        heights = [bar.get_height() for bar in axes.containers[1]]
        assert sum(heights) == finished.genome(role).sum()
    assert "6 coupled groups" in alt


def test_steps_go_from_the_unpruned_to_the_tested_error(finished):
    figure, alt = plots.steps(finished)
    for line, role in zip(figure.axes[0].lines, es.ROLES, strict=False):
        y = line.get_ydata()
        assert (y[0], y[-1]) == (100 * finished.result["baseline"]["error"], 100 * finished.result[role]["error"])
    assert "fine-tuning" in alt


def test_table_holds_every_step(finished):
    table = plots.table(finished)
    assert list(table) == ["unpruned", "boundary heavy", "knee", "boundary light"]
    assert table.loc["fine-tuned (%)", "knee"] == 100 * finished.result["knee"]["error"]
    assert np.isnan(table.loc["fine-tuned (%)", "unpruned"]) and table.loc["MACs left (%)", "unpruned"] == 100
    html = plots.styled(table).to_html()
    assert "–" in html and f"{finished.result['light']['params']:,}" in html


@pytest.fixture
def controls(finished):
    """Controls with errors made up: what the figure must show."""
    rows = [finished.result["knee"] | {"solution": name, "error": 0.1 + k / 100} for k, name in enumerate(("l1", "random0", "random1"))]
    done = {row["solution"]: row for row in rows}
    return baselines.frame(finished, done)


@pytest.fixture
def other(finished):
    """The same run under the name of another network."""
    return dataclasses.replace(finished, settings=dataclasses.replace(finished.settings, model="resnet20"))


def test_runs_of_one_network_are_told_apart_by_fitness_and_ceiling(finished, other):
    def searched(**changes):
        s = finished.settings
        return dataclasses.replace(finished, settings=dataclasses.replace(s, search=dataclasses.replace(s.search, **changes)))

    named = plots.titles([finished, other, searched(fitness="partial"), searched(error_ceiling=0.6)])
    assert named == ["resnet8, recalibrate", "resnet20", "resnet8, partial", "resnet8, recalibrate, ceiling 60 %"]


def test_rivals_are_told_apart_without_colour(controls):
    figure, alt = plots.rivals(controls, 10_000)
    lines = figure.axes[0].lines
    _, named = figure.axes[0].get_legend_handles_labels()
    assert named == ["knee", "uniform L1", "random masks"]
    assert [line.get_marker() for line in lines] == ["D", "^", "x", "x"]
    assert [round(line.get_ydata()[-1], 6) for line in lines[1:]] == [10, 11, 12] and "random mask 2 12.0" in alt
    below = figure.axes[1]
    assert [label.get_text() for label in below.get_yticklabels()] == ["knee", "uniform L1", "random mask 1", "random mask 2"]
    bars = [bar.lines[2][0].get_segments()[0][:, 0] for bar in below.containers]
    p, q = controls.error[:2]
    noise = 200 * ((p * (1 - p) + q * (1 - q)) / 10_000) ** 0.5
    assert np.ptp(bars[0]) == 0 and bars[1] == pytest.approx([100 * (q - p) - noise, 100 * (q - p) + noise])


def test_the_table_of_rivals_holds_the_knee_and_them(controls, finished):
    table = plots.rivals_table(controls)
    assert list(table.index) == ["knee", "uniform L1", "random mask 1", "random mask 2"]
    assert table.loc["knee", "fine-tuned (%)"] == 100 * finished.result["knee"]["error"]
    assert table.loc["random mask 2", "fine-tuned (%)"] == pytest.approx(12)
    assert ">12.00<" in plots.styled_rows(table).to_html()


def test_overview_draws_what_each_network_loses(finished, other, controls):
    reports = pd.DataFrame(
        {
            "model": ["resnet8", "resnet8", "vgg16"],
            "error_before_percent": [5, np.nan, 5],
            "error_after_percent": [6.5, 7, 8],
            "macs_left_percent": 40,
        }
    )
    figure, alt = plots.overview([finished, other], [controls, None], reports)
    first, second = figure.axes
    places = {c.get_label(): tuple(c.get_offsets()[0]) for c in first.collections}
    whole = finished.result["baseline"]
    for role in es.ROLES:
        entry = finished.result[role]
        assert places[plots.LABELS[role]] == pytest.approx((100 * entry["macs"] / whole["macs"], 100 * (entry["error"] - whole["error"])))
    assert places["uniform L1"][1] == pytest.approx(10 - 100 * whole["error"]) and places["published elsewhere"] == (40, 1.5)
    assert len(first.collections) == len(second.collections) + 4 and "resnet8: boundary heavy" in alt
    last = plots.overview([finished, finished, finished, finished, other], [None] * 5, reports)[0].axes[-1]  # one panel of six is empty
    assert last.get_title() == "resnet20"


def test_summary_has_a_row_for_each_network_and_one_for_all_random_masks(finished, other, controls):
    table = plots.summary([finished, other], [controls, None])
    names = ["unpruned", "boundary heavy", "knee", "boundary light"]
    assert list(table.index.get_level_values(1)) == [*names, "uniform L1", "random masks, mean", *names]
    error = table["test error (%)"].iloc[5]
    assert error == pytest.approx(11.5) and table["lost (points)"].iloc[5] == pytest.approx(
        error - 100 * finished.result["baseline"]["error"]
    )
    assert table.xs("unpruned", level=1)["MACs left (%)"].eq(100).all()
    html = plots.styled_rows(table).to_html()
    assert html == plots.styled_rows(table.copy()).to_html() and "11.50" in html and "nan" not in html


def test_orders_before_and_after_fine_tuning(finished, other, controls):
    controls = controls.assign(error_recalibrated=[0.5, 0.4, 0.2, 0.4], error=[0.1, 0.3, 0.2, 0.2])  # knee, L1, two masks
    table = plots.orders([finished, other], [controls, None]).loc["resnet8"]
    assert list(table.index) == ["knee", "random masks, mean", "uniform L1"]
    assert list(table["fine-tuned (%)"]) == pytest.approx([10, 20, 30]) and list(table["recalibrated (%)"]) == pytest.approx([50, 30, 40])
    assert list(table["place"]) == [3, 1, 2] and list(table["place then"]) == [1, 2, 3]
    controls.loc[:, "error"] = 0.1
    assert set(plots.orders([finished], [controls])["place then"]) == {1} and plots.orders([finished], [None]).empty


NOT_SHOWN = "**So this run does not show that it is better than chance.**"


@pytest.mark.parametrize(
    "knee, masks, rank, lucky, verdict",
    [
        (0.02, 1, "ahead of 1 of 1 random mask;", "1 of 2", NOT_SHOWN),
        (0.02, 2, "ahead of 2 of 2 random masks;", "1 of 3", NOT_SHOWN),
        (0.115, 2, "ahead of 1 of 2 random masks;", "2 of 3", NOT_SHOWN),
        (0.12, 2, "behind 1 of 2 random masks;", "2 of 3", NOT_SHOWN),  # level with the other
        (0.02, 18, "ahead of 18 of 18 random masks;", "1 of 19", NOT_SHOWN),
        (0.02, 19, "ahead of 19 of 19 random masks;", "1 of 20", "**So it is better than chance.**"),
        (0.115, 19, "ahead of 18 of 19 random masks;", "2 of 20", NOT_SHOWN),
        (0.4, 19, "behind 19 of 19 random masks;", "1 of 20", "**So it is worse than chance.**"),
    ],
)
def test_chance_is_judged_by_how_often_luck_would_do_as_well(controls, knee, masks, rank, lucky, verdict):
    controls.loc[controls.solution == "knee", "error"] = knee
    one = controls[controls.solution == "random0"]
    more = pd.concat([controls[:2], *(one.assign(solution=f"random{k}", error=0.11 + k / 100) for k in range(masks))])
    text = plots.against_chance(more, 10_000)
    assert text.endswith(f"The knee is {rank} one more random mask would be so in {lucky} cases, by luck. {verdict}")
    assert f"The knee errs on {100 * knee:.2f} %" in text
    assert masks == 1 or f"11.00 to {10 + masks}.00 %, {10.5 + masks / 2:.2f} % in the mean" in text


def test_networks_are_compared_image_by_image_where_that_was_counted(controls):
    controls["error"] = [0.1, 0.106, 0.106, 0.106]
    assert "0.9 points (two standard errors, as if" in plots.against_chance(controls, 10_000)
    assert "wrong" not in "".join(plots.rivals_table(controls))
    paired = controls.assign(wrong_alone=[np.nan, np.nan, 110, 110], knee_wrong_alone=[np.nan, np.nan, 50, 50])
    noise = plots.uncertainty(paired, 10_000)
    assert noise[0] == 0 and noise[1] == pytest.approx(plots.uncertainty(controls, 10_000)[1])
    # 160 images tell them apart, 60 of which are the difference
    assert noise[2] == noise[3] == pytest.approx(200 * ((160 - 60**2 / 10_000) ** 0.5 / 10_000))
    assert "0.3 points (two standard errors, compared image by image)" in plots.against_chance(paired, 10_000)
    html = plots.styled_rows(plots.rivals_table(paired)).to_html()
    assert "images: wrong, knee right" in html and ">110<" in html and "nan" not in html


def test_chance_without_random_masks_is_not_judged(controls):
    text = plots.against_chance(controls[~controls.solution.str.startswith("random")], 10_000)
    assert "there are no random masks" in text and "chance" not in text and "nan" not in text


def test_networks_trained_here_are_told_by_their_logs(tmp_path, monkeypatch, finished):
    monkeypatch.setenv("DPES_DATA", str(tmp_path))
    none = plots.trained([finished])  # a row for nothing, and yet the columns that the page asks for
    assert none.empty and {"training error (%)", "test error (%)", "hours"} <= set(none)
    (tmp_path / "baselines").mkdir()
    log = [{"seconds": 1800, "train_error": 0.5}, {"seconds": 5400, "train_error": 0.125}]
    (tmp_path / "baselines" / f"{finished.settings.baseline_id}.json").write_text(json.dumps({"log": log}))
    row = plots.trained([finished]).loc[finished.settings.model]
    assert (row["epochs"], row["of them on small images"], row["training error (%)"], row["hours"]) == (2, 0, 12.5, 2)
    assert row["test error (%)"] == 100 * finished.result["baseline"]["error"]


def test_a_budget_in_words():
    assert plots.budget(Training(epochs=1)) == "1 epoch" and plots.budget(Training(epochs=4)) == "4 epochs"
    assert plots.budget(Training(epochs=2, images=30_000)) == "2 epochs of 30,000 images"


def test_boundary_light_beside_that_of_a_second_search(finished):
    light, s = finished.result["light"], finished.settings
    other = dataclasses.replace(s, search=dataclasses.replace(s.search, error_ceiling=0.5, partial_lr=0.5))  # in a search without such
    second = dataclasses.replace(
        finished, settings=other, result=finished.result | {"light": light | {"search_error": 0.123, "error": 0.0456, "macs": 0}}
    )
    text = plots.second_search(finished, second)
    assert "differs in `error_ceiling` 0.5 (here unset)." in text
    assert f"errs on {100 * light['search_error']:.1f} % of the search images on this page and on 12.3 % in the second" in text
    assert f"boundary light errs on {100 * light['error']:.2f} % of the test images here and on 4.56 % there" in text
    assert "and 0 % of the unpruned MACs; the knee errs on" in text
    assert "differs in nothing." in plots.second_search(finished, finished)


def test_variants_stand_side_by_side(finished):
    table = plots.variants({"plain": finished, "again": finished})
    assert list(table.index) == [(name, plots.LABELS[role]) for name in ("plain", "again") for role in es.ROLES]
    light = table.loc[("again", "boundary light")]
    assert light["search error (%)"] == 100 * finished.result["light"]["search_error"]
    assert light["MACs left (%)"] == 100 * finished.result["light"]["macs"] / finished.result["baseline"]["macs"]


def test_a_single_random_mask_and_the_strategy_on_widths_are_named(controls):
    one = controls[controls.solution.isin(["knee", "l1", "random0"])]
    widths = one[one.solution == "l1"].assign(solution="widths", error=0.0987)
    text = plots.against_chance(pd.concat([one, widths]), 10_000)
    assert "what the strategy finds on widths on 9.87 %, a random mask on" in text and "in the mean" not in text
    figure, alt = plots.rivals(pd.concat([one, widths]), 10_000)
    assert "strategy on widths 9.9" in alt


def test_missing_results_of_others_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "folders", lambda: [tmp_path])
    with pytest.raises(DpesError, match="published.csv is in none of .*: restore it"):
        plots.published()


def test_published_results_have_sources():
    table = plots.published()
    assert set(table.model) <= set(models.MODELS) and table.source.notna().all() and len(table) >= 3
    assert table.macs_left_percent.between(0, 100).all() and table.error_after_percent.between(0, 100).all()


def test_hours_are_those_of_the_run(finished, controls):
    table = plots.hours([finished], [controls])
    assert table.loc[finished.path.name, "controls"] * 3600 == pytest.approx(3 * sum(e["seconds"] for e in finished.result["knee"]["log"]))
    assert table.loc[finished.path.name, "search"] * 3600 == pytest.approx(finished.env["seconds"]["search"])


def test_a_table_has_the_same_html_each_time_and_another_table_other_ids(finished):
    table = plots.table(finished)
    html = plots.styled(table).to_html()
    assert plots.styled(table.copy()).to_html() == html
    ids = [set(re.findall('id="(.*?)"', text)) for text in (html, plots.styled(table.drop(columns="knee")).to_html())]
    assert len(ids[0]) > 10 and not ids[0] & ids[1]


def test_tables_look_alike_and_their_numbers_stand_under_each_other():
    html = plots.fixed(pd.DataFrame({"note": ["a", "b"], "error (%)": [9.5, 12.25]})).to_html()
    assert 'class="dataframe"' in html
    rules = re.findall(r"(\.col\d).*?\{(.*?)\}", html.split("</style>")[0], re.S)
    assert [(column, rule.strip()) for column, rule in rules] == [(".col1", "text-align: right;")]


@pytest.mark.parametrize("name", ["x", "x.", "x.doc", "x.jpeg", ".svg", "a.svg/x", "", "x.svg "])
def test_a_figure_without_a_known_ending_is_refused(name):
    with pytest.raises(DpesError, match="cannot be drawn; let the name end in .png, .svg or .pdf$") as caught:
        plots.check_ending(name)
    assert "\n" not in str(caught.value)


def test_known_endings_can_be_drawn(finished, tmp_path):
    figure, _ = plots.steps(finished)
    for ending in (*plots.ENDINGS, ".SVG"):
        plots.check_ending(tmp_path / f"x{ending}")
        figure.savefig(tmp_path / f"x{ending}")
    assert len(list(tmp_path.iterdir())) == 4


def test_reported_numbers_stand_beside_ours(finished, tmp_path, monkeypatch):
    assert plots.table(finished).loc["reported in the paper (%)"].isna().all()
    monkeypatch.setenv("DPES_DATA", str(tmp_path))
    header = "family,model,dataset,solution,error_percent,flops_reduction_percent,source"
    (tmp_path / "reported.csv").write_text(f"{header}\nresnet,resnet8,digits,knee,7.5,50,table 1\nresnet,resnet8,cifar10,knee,9,50,x\n")
    row = plots.table(finished).loc["reported in the paper (%)"]
    assert row["knee"] == 7.5 and row.drop("knee").isna().all()


def test_provenance_names_the_run(finished):
    made = plots.provenance(finished)
    assert made["run"] == finished.path.name and "seconds, search" in made.index
