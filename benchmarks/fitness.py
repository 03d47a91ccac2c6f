"""Is the cheap fitness a good one? Random genomes of ResNet-56 judged after the cut, recalibrated, partially trained and fine-tuned.

    python benchmarks/fitness.py                 # all that fitness.json lacks, saved after every candidate; hours on one core
    python benchmarks/fitness.py --finetune 12   # four more fine-tunings than the published ones
    python benchmarks/fitness.py --page          # book/fitness.md and its figure from fitness.json

Needs CIFAR-10 and the published weights. A run that is stopped is continued by the same command.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from harness import ROOT, filled, results
from harness import page as page_of
from matplotlib.figure import Figure
from scipy.stats import rankdata
from torch import nn

from dpes import slim, trace
from dpes.coupling.genome import to_hex
from dpes.disk import read_json, write_json
from dpes.report import figures
from dpes.strategy.es import repair
from dpes.strategy.settings import Search
from dpes.study import data, models, train
from dpes.study.data import Dataset
from dpes.study.fitness import Fitness, genome_seed
from dpes.study.settings import Training

RESULTS, PAGE = results("fitness"), page_of("fitness")
FIGURE = PAGE.parent / "figures" / "fitness.svg"
CHECKPOINTS = ROOT / "build" / "fitness"
SEED, GENOMES, FINETUNED = 0, 40, 8
BASE = Search()
BRIEF: dict[str, Any] = {
    "partial_epochs": 1,
    "partial_images": 1000,
    "partial_lr": 1e-2,
    "precision": "bfloat16",
}  # as the profile cpu
TRAINED: dict[str, Any] = {"partial_epochs": 1, "partial_images": 5000}
SEARCHES: dict[str, Search] = {
    "cut": replace(BASE, fitness="none"),
    "recalibrated": BASE,
    "brief_stale": replace(BASE, fitness="partial", **BRIEF),
    "brief": replace(BASE, fitness="partial-recalibrate", **BRIEF),
    "partial": replace(BASE, fitness="partial", **TRAINED),
    "partial_fast": replace(BASE, fitness="partial", partial_lr=1e-2, **TRAINED),
}
FINETUNE = Training(epochs=2, lr=0.05, precision="bfloat16")
JUDGED = 2000  # test images, for judging only: no candidate is chosen by them
DRAWN = 3  # fewer fine-tunings make no panel of the figure


def random_genomes(n: int, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(fraction to keep [n], genomes bool [n, n_bits]): for each genome a fraction is drawn, then every bit by itself."""
    rng = np.random.default_rng(SEED)
    fractions = rng.uniform(0.3, 0.98, n)
    return fractions, repair(rng.random((n, len(groups))) < fractions[:, None], groups)


def spread(n: int) -> list[int]:
    """Ranks 0 .. n - 1 in an order whose every beginning is spread evenly: half, quarters, eighths (van der Corput's)."""
    bits = (2 * n - 1).bit_length()  # so fine a grid that every rank is met
    grid = (int(f"{k:0{bits}b}"[::-1], 2) for k in range(1, 2**bits))
    return list(dict.fromkeys([n * point >> bits for point in grid]))


@torch.no_grad()
def loss_of(network: nn.Module, split: data.Split, dataset: Dataset) -> float:
    """Mean cross-entropy."""
    total = sum(
        float(F.cross_entropy(network(x), y, reduction="sum"))
        for x, y in (
            (data.normalise(x, dataset), y) for x, y in data.batches(split, BASE.batch_size)
        )
    )
    return total / len(split)


def timed(work: Callable[[], float]) -> tuple[float, dict[str, float]]:
    """What ``work`` returns; its seconds by the clock and of this process alone, which a busy machine does not stretch as much."""
    clock, processor = time.perf_counter(), time.process_time()
    value = work()
    return value, {
        "seconds": round(time.perf_counter() - clock, 3),
        "cpu_seconds": round(time.process_time() - processor, 3),
    }


