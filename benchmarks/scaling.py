"""How long will a search take? Measures this machine, predicts with ``forecast.search_seconds``, measures again.

    python benchmarks/scaling.py          # everything, into scaling.json; some twenty minutes on one core
    python benchmarks/scaling.py --page   # book/scaling.md from scaling.json

Needs CIFAR-10, for its images only: the networks are untrained, which changes no time. Seconds of one network are those of this
process alone (one thread), so that a busy machine does not stretch them as much; seconds of several processes are the clock's.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

import forecast
import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from harness import ROOT, filled, processor_seconds, random_genome, results, rounded
from harness import page as page_of
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import nn

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

RESULTS, PAGE = results("scaling"), page_of("scaling")
RUN = "resnet56-cifar10-cpu-s0-c2bea747"
NETS = {"resnet56": "ResNet-56", "vgg16": "VGG-16", "densenet22": "DenseNet-22"}


def plain(**changes: Any) -> Settings:
    """The settings of the committed run ``RUN``: the cheapest fitness, in float32."""
    single = {"precision": None, "finetune_precision": None}
    run = {
        "population": 16,
        "generations": 8,
        "fitness": "recalibrate",
        "partial_images": None,
        "finetune_epochs": 4,
    }
    return make_settings("cpu", **single | run | changes)


GENERATION = plain(
    population=8, generations=1
)  # what is predicted and measured: the unpruned network and one generation
NAP, POPULATION = 1.0, 8  # of the processes that only sleep

# ---- nothing below was measured by us -------------------------------------------------------------------------------------------
ASSUMED: dict[str, dict[str, Any]] = {
    "training_images_per_second": {
        "value": 2470,
        "what": "images per second of training ResNet-50 on one A100 (80 GB), mixed precision",
        "source": "published by NVIDIA: DeepLearningExamples, PyTorch/Classification/ConvNets/resnet50v1.5, container 21.03",
    },
    "inference_per_training": {
        "value": round(3382 / 1200, 2),
        "what": "forward images per trained image on one V100 (16 GB), mixed precision, batches of 256: a check of the factor 3",
        "source": "the same tables: 3,382 and 1,200 images per second",
    },
    "peak_tflops": {
        "value": 312,
        "what": "dense peak of an A100 in 16 bits, in TFLOP/s",
        "source": "NVIDIA's data sheet of the A100",
    },
    "cores_per_gpu": {
        "value": 16,
        "what": "processor cores for each GPU",
        "source": "a DGX A100 has 128 cores for 8 GPUs",
    },
    "train_images": {
        "value": 1281167,
        "what": "training images of ImageNet",
        "source": "Russakovsky et al. 2015",
    },
}


# ---- measuring ------------------------------------------------------------------------------------------------------------------
@torch.no_grad()
def judge(network: nn.Module, x: torch.Tensor) -> None:
    """The mix of a candidate: one part of three re-estimates batch norm, two are judged."""
    calibration, *judged = x.split(len(x) // 3)
    judging.recalibrate(network, [calibration])
    for part in judged:
        network(part)


def step(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """A training step."""
    optimizer = train.sgd(network.train(), plain().finetune)
    F.cross_entropy(network(x), y).backward()
    optimizer.step()
    optimizer.zero_grad()


class Rates:
    """Seconds of one network, whole and cut, measured again and again between other work, so that a busy machine slows all alike."""

    def __init__(self, model: nn.Module, layout: Layout, dataset: data.Dataset):
        x, y = data.normalise(dataset.train.x[:750], dataset), dataset.train.y[:128]
        genomes = {
            "": np.ones(layout.n_bits, dtype=bool),
            "slim_": random_genome(layout, 0.85, seed=1),
        }
        self.macs = {kind: layout.macs(genome) for kind, genome in genomes.items()}
        self.work: dict[str, Callable[[], None]] = {
            "cut": lambda: cut(bench, model, layout, layout.checked(genomes["slim_"]))
        }
        bench = slim(model, layout, genomes[""])
        for kind, genome in genomes.items():
            network, trained = (
                slim(model, layout, genome).to(memory_format=torch.channels_last) for _ in range(2)
            )
            self.work[kind] = lambda network=network: judge(network, x)
            self.work[kind + "training_"] = lambda trained=trained: step(trained, x[:128], y)
        self.seconds: dict[str, list[float]] = {name: [] for name in self.work}
        for work in self.work.values():  # warms up
            work()

    def measure(self) -> None:
        for name, work in self.work.items():
            self.seconds[name].append(processor_seconds(work))

    def row(self) -> dict[str, float]:
        """MACs and MACs per second, forward and in training steps of three times as many; seconds of a cut."""
        median = {name: statistics.median(seconds) for name, seconds in self.seconds.items()}
        row: dict[str, float] = {"cut_seconds": median["cut"]}
        for kind, macs in self.macs.items():
            row[f"{kind}macs"] = macs
            row[f"{kind}macs_per_second"] = 750 * macs / median[kind]
            row[f"{kind}training_macs_per_second"] = 3 * 128 * macs / median[kind + "training_"]
        return row


def predictions(
    rates: dict,
    settings: Settings,
    train_images: int,
    macs_left: float | Sequence[float],
    **more: Any,
) -> dict:
    """By MACs alone, and with the rates of slim networks as measured."""
    known = {
        "macs_left": macs_left,
        "train_images": train_images,
        "overhead_seconds_per_candidate": rates["cut_seconds"],
    } | more
    rate = rates["macs_per_second"]
    slim_rate = rates["slim_macs_per_second"] / rate
    measured = {
        "slim_rate": slim_rate,
        "training_rate": rates["slim_training_macs_per_second"] / rate / slim_rate,
    }
    naive = {"training_rate": rates["training_macs_per_second"] / rate}
    return {
        "by_macs": forecast.search_seconds(settings, rates["macs"], rate, **known, **naive),
        "by_rates": forecast.search_seconds(settings, rates["macs"], rate, **known, **measured),
    }


def one_candidate(rates: dict, share: float) -> dict[str, float]:
    """Predicted seconds of one candidate: what a search of two generations takes more than one of one, by its population."""
    longer = plain(population=8, generations=2)
    one, two = (predictions(rates, s, 45000, share) for s in (GENERATION, longer))
    return {kind: (two[kind].searching_seconds - one[kind].searching_seconds) / 8 for kind in one}


def measure_net(name: str, dataset: data.Dataset) -> dict[str, Any]:
    """One network's rates, and a candidate and a generation of it, predicted and measured."""
    model = models.build(name, dataset.n_classes, dataset.channels).eval()
    layout = trace(model, torch.zeros(1, dataset.channels, 32, 32))
    whole = np.ones((1, layout.n_bits), dtype=bool)
    candidate = random_genome(layout, 0.7, seed=3)
    state = es.start(np.array([0.1, float(layout.macs(whole[0]))]), layout.n_bits)
    children, _ = es.ask(
        state, np.random.default_rng([0, 0]), Search(population=8), layout.group_of_bit
    )

    fitness, rates = (
        Fitness(model, layout, dataset, GENERATION.search),
        Rates(model, layout, dataset),
    )
    one, generation = [], []
    for n, genome in enumerate((*whole, *children)):
        rates.measure()
        generation.append(processor_seconds(lambda genome=genome: fitness(genome)))
        if n % 3 == 1:
            one.append(processor_seconds(lambda: fitness(candidate)))

    row: dict[str, Any] = {"net": name, **rates.row()}
    row["candidate_left"] = layout.macs(candidate) / row["macs"]
    row["generation_left"] = float(cost.costs(layout, children).mean() / row["macs"])
    row["candidate"] = one_candidate(row, row["candidate_left"]) | {
        "measured": statistics.median(one)
    }
    row["generation"] = {
        kind: p.searching_seconds
        for kind, p in predictions(row, GENERATION, 45000, row["generation_left"]).items()
    }
    row["generation"]["measured"] = sum(generation)
    return row


