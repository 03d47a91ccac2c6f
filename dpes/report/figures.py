"""Figures of runs and their rivals, drawn from their data frames; each comes with its alt text."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ..coupling.layout import Layout
from ..errors import DpesError
from ..strategy.es import ROLES
from ..study.runs import Run
from .tables import DIGITS, LABELS, label, titles
from .verdicts import uncertainty

MARKERS = {"baseline": "*", "heavy": "s", "knee": "D", "light": "o"}  # parts apart without colour
COLOURS = dict(zip(("baseline", *ROLES), sns.color_palette("colorblind")[7:8] + sns.color_palette("colorblind")[:3], strict=True))
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
ENDINGS = (".png", ".svg", ".pdf")


def check_ending(file: str | Path) -> None:
    """Raises ``DpesError`` unless the name of a figure's file ends in one of ``ENDINGS``, in large or small letters."""
    if Path(file).suffix.lower() not in ENDINGS:
        raise DpesError(f"{file or 'an empty name'}: cannot be drawn; let the name end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")


def theme() -> None:
    """The style of all figures: a white ground, so that they stay legible on a dark page."""
    sns.set_theme(style="whitegrid", context="notebook", rc={"figure.dpi": 110, "savefig.facecolor": "white", "legend.frameon": True})


def front(run: Run) -> tuple[Figure, str]:
    """Every candidate by its cost and search error, coloured by generation, the archive as a staircase, the three solutions marked."""
    which = run.settings.search.cost
    name = {"macs": "MACs"}.get(which, which)
    everyone = run.history[np.isfinite(run.history.error)]
    whole = float(everyone[which].iloc[0])
    pruned, archive = everyone[everyone.generation > 0], run.archive
    figure, axes = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    dots = axes.scatter(100 * pruned[which] / whole, 100 * pruned.error, c=pruned.generation, cmap="viridis", s=22, alpha=0.8)
    figure.colorbar(dots, ax=axes, label="generation", ticks=np.unique(pruned.generation)[:: max(1, pruned.generation.nunique() // 6)])
    axes.step(100 * archive[which] / whole, 100 * archive.error, where="pre", color="0.35", lw=1.2, label="archive of the non-dominated")
    axes.scatter(
        100, 100 * everyone.error.iloc[0], marker="*", s=190, color=COLOURS["baseline"], edgecolor="k", label=LABELS["baseline"], zorder=3
    )
    for role in ROLES:
        entry = run.result[role]
        point = 100 * entry[which] / whole, 100 * entry["search_error"]
        axes.scatter(*point, marker=MARKERS[role], s=95, color=COLOURS[role], edgecolor="k", label=LABELS[role], zorder=4)
    axes.set(xlabel=f"{name} left (%)", ylabel="search error (%)")
    axes.legend(fontsize="small")
    errors, left = 100 * pruned.error, 100 * pruned[which] / whole
    return figure, (
        f"Scatter of {len(pruned)} candidates: search error from {errors.min():.1f} to {errors.max():.1f} percent over "
        f"{left.min():.0f} to {left.max():.0f} percent of the {name}; later generations lie further left."
    )


def survivors(run: Run, layout: Layout) -> tuple[Figure, str]:
    """Filters that each coupled group keeps in the three solutions, from input to output, within the outline of what was there."""
    names = [g.name for g in layout.groups]
    sizes = np.array([g.size for g in layout.groups])
    figure, rows = plt.subplots(3, 1, figsize=(7.5, 5.2), sharex=True, layout="constrained")
    shares = []
    for role, axes in zip(ROLES, rows, strict=True):
        genome = run.genome(role)
        counts = np.array([genome[g.bits].sum() for g in layout.groups])
        shares.append(f"{LABELS[role]} {100 * counts.sum() / sizes.sum():.0f}")
        axes.bar(range(len(sizes)), sizes, color="none", edgecolor="0.5", lw=0.8)
        axes.bar(
            range(len(sizes)), counts, color=COLOURS[role], hatch={"heavy": "", "knee": "//", "light": ".."}[role], edgecolor="white", lw=0
        )
        axes.set(ylabel="filters", title=f"{LABELS[role]}: {counts.sum()} of {sizes.sum()} filters")
        axes.grid(axis="x", visible=False)
    every = max(1, len(names) // 16)
    rows[-1].set_xticks(range(0, len(names), every), names[::every], rotation=60, ha="right", fontsize="x-small")
    rows[-1].set_xlabel("coupled group, by its first layer")
    return figure, f"Three bar charts over {len(sizes)} coupled groups; percent of all filters kept: {', '.join(shares)}."


def steps(run: Run) -> tuple[Figure, str]:
    """Test error of the three solutions before the cut, after it, after recalibration and after fine-tuning."""
    figure, axes = plt.subplots(figsize=(7.5, 4.0), layout="constrained")
    unpruned = 100 * run.result["baseline"]["error"]
    for role in ROLES:
        entry = run.result[role]
        errors = [unpruned, *(100 * entry[key] for key in list(STEPS)[1:])]
        legend = f"{LABELS[role]}, {100 * entry['macs'] / run.result['baseline']['macs']:.0f} % of the MACs"
        axes.plot(range(4), errors, marker=MARKERS[role], color=COLOURS[role], label=legend)
    axes.axhline(unpruned, color=COLOURS["baseline"], ls="--", lw=1, label="unpruned")
    axes.set_xticks(range(4), STEPS.values())
    axes.set(ylabel="test error (%)", ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    ends = ", ".join(f"{LABELS[r]} {100 * run.result[r]['error']:.1f}" for r in ROLES)
    return (
        figure,
        f"Line chart: test error rises from {unpruned:.1f} percent at the cut and falls again; after fine-tuning: {ends} percent.",
    )


def beside_rivals(rivals: pd.DataFrame, test_images: int) -> tuple[Figure, str]:
    """Test error of the knee and of its rivals at each step; below, how far from the knee's each ends, with ``uncertainty`` as bars.

    rivals: the frame of ``rivals.train_rivals``; test_images: how many images its errors were counted on.
    """
    height = 0.8 + 0.3 * len(rivals)  # of the lower panel
    figure, (course, end) = plt.subplots(2, 1, figsize=(7.5, 3.4 + height), height_ratios=(3.4, height), layout="constrained")
    bars, knee = uncertainty(rivals, test_images), 100 * rivals.error.iloc[0]
    ends = []
    for place, row in enumerate(rivals.itertuples()):
        name, style = label(row.solution), RIVALS[row.solution.rstrip(DIGITS)]
        errors = [100 * getattr(row, key) for key in list(STEPS)[1:]]
        legend = name if not row.solution.startswith("random") else "random masks" if row.solution == "random0" else None
        course.plot(range(3), errors, label=legend, zorder=3 if row.solution == "knee" else 2, **style)
        end.errorbar(errors[-1] - knee, place, xerr=bars.iloc[place], capsize=3, **style | {"ls": "none", "lw": 1})
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
        f"Line chart: test error after the cut, recalibrated and fine-tuned; after fine-tuning: {', '.join(ends)} percent. "
        "Below, the differences from the knee after fine-tuning, with bars of two standard errors."
    )


def overview(runs: list[Run], rivals: list[pd.DataFrame | None], reports: pd.DataFrame) -> tuple[Figure, str]:
    """A panel for each run: what its solutions and their rivals lose on test images, by the MACs they keep.

    reports: rows of ``data/published.csv``, drawn where they are of the same network and say what they started from.
    """
    columns = len(runs) if len(runs) < 4 else 2
    rows = -(-len(runs) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(1.2 + 3.4 * columns, 0.8 + 3.4 * rows), layout="constrained", squeeze=False)
    for axes in panels.flat[len(runs) :]:
        axes.remove()
    parts = []
    for axes, title, run, frame in zip(panels.flat, titles(runs), runs, rivals, strict=False):
        solutions = run.solutions.set_index("solution")
        lost = 100 * (solutions.error - solutions.error["baseline"])
        left = 100 * solutions.macs_left
        axes.plot(left[list(ROLES)], lost[list(ROLES)], color="0.6", lw=1, zorder=1)
        for role in ROLES:
            axes.scatter(
                left[role], lost[role], marker=MARKERS[role], s=80, color=COLOURS[role], edgecolor="k", label=LABELS[role], zorder=3
            )
        if frame is not None:
            for row in frame[frame.solution != "knee"].itertuples():
                style = RIVALS[row.solution.rstrip(DIGITS)]
                legend = "random mask" if row.solution == "random0" else "" if row.solution.startswith("random") else label(row.solution)
                place = 100 * row.macs_left, 100 * (row.error - solutions.error["baseline"])
                axes.scatter(*place, marker=style["marker"], s=50, color=style["color"], label=legend or None, zorder=2)
        known = reports[(reports.model == run.settings.model) & reports.error_before_percent.notna()]
        if len(known):
            lost_elsewhere = known.error_after_percent - known.error_before_percent
            axes.scatter(
                known.macs_left_percent, lost_elsewhere, marker="p", s=60, facecolor="none", edgecolor="0.3", label="published elsewhere"
            )
        axes.axhline(0, color=COLOURS["baseline"], ls="--", lw=1)
        axes.set(xlabel="MACs left (%)", ylabel="test error lost (points)", title=title, xlim=(0, 100))
        parts.append(f"{title}: " + ", ".join(f"{LABELS[r]} {lost[r]:+.1f} points at {left[r]:.0f} percent" for r in ROLES))
    handles = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize="small")
    return figure, f"Test error lost by the MACs kept, a panel for each network. {'; '.join(parts)}."
