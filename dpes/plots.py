"""Figures and the table of a run, drawn from its data frames; each figure comes with its alt text."""

from __future__ import annotations

import hashlib
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from .config import DpesError, Training, differences
from .data import folders
from .es import ROLES
from .files import read_json
from .layout import Layout
from .study import Run

MARKERS = {"baseline": "*", "heavy": "s", "knee": "D", "light": "o"}  # told apart without colour
COLOURS = dict(zip(("baseline", *ROLES), sns.color_palette("colorblind")[7:8] + sns.color_palette("colorblind")[:3], strict=True))
LABELS = {"baseline": "unpruned", "heavy": "boundary heavy", "knee": "knee", "light": "boundary light"}
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
        label = f"{LABELS[role]}, {100 * entry['macs'] / run.result['baseline']['macs']:.0f} % of the MACs"
        axes.plot(range(4), errors, marker=MARKERS[role], color=COLOURS[role], label=label)
    axes.axhline(unpruned, color=COLOURS["baseline"], ls="--", lw=1, label="unpruned")
    axes.set_xticks(range(4), STEPS.values())
    axes.set(ylabel="test error (%)", ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    ends = ", ".join(f"{LABELS[r]} {100 * run.result[r]['error']:.1f}" for r in ROLES)
    return (
        figure,
        f"Line chart: test error rises from {unpruned:.1f} percent at the cut and falls again; after fine-tuning: {ends} percent.",
    )


def rivals(controls: pd.DataFrame, test_images: int) -> tuple[Figure, str]:
    """Test error of the knee and of its controls at each step; below, how far from the knee's each ends, with ``uncertainty`` as bars.

    controls: the frame of ``baselines.controls``; test_images: how many images its errors were counted on.
    """
    height = 0.8 + 0.3 * len(controls)  # of the lower panel
    figure, (course, end) = plt.subplots(2, 1, figsize=(7.5, 3.4 + height), height_ratios=(3.4, height), layout="constrained")
    bars, knee = uncertainty(controls, test_images), 100 * controls.error.iloc[0]
    ends = []
    for place, row in enumerate(controls.itertuples()):
        name, style = rival(row.solution), RIVALS[row.solution.rstrip(DIGITS)]
        errors = [100 * getattr(row, key) for key in list(STEPS)[1:]]
        label = name if not row.solution.startswith("random") else "random masks" if row.solution == "random0" else None
        course.plot(range(3), errors, label=label, zorder=3 if row.solution == "knee" else 2, **style)
        end.errorbar(errors[-1] - knee, place, xerr=bars.iloc[place], capsize=3, **style | {"ls": "none", "lw": 1})
        ends.append(f"{name} {errors[-1]:.1f}")
    course.set_xticks(range(3), list(STEPS.values())[1:])
    course.set(ylabel="test error (%)", ylim=(0, None))
    course.legend(fontsize="small", loc="upper right")
    end.axvline(0, color=COLOURS["knee"], lw=1)
    end.set_yticks(range(len(ends)), controls.solution.map(rival), fontsize="small")
    end.invert_yaxis()
    end.grid(axis="y", visible=False)
    end.set(xlabel="fine-tuned: errs less than the knee  <  points  >  errs more than the knee")
    return figure, (
        f"Line chart: test error after the cut, recalibrated and fine-tuned; after fine-tuning: {', '.join(ends)} percent. "
        "Below, the differences from the knee after fine-tuning, with bars of two standard errors."
    )


def uncertainty(controls: pd.DataFrame, test_images: int) -> pd.Series:
    """Two standard errors of each row's difference from the knee's test error, in points; 0 for the knee.

    From the images that only one of the two gets wrong, where they were counted (paired, as in McNemar 1947); else as if both errors
    came from images of their own, which is more, as networks cut from one err on much the same images.
    """
    share, knee = controls.error, controls.error.iloc[0]
    variance = (share * (1 - share) + knee * (1 - knee)) / test_images
    if "wrong_alone" in controls:
        either = (controls.wrong_alone + controls.knee_wrong_alone) / test_images
        variance = ((either - (share - knee) ** 2) / test_images).fillna(variance)
    return (200 * np.sqrt(variance)).where(controls.solution != "knee", 0.0)


DIGITS = "0123456789"
RIVALS: dict[str, dict] = {
    "knee": {"marker": MARKERS["knee"], "color": COLOURS["knee"]},
    "l": {"marker": "^", "color": sns.color_palette("colorblind")[4], "ls": "--"},  # l1
    "widths": {"marker": "v", "color": sns.color_palette("colorblind")[3], "ls": "-."},
    "random": {"marker": "x", "color": "0.45", "lw": 1, "ls": ":"},
}


def rival(name: str) -> str:
    """What a figure calls a control."""
    named = LABELS | {"l1": "uniform L1", "widths": "strategy on widths"}
    return f"random mask {int(name[6:]) + 1}" if name.startswith("random") else named[name]


def kind(name: str) -> str:
    """The same where random masks count as one, by their mean."""
    return "random masks, mean" if name.startswith("random") else rival(name)


def rivals_table(controls: pd.DataFrame) -> pd.DataFrame:
    """A row each for the knee and its controls: test errors at each step, and what is left of the costs."""
    frame = controls.set_index(controls.solution.map(rival).rename(None))
    columns = {
        "after the cut (%)": 100 * frame.error_cut,
        "recalibrated (%)": 100 * frame.error_recalibrated,
        "fine-tuned (%)": 100 * frame.error,
    }
    if "wrong_alone" in frame:
        columns |= {"images: wrong, knee right": frame.wrong_alone, "images: right, knee wrong": frame.knee_wrong_alone}
    return pd.DataFrame(columns | {"MACs left (%)": 100 * frame.macs_left, "parameters left (%)": 100 * frame.params_left})


def against_chance(controls: pd.DataFrame, test_images: int) -> str:
    """What the errors of the knee and of its controls show, in Markdown; the frame is that of ``baselines.controls``.

    A knee that is one more random mask would be ahead of all n of them once in n + 1 times: a randomisation test, which needs
    neither a distribution of the errors nor their noise. What luck does once in twenty times or less often counts as shown.
    """
    errors = 100 * controls.set_index("solution").error
    knee, chance = errors["knee"], errors[errors.index.str.startswith("random")]
    told = f"The knee errs on {knee:.2f} % of the test images, uniform L1 on {errors['l1']:.2f} %"
    if "widths" in errors:
        told += f", what the strategy finds on widths on {errors['widths']:.2f} %"
    if chance.empty:
        return f"{told}; there are no random masks."
    if (n := len(chance)) == 1:
        told += f", a random mask on {chance.iloc[0]:.2f} %"
    else:
        told += f", the random masks on {chance.min():.2f} to {chance.max():.2f} %, {chance.mean():.2f} % in the mean"
    noise = uncertainty(controls, test_images).set_axis(controls.solution)[chance.index].max()
    paired = "wrong_alone" in controls and controls.wrong_alone[controls.solution.isin(chance.index)].notna().all()
    counted = "compared image by image" if paired else "as if each had images of its own"
    ahead, behind = (knee < chance).sum(), (knee > chance).sum()
    rank, lucky = (f"ahead of {ahead} of {n}", 1 + n - ahead) if ahead >= behind else (f"behind {behind} of {n}", 1 + n - behind)
    if lucky / (n + 1) > 0.05:
        verdict = "So this run does not show that it is better than chance."
    else:
        verdict = f"So it is {'better' if ahead >= behind else 'worse'} than chance."
    return (
        f"{told}. On {test_images:,} images two such networks that err alike differ by up to {noise:.1f} points (two standard errors, "
        f"{counted}). The knee is {rank} random mask{'s' * (n > 1)}; one more random mask would be so in "
        f"{lucky} of {n + 1} cases, by luck. **{verdict}**"
    )


def titles(runs: list[Run]) -> list[str]:
    """What a page calls its runs: by the network, and by fitness and ceiling where it shows several runs of one network."""
    networks = [run.settings.model for run in runs]

    def title(run: Run) -> str:
        if networks.count(run.settings.model) == 1:
            return run.settings.model
        search = run.settings.search
        return f"{run.settings.model}, {search.fitness}" + (f", ceiling {100 * search.error_ceiling:g} %" if search.error_ceiling else "")

    return [title(run) for run in runs]


def orders(runs: list[Run], controls: list[pd.DataFrame | None]) -> pd.DataFrame:
    """The knee of each run and its rivals by test error before and after fine-tuning, in percent, with places: 1 errs least."""
    tables = {}
    for title, rivals in zip(titles(runs), controls, strict=True):
        if rivals is not None:
            errors = 100 * rivals.groupby(rivals.solution.map(kind))[["error_recalibrated", "error"]].mean()
            places = errors.rank(method="min").astype(int)
            columns = {"recalibrated (%)": errors.error_recalibrated, "place": places.error_recalibrated}
            columns |= {"fine-tuned (%)": errors.error, "place then": places.error}
            tables[title] = pd.DataFrame(columns).sort_values("fine-tuned (%)")
    return pd.concat(tables, names=["network", ""]) if tables else pd.DataFrame()


def overview(runs: list[Run], controls: list[pd.DataFrame | None], reports: pd.DataFrame) -> tuple[Figure, str]:
    """A panel for each run: what its solutions and their rivals lose on test images, by the MACs they keep.

    reports: rows of ``data/published.csv``, drawn where they are of the same network and say what they started from.
    """
    columns = len(runs) if len(runs) < 4 else 2
    rows = -(-len(runs) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(1.2 + 3.4 * columns, 0.8 + 3.4 * rows), layout="constrained", squeeze=False)
    for axes in panels.flat[len(runs) :]:
        axes.remove()
    told = []
    for axes, title, run, rivals in zip(panels.flat, titles(runs), runs, controls, strict=False):
        solutions = run.solutions.set_index("solution")
        lost = 100 * (solutions.error - solutions.error["baseline"])
        left = 100 * solutions.macs_left
        axes.plot(left[list(ROLES)], lost[list(ROLES)], color="0.6", lw=1, zorder=1)
        for role in ROLES:
            axes.scatter(
                left[role], lost[role], marker=MARKERS[role], s=80, color=COLOURS[role], edgecolor="k", label=LABELS[role], zorder=3
            )
        if rivals is not None:
            for row in rivals[rivals.solution != "knee"].itertuples():
                style = RIVALS[row.solution.rstrip(DIGITS)]
                label = "random mask" if row.solution == "random0" else "" if row.solution.startswith("random") else rival(row.solution)
                place = 100 * row.macs_left, 100 * (row.error - solutions.error["baseline"])
                axes.scatter(*place, marker=style["marker"], s=50, color=style["color"], label=label or None, zorder=2)
        known = reports[(reports.model == run.settings.model) & reports.error_before_percent.notna()]
        if len(known):
            lost_elsewhere = known.error_after_percent - known.error_before_percent
            axes.scatter(
                known.macs_left_percent, lost_elsewhere, marker="p", s=60, facecolor="none", edgecolor="0.3", label="published elsewhere"
            )
        axes.axhline(0, color=COLOURS["baseline"], ls="--", lw=1)
        axes.set(xlabel="MACs left (%)", ylabel="test error lost (points)", title=title, xlim=(0, 100))
        told.append(f"{title}: " + ", ".join(f"{LABELS[r]} {lost[r]:+.1f} points at {left[r]:.0f} percent" for r in ROLES))
    handles = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize="small")
    return figure, f"Test error lost by the MACs kept, a panel for each network. {'; '.join(told)}."


