"""Measures what a search costs beside its forward passes, and what was tried to make these cheaper.

    python benchmarks/bench.py                     # the rows with goals; a quarter of an hour on two quiet cores
    python benchmarks/bench.py --tried             # also what was tried
    python benchmarks/bench.py build generation    # these anew
    python benchmarks/bench.py --page              # book/speed.md from results.json

Needs CIFAR-10 and the published ResNet-56 weights (downloaded when missing); the other networks are untrained, which time does not see.
What is compared is measured in turn, many times, and compared within a turn: other work on the machine slows all alike.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils.data import DataLoader
from torchvision import transforms

from dpes.coupling.cutting import cut, slim
from dpes.coupling.genome import to_hex
from dpes.coupling.layout import Layout, stays
from dpes.coupling.tracing import trace
from dpes.strategy import es, judging, workers
from dpes.strategy.history import Candidate, History
from dpes.strategy.loop import Task, search
from dpes.strategy.settings import Search
from dpes.study import data, models, train
from dpes.study import fitness as fitnesses
from dpes.study.fitness import Fitness

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results.json", HERE.parent / "book" / "speed.md"
TITLES = {"resnet56": "ResNet-56", "densenet40": "DenseNet-40", "densenet22": "DenseNet-22", "vgg16": "VGG-16"}


# ---- networks, genomes, clocks --------------------------------------------------------------------------------------------------
@cache
def cifar() -> data.Dataset:
    return data.load("cifar10")


@cache
def network(name: str) -> tuple[nn.Module, Layout]:
    """The network in evaluation mode and its coupled groups; its weights lie as a search has them."""
    model = models.load_weights(name, "akamaster") if name == "resnet56" else models.build(name)
    model = model.to(memory_format=torch.contiguous_format).eval()
    return model, trace(model, torch.zeros(1, 3, 32, 32))


def genome_of(layout: Layout, share: float, seed: int) -> np.ndarray:
    """A random genome with about this share of the MACs: every bit is kept with one and the same probability."""
    draws = np.random.default_rng(seed).random(layout.n_bits)
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        genome = es.repair(draws < middle, layout.group_of_bit)
        low, high = (low, middle) if left(layout, genome) > share else (middle, high)
    return genome


def left(layout: Layout, genome: np.ndarray) -> float:
    """The share of the MACs that a genome leaves."""
    return layout.macs(genome) / layout.macs(np.ones(layout.n_bits, dtype=bool))


def halves(layout: Layout, n: int) -> list[np.ndarray]:
    return [genome_of(layout, 0.5, seed) for seed in range(n)]


def inputs(n: int, batch_size: int = 250) -> list[Tensor]:
    """The first images of the search split as a network reads them."""
    return [x for x, _ in train.inputs(cifar().search.first(n), cifar(), batch_size)]


def alternate(
    ways: dict[str, Callable[[int], Any]], rounds: int, clock: Callable[[], float] = time.process_time
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each way in each round, and what it returned last; every way is called with the number of the round.

    Every second round goes backwards. A round before the first warms up and does not count. The usual clock is the
    processor's: seconds in which this process computed. On a quiet machine one thread takes as many by the wall clock.
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


def ratios(above: list[float], below: list[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def measure(what: str, values: list[float], unit: str, at_most: float | None = None, at_least: float | None = None, **more: Any) -> dict:
    """One measured quantity: median and quartiles of its values, and whether the median meets the goal, if it has one."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    median = statistics.median(values)
    entry = {"what": what, "unit": unit, **{k: float(f"{v:.4g}") for k, v in (("median", median), ("low", low), ("high", high))}}
    if at_most is not None:
        entry |= {"at_most": at_most, "met": median <= at_most}
    if at_least is not None:
        entry |= {"at_least": at_least, "met": median >= at_least}
    return entry | {"rounds": len(values)} | more