def measure_run(rates: dict) -> dict[str, Any]:
    """The committed run: what its settings and its candidates' MACs predict, and what it took."""
    run = open_run(ROOT / "data" / "runs" / RUN)
    whole = run.result["baseline"]["macs"]
    left = [float(g.macs.mean() / whole) for n, g in run.history.groupby("generation") if n > 0]
    solutions = tuple(run.result[role]["macs"] / whole for role in es.ROLES)
    expected = predictions(rates, run.settings, 45000, left, solutions_left=solutions)
    return {
        "run": RUN,
        "candidates": len(run.history),
        "generations": run.settings.search.generations,
        "population": run.settings.search.population,
        "epochs": run.settings.finetune.epochs,
        "macs_left": left,
        "solutions_left": solutions,
        "search": {kind: p.searching_seconds for kind, p in expected.items()}
        | {"measured": run.env["seconds"]["search"]},
        "finetuning": {kind: p.finetuning_seconds for kind, p in expected.items()}
        | {"measured": run.env["seconds"]["fine-tuning"]},
    }


def measure_start(dataset: data.Dataset) -> float:
    """Seconds by the clock until a worker process has its network and images and has answered once."""
    model = models.build("resnet56").eval()
    layout = trace(model, torch.zeros(1, 3, 32, 32))
    search = plain(fitness="none", search_images=1).search
    started = time.perf_counter()
    with processes(build, Fitness(model, layout, dataset, search).parts(), 1) as errors:
        list(errors([np.ones(layout.n_bits, dtype=bool)]))
        return time.perf_counter() - started