def summary(runs: list[Run], controls: list[pd.DataFrame | None]) -> pd.DataFrame:
    """A row for each network of each run: unpruned, three solutions, uniform L1, random masks in the mean; errors and shares in percent."""
    rows = []
    for title, run, rivals in zip(titles(runs), runs, controls, strict=True):
        frame = run.solutions
        if rivals is not None:
            frame = pd.concat([frame, rivals[rivals.solution != "knee"]], ignore_index=True)
        means = frame.groupby(frame.solution.map(kind), sort=False).mean(numeric_only=True)
        for name, row in means.iterrows():
            tuned = {} if name == LABELS["baseline"] else {"after the cut (%)": row.error_cut, "recalibrated (%)": row.error_recalibrated}
            entry = tuned | {"test error (%)": row.error, "lost (points)": row.error - run.result["baseline"]["error"]}
            entry |= {"MACs left (%)": row.macs_left, "parameters left (%)": row.params_left}
            entry |= {"time left, 1 image (%)": row.latency_left_batch1, "time left, 64 images (%)": row.latency_left_batch64}
            rows.append({"network": title, "": name} | {key: 100 * value for key, value in entry.items()})
    columns = ["after the cut (%)", "recalibrated (%)", "test error (%)", "lost (points)", "MACs left (%)", "parameters left (%)"]
    return pd.DataFrame(rows).set_index(["network", ""])[[*columns, "time left, 1 image (%)", "time left, 64 images (%)"]]