# ---- the rows with a goal -------------------------------------------------------------------------------------------------------
def by_torch_pruning(model: nn.Module, layout: Layout, genome: np.ndarray) -> nn.Module:
    """The same filters removed by Torch-Pruning: a copy, its dependency graph, then group by group."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        import torch_pruning as tp

        theirs = copy.deepcopy(model).train()  # it traces through autograd
        graph = tp.DependencyGraph().build_dependency(theirs, example_inputs=torch.zeros(2, *layout.example))
        modules = dict(theirs.named_modules())
        for group in layout.groups:
            if gone := np.flatnonzero(~genome[group.bits]).tolist():
                graph.get_pruning_group(modules[group.name], tp.prune_conv_out_channels, idxs=gone).prune()
    return theirs.eval()


def build(rounds: int = 9, nets: Iterable[str] = ("resnet56", "densenet40", "vgg16")) -> list[dict]:
    """Cutting a candidate, against a library that traces each one anew."""
    measures = []
    for name in nets:
        model, layout = network(name)
        genomes, tree = halves(layout, rounds), copy.deepcopy(model)
        seconds, answers = alternate(
            {
                "cut": lambda r: cut(tree, model, layout, layout.checked(genomes[r])),  # noqa: B023
                "theirs": lambda r: by_torch_pruning(model, layout, genomes[r]),  # noqa: B023
            },
            rounds,
        )
        shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in answers.values()]
        assert shapes[0] == shapes[1], "not the same filters"
        measures += [
            measure(f"{TITLES[name]}: cut", [1000 * s for s in seconds["cut"]], "ms", at_most=15),
            measure(f"{TITLES[name]}: Torch-Pruning / cut", ratios(seconds["theirs"], seconds["cut"]), "x", at_least=30),
        ]
    return measures


def generation(rounds: int = 3, calibration: int = 250, judged: int = 500) -> list[dict]:
    """A generation's evaluations, against bare forward passes of its networks."""
    model, layout = network("resnet56")
    fitness = Fitness(model, layout, cifar(), Search(calibration_images=calibration, search_images=judged))
    genomes = [genome_of(layout, share, 10 * r + i) for r in range(rounds) for i, share in enumerate((0.9, 0.8, 0.7, 0.6, 0.5, 0.4))]
    xs = [*fitness.calibration_batches(), *inputs(judged)]
    networks = [slim(model, layout, genome) for genome in genomes]

    @torch.no_grad()
    def bare(turn: int) -> None:
        for x in xs:
            networks[turn](x)

    seconds, _ = alternate({"fitness": lambda turn: fitness.error(genomes[turn]), "bare": bare}, len(genomes))
    return [
        measure("ResNet-56: evaluation / bare passes", ratios(seconds["fitness"], seconds["bare"]), "x", at_most=1.10),
    ]


def half(rounds: int = 5, calibration: int = 125, judged: int = 250) -> list[dict]:
    """Evaluating a candidate with half the MACs, against evaluating the full network."""
    measures = []
    for name, goal in (("vgg16", 0.6), ("densenet22", 0.7), ("resnet56", 0.7)):
        model, layout = network(name)
        fitness = Fitness(model, layout, cifar(), Search(calibration_images=calibration, search_images=judged))
        genomes, whole = halves(layout, rounds), np.ones(layout.n_bits, dtype=bool)
        seconds, _ = alternate({"half": lambda r: fitness.error(genomes[r]), "full": lambda r: fitness.error(whole)}, rounds)  # noqa: B023
        share = statistics.mean(left(layout, g) for g in genomes)
        measures.append(measure(f"{TITLES[name]}: half / full", ratios(seconds["half"], seconds["full"]), "x", goal, macs=round(share, 3)))
    return measures


class Pictures:
    """Images as torchvision's data sets give them, one at a time through PIL."""

    def __init__(self, split: data.Split, transform: Callable[[Image.Image], Tensor]):
        self.images, self.classes, self.transform = split.x.permute(0, 2, 3, 1).contiguous().numpy(), split.y.tolist(), transform

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[i].squeeze())), self.classes[i]


