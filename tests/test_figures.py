"""Figures show what the run holds."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("agg")

from dpes.errors import DpesError  # noqa: E402
from dpes.report import figures  # noqa: E402
from dpes.strategy import es  # noqa: E402


@pytest.fixture(autouse=True)
def closed():
    yield
    figures.plt.close("all")


def test_front_marks_the_three_solutions(finished):
    figure, alt = figures.front(finished)
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels[-3:] == ["boundary heavy", "knee", "boundary light"] and "unpruned" in labels
    dots = figure.axes[0].collections[0].get_offsets()
    assert len(dots) == 8 and f"{len(dots)} candidates" in alt
    assert "MACs left (%)" == figure.axes[0].get_xlabel() and "(%)" in figure.axes[0].get_ylabel()


def test_survivors_counts_filters(finished):
    figure, alt = figures.survivors(finished, finished.layout)
    for axes, role in zip(figure.axes, es.ROLES, strict=True):
        heights = [bar.get_height() for bar in axes.containers[1]]
        assert sum(heights) == finished.genome(role).sum()
    assert "6 coupled groups" in alt


def test_steps_go_from_the_unpruned_to_the_tested_error(finished):
    figure, alt = figures.steps(finished)
    for line, role in zip(figure.axes[0].lines, es.ROLES, strict=False):
        y = line.get_ydata()
        assert (y[0], y[-1]) == (
            100 * finished.result["baseline"]["error"],
            100 * finished.result[role]["error"],
        )
    assert "fine-tuning" in alt


def test_rivals_are_told_apart_without_colour(rivals):
    figure, alt = figures.beside_rivals(rivals, 10_000)
    lines = figure.axes[0].lines
    _, named = figure.axes[0].get_legend_handles_labels()
    assert named == ["knee", "uniform L1", "random masks"]
    assert [line.get_marker() for line in lines] == ["D", "^", "x", "x"]
    assert [round(line.get_ydata()[-1], 6) for line in lines[1:]] == [
        10,
        11,
        12,
    ] and "random mask 2 12.0" in alt
    below = figure.axes[1]
    assert [label.get_text() for label in below.get_yticklabels()] == [
        "knee",
        "uniform L1",
        "random mask 1",
        "random mask 2",
    ]
    bars = [bar.lines[2][0].get_segments()[0][:, 0] for bar in below.containers]
    p, q = rivals.error[:2]
    noise = 200 * ((p * (1 - p) + q * (1 - q)) / 10_000) ** 0.5
    assert np.ptp(bars[0]) == 0 and bars[1] == pytest.approx(
        [100 * (q - p) - noise, 100 * (q - p) + noise]
    )


def test_overview_draws_what_each_network_loses(finished, other, rivals):
    reports = pd.DataFrame(
        {
            "model": ["resnet8", "resnet8", "vgg16"],
            "error_before_percent": [5, np.nan, 5],
            "error_after_percent": [6.5, 7, 8],
            "macs_left_percent": 40,
        }
    )
    figure, alt = figures.overview([finished, other], [rivals, None], reports)
    first, second = figure.axes
    places = {c.get_label(): tuple(c.get_offsets()[0]) for c in first.collections}
    whole = finished.result["baseline"]
    for role in es.ROLES:
        entry = finished.result[role]
        assert places[figures.LABELS[role]] == pytest.approx(
            (100 * entry["macs"] / whole["macs"], 100 * (entry["error"] - whole["error"]))
        )
    assert places["uniform L1"][1] == pytest.approx(10 - 100 * whole["error"]) and places[
        "published elsewhere"
    ] == (40, 1.5)
    assert (
        len(first.collections) == len(second.collections) + 4 and "resnet8: boundary heavy" in alt
    )
    # one panel of six is empty
    last = figures.overview([finished, finished, finished, finished, other], [None] * 5, reports)[
        0
    ].axes[-1]
    assert last.get_title() == "resnet20"


def test_the_strategy_on_widths_is_drawn_by_name(rivals):
    _, alt = figures.beside_rivals(
        rivals.assign(solution=rivals.solution.replace("l1", "widths")), 10_000
    )
    assert "strategy on widths 10.0" in alt


@pytest.mark.parametrize("name", ["x", "x.", "x.doc", "x.jpeg", ".svg", "a.svg/x", "", "x.svg "])
def test_a_figure_without_a_known_ending_is_refused(name):
    with pytest.raises(
        DpesError, match="cannot be drawn; let the name end in .png, .svg or .pdf$"
    ) as caught:
        figures.check_ending(name)
    assert "\n" not in str(caught.value)


def test_known_endings_can_be_drawn(finished, tmp_path):
    figure, _ = figures.steps(finished)
    for ending in (*figures.ENDINGS, ".SVG"):
        figures.check_ending(tmp_path / f"x{ending}")
        figure.savefig(tmp_path / f"x{ending}")
    assert len(list(tmp_path.iterdir())) == 4