def measure_barrier(workers: int) -> float:
    """Seconds by the clock of a generation whose candidates only sleep."""
    with ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver")) as pool:
        list(pool.map(time.sleep, [NAP] * workers))  # the processes start
        started = time.perf_counter()
        list(pool.map(time.sleep, [NAP] * POPULATION))
        return time.perf_counter() - started


def measure_decoder() -> float:
    """How often a second one core decodes a photograph from JPEG, crops it and scales it to 224 x 224."""
    file = io.BytesIO()
    Image.fromarray(load_sample_image("china.jpg")).resize((500, 375)).save(
        file, "jpeg", quality=90
    )
    crop = torchvision.transforms.RandomResizedCrop(224)

    def work() -> None:
        for _ in range(50):
            torch.from_numpy(np.array(crop(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))))

    torch.manual_seed(0)
    return 50 / statistics.median(processor_seconds(work) for _ in range(5))


def measure_imagenet() -> dict[str, float]:
    """What is known of ResNet-50 without an ImageNet: MACs, bits, bytes, seconds to cut a candidate."""
    model = torchvision.models.resnet50(weights=None).eval()
    layout = trace(model, torch.zeros(1, 3, 224, 224))
    whole = np.ones(layout.n_bits, dtype=bool)
    sizes = {"macs": layout.macs(whole), "bits": layout.n_bits, "bytes": 4 * layout.params(whole)}
    bench, keep = slim(model, layout, whole), layout.checked(random_genome(layout, 0.85, seed=2))
    seconds = [processor_seconds(lambda: cut(bench, model, layout, keep)) for _ in range(7)]
    return sizes | {"cut_seconds": statistics.median(seconds)}


