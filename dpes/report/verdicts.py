"""Sentences of a page: what runs and their rivals show, as Markdown."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from ..study.finished import Run
from ..study.settings import Training, differences
from . import judgement
from .tables import LABELS, label, method, titles


def in_short(runs: list[Run], rivals: list[pd.DataFrame | None]) -> str:
    """A line for each run: what its knee and the rivals of equal MACs lose, least first."""
    lines = []
    for title, run, frame in zip(titles(runs), runs, rivals, strict=True):
        rows = run.solutions.query("solution == 'knee'") if frame is None else frame
        means = rows.error.groupby(rows.solution.map(method)).mean()
        lost = 100 * (means - run.result["baseline"]["error"]).sort_values()
        losses = "; ".join(f"{name} {points:.2f}" for name, points in lost.items())
        losses = losses.replace("knee", "**knee**")
        left = 100 * run.result["knee"]["macs"] / run.result["baseline"]["macs"]
        lines.append(f"- **{title}**, {left:.0f} % of the MACs, points lost: {losses}")
    return "\n".join(lines)


def headline(runs: list[Run], rivals: list[pd.DataFrame | None]) -> str:
    """What the knees of all runs lose, and against how much chance and L1 they stand, in a
    sentence.
    """
    lost, left, masks, ahead, better, l1, compared = [], [], 0, 0, 0, 0, 0
    for run, frame in zip(runs, rivals, strict=True):
        whole, knee = run.result["baseline"], run.result["knee"]
        lost.append(100 * (knee["error"] - whole["error"]))
        left.append(100 * knee["macs"] / whole["macs"])
        if frame is None:
            continue
        errors = frame.set_index("solution").error
        chance = errors[errors.index.str.startswith("random")]
        compared, masks = compared + 1, masks + len(chance)
        ahead += (won := int((errors["knee"] < chance).sum()))
        better += won == len(chance) >= 19  # luck does it in one of twenty cases, or less often
        l1 += errors["l1"] < errors["knee"]
    return (
        f"In {len(runs)} searches on {len({r.settings.model for r in runs})} networks the "
        f"fine-tuned knee loses {min(lost):.1f} to {max(lost):.1f} points at {min(left):.0f} to "
        f"{max(left):.0f} % of the MACs. It is ahead of {ahead} of {masks} random masks of its "
        f"MACs, shown to be better than chance in {better} of {compared} searches, and behind "
        f"uniform L1 in {l1}."
    )


def rank_correlations(runs: list[Run], rivals: list[pd.DataFrame | None]) -> str:
    """A line for each run with rivals: rank correlation of errors before and after fine-tuning."""
    lines = []
    for title, frame in zip(titles(runs), rivals, strict=True):
        if frame is not None:
            agreement = frame.error_recalibrated.corr(frame.error, method="spearman")
            lines.append(f"- **{title}**: {agreement:+.2f} over {len(frame)} networks")
    return "\n".join(lines)


def uncertainty(rivals: pd.DataFrame, test_images: int) -> pd.Series:
    """Two standard errors of each row's difference from the knee's test error, in points.

    From the images that only one of the two gets wrong, where they were counted (paired, as in
    McNemar 1947); else as if both errors came from images of their own, which is more, as networks
    cut from one err on much the same images. 0 for the knee.
    """
    share, knee = rivals.error, rivals.error.iloc[0]
    variance = (share * (1 - share) + knee * (1 - knee)) / test_images
    if "wrong_alone" in rivals:
        either = (rivals.wrong_alone + rivals.knee_wrong_alone) / test_images
        variance = ((either - (share - knee) ** 2) / test_images).fillna(variance)
    return (200 * np.sqrt(variance)).where(rivals.solution != "knee", 0.0)


def against_chance(rivals: pd.DataFrame, test_images: int) -> str:
    """What the errors of the knee and of its rivals show; the frame is of ``train_rivals``."""
    errors = 100 * rivals.set_index("solution").error
    knee, chance = errors["knee"], errors[errors.index.str.startswith("random")]
    text = f"The knee errs on {knee:.2f} % of the test images, uniform L1 on {errors['l1']:.2f} %"
    if "widths" in errors:
        text += f", what the strategy finds on widths on {errors['widths']:.2f} %"
    if chance.empty:
        return f"{text}; there are no random masks."
    if len(chance) == 1:
        text += f", a random mask on {chance.iloc[0]:.2f} %"
    else:
        text += f", the random masks on {chance.min():.2f} to {chance.max():.2f} %"
        text += f", {chance.mean():.2f} % in the mean"
    masks = rivals.solution.isin(chance.index)
    noise = uncertainty(rivals, test_images)[masks].max()
    paired = "wrong_alone" in rivals and rivals.wrong_alone[masks].notna().all()
    counted = "compared image by image" if paired else "as if each had images of its own"
    return (
        f"{text}. On {test_images:,} images two such networks that err alike differ by up to "
        f"{noise:.1f} points (two standard errors, {counted}). "
        f"{image_by_image(rivals)} {randomisation_test(knee, chance)}".replace(".  ", ". ")
    )


def image_by_image(rivals: pd.DataFrame) -> str:
    """Which rivals the knee is better than, which it is worse than, and which are undecided.

    By the images that only one of the two gets wrong: the exact test of McNemar (1947), corrected
    for the number of rivals by Holm's. Empty where these images were not counted.
    """
    frame = rivals[rivals.solution != "knee"].set_index("solution")
    if "wrong_alone" not in frame or frame.wrong_alone.isna().all():
        return ""
    frame = frame[frame.wrong_alone.notna()].astype({"wrong_alone": int, "knee_wrong_alone": int})
    alone = {name: (row.wrong_alone, row.knee_wrong_alone) for name, row in frame.iterrows()}
    p = judgement.holm({name: mcnemar(*counts) for name, counts in alone.items()})
    groups: dict[str, list[str]] = {"better than": [], "worse than": [], "not told apart from": []}
    for name, (theirs, knees) in alone.items():
        told = "better than" if theirs > knees else "worse than"
        groups[told if p[name] <= 0.05 else "not told apart from"].append(label(name))
    parts = [f"{verdict} {', '.join(names)}" for verdict, names in groups.items() if names]
    return (
        f"Image by image the knee is **{'; '.join(parts)}** (exact McNemar tests, "
        f"Holm's correction for {len(p)} rivals, 5 %)."
    )


def mcnemar(a: int, b: int) -> float:
    """p value of a : b images that only one of two networks gets wrong, if both err alike."""
    return float(stats.binomtest(a, a + b).pvalue) if a + b else 1.0


def inversion(run: Run) -> str:
    """A sentence where a cheaper solution errs less than a dearer one after fine-tuning."""
    pairs = (("heavy", "knee"), ("knee", "light"))
    found = [(a, b) for a, b in pairs if run.result[b]["error"] < run.result[a]["error"]]
    sentences = [
        f"Here {LABELS[cheap]} errs less than {LABELS[dear]}, which has more MACs: fine-tuning has "
        "turned their order around, so the dearer one is not worth having."
        for dear, cheap in found
    ]
    return " ".join(sentences)


def randomisation_test(knee: float, chance: pd.Series) -> str:
    """Whether the knee's error is better, or worse, than those of random masks.

    A knee that is one more random mask would be ahead of all n of them once in n + 1 times, which
    needs neither a distribution of the errors nor their noise. What luck does once in twenty times
    or less often counts as shown.
    """
    n, ahead, behind = len(chance), (knee < chance).sum(), (knee > chance).sum()
    better = ahead >= behind
    lucky = 1 + n - max(ahead, behind)
    rank = f"ahead of {ahead} of {n}" if better else f"behind {behind} of {n}"
    verdict = f"So it is {'better' if better else 'worse'} than chance."
    if lucky / (n + 1) > 0.05:
        verdict = "So this run does not show that it is better than chance."
    return (
        f"The knee is {rank} random mask{'s' * (n > 1)}; one more random mask would be so in "
        f"{lucky} of {n + 1} cases, by luck. **{verdict}**"
    )


def apart_by_rounding(errors: pd.DataFrame) -> str:
    """How far trainings that differ in rounding alone end apart; of ``tables.trained_twice``.

    Two trainings of one network differ as those of two networks that err alike. Equal errors count
    as equal rounding, and tell nothing.
    """
    apart = errors["points apart"]
    other = apart[apart > 0]
    if other.empty:
        return f"All {len(apart)} networks erred as before, to the last image."
    noise = 2 * np.sqrt((other**2).mean())
    return (
        f"{len(other)} of {len(apart)} networks end {other.min():.2f} to {other.max():.2f} points "
        f"from where they did. So two networks that err alike differ by up to {noise:.1f} points "
        f"because each was trained once (two standard errors, from {len(other)} differences)."
    )


def second_search(run: Run, second: Run) -> str:
    """The settings in which two runs of one network differ, and what that does to their ends."""
    pairs = differences(second.settings, run.settings)
    if "partial" not in second.settings.search.fitness:  # how long that would last says nothing
        pairs = {name: pair for name, pair in pairs.items() if not name.startswith("partial_")}
    words = {n: ["unset" if v is None else v for v in pair] for n, pair in pairs.items()}
    differ = ", ".join(f"`{name}` {there} (here {here})" for name, (there, here) in words.items())
    light = [100 * search.result["light"]["search_error"] for search in (run, second)]
    ends = []
    for role in ("light", "knee"):
        here, there = (100 * search.result[role]["error"] for search in (run, second))
        whole = run.result["baseline"]["macs"]
        left = [100 * search.result[role]["macs"] / whole for search in (run, second)]
        ends.append(
            f"{LABELS[role]} errs on {here:.2f} % of the test images here and on {there:.2f} % "
            f"there, at {left[0]:.0f} and {left[1]:.0f} % of the unpruned MACs"
        )
    return (
        f"The second search differs in {differ or 'nothing'}. Boundary light errs on "
        f"{light[0]:.1f} % of the search images on this page and on {light[1]:.1f} % in the second "
        f"search. Fine-tuned, {'; the '.join(ends)}."
    )


def budget(recipe: Training) -> str:
    """How long a training lasts, in words."""
    images = f" of {recipe.images:,} images" if recipe.images else ""
    return f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)}{images}"