class Study:
    """The measurements and the file that keeps them."""

    def __init__(
        self,
        network: nn.Module,
        dataset: Dataset,
        results: Path,
        genomes: int = GENOMES,
        checkpoints: Path = CHECKPOINTS,
    ):
        self.network, self.dataset, self.results, self.checkpoints = (
            network,
            dataset,
            results,
            checkpoints,
        )
        self.layout = trace(network, torch.zeros(1, dataset.channels, 32, 32))
        self.fractions, self.genomes = random_genomes(genomes, self.layout.group_of_bit)
        self.fitness = {
            name: Fitness(network, self.layout, dataset, search, SEED)
            for name, search in SEARCHES.items()
        }
        self.stored = read_json(results) if results.exists() else {"rows": []}
        for row, genome in zip(self.stored["rows"], self.genomes, strict=False):
            if row["genome"] != to_hex(genome):
                raise SystemExit(
                    f"{results}: genome {row['index']} is another one: written by another version; delete the file"
                )

    def keep(self) -> None:
        write_json(self.results, self.stored)

    def cheap(self, index: int, genome: np.ndarray, fraction: float) -> dict:
        """One row: all that costs less than a fine-tuning. ``seconds`` are those of the fitness alone, as the search pays them."""
        row = {"index": index, "kept": float(fraction), "genome": to_hex(genome)}
        row |= {"macs": self.layout.macs(genome), "params": self.layout.params(genome)}
        return self.complete(row, genome)

    def complete(self, row: dict, genome: np.ndarray) -> dict:
        """The row with every fitness that it lacks."""
        for name, fitness in self.fitness.items():
            if name in row:
                continue
            error, taken = timed(lambda fitness=fitness: fitness(genome))
            row[name] = {
                "search": error,
                "test": train.error_rate(
                    fitness.scratch, self.dataset.test.first(JUDGED), self.dataset
                ),
            } | taken
            if name == "recalibrated":
                row[name]["search_loss"] = loss_of(fitness.scratch, fitness.judged, self.dataset)
        return row

    def finetune(self, row: dict, genome: np.ndarray) -> dict:
        """A candidate's real training and its error on all test images."""
        small = slim(self.network, self.layout, genome)
        checkpoint = self.checkpoints / f"{row['index']}.training"
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        log = train.fit(
            small, self.dataset, FINETUNE, genome_seed(SEED, genome), checkpoint=checkpoint
        )
        error = train.error_rate(small, self.dataset.test, self.dataset)
        checkpoint.unlink()
        return {"test": error, "seconds": round(sum(e["seconds"] for e in log), 1)}

    def run(self, finetuned: int = FINETUNED) -> None:
        """The cheap rows, then the fine-tunings, spread over the MACs at any time."""
        if "unpruned" not in self.stored:
            whole = np.ones(self.layout.n_bits, dtype=bool)
            row = self.cheap(-1, whole, 1.0)
            row["finetuned"] = {
                "test": train.error_rate(self.network, self.dataset.test, self.dataset),
                "seconds": 0.0,
            }  # as published
            self.stored["unpruned"] = row
            self.keep()
        rows = self.stored["rows"]
        for row in (self.stored["unpruned"], *rows):  # of a file that knew fewer
            if not set(self.fitness) <= set(row):
                self.complete(
                    row,
                    self.genomes[row["index"]]
                    if row["index"] >= 0
                    else np.ones(self.layout.n_bits, dtype=bool),
                )
                self.keep()
        for index in range(len(rows), len(self.genomes)):
            rows.append(self.cheap(index, self.genomes[index], self.fractions[index]))
            self.keep()
            said = ", ".join(
                f"{n} {rows[-1][n]['search']:.3f} ({rows[-1][n]['seconds']:.0f} s)"
                for n in SEARCHES
            )
            print(
                f"{index}: {rows[-1]['macs'] / self.stored['unpruned']['macs']:.2f} of the MACs, {said}",
                flush=True,
            )
        by_macs = sorted(range(len(rows)), key=lambda i: rows[i]["macs"])
        for rank in spread(len(rows))[:finetuned]:
            row = rows[by_macs[rank]]
            if "finetuned" not in row:
                row["finetuned"] = self.finetune(row, self.genomes[row["index"]])
                self.keep()
                print(f"{row['index']}: fine-tuned {row['finetuned']}", flush=True)


# ---- statistics -----------------------------------------------------------------------------------------------------------------
PREDICTORS = {
    "macs": "MACs alone",
    "cut": "error after the cut",
    "recalibrated": "error, recalibrated",
    "loss": "loss, recalibrated",
    "brief_stale": "error, briefly trained at 0.01",
    "brief": "error, briefly trained at 0.01, then recalibrated",
    "partial": "error, partially trained at 0.001",
    "partial_fast": "error, partially trained at 0.01",
}
RESAMPLES, NEAR, CHANCE = 2000, 0.05, 0.8
HEAVY, ENOUGH = (
    0.3,
    30,
)  # share of the MACs above which errors are well below chance; pairs of neighbours for a verdict
Interval = tuple[
    float, float, float
]  # estimate, and the interval in which 95 % of the resamples lie