def loader(split: data.Split, dataset: data.Dataset, batch_size: int) -> DataLoader:
    """Their loader: crop, flip, tensor, normalise, image by image, for training and for validation alike."""
    steps = [transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    return DataLoader(
        Pictures(split, transforms.Compose([*steps, transforms.Normalize(dataset.mean, dataset.std)])), batch_size, shuffle=True
    )


def rebuilt(name: str, file: Path, layout: Layout, genome: np.ndarray, **options: Any) -> nn.Module:
    """Their candidate: the network made anew, its weights read from disk, each tensor cut by a boolean mask."""
    model = models.build(name, **options)
    model.load_state_dict(torch.load(file, weights_only=True))
    modules, keep = dict(model.named_modules()), layout.checked(genome)
    for owned in layout.tensors:
        for dim, bits in owned.cuts:
            for module, tensor in owned.places:
                whole = getattr(modules[module], tensor)
                whole.data = whole.data[(slice(None),) * dim + (torch.from_numpy(stays(bits, keep)),)]
    for w in layout.widths:
        setattr(modules[w.module], w.attribute, int(stays(w.bits, keep).sum()) // w.divisor)
    return model


def profiled(model: nn.Module, x: Tensor) -> int:
    """MACs as their profiler counts them: hooks on every layer, one forward pass."""
    total = 0

    def count(module: nn.Module, _: Any, y: Tensor) -> None:
        nonlocal total
        total += module.weight.numel() * (y[0, 0].numel() if y.ndim == 4 else 1)

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        model.eval()(x)
    for hook in hooks:
        hook.remove()
    return total


def by_later_code(model: nn.Module, training: DataLoader, validation: DataLoader, epochs: int, example: Tensor) -> tuple[float, int]:
    """(error, MACs) of a candidate by the steps of the authors' later code, in single precision."""
    loss_of = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, nesterov=True)
    model.train()
    for _ in range(epochs):
        running = 0.0
        for x, y in training:
            optimizer.zero_grad()
            loss = loss_of(model(x), y)
            running += loss.item() * len(y)
            loss.backward()
            optimizer.step()
    right, running = 0, 0.0
    for x, y in validation:
        model.eval()
        with torch.no_grad():
            logits = model(x)
            running += loss_of(logits, y).item() * len(y)
            right += (logits.argmax(1) == y).sum().item()
    return 1 - right / len(validation.dataset), profiled(model, example)


def authors(rounds: int = 3, trained: int = 250, judged: int = 500, name: str = "resnet56") -> list[dict]:
    """One candidate by the authors' later code and by ours."""
    model, layout = network(name)
    genomes = halves(layout, rounds)
    settings = {"calibration_images": trained, "search_images": judged, "partial_images": trained}
    ours = {
        f"partial{epochs}": Fitness(model, layout, cifar(), Search(fitness="partial", partial_epochs=epochs, **settings))
        for epochs in (3, 1)
    } | {"recalibrate": Fitness(model, layout, cifar(), Search(**settings))}
    training, validation = loader(cifar().train.first(trained), cifar(), 125), loader(cifar().search.first(judged), cifar(), 250)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pth"
        torch.save({k: v.contiguous() for k, v in model.state_dict().items()}, file)

        def theirs(r: int, epochs: int) -> tuple[float, int]:
            candidate = rebuilt(name, file, layout, genomes[r], source="akamaster")
            return by_later_code(candidate, training, validation, epochs, torch.zeros(1, *layout.example))

        def mine(r: int, kind: str) -> tuple[float, int]:
            return ours[kind].error(genomes[r]), layout.macs(genomes[r])

        seconds, answers = alternate(
            {f"theirs{epochs}": lambda r, e=epochs: theirs(r, e) for epochs in (3, 1)}
            | {kind: lambda r, k=kind: mine(r, k) for kind in ours},
            rounds,
        )
    assert len({macs for _, macs in answers.values()}) == 1, "not the same MACs"
    return [
        measure("authors' way / ours, same 3 epochs", ratios(seconds["theirs3"], seconds["partial3"]), "x", at_least=1.3),
        measure("authors' way, 3 epochs / ours, recalibrated", ratios(seconds["theirs3"], seconds["recalibrate"]), "x", at_least=4),
        measure("authors' way / ours, same single epoch", ratios(seconds["theirs1"], seconds["partial1"]), "x"),
        measure("authors' way, one epoch / ours, recalibrated", ratios(seconds["theirs1"], seconds["recalibrate"]), "x"),
    ]


def strategy(generations: int = 20, name: str = "vgg16") -> list[dict]:
    """A generation of the search without its evaluations."""
    layout = network(name)[1]
    rng, stamps = np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "history.jsonl").open("w") as lines:

        def record(candidate: Candidate, seconds: float) -> None:
            lines.write(candidate.line())
            lines.flush()

        def checkpoint(state: es.State) -> None:
            state.save(Path(folder) / "state.npz")
            stamps.append(time.process_time())

        settings = Search(population=30, generations=generations)
        search(Task(layout, lambda some: (rng.random() for _ in some), settings, 0), History(write=record), checkpoint=checkpoint)
        state, groups, spent = es.start([0.1, 1.0], layout.n_bits), layout.group_of_bit, []
        for turn in range(generations):
            F = rng.random((30, 2))
            start = time.process_time()
            genomes, parents = es.ask(state, np.random.default_rng([0, turn]), settings, groups)
            for i, genome in enumerate(genomes):
                record(Candidate(turn, i, es.ROLES[parents[i]], to_hex(genome), *F[i], 0), 0.0)
            state = es.tell(state, genomes, F, settings)
            spent.append(time.process_time() - start)
    return [
        measure(f"ask, tell and 30 lines, {layout.n_bits:,} bits", [1000 * s for s in spent], "ms", at_most=20),
        measure("the same with costs in closed form and a saved state", [1000 * float(d) for d in np.diff(stamps)], "ms"),
    ]


def two_processes(rounds: int = 4, calibration: int = 125, judged: int = 250) -> list[dict]:
    """Two processes of one thread against one process of two threads, by the wall clock."""
    model, layout = network("resnet56")
    fitness = Fitness(model, layout, cifar(), Search(calibration_images=calibration, search_images=judged))
    jobs = halves(layout, 6)
    with workers.processes(fitnesses.build, fitness.parts(), 2) as errors:

        def threads(_: int) -> list[float]:
            torch.set_num_threads(2)
            try:
                return list(workers.serial(fitness, jobs))
            finally:
                torch.set_num_threads(1)

        seconds, _ = alternate({"processes": lambda _: list(errors(jobs)), "threads": threads}, rounds, time.perf_counter)
    return [measure("two threads / two processes", ratios(seconds["threads"], seconds["processes"]), "x", at_least=1.1, threads=2)]


