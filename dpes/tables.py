"""Tables and sentences of a page: what runs and their rivals show, as data frames and Markdown."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from .config import DpesError, Training, differences
from .data import folders
from .files import read_json
from .study import Run

LABELS = {"baseline": "unpruned", "heavy": "boundary heavy", "knee": "knee", "light": "boundary light"}
DIGITS = "0123456789"


def titles(runs: list[Run]) -> list[str]:
    """What a page calls its runs: by the network, and by fitness and ceiling where it shows several runs of one network."""
    networks = [run.settings.model for run in runs]

    def title(run: Run) -> str:
        if networks.count(run.settings.model) == 1:
            return run.settings.model
        search = run.settings.search
        return f"{run.settings.model}, {search.fitness}" + (f", ceiling {100 * search.error_ceiling:g} %" if search.error_ceiling else "")

    return [title(run) for run in runs]


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


def in_short(runs: list[Run], controls: list[pd.DataFrame | None]) -> str:
    """A line of Markdown for each run: what its knee and the rivals of equal MACs lose of the unpruned accuracy, least first."""
    lines = []
    for title, run, rivals in zip(titles(runs), runs, controls, strict=True):
        frame = run.solutions.query("solution == 'knee'") if rivals is None else rivals
        lost = 100 * (frame.error.groupby(frame.solution.map(kind)).mean() - run.result["baseline"]["error"])
        told = "; ".join(f"{name} {points:.2f}" for name, points in lost.sort_values().items())
        left = 100 * run.result["knee"]["macs"] / run.result["baseline"]["macs"]
        lines.append(f"- **{title}**, {left:.0f} % of the MACs, points lost: {told.replace('knee', '**knee**')}")
    return "\n".join(lines)


def orders(runs: list[Run], controls: list[pd.DataFrame | None]) -> pd.DataFrame:
    """The knee of each run and its rivals by test error before and after fine-tuning, in percent, with places: 1 errs least."""
    found = {}
    for title, rivals in zip(titles(runs), controls, strict=True):
        if rivals is not None:
            errors = 100 * rivals.groupby(rivals.solution.map(kind))[["error_recalibrated", "error"]].mean()
            places = errors.rank(method="min").astype(int)
            columns = {"recalibrated (%)": errors.error_recalibrated, "place": places.error_recalibrated}
            columns |= {"fine-tuned (%)": errors.error, "place then": places.error}
            found[title] = pd.DataFrame(columns).sort_values("fine-tuned (%)")
    return pd.concat(found, names=["network", ""]) if found else pd.DataFrame()


def foretold(runs: list[Run], controls: list[pd.DataFrame | None]) -> str:
    """A line of Markdown for each run with rivals: rank correlation of errors before and after fine-tuning, each network by itself."""
    lines = []
    for title, rivals in zip(titles(runs), controls, strict=True):
        if rivals is not None:
            agreement = rivals.error_recalibrated.corr(rivals.error, method="spearman")
            lines.append(f"- **{title}**: {agreement:+.2f} over {len(rivals)} networks")
    return "\n".join(lines)


def variants(runs: dict[str, Run]) -> pd.DataFrame:
    """The solutions of runs of one network that differ in a setting, a row each; errors and shares in percent. runs: by what differs."""
    rows = []
    for name, run in runs.items():
        for row in run.solutions.query("solution != 'baseline'").itertuples():
            errors = {"search error (%)": row.search_error, "recalibrated (%)": row.error_recalibrated, "test error (%)": row.error}
            entry = errors | {"MACs left (%)": row.macs_left, "parameters left (%)": row.params_left}
            rows.append({"search": name, "": LABELS[row.solution]} | {key: 100 * value for key, value in entry.items()})
    return pd.DataFrame(rows).set_index(["search", ""])


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


def rival(name: str) -> str:
    """What a figure calls a control."""
    named = LABELS | {"l1": "uniform L1", "widths": "strategy on widths"}
    return f"random mask {int(name[6:]) + 1}" if name.startswith("random") else named[name]


def kind(name: str) -> str:
    """The same where random masks count as one, by their mean."""
    return "random masks, mean" if name.startswith("random") else rival(name)


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


def twice(first: pd.DataFrame, again: pd.DataFrame) -> pd.DataFrame:
    """Test errors in percent of the controls that were trained twice with one seed, a row each; frames of ``baselines.read_controls``."""
    errors = [100 * frame[frame.solution != "knee"].set_index("solution").error for frame in (first, again)]
    table = pd.concat(errors, axis="columns", join="inner", keys=["trained once (%)", "again (%)"]).rename(index=rival)
    return table.assign(**{"points apart": (table["again (%)"] - table["trained once (%)"]).abs()}).rename_axis(None)


def rounding(errors: pd.DataFrame) -> str:
    """How far two trainings that differ in rounding alone lie apart, in Markdown; errors: the frame of ``twice``.

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


def reported(model: str, dataset: str) -> pd.Series:
    """Errors in percent that a reader has copied from the paper into ``data/reported.csv``; NaN where nobody has."""
    errors = pd.Series(np.nan, index=list(LABELS.values()))
    for file in (folder / "reported.csv" for folder in folders()):
        if file.exists():
            rows = pd.read_csv(file).query("model == @model and dataset == @dataset")
            errors.update(pd.Series(rows.error_percent.to_numpy(float), index=rows.solution.map(LABELS)))
            break
    return errors


def provenance(run: Run) -> pd.Series:
    """What a figure must be published with: the run, code and versions, hardware, seconds of each phase."""
    seconds = {f"seconds, {phase}": value for phase, value in run.env["seconds"].items()}
    return pd.Series({"run": run.path.name, **{k: v for k, v in run.env.items() if k != "seconds"}, **seconds}, name="")


def styled(frame: pd.DataFrame) -> Styler:
    """A table for the page: sensible digits, dashes where a step does not apply; its HTML is the same at every execution."""
    style = fixed(frame).format("{:.2f}", na_rep="–")
    coarse = [name for name in frame.index if "left" in name]
    return style.format("{:.0f}", subset=(coarse, slice(None)), na_rep="–").format("{:,.0f}", subset=(["parameters"], slice(None)))


def styled_rows(frame: pd.DataFrame) -> Styler:
    """A table of networks in rows, for the page."""
    numbers = frame.select_dtypes("number").columns
    digits = {name: "{:.0f}" if "left" in name or name.startswith("images") else "{:.2f}" for name in numbers}
    return fixed(frame).format(digits, na_rep="–")


def fixed(frame: pd.DataFrame) -> Styler:
    """A style whose ids are made from the frame, in place of random ones; on the page it looks like every data frame."""
    uuid = hashlib.sha256(frame.to_json(orient="split", double_precision=15).encode()).hexdigest()[:8]
    style = frame.style.set_uuid(uuid).set_table_attributes('class="dataframe"')
    rules = [{"selector": "th, td", "props": "font-size: 0.9em; padding: 0.1em 0.35em"}]
    if frame.index.nlevels == 1:  # of several columns of names, each must take what room there is
        rules.append({"selector": "th.row_heading", "props": "white-space: nowrap"})
    style.set_table_styles(rules)
    right = [{"selector": "td", "props": "text-align: right"}]
    return style.set_table_styles({name: right for name in frame.select_dtypes("number")}, overwrite=False)
