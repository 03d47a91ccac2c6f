"""Measures what a search costs beside its forward passes.

    python benchmarks/speed.py                     # all rows; a quarter of an hour on two cores
    python benchmarks/speed.py build generation    # these anew
    python benchmarks/speed.py --page              # book/speed.md from speed.json

Needs CIFAR-10 and the published ResNet-56 weights (downloaded when missing); the other networks are
untrained, which time does not see.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import (
    alternate,
    cifar,
    everything,
    filled,
    genome_of,
    halves,
    inputs,
    keep,
    left,
    machine,
    measure,
    network,
    page,
    ratios,
    stored,
)
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

from dpes import Search, slim, trace
from dpes.coupling.cutting import cut
from dpes.coupling.layout import Layout
from dpes.strategy import es, workers
from dpes.strategy.folder import Folder
from dpes.strategy.history import History
from dpes.strategy.loop import Task, search
from dpes.study import data, models
from dpes.study.fitness import Fitness
from dpes.study.fitness import build as build_fitness

TITLES = {
    "resnet56": "ResNet-56",
    "densenet40": "DenseNet-40",
    "densenet22": "DenseNet-22",
    "vgg16": "VGG-16",
}


def fitness_of(name: str, **settings: Any) -> Fitness:
    return Fitness(*network(name), cifar(), Search(**settings))


# ---- rows -----------------------------------------------------------------------------------------
def by_torch_pruning(model: nn.Module, layout: Layout, genome: np.ndarray) -> nn.Module:
    """The same filters removed by Torch-Pruning: a copy, its dependency graph, group by group."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        import torch_pruning as tp

        theirs = copy.deepcopy(model).train()  # it traces through autograd
        example = torch.zeros(2, *layout.example)
        graph = tp.DependencyGraph().build_dependency(theirs, example_inputs=example)
        modules = dict(theirs.named_modules())
        for group in layout.groups:
            if gone := np.flatnonzero(~genome[group.bits]).tolist():
                prune = tp.prune_conv_out_channels
                graph.get_pruning_group(modules[group.name], prune, idxs=gone).prune()
    return theirs.eval()


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
    times = ratios(seconds["theirs"], seconds["cut"])
    return [
        measure(f"{TITLES[name]}: cut", milliseconds, "ms", at_most=15),
        measure(f"{TITLES[name]}: Torch-Pruning / cut", times, "x", at_least=30),
    ]


def coupling(rounds: int = 3) -> list[dict]:
    """Finding and proving what is coupled, and a whole slim network, of two networks."""
    import torchvision

    nets = {
        "ResNet-56": (models.build("resnet56").eval(), torch.zeros(1, 3, 32, 32), 3),
        "ResNet-50 at 224 x 224": (
            torchvision.models.resnet50(weights=None).eval(),
            torch.zeros(1, 3, 224, 224),
            10,
        ),
    }
    entries = []
    for title, (model, x, limit) in nets.items():
        layout = trace(model, x)
        genome = genome_of(layout, 0.5, 0)
        ways: dict[str, Callable[[int], Any]] = {
            "trace": lambda _, m=model, x=x: trace(m, x, prove=False),
            "prove": lambda _, m=model, x=x: trace(m, x),
            "slim": lambda _, m=model, a=layout, g=genome: slim(m, a, g),
            "theirs": lambda _, m=model, a=layout, g=genome: by_torch_pruning(m, a, g),
        }
        seconds, _ = alternate(ways, rounds)
        times = ratios(seconds["theirs"], seconds["slim"])
        entries += [
            measure(f"{title}: trace without proof", seconds["trace"], "s", at_most=1),
            measure(f"{title}: trace and proof", seconds["prove"], "s", at_most=limit),
            measure(f"{title}: Torch-Pruning / slim", times, "x", at_least=5),
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
    times = ratios(seconds["fitness"], seconds["bare"])
    return [measure("ResNet-56: evaluation / bare passes", times, "x", at_most=1.10)]


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
        times = ratios(seconds["half"], seconds["full"])
        entry = measure(f"{TITLES[name]}: half / full", times, "x", at_most=goal)
        measures.append(entry | {"macs": round(share, 3)})
    return measures


class Pictures:
    """Images as torchvision's data sets give them, one at a time through PIL."""

    def __init__(self, split: data.Split, transform: Callable[[Image.Image], Tensor]):
        self.images = split.x.permute(0, 2, 3, 1).contiguous().numpy()
        self.classes, self.transform = split.y.tolist(), transform

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[i].squeeze())), self.classes[i]


