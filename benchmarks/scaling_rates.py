"""Measures how fast networks are judged, trained and cut here, and how far forecasts from that are
off.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from forecast import SearchSeconds, search_seconds
from harness import ROOT, cifar, everything, processor_seconds, random_genome, rounded
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from dpes import open_run, slim, trace
from dpes.coupling import cost
from dpes.coupling.cutting import cut
from dpes.coupling.layout import Layout
from dpes.strategy import es, judging
from dpes.strategy.settings import Search
from dpes.strategy.workers import processes
from dpes.study import data, models, train
from dpes.study.fitness import Fitness, build
from dpes.study.profiles import make_settings
from dpes.study.settings import Settings

RUN = "resnet56-cifar10-cpu-s0-c2bea747"
NETS = {"resnet56": "ResNet-56", "vgg16": "VGG-16", "densenet22": "DenseNet-22"}
NAP, POPULATION = 1.0, 8  # of the processes that only sleep
TRAIN = 45_000  # images of an epoch


def plain(**changes: Any) -> Settings:
    """The settings of the committed run ``RUN``: the cheapest fitness, in float32."""
    given = {
        "precision": None, "finetune_precision": None, "population": 16, "generations": 8,
        "fitness": "recalibrate", "partial_images": None, "finetune_epochs": 4,
    }  # fmt: skip
    return make_settings("cpu", **given | changes)


# what is predicted and measured: the unpruned network and one generation
GENERATION = plain(population=8, generations=1)


# ---- one network ----------------------------------------------------------------------------------
@torch.no_grad()
def judge(network: nn.Module, x: Tensor) -> None:
    """The mix of a candidate: one part of three re-estimates batch norm, two are judged."""
    calibration, *judged = x.split(len(x) // 3)
    judging.recalibrate(network, [calibration])
    for part in judged:
        network(part)


def step(network: nn.Module, x: Tensor, y: Tensor) -> None:
    """A training step."""
    optimizer = train.sgd(network.train(), plain().finetune)
    F.cross_entropy(network(x), y).backward()
    optimizer.step()
    optimizer.zero_grad()


class Rates:
    """Seconds of one network, whole and cut, measured again and again between other work, so that a
    busy machine slows all alike.
    """

    def __init__(self, model: nn.Module, layout: Layout):
        x, y = data.normalise(cifar().train.x[:750], cifar()), cifar().train.y[:128]
        genomes = {"": everything(layout), "slim_": random_genome(layout, 0.85, seed=1)}
        bench, keep = slim(model, layout, genomes[""]), layout.checked(genomes["slim_"])
        self.macs = {kind: layout.macs(genome) for kind, genome in genomes.items()}
        self.work: dict[str, Callable[[], Any]] = {"cut": lambda: cut(bench, model, layout, keep)}
        for kind, genome in genomes.items():
            judged, trained = (
                slim(model, layout, genome).to(memory_format=torch.channels_last) for _ in range(2)
            )
            self.work[kind] = lambda network=judged: judge(network, x)
            self.work[kind + "training_"] = lambda network=trained: step(network, x[:128], y)
        self.seconds: dict[str, list[float]] = {name: [] for name in self.work}
        for work in self.work.values():  # warms up
            work()

    def measure(self) -> None:
        for name, work in self.work.items():
            self.seconds[name].append(processor_seconds(work))

    def row(self) -> dict[str, float]:
        """MACs and MACs per second, forward and in training steps of three times as many; seconds
        of a cut.
        """
        median = {name: statistics.median(seconds) for name, seconds in self.seconds.items()}
        row: dict[str, float] = {"cut_seconds": median["cut"]}
        for kind, macs in self.macs.items():
            row[f"{kind}macs"] = macs
            row[f"{kind}macs_per_second"] = 750 * macs / median[kind]
            row[f"{kind}training_macs_per_second"] = 3 * 128 * macs / median[kind + "training_"]
        return row


def predictions(
    rates: dict, settings: Settings, macs_left: float | Sequence[float], **more: Any
) -> dict[str, SearchSeconds]:
    """By MACs alone, and with the rates of slim networks as measured."""
    rate, slim_rate = rates["macs_per_second"], rates["slim_macs_per_second"]
    known: dict[str, Any] = more | {
        "macs_per_image": rates["macs"], "macs_per_second": rate, "train_images": TRAIN,
        "macs_left": macs_left, "overhead_seconds_per_candidate": rates["cut_seconds"],
    }  # fmt: skip
    ways = {
        "by_macs": {"training_rate": rates["training_macs_per_second"] / rate},
        "by_rates": {"slim_rate": slim_rate / rate, "training_rate": rates["slim_training_macs_per_second"] / slim_rate},
    }  # fmt: skip
    return {way: search_seconds(settings, **known, **told) for way, told in ways.items()}


def one_candidate(rates: dict, share: float) -> dict[str, float]:
    """Seconds of one candidate: what a second generation adds to a search, by its population."""
    longer = plain(population=8, generations=2)
    one, two = (predictions(rates, s, share) for s in (GENERATION, longer))
    return {way: (two[way].searching_seconds - one[way].searching_seconds) / 8 for way in one}


def measure_net(name: str) -> dict[str, Any]:
    """One network's rates, and a candidate and a generation of it, predicted and measured."""
    model = models.build(name).eval()
    layout = trace(model, torch.zeros(1, 3, 32, 32))
    whole, candidate = everything(layout), random_genome(layout, 0.7, seed=3)
    state = es.start(np.array([0.1, float(layout.macs(whole))]), layout.n_bits)
    draws, search = np.random.default_rng([0, 0]), Search(population=8)
    children, _ = es.ask(state, draws, search, layout.group_of_bit)
    fitness, rates = Fitness(model, layout, cifar(), GENERATION.search), Rates(model, layout)
    one, generation = [], []
    for n, genome in enumerate((whole, *children)):
        rates.measure()
        generation.append(processor_seconds(lambda genome=genome: fitness(genome)))
        if n % 3 == 1:
            one.append(processor_seconds(lambda: fitness(candidate)))
    row: dict[str, Any] = {"net": name, **rates.row()}
    row["candidate_left"] = layout.macs(candidate) / row["macs"]
    row["generation_left"] = float(cost.costs(layout, children).mean() / row["macs"])
    expected = predictions(row, GENERATION, row["generation_left"])
    row["candidate"] = one_candidate(row, row["candidate_left"])
    row["generation"] = {way: p.searching_seconds for way, p in expected.items()}
    row["candidate"]["measured"] = statistics.median(one)
    row["generation"]["measured"] = sum(generation)
    return row