def one_search(images: int, keep: bool) -> None:
    """A search of one small generation; prints its seconds, its errors and this process's largest resident memory in GiB.

    keep: freed memory, as every search does.
    """
    if not keep:
        workers.keep_freed_memory = lambda: None
    settings = Search(population=4, generations=1, calibration_images=images, search_images=2 * images)
    model, layout = network("resnet56")
    fitness = Fitness(model, layout, cifar(), settings)
    found: list[float] = []
    history = History(write=lambda candidate, _: found.append(candidate.error))
    start = time.process_time()
    search(Task(layout, lambda genomes: workers.serial(fitness, genomes), settings, 0), history)
    seconds, status = time.process_time() - start, Path("/proc/self/status")
    if status.exists():  # in Linux ru_maxrss also counts the process that started this one
        peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"seconds": seconds, "errors": found, "peak": peak / 1024**3}))


def fresh_search(images: int, keep: bool = True) -> dict:
    """``one_search`` in a process of its own."""
    command = [sys.executable, __file__, "--one-search", str(images), *([] if keep else ["--give-back"])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def memory(rounds: int = 1) -> list[dict]:
    """The largest resident memory of a fresh process that searches."""
    sizes = [fresh_search(1000)["peak"] for _ in range(rounds)]
    return [measure("peak memory, ResNet-56 on CIFAR-10", sizes, "GiB", at_most=1.5)]


# ---- what was tried -------------------------------------------------------------------------------------------------------------
@torch.no_grad()
def logits(model: nn.Module, xs: Iterable[Tensor]) -> Tensor:
    return torch.cat([model(x).float() for x in xs])


def compared(what: str, seconds: dict[str, list[float]], answers: dict[str, Tensor], with_: str, without: str, **more: Any) -> dict:
    """The ratio of seconds with and without a change, and how far the logits are apart; ``pays`` from a tenth upwards."""
    a, b = answers[with_], answers[without]
    entry = measure(what, ratios(seconds[with_], seconds[without]), "x", **more)
    entry["difference"] = float(f"{(a - b).abs().max():.1e}")
    entry["changed"] = int((a.argmax(1) != b.argmax(1)).sum())
    entry["images"] = len(a)
    return entry | {"pays": entry["median"] <= 0.9}


def formats(rounds: int = 5, n: int = 250) -> list[dict]:
    """Channels-last images, against contiguous ones; the slim networks' weights are contiguous for both."""
    last, measures = inputs(n), []
    plain = [x.contiguous() for x in last]
    for name, share in (("resnet56", 1.0), ("resnet56", 0.5), ("vgg16", 0.5), ("densenet22", 0.5)):
        model, layout = network(name)
        nets = [
            slim(model, layout, genome_of(layout, share, seed) if share < 1 else np.ones(layout.n_bits, dtype=bool))
            for seed in range(rounds)
        ]
        flat = [copy.deepcopy(net).to(memory_format=torch.contiguous_format) for net in nets]
        seconds, answers = alternate({"last": lambda r: logits(nets[r], last), "first": lambda r: logits(flat[r], plain)}, rounds)  # noqa: B023
        measures.append(compared(f"channels-last, {label(name, share)}", seconds, answers, "last", "first"))
    return measures


def label(name: str, share: float) -> str:
    return f"{TITLES[name]} {'full' if share == 1 else 'half'}"


def batches(rounds: int = 3, n: int = 1000) -> list[dict]:
    """Images per batch in evaluation, against the usual 250."""
    model, layout = network("resnet56")
    measures = []
    for share in (1.0, 0.5):
        nets = [slim(model, layout, genome_of(layout, share, seed)) for seed in range(rounds)] if share < 1 else [model] * rounds
        images = {size: inputs(n, size) for size in (50, 125, 250, 500, 1000)}
        ways = {size: lambda r, s=size: logits(nets[r], images[s]) for size in images}  # noqa: B023
        seconds, answers = alternate(ways, rounds)
        measures += [
            compared(f"{size} images a batch, {label('resnet56', share)}", seconds, answers, size, 250) for size in ways if size != 250
        ]
    return measures


class Folded:
    """A module tree without those batch norms that follow a convolution; called with a slim network, it takes on its function."""

    def __init__(self, model: nn.Module, layout: Layout):
        modules = dict(model.named_modules())
        self.pairs = {
            node.target: user.target
            for node in fx.Tracer().trace(model).nodes
            if node.op == "call_module" and isinstance(modules[node.target], nn.Conv2d) and len(node.users) == 1
            for user in node.users
            if user.op == "call_module" and isinstance(modules[user.target], nn.BatchNorm2d)
        }
        self.tree = copy.deepcopy(model)
        for norm in self.pairs.values():
            self.tree.set_submodule(norm, nn.Identity())
        gone = {*self.pairs, *self.pairs.values()}
        self.others = [(place, o.is_parameter) for o in layout.tensors for place in o.places if place[0] not in gone]
        self.modules = dict(self.tree.named_modules(remove_duplicate=False))

    @torch.no_grad()
    def __call__(self, small: nn.Module) -> nn.Module:
        modules = dict(small.named_modules(remove_duplicate=False))
        for conv, norm in self.pairs.items():
            c, b = modules[conv], modules[norm]
            weight, bias = fuse_conv_bn_weights(c.weight, c.bias, b.running_mean, b.running_var, b.eps, b.weight, b.bias)
            self.modules[conv]._parameters |= {"weight": weight, "bias": bias}
        for (module, name), is_parameter in self.others:
            (self.modules[module]._parameters if is_parameter else self.modules[module]._buffers)[name] = getattr(modules[module], name)
        return self.tree


def folding(rounds: int = 5, n: int = 1000) -> list[dict]:
    """Batch norm folded into the convolution before it, for counting errors; the folding is part of the time."""
    measures, xs = [], inputs(n)
    for name, images in (("resnet56", n), ("vgg16", n // 4)):
        model, layout = network(name)
        nets, folded = [slim(model, layout, g) for g in halves(layout, rounds)], Folded(model, layout)
        some = xs[: images // 250]
        ways = {"folded": lambda r: logits(folded(nets[r]), some), "plain": lambda r: logits(nets[r], some)}  # noqa: B023
        seconds, answers = alternate(ways, rounds)
        measures.append(compared(f"folded norms, {label(name, 0.5)}", seconds, answers, "folded", "plain"))
    return measures


def padded(layout: Layout, genome: np.ndarray, step: int) -> np.ndarray:
    """The genome with so many removed filters back in each group as make a multiple of ``step``, as far as there are any."""
    wide = genome.copy()
    for group in layout.groups:
        bits = wide[group.bits]
        gone = np.flatnonzero(~bits)
        bits[gone[: -int(bits.sum()) % step]] = True
        wide[group.bits] = bits
    return wide


def cut_padded(tree: nn.Module, model: nn.Module, layout: Layout, genome: np.ndarray, step: int) -> nn.Module:
    """``cut`` to widths that are multiples of ``step``: the filters that only pad are zero wherever they speak or are heard."""
    keep, wide = layout.checked(genome), layout.checked(padded(layout, genome, step))
    cut(tree, model, layout, wide)
    modules = dict(tree.named_modules(remove_duplicate=False))
    padding: dict[int, Tensor] = {}
    for owned in layout.tensors:
        module, name = owned.places[0]
        for dim, bits in owned.cuts:
            if id(bits) not in padding:
                padding[id(bits)] = torch.from_numpy(np.flatnonzero(~stays(bits, keep)[stays(bits, wide)]))
            getattr(modules[module], name).detach().index_fill_(dim, padding[id(bits)], 1.0 if name == "running_var" else 0.0)
    return tree


def rounded_to(step: int, layout: Layout, genome: np.ndarray) -> np.ndarray:
    """Each group at the nearest multiple of so many filters, never none: its first filters return, or its last ones go."""
    genome = genome.copy()
    for group in layout.groups:
        bits = genome[group.bits]  # a view
        target = min(max(step, round(bits.sum() / step) * step), group.size)
        bits[:] = bits & (np.cumsum(bits) <= target)
        bits[np.flatnonzero(~bits)[: target - bits.sum()]] = True
    return genome


def widths(rounds: int = 5, n: int = 250) -> list[dict]:
    """Odd widths as they are, against rounded ones and against zeros in the empty places; building is part of the time."""
    measures, xs = [], inputs(n)
    for name in ("resnet56", "vgg16", "densenet22"):
        model, layout = network(name)
        tree, genomes = copy.deepcopy(model), halves(layout, rounds)
        rounded = [rounded_to(8, layout, g) for g in genomes]
        ways: dict[str, Callable[[int], Tensor]] = {
            "odd": lambda r: logits(cut(tree, model, layout, layout.checked(genomes[r])), xs),  # noqa: B023
            "rounded": lambda r: logits(cut(tree, model, layout, layout.checked(rounded[r])), xs),  # noqa: B023
        } | {
            f"padded to {step}": lambda r, s=step: logits(cut_padded(tree, model, layout, genomes[r], s), xs)  # noqa: B023
            for step in (8, 16)
        }
        seconds, answers = alternate(ways, rounds)
        shares = {
            "rounded": [left(layout, g) / left(layout, h) for g, h in zip(rounded, genomes, strict=True)],
            **{f"padded to {s}": [left(layout, padded(layout, g, s)) / left(layout, g) for g in genomes] for s in (8, 16)},
        }
        for way, share in shares.items():
            what = "rounded to 8, another network" if way == "rounded" else f"{way} with zeros"
            entry = compared(f"{what}, {label(name, 0.5)}", seconds, answers, way, "odd", macs=round(statistics.mean(share), 2))
            if way == "rounded":
                entry = {k: v for k, v in entry.items() if k not in ("difference", "changed", "images")}
            measures.append(entry)
    return measures


def bfloat16(rounds: int = 2, n: int = 2000) -> list[dict]:
    """Forward passes under autocast to bfloat16, against float32."""
    measures, xs = [], inputs(n)

    def low(net: nn.Module) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return logits(net, xs)

    model, layout = network("resnet56")
    for share in (1.0, 0.5):
        # after recalibration, so that predictions are those a search counts
        fitness = Fitness(model, layout, cifar(), Search())
        net = slim(model, layout, genome_of(layout, share, 0)) if share < 1 else model
        if share < 1:
            judging.recalibrate(net, fitness.calibration_batches())
        seconds, answers = alternate({"low": lambda r: low(net), "float32": lambda r: logits(net, xs)}, rounds)  # noqa: B023
        measures.append(compared(f"bfloat16, {label('resnet56', share)}", seconds, answers, "low", "float32"))
    return measures


def modes(rounds: int = 8, n: int = 500) -> list[dict]:
    """``torch.inference_mode`` around the forward passes, against ``torch.no_grad``."""
    model, layout = network("resnet56")
    nets, xs = [slim(model, layout, g) for g in halves(layout, rounds)], inputs(n)

    def inferred(r: int) -> Tensor:
        with torch.inference_mode():
            return torch.cat([nets[r](x) for x in xs])

    seconds, answers = alternate({"inference": inferred, "no_grad": lambda r: logits(nets[r], xs)}, rounds)
    return [compared(f"inference mode, {label('resnet56', 0.5)}", seconds, answers, "inference", "no_grad")]


def allocator(rounds: int = 3, images: int = 250) -> list[dict]:
    """Memory that layers free kept by the process, against giving it back to the system, which zeroes it before it comes again."""
    runs: dict[str, list[dict]] = {"kept": [], "back": []}
    for turn in range(rounds):
        for way in list(runs)[:: 1 if turn % 2 else -1]:
            runs[way].append(fresh_search(images, way == "kept"))
    seconds, peaks = ({way: [r[what] for r in runs[way]] for way in runs} for what in ("seconds", "peak"))
    kept_, back = (np.array(runs[way][0]["errors"]) for way in runs)
    entry = measure("freed memory kept, a search of ResNet-56", ratios(seconds["kept"], seconds["back"]), "x")
    entry |= {"changed": round(float(np.abs(kept_ - back).sum()) * 2 * images), "images": 2 * images * len(back)}
    return [
        entry | {"pays": entry["median"] <= 0.9},
        measure("its largest memory", ratios(peaks["kept"], peaks["back"]), "x", pays=None),
    ]


ROWS: dict[str, Callable[[], list[dict]]] = {
    "build": build,
    "generation": generation,
    "half": half,
    "authors": authors,
    "strategy": strategy,
    "workers": two_processes,
    "memory": memory,
}
TRIED: dict[str, Callable[[], list[dict]]] = {
    "formats": formats,
    "batches": batches,
    "folding": folding,
    "widths": widths,
    "bfloat16": bfloat16,
    "modes": modes,
    "allocator": allocator,
}


# ---- results and page -----------------------------------------------------------------------------------------------------------
def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    facts = {"cpu": names[0] if names else platform.processor() or platform.machine(), "cores": os.cpu_count(), "threads": 1}
    facts |= {"instructions": torch.backends.cpu.get_cpu_capability()}
    return facts | {"python": platform.python_version(), "torch": torch.__version__.partition("+")[0]}


def run(name: str) -> dict:
    """One row, measured now."""
    load, started = os.getloadavg()[0], time.perf_counter()
    measures = {**ROWS, **TRIED}[name]()
    row = {"row": name, "measures": measures, "machine": machine(), "load": round(load, 1), "seconds": round(time.perf_counter() - started)}
    return row | ({"met": all(m.get("met", True) for m in measures)} if name in ROWS else {})


def stored() -> dict[str, list[dict]]:
    """All rows measured so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": [], "tried": []}


def kept_rows(results: dict[str, list[dict]], row: dict) -> dict[str, list[dict]]:
    """The results with a row measured anew: it takes the place of the same row on the same processor; other processors keep theirs."""
    new = {}
    for part, names in (("rows", ROWS), ("tried", TRIED)):
        known = {(processor(r), r["row"]): r for r in results[part]} | ({(processor(row), row["row"]): row} if row["row"] in names else {})
        new[part] = [known[p, n] for p in dict.fromkeys(p for p, _ in known) for n in names if (p, n) in known]
    return new


def processor(row: dict) -> str:
    """On what a row was measured."""
    m = row["machine"]
    return f"{m['cpu']}" + (f" with {m['instructions']}" if "instructions" in m else "")


def by_processor(rows: list[dict]) -> dict[str, list[dict]]:
    return {p: [r for r in rows if processor(r) == p] for p in dict.fromkeys(map(processor, rows))}


def goal(m: dict) -> str:
    if "met" not in m:
        return ""
    return f"at most {m['at_most']:g} {m['unit']}" if "at_most" in m else f"at least {m['at_least']:g} {m['unit']}"


def verdict(m: dict) -> str:
    return {True: "met", False: "**not met**", None: ""}[m.get("met")]


def number(m: dict) -> str:
    """Median and quartiles, the same number of decimals for all three."""
    decimals = max(0, 2 - int(np.floor(np.log10(m["median"])))) if m["median"] < 100 else 0
    middle = f"{m['median']:.{decimals}f} {m['unit']}"
    return middle if m["rounds"] == 1 else f"{middle} ({m['low']:.{decimals}f} to {m['high']:.{decimals}f})"


def goals(rows: list[dict]) -> str:
    """The table of what has a goal, and beside it: a column for each processor."""
    columns = {p: {m["what"]: m for r in some for m in r["measures"]} for p, some in by_processor(rows).items()}
    lines = [f"| what | goal | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    for what in dict.fromkeys(what for measured in columns.values() for what in measured):
        cells = [", ".join(filter(None, (number(m), verdict(m)))) if (m := measured.get(what)) else "" for measured in columns.values()]
        lines.append(f"| {what} | {goal(next(c[what] for c in columns.values() if what in c))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(rows: list[dict]) -> str:
    """How many goals are met on each processor, and which are not."""
    parts = []
    for p, some in by_processor(rows).items():
        judged = [m for r in some for m in r["measures"] if "met" in m]
        missed = [m["what"] for m in judged if not m["met"]]
        parts.append(
            f"On {p}, {len(judged) - len(missed)} of {len(judged)} goals are met" + (f"; not met: {'; '.join(missed)}." if missed else ".")
        )
    return " ".join(parts)


def circumstances(rows: list[dict]) -> str:
    """Machine, load and minutes of the rows of each processor."""
    parts = []
    for p, some in by_processor(rows).items():
        loads, m = [r["load"] for r in some], some[-1]["machine"]
        minutes = sum(r["seconds"] for r in some) / 60
        facts = f"{m['cores']} cores, torch {m['torch']}, load average {min(loads):g} to {max(loads):g}, its own work included"
        parts.append(f"{p}: {facts}; all rows took {minutes:.0f} minutes.")
    return " ".join(parts)


SAYS = {True: "**pays**", False: "no", None: ""}


def page(results: dict[str, list[dict]]) -> str:
    """book/speed.md."""
    tried = []
    for m in (m for r in results["tried"] for m in r["measures"]):
        macs = f"{m['macs']:.2f} x" if "macs" in m else ""
        changed = f"{m['changed']} of {m['images']:,}" if "changed" in m else ""
        difference = f"{m['difference']:.0e}" if m.get("difference") else "0" if "difference" in m else ""
        tried.append(f"| {m['what']} | {number(m)} | {SAYS[m['pays']]} | {macs} | {difference} | {changed} |")
    paying = [m["what"] for r in results["tried"] for m in r["measures"] if m["pays"]]
    replacements = {
        "GOALS": goals(results["rows"]),
        "TRIED": "\n".join(tried),
        "SUMMARY": summary(results["rows"]),
        "PAYING": f"A tenth or more is gained by: {'; '.join(paying)}." if paying else "Nothing gains a tenth.",
        "CIRCUMSTANCES": circumstances(results["rows"]),
        "ELSEWHERE": circumstances(results["tried"]),
    }
    text = TEXT
    for key, value in replacements.items():
        text = text.replace(key, value)
    return text


TEXT = """# What a search costs

**You will learn** where the time of a search goes, what each part costs, and which ways to make it faster do not.\\
**You need** {doc}`/book/filter-removal` and {doc}`/book/algorithm`.\\
**It takes** ten minutes.

Nearly all of a search is forward passes of slim networks. So the goals are: everything beside the passes is small, a network with half
the MACs takes clearly less time than the full one, and a second core is worth having. SUMMARY

GOALS

Medians, and quartiles in brackets; one thread. CIRCUMSTANCES
Things compared were measured in turn, and each ratio is formed within one turn. Seconds are those in which the processor worked for the
process; only the two worker processes were timed by the wall clock.

- **Cut**: a genome of half the MACs, `dpes.coupling.cutting.cut` into a module tree that is used again. *Torch-Pruning* is a deep copy, its
  dependency graph and the removal of the same filters; a graph belongs to one copy, so each candidate needs its own. The widths of both
  networks were compared.
- **Evaluation / bare passes**: what a search does with a genome (cut, normalise, re-estimate batch norm, count errors), for three
  generations of six genomes with .9 to .4 of the MACs, against nothing but forward passes of the same networks in evaluation mode over as
  many batches, normalised beforehand. A third of the passes re-estimate batch norm: they compute a mean and a variance in every layer,
  which bare passes do not.
- **Half / full**: the whole evaluation of random genomes of half the MACs on 125 and 250 images, against that of the unpruned network.
  Time falls less than MACs where layers are narrow: normalisation, activations and additions cost by width, not by width squared, and
  11 of 16 filters, as many as are left in ResNet-56's first stage, take as many vectors of eight numbers as all 16.
  Keeping freed memory (below) makes both faster, the unpruned network more: the ratio is nearer to one than it was without.
- **Authors' way / ours**: one candidate by the steps of the authors' later code, in single precision and without loader processes, against
  `dpes.study.fitness.Fitness` with as many images and batches of the same sizes. Theirs builds the network, reads its weights from disk,
  cuts by boolean masks, trains for three epochs on images that pass one by one through PIL, counts errors on augmented images, and
  counts MACs by hooks in a forward pass. Ours either trains as long, or re-estimates batch norm on as many images as theirs trains on.
  Both remove the same
  filters and count the same MACs. 250 training images, 500 for the errors. The lines without a goal give theirs a single epoch.
- **Ask, tell and lines**: thirty offspring of VGG-16, selection among them, and a line of `history.jsonl` for each.
- **Two processes**: `dpes.strategy.workers.processes` with two workers of one thread against one process of two threads, the same six
  genomes, ResNet-56. Starting the workers is not counted. Threads wait for each other after every layer, processes never: the busier the
  machine, the more it favours processes.
- **Peak memory**: the largest resident memory of a fresh process that evaluates the unpruned network and four candidates with
  the usual 1,000 and 2,000 images.

Four Dask workers find what one process finds: `tests/test_cluster.py` checks it.

## What was tried

Each change against the same without it, for random genomes of half the MACs (a new one each turn) or the full network. Below 1 x the
change is faster; it *pays* from a tenth upwards. Beside the time: MACs relative to those of the candidate as it is, the largest
difference of a logit, and how many predictions change (for the search: of all that its candidates made).
ELSEWHERE

| change | time: median (quartiles) | | MACs | logits | predictions |
|---|---|---|---|---|---|
TRIED

PAYING

- **Channels-last** is what every network here is evaluated in; the line compares it with torch's usual order.
- **Batch size** is compared with 250 images.
- **Folded norms**: a batch norm that directly follows a convolution becomes a part of its weights; the folding of every candidate is in
  the time. DenseNet has its norms before the convolutions, so nothing can be folded.
- **Widths**: random genomes leave odd widths. Rounding makes another network, so its outputs are not compared. Padding
  leaves the function as it is and fills each group up to a multiple with filters whose weights, norm weights and shifts are zero; they
  are multiplied all the same. Building is in the time.
- **Freed memory kept**: torch asks the C library for the memory of every layer's result and frees it again. glibc gives large freed
  pieces back to the system, which clears them page by page when they are asked for anew; large batches suffer most. So every search
  tells it to keep them (`dpes.strategy.workers.keep_freed_memory`), and all other rows are with it. Fresh processes, one small generation
  each.
- **bfloat16** rounds every product's factors to eight bits, so some predictions change.

Written by `python benchmarks/bench.py --page` from `benchmarks/results.json`.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what a search costs beside its forward passes.")
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join({**ROWS, **TRIED})}; default: those with goals")
    parser.add_argument("--tried", action="store_true", help="also those that compare what was tried; twice as long again")
    parser.add_argument("--page", action="store_true", help="only write book/speed.md from results.json")
    parser.add_argument("--one-search", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--give-back", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - {*ROWS, *TRIED}:
        print(f"bench: unknown row {min(unknown)!r}: choose from {', '.join({**ROWS, **TRIED})}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    if arguments.one_search:
        one_search(arguments.one_search, not arguments.give_back)
        return 0
    workers.keep_freed_memory()  # as in every search
    for name in [] if arguments.page else arguments.rows or [*ROWS, *(TRIED if arguments.tried else ())]:
        row = run(name)
        results = kept_rows(stored(), row)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        for m in row["measures"]:
            print(
                f"{name}: {m['what']}: {number(m)}; {goal(m)} {verdict(m).strip('*') or ('pays' if m.get('pays') else '')}".rstrip("; "),
                flush=True,
            )
    PAGE.write_text(page(stored()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