def predictor(rows: list[dict], name: str) -> np.ndarray:
    """One number a candidate, the larger the worse it should end: what a search can know of it."""
    if name == "macs":
        return np.array([-r["macs"] for r in rows], dtype=float)
    return np.array(
        [r["recalibrated"]["search_loss"] if name == "loss" else r[name]["search"] for r in rows]
    )


def correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's along the last axis; nan where one of them is constant."""
    x, y = (v - v.mean(-1, keepdims=True) for v in (x, y))
    with np.errstate(invalid="ignore"):
        return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


def partial_correlation(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The correlation of what is left of x and y after a straight line on z is taken from each."""
    xy, xz, yz = correlation(x, y), correlation(x, z), correlation(y, z)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))


def bootstrap(statistic: Callable[..., np.ndarray], *columns: np.ndarray) -> Interval:
    """``statistic`` of the ranks of the columns, and its percentile interval over resampled candidates."""
    n = len(columns[0])
    chosen = np.random.default_rng(SEED).integers(n, size=(RESAMPLES, n))
    values = statistic(*(rankdata(c[chosen], axis=-1) for c in columns))
    low, high = (
        np.nanpercentile(values, [2.5, 97.5]) if np.isfinite(values).any() else (np.nan, np.nan)
    )
    return float(statistic(*(rankdata(c) for c in columns))), float(low), float(high)


def spearman(x: np.ndarray, y: np.ndarray) -> Interval:
    return bootstrap(correlation, x, y)


def spearman_beyond(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Interval:
    """Spearman's partial correlation: what x says of y that z does not."""
    return bootstrap(partial_correlation, x, y, z)


def neighbours(
    x: np.ndarray, y: np.ndarray, left: np.ndarray, near: float = NEAR
) -> tuple[int, Interval]:
    """Pairs of candidates whose shares of MACs differ by at most ``near``: how many, and the share of them that x orders as y does.

    A tie of x counts half; half of all is chance. The interval is over resampled candidates.
    """
    a, b = np.triu_indices(len(x), 1)
    close = (np.abs(left[a] - left[b]) <= near) & (y[a] != y[b])
    a, b = a[close], b[close]
    if not close.any():
        return 0, (np.nan, np.nan, np.nan)
    right = (1 + np.sign(x[a] - x[b]) * np.sign(y[a] - y[b])) / 2
    rng, n = np.random.default_rng(SEED), len(x)
    times = np.array([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(RESAMPLES)])
    weights = times[:, a] * times[:, b]
    drawn = weights.sum(1) > 0
    low, high = np.percentile((weights @ right)[drawn] / weights.sum(1)[drawn], [2.5, 97.5])
    return len(right), (float(right.mean()), float(low), float(high))


def statistics(stored: dict) -> dict[str, Any]:
    """All numbers of the page."""
    rows, whole = stored["rows"], stored["unpruned"]["macs"]
    tuned = [r for r in rows if "finetuned" in r]
    references = {
        "trained": (rows, [r["partial_fast"]["test"] for r in rows]),
        "finetuned": (tuned, [r["finetuned"]["test"] for r in tuned]),
    }
    table: dict[str, dict] = {}
    for name in PREDICTORS:
        entry: dict[str, Any] = {"seconds": 0.0}
        if name != "macs":
            entry["seconds"] = float(
                np.median(
                    [r["recalibrated" if name == "loss" else name]["cpu_seconds"] for r in rows]
                )
            )
        for reference, (some, errors) in references.items():
            if len(some) < 4:
                continue
            x, y, left = (
                predictor(some, name),
                np.array(errors),
                np.array([r["macs"] for r in some]) / whole,
            )
            entry[reference] = spearman(x, y)
            if name != "macs":
                entry[reference + "_beyond"] = spearman_beyond(x, y, left)
            entry[reference + "_pairs"], entry[reference + "_near"] = neighbours(x, y, left)
        table[name] = entry
    heavy = [r for r in rows if r["macs"] > HEAVY * whole]
    left, errors = (
        np.array([r["macs"] for r in heavy]) / whole,
        np.array([r["partial_fast"]["test"] for r in heavy]),
    )
    recalibrated = np.array([r["recalibrated"]["search"] for r in rows])
    again = np.array([r["recalibrated"]["test"] for r in rows])
    return {
        "rows": len(rows),
        "finetuned": len(tuned),
        "left": (min(r["macs"] for r in rows) / whole, max(r["macs"] for r in rows) / whole),
        "table": table,
        "heavy": {name: neighbours(predictor(heavy, name), errors, left) for name in PREDICTORS},
        "repeat": spearman(recalibrated, again),
        "chance": {
            name: float(np.mean([r[name]["search"] > CHANCE for r in rows])) for name in SEARCHES
        },
        "worse": {
            k: float(np.mean([r[k]["search"] > r["recalibrated"]["search"] for r in rows]))
            for k in ("brief_stale", "brief")
        },
        "chance_left": float(
            max(
                (r["macs"] / whole for r in rows if r["recalibrated"]["search"] > CHANCE), default=0
            )
        ),
        "finetune_seconds": float(np.median([r["finetuned"]["seconds"] for r in tuned]))
        if tuned
        else None,
    }


def verdict(numbers: dict[str, Any]) -> str:
    """What follows for the default, from the pairs of equal MACs: all else is said by the MACs themselves."""
    table = numbers["table"]
    recalibrated, brief, fast = table["recalibrated"], table["brief"], table["partial_fast"]
    if recalibrated["trained_pairs"] < ENOUGH:
        return f"**Too few candidates so far:** {ENOUGH} pairs of neighbours are needed to say more than that MACs matter."
    if recalibrated["trained_near"][1] > 0.5:
        text = "**Recalibration orders candidates of equal MACs better than chance**, "
    else:
        text = "**Recalibration alone misleads among candidates of equal MACs:** it is not shown to order them better than chance, "
    text += (
        f"with {percent(recalibrated['trained_near'][0])} of the neighbours ordered like partial training. Over the whole range it finds "
        "mostly what the MACs say already. "
    )
    helps = "help:**" if brief["trained_near"][1] > 0.5 else "are not shown to help:**"
    text += (
        f"**Eight steps of training before it {helps} {percent(brief['trained_near'][0])} of the neighbours, "
        f"{brief['trained_beyond'][0]:.2f} beyond the MACs instead of {recalibrated['trained_beyond'][0]:.2f}, for "
        f"{brief['seconds'] / recalibrated['seconds']:.1f} times the seconds of recalibration and {brief['seconds'] / fast['seconds']:.2f} "
        "of those of partial training."
    )
    if brief["trained_near"][0] > recalibrated["trained_near"][0]:
        text += " So the profile `cpu` searches with `fitness=partial-recalibrate`; `recalibrate` stays the default where seconds count."
    return text


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def interval(value: Interval | None) -> str:
    if value is None or not np.isfinite(value[0]):
        return ""
    return f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"


# ---- the page -------------------------------------------------------------------------------------------------------------------
def draw(stored: dict) -> Figure:
    """Errors that a search sees against what training makes of the candidate, by MACs in colour and shape."""
    figures.theme()
    rows, whole = stored["rows"], stored["unpruned"]["macs"]
    tuned = [r for r in rows if "finetuned" in r]
    trained = [r["partial_fast"]["test"] for r in rows], "test error, partially trained at 0.01 (%)"
    lots = [
        (rows, "recalibrated", "recalibrated", *trained),
        (rows, "brief", "briefly trained, recalibrated", *trained),
    ]
    if len(tuned) >= DRAWN:
        ends = (
            [r["finetuned"]["test"] for r in tuned],
            f"test error, fine-tuned for {FINETUNE.epochs} epochs (%)",
        )
        lots.append((tuned, "brief", "briefly trained, recalibrated", *ends))
    figure, panels = plt.subplots(
        1, len(lots), figsize=(1.5 + 3.4 * len(lots), 4.2), layout="constrained"
    )
    for axes, (some, fitness, words, errors, ylabel) in zip(panels, lots, strict=True):
        for (low, high), marker in SHARES.items():
            part = [
                (r, e) for r, e in zip(some, errors, strict=True) if low < r["macs"] / whole <= high
            ]
            x, y = [100 * r[fitness]["search"] for r, _ in part], [100 * e for _, e in part]
            left, label = (
                [100 * r["macs"] / whole for r, _ in part],
                f"{100 * low:.0f} to {100 * high:.0f} %",
            )
            dots = axes.scatter(
                x,
                y,
                c=left,
                marker=marker,
                label=label,
                s=55,
                edgecolor="k",
                lw=0.5,
                vmin=0,
                vmax=100,
                cmap="viridis",
            )
        axes.set(xlabel=f"search error (%),\n{words}", ylabel=ylabel)
    panels[0].legend(title="MACs left", fontsize="small")
    figure.colorbar(dots, ax=list(panels), label="MACs left (%)")
    return figure


SHARES = {(0.6, 1.0): "s", (0.3, 0.6): "D", (0.0, 0.3): "o"}


def page(stored: dict) -> str:
    """book/fitness.md."""
    n = statistics(stored)
    lines = []
    for name, words in PREDICTORS.items():
        e = n["table"][name]
        seconds = f"{e['seconds']:.1f}" if e["seconds"] else "0"
        cells = [
            words,
            seconds,
            *(
                interval(e.get(k))
                for k in (
                    "trained",
                    "trained_beyond",
                    "trained_near",
                    "finetuned",
                    "finetuned_beyond",
                )
            ),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    t = n["table"]
    count = f"{n['rows']} of {GENOMES}" if n["rows"] < GENOMES else str(n["rows"])
    finetuned = (
        f"{n['finetuned']} of {FINETUNED}" if n["finetuned"] < FINETUNED else str(n["finetuned"])
    )
    found = (
        f"The recalibrated error has a rank correlation of {t['recalibrated']['trained'][0]:.2f} with the error after partial training, "
        f"MACs alone have {t['macs']['trained'][0]:.2f}. "
        "Brief training pulls apart some of the candidates that recalibration leaves near chance."
    )
    alt = (
        f"Two scatters of {n['rows']} candidates: across the search error, recalibrated or briefly trained before that, "
        "up the test error after partial training. "
    )
    alt += (
        f"A third one has {n['finetuned']} candidates after fine-tuning. "
        if n["finetuned"] >= DRAWN
        else ""
    )
    alt += "Colour and shape give the MACs left; both errors fall as they rise."
    unpruned = stored["unpruned"]
    values = {
        "COUNT": count,
        "FINETUNED": finetuned,
        "LOW": percent(n["left"][0]),
        "HIGH": percent(n["left"][1]),
        "TABLE": "\n".join(lines),
        "VERDICT": verdict(n),
        "ALT": alt,
        "FOUND": found,
        "PAIRS": str(t["recalibrated"]["trained_pairs"]),
        "NEARBY": f"{100 * NEAR:.0f}",
        "REPEAT": interval(n["repeat"]),
        "CUTCHANCE": percent(n["chance"]["cut"]),
        "RECALCHANCE": percent(n["chance"]["recalibrated"]),
        "CHANCELEFT": percent(n["chance_left"]),
        "STALEWORSE": percent(n["worse"]["brief_stale"]),
        "BRIEFWORSE": percent(n["worse"]["brief"]),
        "SEEN": f"{100 * unpruned['recalibrated']['search']:.2f} %",
        "UNSEEN": f"{100 * unpruned['recalibrated']['test']:.2f} %",
        "SECONDS": f"A fine-tuning takes {n['finetune_seconds']:,.0f} seconds by the clock."
        if n["finetuned"]
        else "None is finished yet.",
        "ABOVE": percent(HEAVY),
        "HEAVYPAIRS": str(n["heavy"]["recalibrated"][0]),
        "HEAVYRECAL": interval(n["heavy"]["recalibrated"][1]) or "none",
        "HEAVYMACS": interval(n["heavy"]["macs"][1]) or "none",
        "HEAVYCUT": interval(n["heavy"]["cut"][1]) or "none",
        "BEYOND": interval(t["recalibrated"]["trained_beyond"]) or "no number yet",
    }
    return filled("fitness", values)


def write_page(stored: dict) -> None:
    PAGE.write_text(page(stored))
    plt.rcParams["svg.hashsalt"] = "dpes"  # the same bytes every time
    figure = draw(stored)
    figure.savefig(FIGURE, metadata={"Date": None})
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Compare cheap fitnesses of random genomes with what training makes of them."
    )
    parser.add_argument(
        "--finetune",
        type=int,
        default=FINETUNED,
        metavar="N",
        help=f"fine-tunings in all (default {FINETUNED})",
    )
    parser.add_argument(
        "--page",
        action="store_true",
        help="only write book/fitness.md and its figure from fitness.json",
    )
    arguments = parser.parse_args()
    if arguments.page:
        write_page(read_json(RESULTS))
    else:
        torch.set_num_threads(1)
        Study(models.load_weights("resnet56", "akamaster"), data.load("cifar10"), RESULTS).run(
            arguments.finetune
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