def measure() -> dict[str, Any]:
    torch.set_num_threads(1)
    dataset = data.load("cifar10")
    nets = []
    for name in NETS:
        nets.append(measure_net(name, dataset))
        print(json.dumps(rounded(nets[-1])), flush=True)
    stored = {
        "nets": nets,
        "run": measure_run(nets[0]),
        "start_seconds": measure_start(dataset),
        "bytes_per_worker": 4 * 855578 + dataset.train.x.nbytes + dataset.search.x.nbytes,
        "nap": NAP,
        "population": POPULATION,
        "barrier": [{"workers": w, "measured": measure_barrier(w)} for w in (1, 2, 3, 4)],
        "decoded_per_second": measure_decoder(),
        "imagenet": measure_imagenet(),
        "load": os.getloadavg()[1],
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    return rounded(stored)


# ---- ImageNet, estimated --------------------------------------------------------------------------------------------------------
BIG = {"generations": 8, "calibration_images": 5000, "search_images": 10000, "finetune_epochs": 30}
KINDS = {
    "recalibrated": ("recalibration on 5,000 images", {}),
    "some": (
        "one epoch on 50,000 images",
        {"fitness": "partial", "partial_epochs": 1, "partial_images": 50000},
    ),
    "all": (
        "three epochs on all images (authors' later code)",
        {"fitness": "partial", "partial_epochs": 3},
    ),
}
CLUSTERS = ((1, 30), (8, 30), (100, 30), (100, 100))  # GPUs, population


def assumed(name: str) -> Any:
    return ASSUMED[name]["value"]


def gpu_macs_per_second(stored: dict) -> float:
    """Of one GPU: what its published training throughput amounts to, three forward passes an image."""
    return 3 * stored["imagenet"]["macs"] * assumed("training_images_per_second")


def estimate(
    stored: dict,
    kind: str,
    gpus: int,
    population: int,
    cores: int | None = None,
    slim_rate: float = 1.0,
) -> forecast.SearchSeconds:
    """ResNet-50 on ImageNet: fitness and population on so many GPUs, with the MACs that the committed run's candidates had left."""
    settings = plain(population=population, **BIG, **KINDS[kind][1])
    decoded = (cores or assumed("cores_per_gpu")) * stored["decoded_per_second"]
    images = BIG["search_images"] + (BIG["calibration_images"] if kind == "recalibrated" else 0)
    memory, storage = (
        forecast.search_seconds(
            settings,
            stored["imagenet"]["macs"],
            gpu_macs_per_second(stored),
            train_images=assumed("train_images"),
            macs_left=stored["run"]["macs_left"],
            solutions_left=stored["run"]["solutions_left"],
            slim_rate=slim_rate,
            load_images_per_second=loaded,
            overhead_seconds_per_candidate=stored["imagenet"]["cut_seconds"],
            start_seconds=stored["start_seconds"],
            workers=gpus,
            finetunings_at_once=gpus,
            bytes_per_worker=stored["imagenet"]["bytes"] + images * 3 * 224 * 224,
        )
        for loaded in (float("inf"), decoded)
    )
    # images that every candidate sees again stay in memory, those of training do not
    return replace(
        memory,
        training_seconds=storage.training_seconds,
        finetuning_seconds=storage.finetuning_seconds,
    )


# ---- the page -------------------------------------------------------------------------------------------------------------------
def duration(seconds: float) -> str:
    """In the unit that a reader would use."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def off(predicted: float, measured: float) -> str:
    return f"{predicted:,.1f} ({100 * (predicted / measured - 1):+.0f} %)"


def example(stored: dict) -> str:
    """The worked example: code that a reader can paste, with this machine's numbers in it."""
    net, run = stored["nets"][0], stored["run"]
    slim_rate = net["slim_macs_per_second"] / net["macs_per_second"]
    return f"""from dpes import make_settings
from forecast import search_seconds  # in benchmarks/

settings = make_settings("cpu", population=16, generations=8, fitness="recalibrate")
for workers in (1, 2, 5, 8, 16, 32):
    s = search_seconds(
        settings, macs_per_image={net["macs"]}, macs_per_second={net["macs_per_second"] / 1e9:.1f}e9, slim_rate={slim_rate:.2f},
        macs_left={statistics.mean(run["macs_left"]):.2f}, train_images=45000, start_seconds={stored["start_seconds"]:.0f}, workers=workers,
    )
    print(f"{{workers:2}} workers: {{s.rounds:3}} rounds, {{s.searching_seconds:4.0f}} s, {{s.idle_share:3.0%}} idle")"""


def output_of(code: str) -> str:
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(code, {})
    return printed.getvalue().rstrip()


def page(stored: dict) -> str:
    """book/scaling.md."""
    rates, tables = [], []
    for net in stored["nets"]:
        full, slim_rate = (
            net["macs_per_second"],
            net["slim_macs_per_second"] / net["macs_per_second"],
        )
        rates.append(
            f"| {NETS[net['net']]} | {net['macs'] / 1e6:,.0f} | {full / net['macs']:,.0f} | {full / 1e9:.1f} | {slim_rate:.2f} | "
            f"{net['training_macs_per_second'] / full:.2f} | {1000 * net['cut_seconds']:.0f} |"
        )
        for what, left in (
            ("candidate", net["candidate_left"]),
            ("generation", net["generation_left"]),
        ):
            e = net[what]
            name = {"candidate": "one candidate", "generation": "unpruned and a generation of 8"}[
                what
            ]
            tables.append(
                f"| {NETS[net['net']]}, {name} | {100 * left:.0f} % | {off(e['by_macs'], e['measured'])} | "
                f"{off(e['by_rates'], e['measured'])} | {e['measured']:,.1f} |"
            )
    run, digest = stored["run"], stored["run"]["run"].rsplit("-", 1)[1]
    for what, name, left in (
        (
            "search",
            f"ResNet-56's run `{digest}`, search of {run['candidates']} candidates",
            statistics.mean(run["macs_left"]),
        ),
        (
            "finetuning",
            f"ResNet-56's run `{digest}`, fine-tuning, 3 x {run['epochs']} epochs",
            statistics.mean(run["solutions_left"]),
        ),
    ):
        e = run[what]
        forecasts = f"{off(e['by_macs'], e['measured'])} | {off(e['by_rates'], e['measured'])}"
        tables.append(f"| {name} | {100 * left:.0f} % | {forecasts} | {e['measured']:,.0f} |")
    barrier = [
        f"| {b['workers']} | {math.ceil(stored['population'] / b['workers'])} | "
        f"{stored['nap'] * math.ceil(stored['population'] / b['workers']):.1f} | {b['measured']:.2f} |"
        for b in stored["barrier"]
    ]
    clusters = []
    for kind, (words, _) in KINDS.items():
        for gpus, population in CLUSTERS:
            e = estimate(stored, kind, gpus, population)
            clusters.append(
                f"| {words} | {gpus} | {population} | {e.candidates} | {e.rounds} | {duration(e.searching_seconds)} | "
                f"{100 * e.idle_share:.0f} % | {duration(e.finetuning_seconds)} |"
            )
    assumptions = [f"| {a['what']} | {a['value']:,} | {a['source']} |" for a in ASSUMED.values()]
    gpu, core = gpu_macs_per_second(stored), assumed("cores_per_gpu") * stored["decoded_per_second"]
    recalibrated, everything = (
        estimate(stored, "recalibrated", 100, 30),
        estimate(stored, "all", 100, 30),
    )
    few = {
        cores: estimate(stored, "all", 100, 30, cores=cores).searching_seconds for cores in (2, 4)
    }
    naive = [
        net[what]["by_macs"] / net[what]["measured"] - 1
        for net in stored["nets"]
        for what in ("candidate", "generation")
    ]
    better = [
        net[what]["by_rates"] / net[what]["measured"] - 1
        for net in stored["nets"]
        for what in ("candidate", "generation")
    ]
    code = example(stored)
    values = {
        "RATES": "\n".join(rates),
        "TABLE": "\n".join(tables),
        "RUN": digest,
        "NAIVE": f"{100 * min(naive):+.0f} to {100 * max(naive):+.0f} %",
        "BETTER": f"{100 * min(better):+.0f} to {100 * max(better):+.0f} %",
        "BARRIER": "\n".join(barrier),
        "NAP": f"{stored['nap']:.0f}",
        "POPULATION": str(stored["population"]),
        "START": f"{stored['start_seconds']:.0f}",
        "LOAD": f"{stored['load']:.1f}",
        "CORES": str(stored["cores"]),
        "MEGABYTES": f"{stored['bytes_per_worker'] / 1e6:.0f}",
        "CODE": code,
        "OUTPUT": output_of(code),
        "ASSUMED": "\n".join(assumptions),
        "BIGMACS": f"{stored['imagenet']['macs'] / 1e6:,.0f}",
        "BITS": f"{stored['imagenet']['bits']:,}",
        "TERA": f"{gpu / 1e12:.0f}",
        "FORWARD": f"{gpu / stored['imagenet']['macs']:,.0f}",
        "USE": f"{100 * 2 * gpu / (1e12 * assumed('peak_tflops')):.0f} %",
        "CHECK": f"{assumed('inference_per_training'):.1f}",
        "DECODED": f"{stored['decoded_per_second']:,.0f}",
        "FED": f"{core:,.0f}",
        "CLUSTERS": "\n".join(clusters),
        "ONCE": duration(recalibrated.searching_seconds - recalibrated.start_seconds),
        "FINETUNING": duration(recalibrated.finetuning_seconds),
        "TOGETHER": duration(sum_of_finetunings(stored)),
        "GIGABYTES": f"{recalibrated.bytes_to_send / recalibrated.workers / 1e9:.1f}",
        "IDLE": f"{100 * everything.idle_share:.0f} %",
        "FOUR": duration(few[4]),
        "TWO": duration(few[2]),
        "SIXTEEN": duration(everything.searching_seconds),
        "HALF": duration(estimate(stored, "all", 100, 30, slim_rate=0.5).searching_seconds),
    }
    return filled("scaling", values)


def sum_of_finetunings(stored: dict) -> float:
    """Of the three solutions, if all GPUs of the largest cluster shared the work without loss."""
    return estimate(stored, "recalibrated", 1, 30).finetuning_seconds / CLUSTERS[-1][0]


def main() -> int:
    parser = argparse.ArgumentParser(description="Predict how long searches take, and measure it.")
    parser.add_argument(
        "--page", action="store_true", help="only write book/scaling.md from scaling.json"
    )
    arguments = parser.parse_args()
    if not arguments.page:
        RESULTS.write_text(json.dumps(measure(), indent=1) + "\n")
    PAGE.write_text(page(json.loads(RESULTS.read_text())))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
