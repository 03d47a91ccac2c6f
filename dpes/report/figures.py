"""Figures of runs and their rivals, drawn from their data frames; each comes with its alt text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..coupling.layout import Layout
from ..errors import DpesError
from ..strategy.es import ROLES
from ..study.finished import Run
from .tables import DIGITS, LABELS, label, titles
from .verdicts import uncertainty

MARKERS = {"baseline": "*", "heavy": "s", "knee": "D", "light": "o"}  # parts apart without colour
COLOURS = dict(
    zip(
        ("baseline", *ROLES),
        sns.color_palette("colorblind")[7:8] + sns.color_palette("colorblind")[:3],
        strict=True,
    )
)
RIVALS: dict[str, dict] = {
    "knee": {"marker": MARKERS["knee"], "color": COLOURS["knee"]},
    "l": {"marker": "^", "color": sns.color_palette("colorblind")[4], "ls": "--"},  # l1
    "widths": {"marker": "v", "color": sns.color_palette("colorblind")[3], "ls": "-."},
    "random": {"marker": "x", "color": "0.45", "lw": 1, "ls": ":"},
}
STEPS = {
    "baseline": "before\nthe cut",
    "error_cut": "after\nthe cut",
    "error_recalibrated": "batch norm\nrecalibrated",
    "error": "fine-tuned",
}
MARKS: dict[str, dict] = {  # how a network is drawn in a scatter
    name: {"marker": MARKERS[name], "color": COLOURS[name], "edgecolor": "k", "label": LABELS[name]}
    for name in MARKERS
}
ENDINGS = (".png", ".svg", ".pdf")


def check_ending(file: str | Path) -> None:
    """Raises ``DpesError`` unless the name of a figure's file ends in one of ``ENDINGS``, in large
    or small letters.
    """
    if Path(file).suffix.lower() not in ENDINGS:
        raise DpesError(
            f"{file or 'an empty name'}: cannot be drawn; let the name end in "
            f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
        )


def theme() -> None:
    """The style of all figures: a white ground, so that they stay legible on a dark page."""
    sns.set_theme(
        style="whitegrid",
        context="notebook",
        rc={"figure.dpi": 110, "savefig.facecolor": "white", "legend.frameon": True},
    )


def front(run: Run) -> tuple[Figure, str]:
    """Every candidate by its cost and search error, by generation; archive and solutions marked."""
    which = run.settings.search.cost
    name = {"macs": "MACs"}.get(which, which)
    everyone = run.history[np.isfinite(run.history.error)]
    whole = float(everyone[which].iloc[0])
    pruned, archive = everyone[everyone.generation > 0], run.archive
    left, errors = 100 * pruned[which] / whole, 100 * pruned.error
    figure, axes = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    dots = axes.scatter(left, errors, c=pruned.generation, cmap="viridis", s=22, alpha=0.8)
    every = max(1, pruned.generation.nunique() // 6)
    ticks = np.unique(pruned.generation)[::every]
    figure.colorbar(dots, ax=axes, label="generation", ticks=ticks)
    stairs = 100 * archive[which] / whole, 100 * archive.error
    staircase = "archive of the non-dominated"
    axes.step(*stairs, where="pre", color="0.35", lw=1.2, label=staircase)
    axes.scatter(100, 100 * everyone.error.iloc[0], s=190, zorder=3, **MARKS["baseline"])
    for role in ROLES:
        entry = run.result[role]
        point = 100 * entry[which] / whole, 100 * entry["search_error"]
        axes.scatter(*point, s=95, zorder=4, **MARKS[role])
    axes.set(xlabel=f"{name} left (%)", ylabel="search error (%)")
    axes.legend(fontsize="small")
    return figure, (
        f"Scatter of {len(pruned)} candidates: search error from {errors.min():.1f} to "
        f"{errors.max():.1f} percent over {left.min():.0f} to {left.max():.0f} percent of the "
        f"{name}; later generations lie further left."
    )


def survivors(run: Run, layout: Layout) -> tuple[Figure, str]:
    """Filters that each coupled group keeps in the solutions, within the outline of all."""
    names, places = [g.name for g in layout.groups], range(len(layout.groups))
    sizes = np.array([g.size for g in layout.groups])
    figure, rows = plt.subplots(3, 1, figsize=(7.5, 5.2), sharex=True, layout="constrained")
    shares = []
    for role, hatch, axes in zip(ROLES, ("", "//", ".."), rows, strict=True):
        genome = run.genome(role)
        counts = np.array([genome[g.bits].sum() for g in layout.groups])
        shares.append(f"{LABELS[role]} {100 * counts.sum() / sizes.sum():.0f}")
        axes.bar(places, sizes, color="none", edgecolor="0.5", lw=0.8)
        axes.bar(places, counts, color=COLOURS[role], hatch=hatch, edgecolor="white", lw=0)
        axes.set(ylabel="filters", title=f"{LABELS[role]}: {counts.sum()} of {sizes.sum()} filters")
        axes.grid(axis="x", visible=False)
    every = max(1, len(names) // 16)
    slanted: dict[str, Any] = {"rotation": 60, "ha": "right", "fontsize": "x-small"}
    rows[-1].set_xticks(places[::every], names[::every], **slanted)
    rows[-1].set_xlabel("coupled group, by its first layer")
    kept = f"percent of all filters kept: {', '.join(shares)}"
    return figure, f"Three bar charts over {len(sizes)} coupled groups; {kept}."


def steps(run: Run) -> tuple[Figure, str]:
    """Test error of the solutions before and after the cut, recalibrated and fine-tuned."""
    figure, axes = plt.subplots(figsize=(7.5, 4.0), layout="constrained")
    unpruned = 100 * run.result["baseline"]["error"]
    for role in ROLES:
        entry = run.result[role]
        errors = [unpruned, *(100 * entry[key] for key in list(STEPS)[1:])]
        left = 100 * entry["macs"] / run.result["baseline"]["macs"]
        legend = f"{LABELS[role]}, {left:.0f} % of the MACs"
        axes.plot(range(4), errors, marker=MARKERS[role], color=COLOURS[role], label=legend)
    axes.axhline(unpruned, color=COLOURS["baseline"], ls="--", lw=1, label="unpruned")
    axes.set_xticks(range(4), STEPS.values())
    axes.set(ylabel="test error (%)", ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    ends = ", ".join(f"{LABELS[r]} {100 * run.result[r]['error']:.1f}" for r in ROLES)
    return figure, (
        f"Line chart: test error rises from {unpruned:.1f} percent at the cut and falls again; "
        f"after fine-tuning: {ends} percent."
    )


def beside_rivals(rivals: pd.DataFrame, test_images: int) -> tuple[Figure, str]:
    """Test error of the knee and its rivals at each step; below, how far from the knee's they end.

    rivals: the frame of ``rivals.train_rivals``; test_images: on which its errors were counted. The
    bars are ``verdicts.uncertainty``.
    """
    height = 0.8 + 0.3 * len(rivals)  # of the lower panel
    sizes: dict[str, Any] = {"figsize": (7.5, 3.4 + height), "height_ratios": (3.4, height)}
    figure, (course, end) = plt.subplots(2, 1, layout="constrained", **sizes)
    bars, knee = uncertainty(rivals, test_images), 100 * rivals.error.iloc[0]
    ends = []
    for place, row in enumerate(rivals.itertuples()):
        name, style = label(row.solution), RIVALS[row.solution.rstrip(DIGITS)]
        errors = [100 * getattr(row, key) for key in list(STEPS)[1:]]
        front = 3 if row.solution == "knee" else 2
        course.plot(range(3), errors, label=legend(row.solution, "s"), zorder=front, **style)
        bar = style | {"ls": "none", "lw": 1, "xerr": bars.iloc[place], "capsize": 3}
        end.errorbar(errors[-1] - knee, place, **bar)
        ends.append(f"{name} {errors[-1]:.1f}")
    course.set_xticks(range(3), list(STEPS.values())[1:])
    course.set(ylabel="test error (%)", ylim=(0, None))
    course.legend(fontsize="small", loc="upper right")
    end.axvline(0, color=COLOURS["knee"], lw=1)
    end.set_yticks(range(len(ends)), rivals.solution.map(label), fontsize="small")
    end.invert_yaxis()
    end.grid(axis="y", visible=False)
    end.set(xlabel="fine-tuned: errs less than the knee  <  points  >  errs more than the knee")
    return figure, (
        "Line chart: test error after the cut, recalibrated and fine-tuned; after fine-tuning: "
        f"{', '.join(ends)} percent. Below, the differences from the knee after fine-tuning, with "
        "bars of two standard errors."
    )


def legend(solution: str, plural: str = "") -> str | None:
    """What the legend says of a network: of all random masks the first one stands for all."""
    if not solution.startswith("random"):
        return label(solution)
    return f"random mask{plural}" if solution == "random0" else None


def overview(
    runs: list[Run], rivals: list[pd.DataFrame | None], reports: pd.DataFrame
) -> tuple[Figure, str]:
    """A panel for each run: what solutions and rivals lose on test images, by the MACs they keep.

    reports: rows of ``data/published.csv``, drawn where they are of the same network and say what
    they started from.
    """
    columns = len(runs) if len(runs) < 4 else 2
    rows = -(-len(runs) // columns)
    size = 1.2 + 3.4 * columns, 0.8 + 3.4 * rows
    figure, panels = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axes in panels.flat[len(runs) :]:
        axes.remove()
    parts = []
    for axes, title, run, frame in zip(panels.flat, titles(runs), runs, rivals, strict=False):
        parts.append(f"{title}: {panel(axes, run, frame, reports)}")
        axes.set(title=title)
    shown = [axes.get_legend_handles_labels() for axes in figure.axes]
    handles = {label: handle for each in shown for handle, label in zip(*each, strict=True)}
    below: dict[str, Any] = {"loc": "outside lower center", "ncols": 3, "fontsize": "small"}
    figure.legend(list(handles.values()), list(handles), **below)
    lost = "Test error lost by the MACs kept, a panel for each network."
    return figure, f"{lost} {'; '.join(parts)}."


def panel(axes: Axes, run: Run, frame: pd.DataFrame | None, reports: pd.DataFrame) -> str:
    """One panel of ``overview``; returns what it shows, in words."""
    solutions = run.solutions.set_index("solution")
    unpruned = solutions.error["baseline"]
    lost, left = 100 * (solutions.error - unpruned), 100 * solutions.macs_left
    axes.plot(left[list(ROLES)], lost[list(ROLES)], color="0.6", lw=1, zorder=1)
    for role in ROLES:
        axes.scatter(left[role], lost[role], s=80, zorder=3, **MARKS[role])
    for row in () if frame is None else frame[frame.solution != "knee"].itertuples():
        style = RIVALS[row.solution.rstrip(DIGITS)]
        style = {"marker": style["marker"], "color": style["color"], "label": legend(row.solution)}
        axes.scatter(100 * row.macs_left, 100 * (row.error - unpruned), s=50, zorder=2, **style)
    known = reports[(reports.model == run.settings.model) & reports.error_before_percent.notna()]
    if len(known):
        elsewhere = known.error_after_percent - known.error_before_percent
        hollow: dict[str, Any] = {"marker": "p", "facecolor": "none", "edgecolor": "0.3", "s": 60}
        axes.scatter(known.macs_left_percent, elsewhere, label="published elsewhere", **hollow)
    axes.axhline(0, color=COLOURS["baseline"], ls="--", lw=1)
    axes.set(xlabel="MACs left (%)", ylabel="test error lost (points)", xlim=(0, 100))
    return ", ".join(f"{LABELS[r]} {lost[r]:+.1f} points at {left[r]:.0f} percent" for r in ROLES)
