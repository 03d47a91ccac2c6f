"""Tables of a page: what runs and their rivals show, as data frames."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from ..disk import read_json
from ..errors import DpesError
from ..study.data import folders
from ..study.runs import Run

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


def summary(runs: list[Run], rivals: list[pd.DataFrame | None]) -> pd.DataFrame:
    """A row for each network of each run: unpruned, three solutions, uniform L1, random masks in the mean; errors and shares in percent."""
    rows = []
    for title, run, others in zip(titles(runs), runs, rivals, strict=True):
        frame = run.solutions
        if others is not None:
            frame = pd.concat([frame, others[others.solution != "knee"]], ignore_index=True)
        means = frame.groupby(frame.solution.map(method), sort=False).mean(numeric_only=True)
        for name, row in means.iterrows():
            tuned = {} if name == LABELS["baseline"] else {"after the cut (%)": row.error_cut, "recalibrated (%)": row.error_recalibrated}
            entry = tuned | {"test error (%)": row.error, "lost (points)": row.error - run.result["baseline"]["error"]}
            entry |= {"MACs left (%)": row.macs_left, "parameters left (%)": row.params_left}
            entry |= {"time left, 1 image (%)": row.latency_left_batch1, "time left, 64 images (%)": row.latency_left_batch64}
            rows.append({"network": title, "": name} | {key: 100 * value for key, value in entry.items()})
    columns = ["after the cut (%)", "recalibrated (%)", "test error (%)", "lost (points)", "MACs left (%)", "parameters left (%)"]
    return pd.DataFrame(rows).set_index(["network", ""])[[*columns, "time left, 1 image (%)", "time left, 64 images (%)"]]


def places_before_and_after(runs: list[Run], rivals: list[pd.DataFrame | None]) -> pd.DataFrame:
    """The knee of each run and its rivals by test error before and after fine-tuning, in percent, with places: 1 errs least."""
    found = {}
    for title, frame in zip(titles(runs), rivals, strict=True):
        if frame is not None:
            errors = 100 * frame.groupby(frame.solution.map(method))[["error_recalibrated", "error"]].mean()
            places = errors.rank(method="min").astype(int)
            columns = {"recalibrated (%)": errors.error_recalibrated, "place": places.error_recalibrated}
            columns |= {"fine-tuned (%)": errors.error, "place then": places.error}
            found[title] = pd.DataFrame(columns).sort_values("fine-tuned (%)")
    return pd.concat(found, names=["network", ""]) if found else pd.DataFrame()


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


def rivals_table(rivals: pd.DataFrame) -> pd.DataFrame:
    """A row each for the knee and its rivals: test errors at each step, and what is left of the costs."""
    frame = rivals.set_index(rivals.solution.map(label).rename(None))
    columns = {
        "after the cut (%)": 100 * frame.error_cut,
        "recalibrated (%)": 100 * frame.error_recalibrated,
        "fine-tuned (%)": 100 * frame.error,
    }
    if "wrong_alone" in frame:
        columns |= {"images: wrong, knee right": frame.wrong_alone, "images: right, knee wrong": frame.knee_wrong_alone}
    return pd.DataFrame(columns | {"MACs left (%)": 100 * frame.macs_left, "parameters left (%)": 100 * frame.params_left})


def label(name: str) -> str:
    """What a page calls a network: a solution, or a rival of the knee."""
    named = LABELS | {"l1": "uniform L1", "widths": "strategy on widths"}
    return f"random mask {int(name[6:]) + 1}" if name.startswith("random") else named[name]


def method(name: str) -> str:
    """The same where random masks count as one, by their mean."""
    return "random masks, mean" if name.startswith("random") else label(name)


def trained_twice(first: pd.DataFrame, again: pd.DataFrame) -> pd.DataFrame:
    """Test errors in percent of the rivals that were trained twice with one seed, a row each; frames of ``rivals.read_rivals``."""
    errors = [100 * frame[frame.solution != "knee"].set_index("solution").error for frame in (first, again)]
    table = pd.concat(errors, axis="columns", join="inner", keys=["trained once (%)", "again (%)"]).rename(index=label)
    return table.assign(**{"points apart": (table["again (%)"] - table["trained once (%)"]).abs()}).rename_axis(None)


def hours(runs: list[Run], rivals: list[pd.DataFrame | None]) -> pd.DataFrame:
    """Hours by the clock of each phase of each run and of the training of its rivals, a row for each."""
    rows = {}
    for run, frame in zip(runs, rivals, strict=True):
        seconds = run.env["seconds"] | ({} if frame is None else {"rivals": frame.seconds.sum()})
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
