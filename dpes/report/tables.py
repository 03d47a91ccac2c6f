"""Tables of a page: what runs and their rivals show, as data frames."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from ..disk import read_json, verify
from ..errors import DpesError
from ..study.data import folders
from ..study.environment import sitting
from ..study.finished import Run

LABELS = {
    "baseline": "unpruned",
    "heavy": "boundary heavy",
    "knee": "knee",
    "light": "boundary light",
}
SHARES = {  # column of the frames of runs -> what a page calls it, in percent
    "search_error": "search error (%)",
    "error_cut": "after the cut (%)",
    "error_recalibrated": "recalibrated (%)",
    "error": "test error (%)",
    "lost": "lost (points)",
    "macs_left": "MACs left (%)",
    "params_left": "parameters left (%)",
    "latency_left_batch1": "time left, 1 image (%)",
    "latency_left_batch64": "time left, 64 images (%)",
}
STEPS = ["error_cut", "error_recalibrated", "error"]
COSTS = ["macs_left", "params_left"]
TIMES = ["latency_left_batch1", "latency_left_batch64"]
DIGITS = "0123456789"


def percent(frame: pd.DataFrame, columns: list[str], **names: str) -> pd.DataFrame:
    """Columns of a frame in percent, under the names of the page."""
    return 100 * frame[columns].rename(columns=SHARES | names)


def titles(runs: list[Run]) -> list[str]:
    """What a page calls its runs: by the network, several of one by fitness and ceiling."""
    networks = [run.settings.model for run in runs]

    def title(run: Run) -> str:
        search, name = run.settings.search, run.settings.model
        if networks.count(name) > 1:
            name = f"{name}, {search.fitness}"
            if search.error_ceiling:
                name += f", ceiling {100 * search.error_ceiling:g} %"
        return name

    return [title(run) for run in runs]


def summary(runs: list[Run], rivals: list[pd.DataFrame | None]) -> pd.DataFrame:
    """The networks of each run and their rivals, random masks by their mean; in percent."""
    found = {}
    for title, run, others in zip(titles(runs), runs, rivals, strict=True):
        frame = run.solutions
        if others is not None:
            frame = pd.concat([frame, others[others.solution != "knee"]], ignore_index=True)
        means = frame.groupby(frame.solution.map(method), sort=False).mean(numeric_only=True)
        means["lost"] = means.error - run.result["baseline"]["error"]
        found[title] = percent(means, [*STEPS, "lost", *COSTS, *TIMES])
    return pd.concat(found, names=["network", ""])


def places_before_and_after(runs: list[Run], rivals: list[pd.DataFrame | None]) -> pd.DataFrame:
    """The knee of each run and its rivals by test error before and after fine-tuning, in percent.

    Their places count from 1, which errs least.
    """
    found = {}
    for title, frame in zip(titles(runs), rivals, strict=True):
        if frame is not None:
            grouped = frame.groupby(frame.solution.map(method))
            errors = 100 * grouped[["error_recalibrated", "error"]].mean()
            places = errors.rank(method="min").astype(int)
            before = {"recalibrated (%)": errors.error_recalibrated}
            before["place"] = places.error_recalibrated
            after = {"fine-tuned (%)": errors.error, "place then": places.error}
            found[title] = pd.DataFrame(before | after).sort_values("fine-tuned (%)")
    return pd.concat(found, names=["network", ""]) if found else pd.DataFrame()


def variants(runs: dict[str, Run]) -> pd.DataFrame:
    """The solutions of runs of one network that differ in a setting, by what differs."""
    columns = ["search_error", "error_recalibrated", "error", *COSTS]
    frames = {}
    for name, run in runs.items():
        solutions = run.solutions.query("solution != 'baseline'").set_index("solution")
        frames[name] = percent(solutions.rename(index=LABELS), columns)
    return pd.concat(frames, names=["search", ""])


def table(run: Run) -> pd.DataFrame:
    """What became of the network, a column for each solution: errors at each step, costs, time."""
    frame = run.solutions.set_index("solution").rename(index=LABELS)
    before = 100 * run.result["baseline"]["error"]
    rows = percent(frame, [*STEPS, *COSTS, *TIMES], error="fine-tuned (%)")
    rows.insert(0, "test error before the cut (%)", before)
    rows.insert(4, "MACs (M)", frame.macs / 1e6)
    rows.insert(6, "parameters", frame.params.astype(float))
    rows.loc[LABELS["baseline"], "fine-tuned (%)"] = np.nan  # it is not fine-tuned
    told = reported(run.settings.model, run.settings.dataset)
    if told.notna().any():
        rows["reported in the paper (%)"] = told
    rows.index.name = None
    return rows.rename_axis(columns=None).T


def rivals_table(rivals: pd.DataFrame) -> pd.DataFrame:
    """A row each for the knee and its rivals: errors at each step, what is left of the costs."""
    frame = rivals.set_index(rivals.solution.map(label).rename(None))
    rows = percent(frame, STEPS, error="fine-tuned (%)")
    if "wrong_alone" in frame:
        rows["images: wrong, knee right"] = frame.wrong_alone
        rows["images: right, knee wrong"] = frame.knee_wrong_alone
    return rows.join(percent(frame, COSTS))


def label(name: str) -> str:
    """What a page calls a network: a solution, or a rival of the knee."""
    named = LABELS | {"l1": "uniform L1", "widths": "strategy on widths"}
    return f"random mask {int(name[6:]) + 1}" if name.startswith("random") else named[name]


def method(name: str) -> str:
    """The same where random masks count as one, by their mean."""
    return "random masks, mean" if name.startswith("random") else label(name)


def trained_twice(first: pd.DataFrame, again: pd.DataFrame) -> pd.DataFrame:
    """Test errors in percent of the rivals that were trained twice with one seed, a row each.

    The frames are those of ``rivals.read_rivals``.
    """
    frames = {"trained once (%)": first, "again (%)": again}
    errors = {name: 100 * frame.set_index("solution").error for name, frame in frames.items()}
    both = pd.concat(errors, axis="columns", join="inner").drop(index="knee").rename(index=label)
    apart = (both["again (%)"] - both["trained once (%)"]).abs()
    return both.assign(**{"points apart": apart}).rename_axis(None)


def hours(runs: list[Run], rivals: list[pd.DataFrame | None]) -> pd.DataFrame:
    """Hours by the clock of each phase of each run, and of the training of its rivals."""
    rows = {}
    for run, frame in zip(runs, rivals, strict=True):
        seconds = run.env["seconds"] | ({} if frame is None else {"rivals": frame.seconds.sum()})
        rows[run.path.name] = {phase: value / 3600 for phase, value in seconds.items()}
    return pd.DataFrame(rows).T


def trained(runs: list[Run]) -> pd.DataFrame:
    """A row for each run's network that was trained here: errors in percent, hours by the clock.

    From its log in ``baselines/`` of the data folders; runs without one are left out. Training
    error: mean over the augmented images of the last epoch.
    """
    columns = ["epochs", "of them on small images", "training error (%)", "test error (%)", "hours"]
    rows = {}
    for run in runs:
        if file := data_file(f"baselines/{run.settings.baseline_id}.json"):
            log = read_json(file)["log"]
            errors = log[-1]["train_error"], run.result["baseline"]["error"]
            epochs = len(log), run.settings.baseline.small_epochs or 0
            hours = sum(epoch["seconds"] for epoch in log) / 3600
            rows[run.settings.model] = [*epochs, *(100 * e for e in errors), hours]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def data_file(name: str) -> Path | None:
    """A file in one of the data folders, if it is there."""
    return next((file for folder in folders() if (file := folder / name).exists()), None)


def published() -> pd.DataFrame:
    """Results of others with their sources: errors and MACs in percent."""
    if (file := data_file("published.csv")) is None:
        places = ", ".join(map(str, folders()))
        raise DpesError(f"published.csv is in none of {places}: restore it from the repository")
    verify(file, file.read_bytes())
    return pd.read_csv(file)


def reported(model: str, dataset: str) -> pd.Series:
    """Errors in percent that a reader has copied from the paper; NaN where nobody has."""
    errors = pd.Series(np.nan, index=list(LABELS.values()))
    if file := data_file("reported.csv"):
        rows = pd.read_csv(file).query("model == @model and dataset == @dataset")
        found = rows.error_percent.to_numpy(float)
        errors.update(pd.Series(found, index=rows.solution.map(LABELS)))
    return errors


def provenance(run: Run) -> pd.Series:
    """What a figure must be published with: run, code, versions, hardware, seconds by phase."""
    last = sitting(run.env)
    sittings = run.env.get("sittings", [last])  # of one value in all of them, once
    about = {k: ", ".join({str(s[k]): 0 for s in sittings if k in s}) for k in last}
    about = {"run": run.path.name} | about
    seconds = {f"seconds, {phase}": value for phase, value in run.env["seconds"].items()}
    return pd.Series(about | seconds, name="")


def styled(frame: pd.DataFrame) -> Styler:
    """A table for the page: sensible digits, dashes where a step does not apply."""
    style = fixed(frame).format("{:.2f}", na_rep="–")
    coarse = [name for name in frame.index if "left" in name]
    style = style.format("{:.0f}", subset=(coarse, slice(None)), na_rep="–")
    return style.format("{:,.0f}", subset=(["parameters"], slice(None)))


def styled_rows(frame: pd.DataFrame) -> Styler:
    """A table of networks in rows, for the page."""

    def digits(name: str) -> str:
        return "{:.0f}" if "left" in name or name.startswith("images") else "{:.2f}"

    numbers = frame.select_dtypes("number").columns
    return fixed(frame).format({name: digits(name) for name in numbers}, na_rep="–")


def fixed(frame: pd.DataFrame) -> Styler:
    """A style like that of every data frame, with ids made from it: the same HTML every time."""
    content = frame.to_json(orient="split", double_precision=15)
    style = frame.style.set_uuid(hashlib.sha256(content.encode()).hexdigest()[:8])
    style.set_table_attributes('class="dataframe"')
    rules = [{"selector": "th, td", "props": "font-size: 0.9em; padding: 0.1em 0.35em"}]
    if frame.index.nlevels == 1:  # of several columns of names, each must take what room there is
        rules.append({"selector": "th.row_heading", "props": "white-space: nowrap"})
    style.set_table_styles(rules)
    right = [{"selector": "td", "props": "text-align: right"}]
    numbers = {name: right for name in frame.select_dtypes("number")}
    return style.set_table_styles(numbers, overwrite=False)