def variants(runs: dict[str, Run]) -> pd.DataFrame:
    """The solutions of runs of one network that differ in a setting, a row each; errors and shares in percent. runs: by what differs."""
    rows = []
    for name, run in runs.items():
        for row in run.solutions.query("solution != 'baseline'").itertuples():
            errors = {"search error (%)": row.search_error, "recalibrated (%)": row.error_recalibrated, "test error (%)": row.error}
            entry = errors | {"MACs left (%)": row.macs_left, "parameters left (%)": row.params_left}
            rows.append({"search": name, "": LABELS[row.solution]} | {key: 100 * value for key, value in entry.items()})
    return pd.DataFrame(rows).set_index(["search", ""])


def budget(recipe: Training) -> str:
    """How long a training lasts, in words."""
    images = f" of {recipe.images:,} images" if recipe.images else ""
    return f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)}{images}"


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


def styled_rows(frame: pd.DataFrame) -> Styler:
    """A table of networks in rows, for the page."""
    numbers = frame.select_dtypes("number").columns
    digits = {name: "{:.0f}" if "left" in name or name.startswith("images") else "{:.2f}" for name in numbers}
    return fixed(frame).format(digits, na_rep="–")


def hours(runs: list[Run], controls: list[pd.DataFrame | None]) -> pd.DataFrame:
    """Hours by the clock of each phase of each run and of the training of its controls, a row for each."""
    rows = {}
    for run, rivals in zip(runs, controls, strict=True):
        seconds = run.env["seconds"] | ({} if rivals is None else {"controls": rivals.seconds.sum()})
        rows[run.path.name] = {phase: value / 3600 for phase, value in seconds.items()}
    return pd.DataFrame(rows).T


