"""The rows of the page on speed: each measures one part of a search beside something else."""

from __future__ import annotations

import copy
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import (
    HERE,
    alternate,
    everything,
    fitness_of,
    genome_of,
    halves,
    inputs,
    left,
    measure,
    network,
    times,
)  # fmt: skip
from speed_others import authors, by_torch_pruning

from dpes import Search, slim, trace
from dpes.coupling.cutting import cut
from dpes.strategy import es, workers
from dpes.strategy.folder import Folder
from dpes.strategy.history import History
from dpes.strategy.loop import Task, search
from dpes.study import models
from dpes.study.fitness import build as build_fitness

TITLES = {
    "resnet56": "ResNet-56", "densenet40": "DenseNet-40", "densenet22": "DenseNet-22", "vgg16": "VGG-16", "resnet20": "ResNet-20",
}  # fmt: skip


def build(rounds: int = 9, nets: Iterable[str] = ("resnet56", "densenet40", "vgg16")) -> list[dict]:
    """Cutting a candidate, against a library that traces each one anew."""
    return [entry for name in nets for entry in build_one(name, rounds)]


def build_one(name: str, rounds: int) -> list[dict]:
    model, layout = network(name)
    genomes, tree = halves(layout, rounds), copy.deepcopy(model)
    ways = {
        "cut": lambda r: cut(tree, model, layout, layout.checked(genomes[r])),
        "theirs": lambda r: by_torch_pruning(model, layout, genomes[r]),
    }
    seconds, answers = alternate(ways, rounds)
    shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in answers.values()]
    assert shapes[0] == shapes[1], "not the same filters"
    milliseconds = [1000 * s for s in seconds["cut"]]
    return [
        measure(f"{TITLES[name]}: cut", milliseconds, "ms", at_most=15),
        times(f"{TITLES[name]}: Torch-Pruning / cut", seconds, "theirs", "cut", at_least=30),
    ]


def coupling(rounds: int = 3) -> list[dict]:
    """Finding and proving what is coupled, and a whole slim network, of two networks."""
    import torchvision

    nets = {  # with the side of an image, and the seconds that a proof may take
        "ResNet-56": (models.build("resnet56"), 32, 3),
        "ResNet-50 at 224 x 224": (torchvision.models.resnet50(weights=None), 224, 10),
    }
    entries = []
    for title, (model, side, limit) in nets.items():
        x = torch.zeros(1, 3, side, side)
        layout = trace(model.eval(), x)
        genome = genome_of(layout, 0.5, 0)
        ways: dict[str, Callable[[int], Any]] = {
            "trace": lambda _, m=model, x=x: trace(m, x, prove=False),
            "prove": lambda _, m=model, x=x: trace(m, x),
            "slim": lambda _, m=model, a=layout, g=genome: slim(m, a, g),
            "theirs": lambda _, m=model, a=layout, g=genome: by_torch_pruning(m, a, g),
        }
        seconds, _ = alternate(ways, rounds)
        entries += [
            measure(f"{title}: trace without proof", seconds["trace"], "s", at_most=1),
            measure(f"{title}: trace and proof", seconds["prove"], "s", at_most=limit),
            times(f"{title}: Torch-Pruning / slim", seconds, "theirs", "slim", at_least=5),
        ]
    return entries


def generation(rounds: int = 3, calibration: int = 250, judged: int = 500) -> list[dict]:
    """A generation's evaluations, against bare forward passes of its networks."""
    fitness = fitness_of("resnet56", calibration_images=calibration, search_images=judged)
    shares = [share for _ in range(rounds) for share in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)]
    genomes = [genome_of(fitness.layout, share, seed) for seed, share in enumerate(shares)]
    xs = [*fitness.calibration_batches(), *inputs(judged)]
    networks = [slim(fitness.model, fitness.layout, genome) for genome in genomes]

    @torch.no_grad()
    def bare(turn: int) -> None:
        for x in xs:
            networks[turn](x)

    ways = {"fitness": lambda turn: fitness(genomes[turn]), "bare": bare}
    seconds, _ = alternate(ways, len(genomes))
    return [times("ResNet-56: evaluation / bare passes", seconds, "fitness", "bare", at_most=1.10)]


def half(rounds: int = 5, calibration: int = 125, judged: int = 250) -> list[dict]:
    """Evaluating a candidate with half the MACs, against evaluating the full network."""
    measures = []
    for name, goal in (("vgg16", 0.6), ("densenet22", 0.7), ("resnet56", 0.7)):
        fitness = fitness_of(name, calibration_images=calibration, search_images=judged)
        genomes, whole = halves(fitness.layout, rounds), everything(fitness.layout)
        ways = {
            "half": lambda r, f=fitness, g=genomes: f(g[r]),
            "full": lambda r, f=fitness, w=whole: f(w),
        }
        seconds, _ = alternate(ways, rounds)
        share = statistics.mean(left(fitness.layout, g) for g in genomes)
        entry = times(f"{TITLES[name]}: half / full", seconds, "half", "full", at_most=goal)
        measures.append(entry | {"macs": round(share, 3)})
    return measures


