"""What all benchmarks share: networks and genomes, clocks, the file of results, and the page."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpes import Search, trace
from dpes.coupling.layout import Layout
from dpes.disk import write_json
from dpes.strategy.es import repair
from dpes.study import data, models
from dpes.study.fitness import Fitness

HERE = Path(__file__).parent
ROOT = HERE.parent


# ---- networks and genomes -------------------------------------------------------------------------
@cache
def cifar() -> data.Dataset:
    return data.load("cifar10")


@cache
def network(name: str) -> tuple[nn.Module, Layout]:
    """A network in evaluation mode, its weights as a search has them, and its coupled groups."""
    model = models.load_weights(name, "akamaster") if name == "resnet56" else models.build(name)
    model = model.to(memory_format=torch.contiguous_format).eval()
    return model, trace(model, torch.zeros(1, 3, 32, 32))


def fitness_of(name: str, **settings: Any) -> Fitness:
    return Fitness(*network(name), cifar(), Search(**settings))


def everything(layout: Layout) -> np.ndarray:
    return np.ones(layout.n_bits, dtype=bool)


def left(layout: Layout, genome: np.ndarray) -> float:
    """The share of the MACs that a genome leaves."""
    return layout.macs(genome) / layout.macs(everything(layout))


def random_genome(layout: Layout, fraction: float, seed: int) -> np.ndarray:
    """Every bit is kept with one and the same probability."""
    draws = np.random.default_rng(seed).random(layout.n_bits)
    return repair(draws < fraction, layout.group_of_bit)


def genome_of(layout: Layout, share: float, seed: int) -> np.ndarray:
    """A random genome with about this share of the MACs."""
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        genome = random_genome(layout, middle, seed)
        low, high = (low, middle) if left(layout, genome) > share else (middle, high)
    return genome


def halves(layout: Layout, n: int) -> list[np.ndarray]:
    return [genome_of(layout, 0.5, seed) for seed in range(n)]


def inputs(n: int) -> list[Tensor]:
    """The first images of the search split as a network reads them."""
    split = cifar().search.first(n)
    return [data.normalise(x, cifar()) for x, _ in data.batches(split, 250)]


# ---- clocks ---------------------------------------------------------------------------------------
def alternate(
    ways: dict[str, Callable[[int], Any]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each way in each round, and what it returned last; called with the round's number.

    What is compared is measured in turn and compared within a turn: other work on the machine slows
    all alike. Every second round goes backwards; one before the first warms up. The usual clock is
    the processor's: seconds in which this process computed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, Any] = {}
    for turn in range(-1, rounds):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            start = clock()
            answers[name] = ways[name](max(turn, 0))
            if turn >= 0:
                seconds[name].append(clock() - start)
    return seconds, answers


def processor_seconds(work: Callable[[], Any]) -> float:
    """This process's own seconds."""
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(what: str, values: list[float], unit: str, **goal: float) -> dict[str, Any]:
    """Median and quartiles of one quantity, and whether the median meets ``at_most``/``at_least``."""
    several = len(values) > 1
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if several else values * 3
    figures = rounded({"median": statistics.median(values), "low": low, "high": high})
    entry = {"what": what, "unit": unit, **figures, **goal, "rounds": len(values)}
    if goal:
        least, most = goal.get("at_least", -np.inf), goal.get("at_most", np.inf)
        entry["met"] = bool(least <= statistics.median(values) <= most)
    return entry


def times(
    what: str, seconds: dict[str, list[float]], above: str, below: str, **goal: float
) -> dict[str, Any]:
    """How many times the seconds of one way are those of another, turn by turn."""
    ratios = [a / b for a, b in zip(seconds[above], seconds[below], strict=True)]
    return measure(what, ratios, "x", **goal)


def machine() -> dict[str, Any]:
    """What numbers are measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": 1,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__.partition("+")[0],
    }


# ---- results and pages ----------------------------------------------------------------------------
def table(rows: Iterable[Iterable[Any]]) -> str:
    """Rows of a Markdown table."""
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def rounded(value: Any) -> Any:
    """Floats to four digits, so that the file can be read."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def results(name: str) -> Path:
    return HERE / f"{name}.json"


def stored(name: str) -> Any:
    """What a benchmark has measured so far; None if nothing."""
    return json.loads(results(name).read_text()) if results(name).exists() else None


def keep(name: str, value: Any) -> None:
    write_json(results(name), value)


def page(name: str) -> Path:
    return ROOT / "book" / f"{name}.md"


def filled(name: str, values: dict[str, str]) -> str:
    """The text of ``pages/<name>.md`` with numbers and tables in place of ``<KEY>``."""
    text = (HERE / "pages" / f"{name}.md").read_text()
    for key, value in values.items():
        text = text.replace(f"<{key}>", value)
    return text


def benchmark(name: str, measure: Callable[[], Any], text: Callable[[Any], str]) -> int:
    """The usual command: measure into ``<name>.json``, then write the page; ``--page``: only that."""
    parser = argparse.ArgumentParser(prog=f"benchmarks/{name}.py")
    parser.add_argument("--page", action="store_true", help=f"only book/{name}.md from {name}.json")
    if not parser.parse_args().page:
        torch.set_num_threads(1)
        keep(name, rounded(measure()))
    page(name).write_text(text(stored(name)))
    return 0