def loader(split: data.Split, dataset: data.Dataset, batch_size: int) -> DataLoader:
    """Their loader: crop, flip, tensor, normalise, for training and for validation alike."""
    steps = [transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    steps.append(transforms.Normalize(dataset.mean, dataset.std))
    return DataLoader(Pictures(split, transforms.Compose(steps)), batch_size, shuffle=True)


def rebuilt(name: str, file: Path, layout: Layout, genome: np.ndarray, **options: Any) -> nn.Module:
    """Their candidate: the network made anew, its weights read from disk, then cut."""
    model = models.build(name, **options)
    model.load_state_dict(torch.load(file, weights_only=True))
    return slim(model, layout, genome)


def profiled(model: nn.Module, x: Tensor) -> int:
    """MACs as their profiler counts them: hooks on every layer, one forward pass."""
    total = 0

    def count(module: nn.Module, _: Any, y: Tensor) -> None:
        nonlocal total
        total += module.weight.numel() * (y[0, 0].numel() if y.ndim == 4 else 1)

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [m.register_forward_hook(count) for m in layers]
    with torch.no_grad():
        model.eval()(x)
    for hook in hooks:
        hook.remove()
    return total


def by_later_code(
    model: nn.Module, training: DataLoader, validation: DataLoader, epochs: int, example: Tensor
) -> tuple[float, int]:
    """(error, MACs) of a candidate by the steps of the authors' later code, in float32."""
    loss_of = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, nesterov=True)
    model.train()
    for _ in range(epochs):
        for x, y in training:
            optimizer.zero_grad()
            loss = loss_of(model(x), y)
            loss.item()
            loss.backward()
            optimizer.step()
    right = 0
    for x, y in validation:
        model.eval()
        with torch.no_grad():
            logits = model(x)
            loss_of(logits, y).item()
            right += (logits.argmax(1) == y).sum().item()
    return 1 - right / len(validation.dataset), profiled(model, example)


def authors(rounds: int = 3, trained: int = 250, judged: int = 500) -> list[dict]:
    """One candidate by the authors' later code and by ours."""
    name, images = "resnet56", {"calibration_images": trained, "search_images": judged}
    model, layout = network(name)
    genomes, example = halves(layout, rounds), torch.zeros(1, *layout.example)
    partial = images | {"fitness": "partial", "partial_images": trained}
    ours = {f"partial{e}": fitness_of(name, **partial, partial_epochs=e) for e in (3, 1)}
    ours["recalibrate"] = fitness_of(name, **images)
    training = loader(cifar().train.first(trained), cifar(), 125)
    validation = loader(cifar().search.first(judged), cifar(), 250)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pth"
        torch.save({k: v.contiguous() for k, v in model.state_dict().items()}, file)

        def theirs(r: int, epochs: int) -> tuple[float, int]:
            candidate = rebuilt(name, file, layout, genomes[r], source="akamaster")
            return by_later_code(candidate, training, validation, epochs, example)

        ways = {f"theirs{epochs}": lambda r, e=epochs: theirs(r, e) for epochs in (3, 1)}
        for kind, fitness in ours.items():
            ways[kind] = lambda r, f=fitness: (f(genomes[r]), layout.macs(genomes[r]))
        seconds, answers = alternate(ways, rounds)
    assert len({macs for _, macs in answers.values()}) == 1, "not the same MACs"
    lines: list[tuple[str, str, str, dict[str, float]]] = [
        ("authors' way / ours, same 3 epochs", "theirs3", "partial3", {"at_least": 1.3}),
        ("authors' way, 3 epochs / ours, recalibrated", "theirs3", "recalibrate", {"at_least": 4}),
        ("authors' way / ours, same single epoch", "theirs1", "partial1", {}),
        ("authors' way, one epoch / ours, recalibrated", "theirs1", "recalibrate", {}),
    ]
    return [measure(w, ratios(seconds[a], seconds[b]), "x", **goal) for w, a, b, goal in lines]


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
    times = [1000 * float(d) for d in np.diff(stamps)]
    what = f"ask, tell, 30 lines, costs and a saved state, {layout.n_bits:,} bits"
    return [measure(what, times, "ms", at_most=60)]


