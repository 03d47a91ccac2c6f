"""The tournament's rows as tidy tables; nothing here trains or searches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..coupling import Layout, trace
from ..coupling.genome import from_hex
from ..errors import DpesError
from ..strategy import pareto
from ..study.arena import ARENAS
from ..study.methods import METHODS, REFERENCES, seeded
from ..study.models import build
from ..study.rows import read_row, total
from ..study.tournament import OWN
from ..study.tuning import SECOND, read_tuned
from . import judgement
from .tables import data_file

SHARES = (0.8, 0.7, 0.6, 0.5)  # of the MACs, at which attained errors are read off
USEFUL = 0.5  # an error above it is of no use to anyone

TITLES = {  # of methods, in words; widths: how many filters each group keeps, taken in some order
    "surrogate-fpgm": "surrogate search (FPGM, floor 30 %)",
    "surrogate-half": "surrogate search (FPGM, floor 50 %)",
    "surrogate-group": "surrogate search (group L2, floor 50 %)",
    "surrogate-group-30": "surrogate search (group L2, floor 30 %)",
    "surrogate-toll": "surrogate search (FPGM, priced bottlenecks)",
    "surrogate-toll-group": "surrogate search (group L2, priced bottlenecks)",
    "surrogate-floor": "surrogate search (L1, floor 30 %)",
    "surrogate": "surrogate search (L1, no floor)",
    "surrogate-bn": "surrogate search (BN, no floor)",
    "surrogate-taylor": "surrogate search (Taylor, no floor)",
    "surrogate-uniform": "surrogate search (L1, uniform start)",
    "surrogate-steps": "surrogate search (L1, steps from history)",
    "surrogate-ceiling": "surrogate search (L1, error ceiling)",
    "surrogate-brief": "surrogate search (FPGM, trained 8 steps)",
    "surrogate-300": "surrogate search (L1, 300 evaluations)",
    "surrogate-blind": "surrogate search (random order)",
    "learned": "surrogate search (order learned from four)",
    "learned-blind": "surrogate search (order learned from none)",
    "bits-surrogate": "surrogate search on bits",
    "random-fpgm": "random widths (FPGM)",
    "random-group": "random widths (group L2)",
    "random-widths": "random widths (L1)",
    "random-widths-300": "random widths (L1), 300 evaluations",
    "random-blind": "random widths (random order)",
    "random-bits": "random masks",
    "deeppruning": "the paper's way",
    "widths": "the paper's way on widths (L1)",
    "bits-spread": "the paper's way, spread start",
    "bits-archive": "evolution on bits",
    "bits-archive-unpruned": "evolution on bits, unpruned start",
    "archive": "evolution on widths (L1)",
    "archive-blind": "evolution on widths (random order)",
    "nsga2-widths": "NSGA-II on widths (L1)",
    "nsga2-fpgm": "NSGA-II on widths (FPGM)",
    "nsga2-bits": "NSGA-II on bits",
    "scratch": "from scratch, floor 30 %",
    "unpruned": "unpruned",
} | {
    f"{kind}-{key}": f"{kind} {word}"
    for kind in ("uniform", "global")
    for key, word in {
        "l1": "L1", "l2": "L2", "bn": "BN", "taylor": "Taylor", "fpgm": "FPGM", "group": "group L2",
        "random": "random",
    }.items()
}  # fmt: skip


def title(name: str) -> str:
    """A method in words, for pages."""
    return TITLES.get(name, name)


def located(folder: str) -> Path:
    """The rows of a tournament: a folder, or its name in one of the data folders.

    Raises ``DpesError`` where there are none.
    """
    path = Path(folder) if Path(folder).is_dir() else data_file(folder)
    if path is None or not path.is_dir():
        raise DpesError(f"{folder}: no such folder of rows; make some with: python -m dpes arena")
    return path


def candidates(folder: Path | str) -> pd.DataFrame:
    """All candidates of all finished rows, with their share of the MACs left."""
    frames = []
    columns = ["method", "seed", "index", "error", "macs_left", "unpruned", "genome"]
    for path in sorted(Path(folder).glob("*.jsonl")):
        head, rows = read_row(path)
        if rows and len(rows) >= total(head["method"]):
            frame = pd.DataFrame(rows).assign(method=head["method"], seed=head["seed"])
            whole = [bool(from_hex(g, head["n_bits"]).all()) for g in frame.genome]
            left = frame.macs / head["macs"]
            frames.append(frame.assign(index=range(len(rows)), macs_left=left, unpruned=whole))
    empty = pd.DataFrame(columns=columns)
    return pd.concat(frames, ignore_index=True)[columns] if frames else empty


def attained(errors: np.ndarray, macs_left: np.ndarray, share: float) -> float:
    """The least search error with at most this share of the MACs; 1 where there is none."""
    return float(errors[macs_left <= share].min(initial=1.0))


def scores(frame: pd.DataFrame, evaluations: int | None = None) -> pd.DataFrame:
    """A row for each method and seed: attained search errors, hypervolume against (1, 1), and that
    of the useful region.

    evaluations: count the first ones only (without the unpruned network).
    """
    rows = []
    for (method, seed), row in frame.sort_values("index").groupby(["method", "seed"]):
        row = row if evaluations is None else row.head(evaluations + int(row.unpruned.iloc[0]))
        F = row[["error", "macs_left"]].to_numpy(float)
        counted = len(row) - int(row.unpruned.iloc[0])
        errors = {f"error_{round(100 * s)}": attained(F[:, 0], F[:, 1], s) for s in SHARES}
        volumes = {"hypervolume": (1, 1), "useful": (USEFUL, 1)}
        rows.append(
            {"method": method, "seed": seed, "evaluations": counted}
            | errors
            | {name: pareto.hypervolume(F, corner) for name, corner in volumes.items()}
        )
    return pd.DataFrame(rows)


def tuned(folder: Path | str, long: bool = False) -> pd.DataFrame:
    """All fine-tuned networks: method, seed, share, training, macs, search_error, test_error (NaN:
    it found none so light), genome (hex). The seed of a family that has none is that of its
    training. long: those that were trained as long as the study's own runs, with their peak
    learning rate, the device, and the test error of the network as it came.
    """
    columns = [
        *("method", "seed", "share", "training", "macs"),
        *("found_error", "search_error", "train_error", "test_error", "seconds", "genome"),
        *(["unpruned_error", "device", "lr"] if long else []),
    ]
    entries = [e | {"lr": e["recipe"].get("lr")} for e in read_tuned(Path(folder), long)]
    frame = pd.DataFrame(entries).reindex(columns=columns)
    if long:  # an entry names what is no CPU
        frame["device"] = frame.device.astype(object).fillna("CPU")
    own = frame.method.map(seeded).astype(bool)
    return frame.assign(seed=frame.seed.where(own, frame.training % SECOND))


def network(folder: Path | str) -> str:
    """Whose rows they are: a larger network's lie in a folder of its name."""
    return name if (name := Path(folder).name) in ARENAS else OWN


