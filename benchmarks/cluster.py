"""What a cluster costs on one machine: start-up, memory and speed-up of one and two workers, of Dask
and of plain processes.

    python benchmarks/cluster.py          # into cluster.json, some minutes; wants two idle cores
    python benchmarks/cluster.py --page   # book/cluster.md from it

ResNet-20 on CIFAR-10, for its images only: the network is untrained, which changes no time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import cifar, filled, genome_of, keep, machine, network, page, rounded, stored

from dpes.strategy import cluster
from dpes.strategy.loop import Evaluate
from dpes.strategy.workers import processes
from dpes.study.fitness import Fitness, build
from dpes.study.profiles import make_settings

CANDIDATES, ROUNDS = 8, 2
SETTINGS = make_settings(
    "cpu", fitness="recalibrate", precision=None, calibration_images=250, search_images=500
)
NAMES = {"processes": "`--workers`", "dask": "`--scheduler local:`"}


def opened(kind: str, fitness: Fitness, workers: int) -> AbstractContextManager[Evaluate]:
    if kind == "dask":
        return cluster.dask(build, fitness.parts(), f"local:{workers}")
    return processes(build, fitness.parts(), workers)


def descendants(pid: int) -> Iterator[int]:
    """Of a process, whichever of its threads started them: workers and who looks after them."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield int(child)
            yield from descendants(int(child))


def megabytes(pid: int) -> float:
    """Memory of a process; what it shares with others is divided among them (PSS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def measured(kind: str, fitness: Fitness, workers: int) -> dict[str, Any]:
    """Seconds until all workers have answered, seconds of a generation, and memory beside ours."""
    genomes = [genome_of(fitness.layout, 0.6, seed) for seed in range(CANDIDATES)]
    started = time.perf_counter()
    with opened(kind, fitness, workers) as compute:
        first = list(compute(genomes[:workers]))
        ready = time.perf_counter() - started
        seconds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            errors = list(compute(genomes))
            seconds.append(time.perf_counter() - started)
        beside = sum(megabytes(pid) for pid in descendants(os.getpid()))
    assert errors[:workers] == first
    return {
        "start_seconds": ready,
        "generation_seconds": statistics.median(seconds),
        "megabytes": beside,
        "errors": errors,
    }


def table() -> str:
    result = stored("cluster")
    lines = [
        "| | workers | ready after | a generation of 8 | speed-up | memory of all workers |",
        "|---|---|---|---|---|---|",
    ]
    for kind, label in NAMES.items():
        alone = result[kind]["1"]["generation_seconds"]
        for workers, row in result[kind].items():
            lines.append(
                f"| {label} | {workers} | {row['start_seconds']:.1f} s | {row['generation_seconds']:.1f} s "
                f"| {alone / row['generation_seconds']:.2f} x | {row['megabytes']:,.0f} MB |"
            )
    about, load = result["machine"], result["load"]
    same = "the same errors, all four" if result["same"] else "**errors that differ**"
    if load > about["cores"] + 1:
        same += "; **other work took the cores meanwhile, so speed-ups are too low**"
    return "\n".join(
        [*lines, "", f"{about['cpu']}, {about['cores']} cores, load average {load:.1f} with its own work; {same}. ResNet-20 on CIFAR-10: "
         "250 images re-estimate batch norm, 500 are judged, 60 % of the MACs are left. The network and its images are sent once."]
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--page", action="store_true", help="only the page")
    if not parser.parse_args().page:
        torch.set_num_threads(1)
        model, layout = network("resnet20")
        fitness = Fitness(model, layout, cifar(), SETTINGS.search)
        result: dict[str, Any] = {
            kind: {str(n): measured(kind, fitness, n) for n in (1, 2)} for kind in NAMES
        }
        errors = [row.pop("errors") for rows in result.values() for row in rows.values()]
        same = all(np.array_equal(errors[0], other) for other in errors)
        keep(
            "cluster",
            rounded(result | {"machine": machine(), "load": os.getloadavg()[0], "same": same}),
        )
    page("cluster").write_text(filled("cluster", {"MEASURED": table()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
