"""Races: how much counting they save, and whether the three solutions stay the same.

    python benchmarks/racing.py          # five seeds of a small search, each without races, without risk and at a risk
    python benchmarks/racing.py --page   # book/racing.md from racing.json

The network is the quick study's plain CNN on digits. The committed ResNet-56 search is played again from its history: where its
candidates would have been stopped on average follows from their errors.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dpes import make_settings
from dpes.coupling.genome import to_hex
from dpes.coupling.tracing import trace
from dpes.strategy import workers
from dpes.strategy.history import Candidate
from dpes.strategy.loop import search
from dpes.study import data, models, runs
from dpes.study.baseline import load_baseline
from dpes.study.fitness import Fitness

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "racing.json", HERE.parent / "book" / "racing.md"
RUN = HERE.parent / "data" / "runs" / "resnet56-cifar10-cpu-s0-c2bea747"
SEEDS, RISKS = range(5), (None, 0.0, 0.05)


class Counting(Fitness):
    """A fitness that knows how many images it has counted, and which of its candidates it stopped."""

    counted, stopped = 0, 0

    def error(self, genome: np.ndarray, limit: float = math.inf) -> float:
        images = []
        hook = self.bench.register_forward_pre_hook(lambda _, x: images.append(0 if self.bench.training else len(x[0])))
        try:
            error = super().error(genome, limit)
        finally:
            hook.remove()
        recalibrated = min(self.search.calibration_images, len(self.dataset.train)) if self.search.fitness == "recalibrate" else 0
        here = sum(images) - recalibrated
        self.counted += int(here)
        self.stopped += int(here < len(self.judged))
        return error


def measured() -> list[dict]:
    """One row for each seed and risk: images counted, candidates stopped, the three solutions."""
    settings = make_settings("quick", model="vgg-narrow")
    digits = data.load("digits")
    network = load_baseline(settings, digits)
    layout = trace(network, torch.zeros(1, digits.channels, 32, 32))
    rows = []
    for seed in SEEDS:
        for risk in RISKS:
            # small batches: a candidate is looked at after each
            chosen = make_settings("quick", model="vgg-narrow", racing=risk, batch_size=32).search
            fitness = Counting(network, layout, digits, chosen, seed)
            errors = partial(workers.serial, fitness)
            end = search(layout, errors, chosen, seed, history=[], record=lambda *_: None, checkpoint=lambda _: None)
            rows.append(
                {
                    "seed": seed,
                    "risk": risk,
                    "images": fitness.counted,
                    "calibration": chosen.calibration_images,
                    "candidates": 1 + chosen.population * chosen.generations,
                    "stopped": fitness.stopped,
                    "solutions": [to_hex(p) for p in end.parents],
                }
            )
            print(f"seed {seed}, risk {risk}: {fitness.counted} images, {fitness.stopped} stopped", flush=True)
    return rows


def replayed() -> dict:
    """The ResNet-56 search again, from its history: the share of the search images that a race without risk counts on average."""
    run = runs.open_run(RUN)
    settings = run.settings.search
    known = {c.genome: c for c in run.history.itertuples()}
    network = models.build(run.settings.model, 10, 3)
    layout = trace(network, torch.zeros(1, 3, 32, 32))
    shares: list[float] = []

    def errors(jobs):
        for genome, limit in jobs:
            error = known[to_hex(genome)].error
            # the errors lie anywhere among the images: as many as the limit allows are met after limit / error of them
            batches = math.ceil(min(1.0, limit / error if error > limit else 1.0) * settings.search_images / settings.batch_size)
            shares.append(min(1.0, batches * settings.batch_size / settings.search_images))
            yield error

    history: list[Candidate] = []
    racing = replace(run.settings.search, racing=0.0)
    end = search(layout, errors, racing, run.settings.seed, history=[], record=lambda c, _: history.append(c), checkpoint=lambda _: None)
    assert [to_hex(p) for p in end.parents] == [run.solutions.set_index("solution").genome[r] for r in ("heavy", "knee", "light")]
    # the most that any race could save: limits from all candidates of the generation, known beforehand
    ideal = []
    for _, offspring in run.history[run.history.generation > 0].groupby("generation"):
        for c in offspring.itertuples():
            rivals = offspring[(offspring.macs <= c.macs) & (offspring.error < c.error)]
            ideal.append(rivals.error.min() / c.error if len(rivals) else 1.0)
    forwards = len(shares) * (settings.calibration_images + settings.search_images)
    return {
        "run": RUN.name,
        "candidates": len(shares),
        "stopped": int(sum(s < 1 for s in shares)),
        "counted": round(statistics.mean(shares), 4),
        "dominated": int(sum(i < 1 for i in ideal)),
        "ideal_counted": round(statistics.mean(ideal), 4),
        "forwards_saved": round(sum((1 - s) * settings.search_images for s in shares) / forwards, 4),
    }


TEXT = """# Races between candidates