def kept(folder: Path | str, share: float, layout: Layout | None = None) -> pd.DataFrame:
    """The share of its filters that each group keeps in networks fine-tuned at a share of the MACs:
    a row for each network, by its method, and a column for each group.
    """
    tests = cut(tuned(folder))
    tests = tests[(tests.share == share) & tests.genome.notna()]
    tests = tests.drop_duplicates(["method", "genome"])
    return group_shares(folder, tests.genome, layout).set_axis(tests.method.tolist())


def group_shares(
    folder: Path | str, genomes: Iterable[str], layout: Layout | None = None
) -> pd.DataFrame:
    """The share of its filters that each group keeps: a row for each genome (hex), a column for
    each group.
    """
    layout = layout or trace(build(network(folder)), torch.zeros(1, 3, 32, 32), prove=False)
    bits = [from_hex(genome, layout.n_bits) for genome in genomes]
    columns = {str(g.name): [kept[g.bits].mean() for kept in bits] for g in layout.groups}
    return pd.DataFrame(columns)


def confirmed(folder: Path | str) -> dict[str, pd.DataFrame]:
    """``tuned`` of each larger network on which some were confirmed, by its name."""
    found = {name: tuned(Path(folder) / name) for name in ARENAS if (Path(folder) / name).is_dir()}
    return {name: tests for name, tests in found.items() if len(tests)}