def two_processes(rounds: int = 4, calibration: int = 125, judged: int = 250) -> list[dict]:
    """Two processes of one thread against one process of two threads, by the wall clock."""
    fitness = fitness_of("resnet56", calibration_images=calibration, search_images=judged)
    genomes = halves(fitness.layout, 6)
    with workers.processes(build_fitness, fitness.parts(), 2) as errors:

        def threads(_: int) -> list[float]:
            torch.set_num_threads(2)
            try:
                return list(workers.serial(fitness, genomes))
            finally:
                torch.set_num_threads(1)

        ways = {"processes": lambda _: list(errors(genomes)), "threads": threads}
        seconds, _ = alternate(ways, rounds, time.perf_counter)
    times = ratios(seconds["threads"], seconds["processes"])
    return [measure("two threads / two processes", times, "x", at_least=1.1) | {"threads": 2}]


def one_search(images: int) -> None:
    """A search of one small generation; prints this process's largest resident memory in GiB."""
    settings = Search(
        population=4, generations=1, calibration_images=images, search_images=2 * images
    )
    fitness = Fitness(*network("resnet56"), cifar(), settings)
    task = Task(fitness.layout, lambda genomes: workers.serial(fitness, genomes), settings, 0)
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
    command = [sys.executable, __file__, "--one-search", "1000"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
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
    least = seconds["import torch"]
    found = {f"{name} / import torch": ratios(seconds[name], least) for name in named}
    return [measure(name, values, "x", at_most=1.5) for name, values in found.items()]


ROWS: dict[str, Callable[[], list[dict]]] = {
    "coupling": coupling,
    "build": build,
    "generation": generation,
    "half": half,
    "authors": authors,
    "strategy": strategy,
    "workers": two_processes,
    "memory": memory,
    "commands": commands,
}


# ---- results and page -----------------------------------------------------------------------------
def run(name: str) -> dict:
    """One row, measured now."""
    load, started = round(os.getloadavg()[0], 1), time.perf_counter()
    measures = ROWS[name]()
    row = {"row": name, "measures": measures, "machine": machine(), "load": load}
    met = all(m.get("met", True) for m in measures)
    return row | {"seconds": round(time.perf_counter() - started), "met": met}


def replaced(rows: list[dict], row: dict) -> list[dict]:
    """The rows with one measured anew in place of that on the same processor."""
    known = {(processor(r), r["row"]): r for r in (*rows, row)}
    places = dict.fromkeys(p for p, _ in known)
    return [known[p, name] for p in places for name in ROWS if (p, name) in known]


def processor(row: dict) -> str:
    """On what a row was measured."""
    return f"{row['machine']['cpu']} with {row['machine']['instructions']}"


def by_processor(rows: list[dict]) -> dict[str, list[dict]]:
    return {p: [r for r in rows if processor(r) == p] for p in dict.fromkeys(map(processor, rows))}


def goal(m: dict) -> str:
    words = {"at_most": "at most", "at_least": "at least"}
    return "".join(f"{words[k]} {m[k]:g} {m['unit']}" for k in words if k in m)


def number(m: dict) -> str:
    """Median and quartiles, the same number of decimals for all three."""
    decimals = max(0, 2 - int(np.floor(np.log10(m["median"])))) if m["median"] < 100 else 0
    text = f"{m['median']:.{decimals}f} {m['unit']}"
    if m["rounds"] > 1:
        text += f" ({m['low']:.{decimals}f} to {m['high']:.{decimals}f})"
    return text


def verdict(m: dict) -> str:
    return {True: ", met", False: ", **not met**", None: ""}[m.get("met")]


def goals(rows: list[dict]) -> str:
    """The table of what has a goal, and beside it: a column for each processor."""
    columns = {
        p: {m["what"]: m for r in some for m in r["measures"]}
        for p, some in by_processor(rows).items()
    }
    lines = [f"| what | goal | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    for what in dict.fromkeys(what for measured in columns.values() for what in measured):
        found = [measured.get(what) for measured in columns.values()]
        cells = [number(m) + verdict(m) if m else "" for m in found]
        lines.append(f"| {what} | {goal(next(filter(None, found)))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(rows: list[dict]) -> str:
    """How many goals are met on each processor, and which are not."""
    parts = []
    for p, some in by_processor(rows).items():
        judged = [m for r in some for m in r["measures"] if "met" in m]
        missed = [m["what"] for m in judged if not m["met"]]
        text = f"On {p}, {len(judged) - len(missed)} of {len(judged)} goals are met"
        parts.append(text + (f"; not met: {'; '.join(missed)}." if missed else "."))
    return " ".join(parts)


def circumstances(rows: list[dict]) -> str:
    """Machine, load and minutes of the rows of each processor."""
    parts = []
    for p, some in by_processor(rows).items():
        loads, m = [r["load"] for r in some], some[-1]["machine"]
        minutes = sum(r["seconds"] for r in some) / 60
        load = f"load average {min(loads):g} to {max(loads):g}, its own work included"
        facts = f"{m['cores']} cores, torch {m['torch']}, {load}"
        parts.append(f"{p}: {facts}; all rows took {minutes:.0f} minutes.")
    return " ".join(parts)


def tried_line(m: dict) -> str:
    says = {True: "**pays**", False: "no", None: ""}[m["pays"]]
    macs = f"{m['macs']:.2f} x" if "macs" in m else ""
    changed = f"{m['changed']} of {m['images']:,}" if "changed" in m else ""
    difference = (
        "" if "difference" not in m else f"{m['difference']:.0e}" if m["difference"] else "0"
    )
    return f"| {m['what']} | {number(m)} | {says} | {macs} | {difference} | {changed} |"


def text(rows: list[dict], tried: list[dict]) -> str:
    """book/speed.md."""
    changes = [m for r in tried for m in r["measures"]]
    paying = "; ".join(m["what"] for m in changes if m["pays"])
    values = {
        "GOALS": goals(rows),
        "SUMMARY": summary(rows),
        "CIRCUMSTANCES": circumstances(rows),
        "TRIED": "\n".join(map(tried_line, changes)),
        "PAYING": f"A tenth or more is gained by: {paying}.",
        "ELSEWHERE": circumstances(tried),
    }
    return filled("speed", values)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what a search costs beside its passes.")
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--page", action="store_true", help="only write the page from speed.json")
    parser.add_argument("--one-search", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - {*ROWS}:
        known = ", ".join(ROWS)
        print(f"speed: unknown row {min(unknown)!r}: choose from {known}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    if arguments.one_search:
        one_search(arguments.one_search)
        return 0
    workers.keep_freed_memory()  # as in every search
    for name in [] if arguments.page else arguments.rows or ROWS:
        row = run(name)
        keep("speed", replaced(stored("speed") or [], row))
        for m in row["measures"]:
            print(f"{name}: {m['what']}: {number(m)}; {goal(m)}{verdict(m)}", flush=True)
    page("speed").write_text(text(stored("speed"), stored("tried")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