def trained(runs: list[Run]) -> pd.DataFrame:
    """A row for each run's network that was trained here, from its log in ``baselines/`` of the data folders: errors in percent.

    hours: by the clock; training error: mean over the augmented images of the last epoch. Runs without a log are left out.
    """
    columns = ["epochs", "of them on small images", "training error (%)", "test error (%)", "hours"]
    rows = {}
    for run in runs:
        files = [folder / "baselines" / f"{run.settings.baseline_id}.json" for folder in folders()]
        if file := next((file for file in files if file.exists()), None):
            log, error = read_json(file)["log"], run.result["baseline"]["error"]
            hours = sum(epoch["seconds"] for epoch in log) / 3600
            rows[run.settings.model] = [
                len(log), run.settings.baseline.small_epochs or 0, 100 * log[-1]["train_error"], 100 * error, hours
            ]  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def published() -> pd.DataFrame:
    """Results of others with their sources, from ``data/published.csv``: errors and MACs in percent; raises ``DpesError`` without it."""
    file = next((file for folder in folders() if (file := folder / "published.csv").exists()), None)
    if file is None:
        raise DpesError(f"published.csv is in none of {', '.join(map(str, folders()))}: restore it from the repository")
    return pd.read_csv(file)


def table(run: Run) -> pd.DataFrame:
    """What became of the network, a column for the unpruned one and each solution: test errors at each step, costs, time."""
    frame = run.solutions.set_index("solution").rename(index=LABELS)
    rows = pd.DataFrame(
        {
            "test error before the cut (%)": 100 * run.result["baseline"]["error"],
            "after the cut (%)": 100 * frame.error_cut,
            "recalibrated (%)": 100 * frame.error_recalibrated,
            "fine-tuned (%)": 100 * frame.error,
            "MACs (M)": frame.macs / 1e6,
            "MACs left (%)": 100 * frame.macs_left,
            "parameters": frame.params.astype(float),
            "parameters left (%)": 100 * frame.params_left,
            "time left, 1 image (%)": 100 * frame.latency_left_batch1,
            "time left, 64 images (%)": 100 * frame.latency_left_batch64,
        }
    )
    rows.loc[LABELS["baseline"], "fine-tuned (%)"] = np.nan  # it is not fine-tuned
    rows["reported in the paper (%)"] = reported(run.settings.model, run.settings.dataset)
    rows.index.name = None
    return rows.T


def reported(model: str, dataset: str) -> pd.Series:
    """Errors in percent that a reader has copied from the paper into ``data/reported.csv``; NaN where nobody has."""
    errors = pd.Series(np.nan, index=list(LABELS.values()))
    for file in (folder / "reported.csv" for folder in folders()):
        if file.exists():
            rows = pd.read_csv(file).query("model == @model and dataset == @dataset")
            errors.update(pd.Series(rows.error_percent.to_numpy(float), index=rows.solution.map(LABELS)))
            break
    return errors


def styled(frame: pd.DataFrame) -> Styler:
    """A table for the page: sensible digits, dashes where a step does not apply; its HTML is the same at every execution."""
    style = fixed(frame).format("{:.2f}", na_rep="–")
    coarse = [name for name in frame.index if "left" in name]
    return style.format("{:.0f}", subset=(coarse, slice(None)), na_rep="–").format("{:,.0f}", subset=(["parameters"], slice(None)))


def fixed(frame: pd.DataFrame) -> Styler:
    """A style whose ids are made from the frame, in place of random ones; on the page it looks like every data frame."""
    uuid = hashlib.sha256(frame.to_json(orient="split", double_precision=15).encode()).hexdigest()[:8]
    style = frame.style.set_uuid(uuid).set_table_attributes('class="dataframe"')
    style.set_table_styles([{"selector": "th, td", "props": "font-size: 0.9em; padding: 0.1em 0.35em"}])
    right = [{"selector": "td", "props": "text-align: right"}]
    return style.set_table_styles({name: right for name in frame.select_dtypes("number")}, overwrite=False)


def provenance(run: Run) -> pd.Series:
    """What a figure must be published with: the run, code and versions, hardware, seconds of each phase."""
    seconds = {f"seconds, {phase}": value for phase, value in run.env["seconds"].items()}
    return pd.Series({"run": run.path.name, **{k: v for k, v in run.env.items() if k != "seconds"}, **seconds}, name="")