def cut(tests: pd.DataFrame) -> pd.DataFrame:
    """The rows of networks that were cut and fine-tuned, without those they are measured by."""
    return tests[~tests.method.isin(list(REFERENCES))]


def pairs(frame: pd.DataFrame, column: str, ours: str, theirs: str) -> tuple[np.ndarray, ...]:
    """float [n], float [n]: the values of two methods for each search seed that both have, means
    over the trainings that both have: only what was trained with the same draws is compared.

    Before fine-tuning, a method without a seed of its own has one value, which counts for all.
    """
    trained = "training" in frame
    keys = ["seed", "training"] if trained else ["seed"]
    a, b = (frame[frame.method == m].groupby(keys)[column].mean() for m in (ours, theirs))
    if not trained and len(a) and len(b):
        a = a if seeded(ours) else pd.Series(a.iloc[0], b.index)
        b = b if seeded(theirs) else pd.Series(b.iloc[0], a.index)
    both = pd.DataFrame({"a": a, "b": b}).dropna().groupby("seed").mean()
    return both.a.to_numpy(float), both.b.to_numpy(float)


def summary(
    frame: pd.DataFrame,
    columns: Sequence[str],
    scale: float = 1.0,
    digits: int = 3,
    estimate: Callable[[pd.Series], judgement.Estimate] = judgement.estimate,
) -> pd.DataFrame:
    """The estimate over seeds (interquartile mean [bootstrap interval]) of each column, a row for
    each method; of how many runs it is, the seeds say.
    """
    rows = {}
    for method, rows_of in frame.groupby("method"):
        values = rows_of.groupby("seed")[list(columns)].mean()
        found = {name: values[name].dropna() for name in columns}
        rows[method] = {
            name: estimate(some).text(scale, digits).partition(" (")[0] if len(some) else "-"
            for name, some in found.items()
        } | {"seeds": str(len(values)), "knowledge": knows(method)}
    return pd.DataFrame(rows).T


def knows(method: str) -> str:
    """Whether it has looked at the weights."""
    return "yes" if METHODS[method].knowledge else "no"


def test_table(tests: pd.DataFrame) -> pd.DataFrame:
    """Mean test errors in percent [Student's interval], a row for each method and a column for each
    share of the MACs, least errors at the lightest first; of how many networks (genomes) and
    trainings, at the share that has most.
    """
    parts = {}
    for share, at in tests.groupby("share"):
        table = summary(at, ["test_error"], 100, 2, judgement.mean)
        parts[f"{100 * share:.0f} % of the MACs"] = table.test_error
    if not parts:
        return pd.DataFrame()
    table = pd.DataFrame(parts).fillna("–")
    table["knowledge"] = [knows(method) for method in table.index]
    found = tests[tests.test_error.notna()].groupby(["method", "share"])
    missing = tests[tests.test_error.isna()].groupby("method").size()
    counts = {"networks": found.genome.nunique().groupby("method").max()}
    counts["trainings"] = found.size().groupby("method").max()
    counts |= {"networks not found": missing} if len(missing) else {}
    for name, count in counts.items():
        table[name] = count.reindex(table.index, fill_value=0)
    each = tests.groupby(["method", "share", "seed"]).test_error.mean()
    order = each.groupby(["method", "share"]).mean().unstack()
    return table.loc[order.sort_values(sorted(order.columns)).index]
