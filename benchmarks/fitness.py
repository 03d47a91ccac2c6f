"""Is the cheap fitness a good one? What a search can know of random genomes, against what training
makes of them.

    python benchmarks/fitness.py                 # all that fitness.json lacks, saved after every candidate; hours on one core
    python benchmarks/fitness.py --finetune 12   # four more fine-tunings than the published ones
    python benchmarks/fitness.py --page          # book/fitness.md and its figure from fitness.json

Needs CIFAR-10 and the published weights. A run that is stopped is continued by the same command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from fitness_errors import FINETUNE, FINETUNED, GENOMES, SEARCHES, Study
from fitness_orders import NEAR, interval, neighbours, spearman, spearman_beyond
from harness import cifar, filled, page, percent, results, stored, table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpes.report import figures
from dpes.study import models

FIGURE = page("fitness").parent / "figures" / "fitness.svg"
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
CHANCE = 0.8  # an error near that of a guess
HEAVY = 0.3  # share of the MACs above which errors are well below chance
ENOUGH = 30  # pairs of neighbours for a verdict
DRAWN = 3  # fewer fine-tunings make no panel of the figure
SHARES = {(0.6, 1.0): "s", (0.3, 0.6): "D", (0.0, 0.3): "o"}  # of the MACs, and how they are drawn


# ---- numbers --------------------------------------------------------------------------------------
def predictor(rows: list[dict], name: str) -> np.ndarray:
    """One number a candidate, the larger the worse it should end: what a search can know of it."""
    known: dict[str, Callable[[dict], float]] = {
        "macs": lambda row: -row["macs"],
        "loss": lambda row: row["recalibrated"]["search_loss"],
    }
    one = known.get(name, lambda row: row[name]["search"])
    return np.array([one(row) for row in rows], dtype=float)


def trained(rows: list[dict]) -> list[float]:
    """Test errors after partial training at 0.01."""
    return [row["partial_fast"]["test"] for row in rows]


def finetuned(found: dict) -> list[dict]:
    return [row for row in found["rows"] if "finetuned" in row]


def left(rows: list[dict], found: dict) -> np.ndarray:
    """Of the MACs."""
    return np.array([row["macs"] for row in rows]) / found["unpruned"]["macs"]


def entry(found: dict, name: str) -> dict[str, Any]:
    """What one predictor says of each way to end."""
    rows, tuned, own = found["rows"], finetuned(found), name != "macs"
    measured = "recalibrated" if name == "loss" else name
    said: dict[str, Any] = {
        "seconds": float(np.median([r[measured]["cpu_seconds"] for r in rows])) if own else 0.0
    }
    ends = {"trained": (rows, trained(rows))}
    ends["finetuned"] = tuned, [row["finetuned"]["test"] for row in tuned]
    for end, (some, errors) in ends.items():
        if len(some) >= 4:
            x, y, shares = predictor(some, name), np.array(errors), left(some, found)
            said[end] = spearman(x, y)
            said[f"{end}_beyond"] = spearman_beyond(x, y, shares) if own else None
            said[f"{end}_pairs"], said[f"{end}_near"] = neighbours(x, y, shares)
    return said


def numbers_of(found: dict) -> dict[str, Any]:
    """All numbers of the page."""
    rows, tuned = found["rows"], finetuned(found)
    shares = left(rows, found)
    heavy = [row for row, share in zip(rows, shares, strict=True) if share > HEAVY]
    errors = {name: predictor(rows, name) for name in SEARCHES}
    recalibrated, ends = errors["recalibrated"], np.array(trained(heavy))
    return {
        "rows": len(rows),
        "finetuned": len(tuned),
        "left": (shares.min(), shares.max()),
        "table": {name: entry(found, name) for name in PREDICTORS},
        "heavy": {n: neighbours(predictor(heavy, n), ends, left(heavy, found)) for n in PREDICTORS},
        "repeat": spearman(recalibrated, np.array([r["recalibrated"]["test"] for r in rows])),
        "chance": {name: float((error > CHANCE).mean()) for name, error in errors.items()},
        "worse": {k: float((errors[k] > recalibrated).mean()) for k in ("brief_stale", "brief")},
        "chance_left": float(shares[recalibrated > CHANCE].max(initial=0)),
        "seconds": [row["finetuned"]["seconds"] for row in tuned],
    }


def verdict(numbers: dict[str, Any]) -> str:
    """What follows for the default, from the pairs of equal MACs: all else is said by the MACs themselves."""
    table = numbers["table"]
    recalibrated, brief, fast = table["recalibrated"], table["brief"], table["partial_fast"]
    if recalibrated["trained_pairs"] < ENOUGH:
        return f"**Too few candidates so far:** {ENOUGH} pairs of neighbours are needed to say more than that MACs matter."
    text = "**Recalibration alone misleads among candidates of equal MACs:** it is not shown to order them better than chance, "
    if recalibrated["trained_near"][1] > 0.5:
        text = "**Recalibration orders candidates of equal MACs better than chance**, "
    helps = "help:**" if brief["trained_near"][1] > 0.5 else "are not shown to help:**"
    text += (
        f"with {percent(recalibrated['trained_near'][0])} of the neighbours ordered like partial training. Over the whole range it finds "
        f"mostly what the MACs say already. **Eight steps of training before it {helps} {percent(brief['trained_near'][0])} of the "
        f"neighbours, {brief['trained_beyond'][0]:.2f} beyond the MACs instead of {recalibrated['trained_beyond'][0]:.2f}, for "
        f"{brief['seconds'] / recalibrated['seconds']:.1f} times the seconds of recalibration and {brief['seconds'] / fast['seconds']:.2f} "
        "of those of partial training."
    )
    if brief["trained_near"][0] > recalibrated["trained_near"][0]:
        text += " So the profile `cpu` searches with `fitness=partial-recalibrate`; `recalibrate` stays the default where seconds count."
    return text


# ---- the figure -----------------------------------------------------------------------------------
def draw(found: dict) -> Figure:
    """Errors that a search sees against what training makes of the candidate, by MACs in colour and shape."""
    figures.theme()
    rows, tuned = found["rows"], finetuned(found)
    up, brief = "test error, partially trained at 0.01 (%)", "briefly trained, recalibrated"
    lots = [
        (rows, "recalibrated", "recalibrated", trained(rows), up),
        (rows, "brief", brief, trained(rows), up),
    ]
    if len(tuned) >= DRAWN:
        up = f"test error, fine-tuned for {FINETUNE.epochs} epochs (%)"
        lots.append((tuned, "brief", brief, [r["finetuned"]["test"] for r in tuned], up))
    size = 1.5 + 3.4 * len(lots), 4.2
    figure, panels = plt.subplots(1, len(lots), figsize=size, layout="constrained")
    for axes, (some, fitness, words, errors, ylabel) in zip(panels, lots, strict=True):
        dots = scatter(axes, predictor(some, fitness), errors, left(some, found))
        axes.set(xlabel=f"search error (%),\n{words}", ylabel=ylabel)
    panels[0].legend(title="MACs left", fontsize="small")
    figure.colorbar(dots, ax=list(panels), label="MACs left (%)")
    return figure


def scatter(axes: Axes, x: np.ndarray, errors: list[float], shares: np.ndarray) -> Any:
    """One panel, in percent."""
    style: dict[str, Any] = {"s": 55, "edgecolor": "k", "lw": 0.5, "vmin": 0, "vmax": 100, "cmap": "viridis"}  # fmt: skip
    for (low, high), marker in SHARES.items():
        part = (low < shares) & (shares <= high)
        label = f"{100 * low:.0f} to {100 * high:.0f} %"
        at = 100 * x[part], 100 * np.array(errors)[part]
        dots = axes.scatter(*at, c=100 * shares[part], marker=marker, label=label, **style)
    return dots


# ---- the page -------------------------------------------------------------------------------------
def of(n: int, wanted: int) -> str:
    return f"{n} of {wanted}" if n < wanted else str(n)


def predictor_row(words: str, said: dict[str, Any]) -> list[str]:
    """A row of the table."""
    ends = "trained", "trained_beyond", "trained_near", "finetuned", "finetuned_beyond"
    seconds = f"{said['seconds']:.1f}" if said["seconds"] else "0"
    return [words, seconds, *(interval(said.get(end)) for end in ends)]


def caption(n: dict[str, Any]) -> dict[str, str]:
    """Of the figure, and what it shows in words."""
    t = n["table"]
    third = f"A third one has {n['finetuned']} candidates after fine-tuning. "
    return {
        "ALT": f"Two scatters of {n['rows']} candidates: across the search error, recalibrated or briefly trained before that, "
        f"up the test error after partial training. {third if n['finetuned'] >= DRAWN else ''}"
        "Colour and shape give the MACs left; both errors fall as they rise.",
        "FOUND": f"The recalibrated error has a rank correlation of {t['recalibrated']['trained'][0]:.2f} with the error after partial "
        f"training, MACs alone have {t['macs']['trained'][0]:.2f}. "
        "Brief training pulls apart some of the candidates that recalibration leaves near chance.",
    }


def text(found: dict) -> str:
    """book/fitness.md."""
    n, unpruned = numbers_of(found), found["unpruned"]["recalibrated"]
    known, heavy, seconds = n["table"]["recalibrated"], n["heavy"], "None is finished yet."
    if n["finetuned"]:
        seconds = f"A fine-tuning takes {np.median(n['seconds']):,.0f} seconds by the clock."
    values = {
        "COUNT": of(n["rows"], GENOMES),
        "FINETUNED": of(n["finetuned"], FINETUNED),
        "LOW": percent(n["left"][0]),
        "HIGH": percent(n["left"][1]),
        "TABLE": table(predictor_row(words, n["table"][p]) for p, words in PREDICTORS.items()),
        "VERDICT": verdict(n),
        "PAIRS": str(known["trained_pairs"]),
        "NEARBY": f"{100 * NEAR:.0f}",
        "REPEAT": interval(n["repeat"]),
        "CUTCHANCE": percent(n["chance"]["cut"]),
        "RECALCHANCE": percent(n["chance"]["recalibrated"]),
        "CHANCELEFT": percent(n["chance_left"]),
        "STALEWORSE": percent(n["worse"]["brief_stale"]),
        "BRIEFWORSE": percent(n["worse"]["brief"]),
        "SEEN": f"{100 * unpruned['search']:.2f} %",
        "UNSEEN": f"{100 * unpruned['test']:.2f} %",
        "SECONDS": seconds,
        "ABOVE": percent(HEAVY),
        "HEAVYPAIRS": str(heavy["recalibrated"][0]),
        "HEAVYRECAL": interval(heavy["recalibrated"][1], "none"),
        "HEAVYMACS": interval(heavy["macs"][1], "none"),
        "HEAVYCUT": interval(heavy["cut"][1], "none"),
        "BEYOND": interval(known["trained_beyond"], "no number yet"),
    }
    return filled("fitness", values | caption(n))


def write(found: dict) -> None:
    page("fitness").write_text(text(found))
    plt.rcParams["svg.hashsalt"] = "dpes"  # the same bytes every time
    draw(found).savefig(FIGURE, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    about = f"fine-tunings in all (default {FINETUNED})"
    parser.add_argument("--finetune", type=int, default=FINETUNED, metavar="N", help=about)
    parser.add_argument("--page", action="store_true", help="only the page and its figure")
    arguments = parser.parse_args()
    if not arguments.page:
        torch.set_num_threads(1)
        network = models.load_weights("resnet56", "akamaster")
        Study(network, cifar(), results("fitness")).run(arguments.finetune)
    write(stored("fitness"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
