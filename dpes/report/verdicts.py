"""Sentences of a page: what runs and their rivals show, as Markdown."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..study.runs import Run
from ..study.settings import Training, differences
from .tables import LABELS, method, titles


def in_short(runs: list[Run], rivals: list[pd.DataFrame | None]) -> str:
    """A line of Markdown for each run: what its knee and the rivals of equal MACs lose of the unpruned accuracy, least first."""
    lines = []
    for title, run, frame in zip(titles(runs), runs, rivals, strict=True):
        rows = run.solutions.query("solution == 'knee'") if frame is None else frame
        lost = 100 * (rows.error.groupby(rows.solution.map(method)).mean() - run.result["baseline"]["error"])
        losses = "; ".join(f"{name} {points:.2f}" for name, points in lost.sort_values().items())
        left = 100 * run.result["knee"]["macs"] / run.result["baseline"]["macs"]
        lines.append(f"- **{title}**, {left:.0f} % of the MACs, points lost: {losses.replace('knee', '**knee**')}")
    return "\n".join(lines)


def rank_correlations(runs: list[Run], rivals: list[pd.DataFrame | None]) -> str:
    """A line of Markdown for each run with rivals: rank correlation of errors before and after fine-tuning, each network by itself."""
    lines = []
    for title, frame in zip(titles(runs), rivals, strict=True):
        if frame is not None:
            agreement = frame.error_recalibrated.corr(frame.error, method="spearman")
            lines.append(f"- **{title}**: {agreement:+.2f} over {len(frame)} networks")
    return "\n".join(lines)


def uncertainty(rivals: pd.DataFrame, test_images: int) -> pd.Series:
    """Two standard errors of each row's difference from the knee's test error, in points; 0 for the knee.

    From the images that only one of the two gets wrong, where they were counted (paired, as in McNemar 1947); else as if both errors
    came from images of their own, which is more, as networks cut from one err on much the same images.
    """
    share, knee = rivals.error, rivals.error.iloc[0]
    variance = (share * (1 - share) + knee * (1 - knee)) / test_images
    if "wrong_alone" in rivals:
        either = (rivals.wrong_alone + rivals.knee_wrong_alone) / test_images
        variance = ((either - (share - knee) ** 2) / test_images).fillna(variance)
    return (200 * np.sqrt(variance)).where(rivals.solution != "knee", 0.0)


def against_chance(rivals: pd.DataFrame, test_images: int) -> str:
    """What the errors of the knee and of its rivals show, in Markdown; the frame is that of ``rivals.train_rivals``.

    A knee that is one more random mask would be ahead of all n of them once in n + 1 times: a randomisation test, which needs
    neither a distribution of the errors nor their noise. What luck does once in twenty times or less often counts as shown.
    """
    errors = 100 * rivals.set_index("solution").error
    knee, chance = errors["knee"], errors[errors.index.str.startswith("random")]
    text = f"The knee errs on {knee:.2f} % of the test images, uniform L1 on {errors['l1']:.2f} %"
    if "widths" in errors:
        text += f", what the strategy finds on widths on {errors['widths']:.2f} %"
    if chance.empty:
        return f"{text}; there are no random masks."
    if (n := len(chance)) == 1:
        text += f", a random mask on {chance.iloc[0]:.2f} %"
    else:
        text += f", the random masks on {chance.min():.2f} to {chance.max():.2f} %, {chance.mean():.2f} % in the mean"
    noise = uncertainty(rivals, test_images).set_axis(rivals.solution)[chance.index].max()
    paired = "wrong_alone" in rivals and rivals.wrong_alone[rivals.solution.isin(chance.index)].notna().all()
    counted = "compared image by image" if paired else "as if each had images of its own"
    ahead, behind = (knee < chance).sum(), (knee > chance).sum()
    rank, lucky = (f"ahead of {ahead} of {n}", 1 + n - ahead) if ahead >= behind else (f"behind {behind} of {n}", 1 + n - behind)
    if lucky / (n + 1) > 0.05:
        verdict = "So this run does not show that it is better than chance."
    else:
        verdict = f"So it is {'better' if ahead >= behind else 'worse'} than chance."
    return (
        f"{text}. On {test_images:,} images two such networks that err alike differ by up to {noise:.1f} points (two standard errors, "
        f"{counted}). The knee is {rank} random mask{'s' * (n > 1)}; one more random mask would be so in "
        f"{lucky} of {n + 1} cases, by luck. **{verdict}**"
    )


def apart_by_rounding(errors: pd.DataFrame) -> str:
    """How far two trainings that differ in rounding alone lie apart, in Markdown; errors: the frame of ``tables.trained_twice``.

    Two trainings of one network differ as those of two networks that err alike. Equal errors count as equal rounding, and tell nothing.
    """
    apart = errors["points apart"]
    other = apart[apart > 0]
    if other.empty:
        return f"All {len(apart)} networks erred as before, to the last image."
    noise = 2 * np.sqrt((other**2).mean())
    return (
        f"{len(other)} of {len(apart)} networks end {other.min():.2f} to {other.max():.2f} points from where they did. "
        f"So two networks that err alike differ by up to {noise:.1f} points because each was trained once "
        f"(two standard errors, from {len(other)} differences)."
    )


def second_search(run: Run, second: Run) -> str:
    """The settings in which two runs of one network differ, and what that does to boundary light and to the knee, in Markdown."""
    pairs = differences(second.settings, run.settings)
    if "partial" not in second.settings.search.fitness:  # there, how long partial training lasts says nothing
        pairs = {name: pair for name, pair in pairs.items() if not name.startswith("partial_")}
    values = {name: ["unset" if value is None else value for value in pair] for name, pair in pairs.items()}
    differ = ", ".join(f"`{name}` {there} (here {here})" for name, (there, here) in values.items()) or "nothing"
    here, there, whole = run.result["light"], second.result["light"], run.result["baseline"]["macs"]
    ends = []
    for role in ("light", "knee"):
        pair = [100 * search.result[role]["error"] for search in (run, second)]
        left = [100 * search.result[role]["macs"] / whole for search in (run, second)]
        ends.append(
            f"{LABELS[role]} errs on {pair[0]:.2f} % of the test images here and on {pair[1]:.2f} % there, "
            f"at {left[0]:.0f} and {left[1]:.0f} % of the unpruned MACs"
        )
    return (
        f"The second search differs in {differ}. Boundary light errs on {100 * here['search_error']:.1f} % of the search images on "
        f"this page and on {100 * there['search_error']:.1f} % in the second search. Fine-tuned, {'; the '.join(ends)}."
    )


def budget(recipe: Training) -> str:
    """How long a training lasts, in words."""
    images = f" of {recipe.images:,} images" if recipe.images else ""
    return f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)}{images}"