# ---- a run, processes, photographs ----------------------------------------------------------------
def measure_run(rates: dict) -> dict[str, Any]:
    """The committed run: what its settings and its candidates' MACs predict, and what it took."""
    run = open_run(ROOT / "data" / "runs" / RUN)
    whole, search, seconds = run.result["baseline"]["macs"], run.settings.search, run.env["seconds"]
    left = [float(g.macs.mean() / whole) for n, g in run.history.groupby("generation") if n > 0]
    solutions = tuple(run.result[role]["macs"] / whole for role in es.ROLES)
    expected = predictions(rates, run.settings, left, solutions_left=solutions)
    searched = {way: p.searching_seconds for way, p in expected.items()}
    finetuned = {way: p.finetuning_seconds for way, p in expected.items()}
    return {
        "run": RUN,
        "candidates": len(run.history),
        "generations": search.generations,
        "population": search.population,
        "epochs": run.settings.finetune.epochs,
        "macs_left": left,
        "solutions_left": solutions,
        "search": searched | {"measured": seconds["search"]},
        "finetuning": finetuned | {"measured": seconds["fine-tuning"]},
    }


def measure_start() -> float:
    """Seconds by the clock until a worker process has its network and images and has answered."""
    model = models.build("resnet56").eval()
    layout = trace(model, torch.zeros(1, 3, 32, 32))
    fitness = Fitness(model, layout, cifar(), plain(fitness="none", search_images=1).search)
    started = time.perf_counter()
    with processes(build, fitness.parts(), 1) as errors:
        list(errors([everything(layout)]))
        return time.perf_counter() - started


def measure_barrier(workers: int) -> float:
    """Seconds by the clock of a generation whose candidates only sleep."""
    with ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver")) as pool:
        list(pool.map(time.sleep, [NAP] * workers))  # the processes start
        started = time.perf_counter()
        list(pool.map(time.sleep, [NAP] * POPULATION))
        return time.perf_counter() - started


def measure_decoder() -> float:
    """How often a second one core decodes, crops and scales a photograph to 224 x 224."""
    file, crop = io.BytesIO(), torchvision.transforms.RandomResizedCrop(224)
    photograph = Image.fromarray(load_sample_image("china.jpg")).resize((500, 375))
    photograph.save(file, "jpeg", quality=90)

    def work() -> None:
        for _ in range(50):
            torch.from_numpy(np.array(crop(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))))

    torch.manual_seed(0)
    return 50 / statistics.median(processor_seconds(work) for _ in range(5))


def measure_imagenet() -> dict[str, float]:
    """What is known of ResNet-50 without an ImageNet: MACs, bits, bytes, seconds of a cut."""
    model = torchvision.models.resnet50(weights=None).eval()
    layout = trace(model, torch.zeros(1, 3, 224, 224))
    whole = everything(layout)
    sizes = {"macs": layout.macs(whole), "bits": layout.n_bits, "bytes": 4 * layout.params(whole)}
    bench, keep = slim(model, layout, whole), layout.checked(random_genome(layout, 0.85, seed=2))
    seconds = [processor_seconds(lambda: cut(bench, model, layout, keep)) for _ in range(7)]
    return sizes | {"cut_seconds": statistics.median(seconds)}


def measure() -> dict[str, Any]:
    nets = []
    for name in NETS:
        nets.append(measure_net(name))
        print(rounded(nets[-1]), flush=True)
    images = cifar().train.x.nbytes + cifar().search.x.nbytes
    return {
        "nets": nets,
        "run": measure_run(nets[0]),
        "start_seconds": measure_start(),
        "bytes_per_worker": 4 * 855578 + images,
        "nap": NAP,
        "population": POPULATION,
        "barrier": [{"workers": w, "measured": measure_barrier(w)} for w in (1, 2, 3, 4)],
        "decoded_per_second": measure_decoder(),
        "imagenet": measure_imagenet(),
        "load": os.getloadavg()[1],
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