def strategy(generations: int = 20, name: str = "vgg16") -> list[dict]:
    """A generation of the search without its evaluations."""
    layout, rng, stamps = network(name)[1], np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as path:
        folder = Folder(Path(path), 30)

        def checkpoint(state: es.State) -> None:
            folder.checkpoint(state)
            stamps.append(time.process_time())

        settings = Search(population=30, generations=generations)
        task = Task(layout, lambda genomes: (rng.random() for _ in genomes), settings, 0)
        search(task, History(write=folder.record), checkpoint=checkpoint)
    milliseconds = [1000 * float(d) for d in np.diff(stamps)]
    what = f"ask, tell, 30 lines, costs and a saved state, {layout.n_bits:,} bits"
    return [measure(what, milliseconds, "ms", at_most=60)]


def two_processes(rounds: int = 4, calibration: int = 125, judged: int = 250) -> list[dict]:
    """Two processes of one thread against one process of two threads, by the wall clock."""
    fitness = fitness_of("resnet56", calibration_images=calibration, search_images=judged)
    genomes = halves(fitness.layout, 6)
    with workers.processes(build_fitness, fitness.parts(), 2) as errors:
        ways = {
            "processes": lambda _: list(errors(genomes)),
            "threads": lambda _: by_threads(2, lambda: list(workers.serial(fitness, genomes))),
        }
        seconds, _ = alternate(ways, rounds, time.perf_counter)
    what = "two threads / two processes"
    return [times(what, seconds, "threads", "processes", at_least=1.1) | {"threads": 2}]


def by_threads(n: int, work: Callable[[], Any]) -> Any:
    torch.set_num_threads(n)
    try:
        return work()
    finally:
        torch.set_num_threads(1)


def beside(rounds: int = 5, nets: Iterable[str] = ("resnet20", "resnet56")) -> list[dict]:
    """As many threads as cores against one, alone and beside a process that wants one core, by the
    wall clock; met, the advice of the page on running holds.
    """
    n, x = os.cpu_count() or 1, torch.zeros(125, 3, 32, 32)
    found = []
    for name in nets:
        model, _ = network(name)

        def passes(threads: int, model: torch.nn.Module = model) -> Any:
            with torch.inference_mode():
                return by_threads(threads, lambda: [model(x) for _ in range(4)])

        ways = {str(k): lambda _, k=k, passes=passes: passes(k) for k in (1, n)}
        for where, goal in {
            "alone": {"at_most": 0.75},
            "beside a busy process": {"at_least": 1.5},
        }.items():
            busy = [sys.executable, "-c", "while True: pass"]
            other = subprocess.Popen(busy) if where != "alone" else None
            try:
                seconds, _ = alternate(ways, rounds, time.perf_counter)
            finally:
                if other:
                    other.kill()
                    other.wait()
            what = f"{TITLES[name]}: a thread a core / one thread, {where}"
            found.append(times(what, seconds, str(n), "1", **goal) | {"threads": n})
    return found


def one_search(images: int) -> None:
    """A search of one small generation; prints this process's largest resident memory in GiB."""
    workers.keep_freed_memory()
    fitness = fitness_of(
        "resnet56", population=4, generations=1, calibration_images=images, search_images=2 * images
    )
    task = Task(fitness.layout, lambda g: workers.serial(fitness, g), fitness.search, 0)
    search(task, History())
    status = Path("/proc/self/status")
    if status.exists():  # in Linux ru_maxrss also counts the process that started this one
        lines = status.read_text().splitlines()
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps(peak / 1024**3))


def memory() -> list[dict]:
    """The largest resident memory of a fresh process that searches."""
    code = "import torch, speed_rows; torch.set_num_threads(1); speed_rows.one_search(1000)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE)
    peak = float(done.stdout.splitlines()[-1])
    return [measure("peak memory, ResNet-56 on CIFAR-10", [peak], "GiB", at_most=1.5)]


def commands(rounds: int = 5) -> list[dict]:
    """What a command takes that computes nothing, against importing torch; seconds of processors."""
    python = [sys.executable, "-m", "dpes"]
    named = {f"dpes {name}": [*python, name] for name in ("--help", "where", "show")}
    ways = {"import torch": [sys.executable, "-c", "import torch"]} | named

    def started(command: list[str]) -> Callable[[int], Any]:
        return lambda turn: subprocess.run(command, check=True, capture_output=True)

    def clock() -> float:
        times = os.times()
        return times.children_user + times.children_system

    seconds, _ = alternate({name: started(c) for name, c in ways.items()}, rounds, clock)
    least = "import torch"
    return [times(f"{name} / {least}", seconds, name, least, at_most=1.5) for name in named]


ROWS: dict[str, Callable[[], list[dict]]] = {
    "coupling": coupling,
    "build": build,
    "generation": generation,
    "half": half,
    "authors": authors,
    "strategy": strategy,
    "workers": two_processes,
    "beside": beside,
    "memory": memory,
    "commands": commands,
}