**You will learn** how much a search saves when it stops counting the errors of candidates that are already beaten.\\
**You need** {doc}`/book/algorithm`.\\
**It takes** three minutes.

A candidate that a parent dominates changes nothing: it becomes no parent, and the front is the same without it. Whether a parent
costs no more is known before the candidate is evaluated. So its errors are counted batch by batch, and with `racing` set the
counting stops as soon as they are too many {cite:p}`maron1994`.

- `racing = 0`: too many for certain. Were all remaining images classified correctly, its error would still be above the parent's.
- `racing = 0.05`: too many by the bound of Hoeffding and Serfling, which errs in at most 5 % of single looks.

The limit comes from the parents alone, not from siblings. So the outcome depends neither on the order of the candidates nor on
who evaluates them.

## Five searches on digits

The quick study's plain CNN: CANDIDATES candidates a search, batches of 32 images, five seeds.

| risk | candidates stopped | images counted | all images saved, recalibration included | same three solutions |
|---|---|---|---|---|
ROWS

## The ResNet-56 search

Run `REPLAY_RUN`, its fitness recalibration alone, played again from its history (REPLAY_CANDIDATES candidates,
batches of 250 images): a race without risk would have stopped
REPLAY_STOPPED of them and counted REPLAY_COUNTED % of the search images, on average over the order of the images. With the images
of recalibration REPLAY_SAVED % of the forward passes would be saved.

No other race could do much better. Siblings dominate REPLAY_DOMINATED of the candidates. Even if all of their errors were known
beforehand, REPLAY_IDEAL % of the search images would have to be counted.

## What to make of it

FINDING

Written by `python benchmarks/racing.py --page` from `benchmarks/racing.json`.
"""


def page(results: dict) -> str:
    """book/racing.md."""
    rows, replay = results["measured"], results["replayed"]
    plain = {r["seed"]: r for r in rows if r["risk"] is None}
    lines, savings = [], {}
    for risk in RISKS:
        mine = [r for r in rows if r["risk"] == risk]
        total = sum(r["candidates"] for r in mine)
        images, full = sum(r["images"] for r in mine), sum(plain[r["seed"]]["images"] for r in mine)
        recalibration = sum(r["candidates"] * r["calibration"] for r in mine)
        same = sum(r["solutions"] == plain[r["seed"]]["solutions"] for r in mine)
        savings[risk] = 1 - (images + recalibration) / (full + recalibration)
        lines.append(
            f"| {'no races' if risk is None else f'{risk:g}'} | {100 * sum(r['stopped'] for r in mine) / total:.0f} % | "
            f"{100 * images / full:.0f} % | {100 * savings[risk]:.0f} % | {'–' if risk is None else f'{same} of {len(mine)} seeds'} |"
        )
    most = max(savings[0.0], replay["forwards_saved"])
    finding = (
        f"Without risk the solutions are the same by construction, and the work saved is {100 * savings[0.0]:.0f} % here and "
        f"{100 * replay['forwards_saved']:.1f} % there. "
        + (
            "That is little: an offspring that errs more than its parents mostly costs less than they do, so none of them dominates it. "
            if most < 0.2
            else "That is worth having where counting dominates the cost of a candidate. "
        )
        + "On a GPU each look costs a wait for the device. Races stay off by default."
    )
    text = TEXT.replace("ROWS", "\n".join(lines)).replace("FINDING", finding)
    text = text.replace("REPLAY_RUN", replay["run"].rsplit("-", 1)[1])
    text = text.replace("REPLAY_CANDIDATES", str(replay["candidates"])).replace("REPLAY_STOPPED", str(replay["stopped"]))
    text = text.replace("REPLAY_DOMINATED", str(replay["dominated"])).replace("REPLAY_IDEAL", f"{100 * replay['ideal_counted']:.0f}")
    text = text.replace("REPLAY_COUNTED", f"{100 * replay['counted']:.1f}").replace("REPLAY_SAVED", f"{100 * replay['forwards_saved']:.1f}")
    return text.replace("CANDIDATES", str(rows[0]["candidates"]))


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what races save.")
    parser.add_argument("--page", action="store_true", help="only write book/racing.md from racing.json")
    if not parser.parse_args().page:
        torch.set_num_threads(1)
        RESULTS.write_text(json.dumps({"replayed": replayed(), "measured": measured()}, indent=1) + "\n")
    PAGE.write_text(page(json.loads(RESULTS.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
