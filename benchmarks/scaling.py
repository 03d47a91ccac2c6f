"""How long will a search take? Measures this machine, predicts with ``forecast``, measures again.

    python benchmarks/scaling.py          # everything, into scaling.json; some twenty minutes on one core
    python benchmarks/scaling.py --page   # book/scaling.md from scaling.json

Needs CIFAR-10, for its images only: the networks are untrained, which changes no time. Seconds of one
network are those of this process alone (one thread), so that a busy machine does not stretch them as
much; seconds of several processes are the clock's.
"""

from __future__ import annotations

import io
import math
import statistics
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

import scaling_rates
from forecast import SearchSeconds, search_seconds
from harness import benchmark, filled, percent, table
from scaling_rates import NETS, plain

# name -> (value, what it is, its source); nothing of this was measured by us
ASSUMED: dict[str, tuple[Any, str, str]] = {
    "training_images_per_second": (2470, "images per second of training ResNet-50 on one A100 (80 GB), mixed precision", "published by NVIDIA: DeepLearningExamples, PyTorch/Classification/ConvNets/resnet50v1.5, container 21.03"),
    "inference_per_training": (round(3382 / 1200, 2), "forward images per trained image on one V100 (16 GB), mixed precision, batches of 256: a check of the factor 3", "the same tables: 3,382 and 1,200 images per second"),
    "peak_tflops": (312, "dense peak of an A100 in 16 bits, in TFLOP/s", "NVIDIA's data sheet of the A100"),
    "cores_per_gpu": (16, "processor cores for each GPU", "a DGX A100 has 128 cores for 8 GPUs"),
    "train_images": (1281167, "training images of ImageNet", "Russakovsky et al. 2015"),
}  # fmt: skip
BIG = {"generations": 8, "calibration_images": 5000, "search_images": 10000, "finetune_epochs": 30}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "recalibrated": ("recalibration on 5,000 images", {}),
    "some": ("one epoch on 50,000 images", {"fitness": "partial", "partial_epochs": 1, "partial_images": 50000}),
    "all": ("three epochs on all images (authors' later code)", {"fitness": "partial", "partial_epochs": 3}),
}  # fmt: skip
CLUSTERS = ((1, 30), (8, 30), (100, 30), (100, 100))  # GPUs, population


def assumed(name: str) -> Any:
    return ASSUMED[name][0]


# ---- ImageNet, estimated --------------------------------------------------------------------------
def gpu_macs_per_second(found: dict) -> float:
    """Of one GPU: what its published training throughput amounts to, three forward passes an image."""
    return 3 * found["imagenet"]["macs"] * assumed("training_images_per_second")


def bytes_of_worker(found: dict, kind: str) -> int:
    """Network, and the images that every candidate sees again, in memory."""
    images = BIG["search_images"] + (BIG["calibration_images"] if kind == "recalibrated" else 0)
    return found["imagenet"]["bytes"] + images * 3 * 224 * 224


def estimate(
    found: dict, kind: str, gpus: int, population: int, cores: int = 0, slim_rate: float = 1.0
) -> SearchSeconds:
    """ResNet-50 on ImageNet: fitness and population on so many GPUs, with the MACs that the
    committed run's candidates had left. cores: of each GPU, as assumed if none are given.
    """
    known = {
        "macs_per_image": found["imagenet"]["macs"],
        "macs_per_second": gpu_macs_per_second(found),
        "train_images": assumed("train_images"),
        "macs_left": found["run"]["macs_left"],
        "solutions_left": found["run"]["solutions_left"],
        "overhead_seconds_per_candidate": found["imagenet"]["cut_seconds"],
        "start_seconds": found["start_seconds"],
        "slim_rate": slim_rate,
        "workers": gpus,
        "finetunings_at_once": gpus,
    }
    settings = plain(population=population, **BIG, **KINDS[kind][1])
    decoded = (cores or assumed("cores_per_gpu")) * found["decoded_per_second"]
    memory = search_seconds(settings, **known)
    storage = search_seconds(settings, **known, load_images_per_second=decoded)
    # images that every candidate sees again stay in memory, those of training do not
    loaded = storage.training_seconds, storage.finetuning_seconds
    return replace(memory, training_seconds=loaded[0], finetuning_seconds=loaded[1])


def sum_of_finetunings(found: dict) -> float:
    """Of the three solutions, if all GPUs of the largest cluster shared the work without loss."""
    return estimate(found, "recalibrated", 1, 30).finetuning_seconds / CLUSTERS[-1][0]


# ---- the page -------------------------------------------------------------------------------------
def duration(seconds: float) -> str:
    """In the unit that a reader would use."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def off(entry: dict, way: str) -> str:
    """A forecast, and how far it is off."""
    return f"{entry[way]:,.1f} ({100 * (entry[way] / entry['measured'] - 1):+.0f} %)"


def example(found: dict) -> str:
    """The worked example: code that a reader can paste, with this machine's numbers in it."""
    net, run = found["nets"][0], found["run"]
    slim_rate = net["slim_macs_per_second"] / net["macs_per_second"]
    return f"""from dpes import make_settings
from forecast import search_seconds  # in benchmarks/

settings = make_settings("cpu", population=16, generations=8, fitness="recalibrate")
for workers in (1, 2, 5, 8, 16, 32):
    s = search_seconds(
        settings, macs_per_image={net["macs"]}, macs_per_second={net["macs_per_second"] / 1e9:.1f}e9, slim_rate={slim_rate:.2f},
        macs_left={statistics.mean(run["macs_left"]):.2f}, train_images=45000, start_seconds={found["start_seconds"]:.0f}, workers=workers,
    )
    print(f"{{workers:2}} workers: {{s.rounds:3}} rounds, {{s.searching_seconds:4.0f}} s, {{s.idle_share:3.0%}} idle")"""


def output_of(code: str) -> str:
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(code, {})
    return printed.getvalue().rstrip()


def rate_rows(found: dict) -> Iterable[tuple]:
    for net in found["nets"]:
        full, name = net["macs_per_second"], NETS[net["net"]]
        rate = f"{full / net['macs']:,.0f}", f"{full / 1e9:.1f}"
        slim = f"{net['slim_macs_per_second'] / full:.2f}"
        training = f"{net['training_macs_per_second'] / full:.2f}"
        yield (
            name,
            f"{net['macs'] / 1e6:,.0f}",
            *rate,
            slim,
            training,
            f"{1000 * net['cut_seconds']:.0f}",
        )


def forecast_rows(found: dict) -> Iterable[tuple]:
    """What was predicted and measured: two rows for each network, two of the committed run."""
    for net in found["nets"]:
        for what, words in (("candidate", "one candidate"), ("generation", "unpruned and a generation of 8")):  # fmt: skip
            e = net[what]
            ways = off(e, "by_macs"), off(e, "by_rates"), f"{e['measured']:,.1f}"
            yield f"{NETS[net['net']]}, {words}", percent(net[f"{what}_left"]), *ways
    run, name = found["run"], f"ResNet-56's run `{digest(found)}`"
    searched = f"{name}, search of {run['candidates']} candidates", run["macs_left"], run["search"]
    tuned = (
        f"{name}, fine-tuning, 3 x {run['epochs']} epochs",
        run["solutions_left"],
        run["finetuning"],
    )
    for words, left, e in (searched, tuned):
        ways = off(e, "by_macs"), off(e, "by_rates"), f"{e['measured']:,.0f}"
        yield words, percent(statistics.mean(left)), *ways


def barrier_rows(found: dict) -> Iterable[tuple]:
    for b in found["barrier"]:
        rounds = math.ceil(found["population"] / b["workers"])
        yield b["workers"], rounds, f"{found['nap'] * rounds:.1f}", f"{b['measured']:.2f}"


def cluster_rows(found: dict) -> Iterable[tuple]:
    for kind, (words, _) in KINDS.items():
        for gpus, population in CLUSTERS:
            e = estimate(found, kind, gpus, population)
            seconds = duration(e.searching_seconds), percent(e.idle_share), duration(e.finetuning_seconds)  # fmt: skip
            yield words, gpus, population, e.candidates, e.rounds, *seconds


def digest(found: dict) -> str:
    return found["run"]["run"].rsplit("-", 1)[1]


def least_and_most(found: dict, way: str) -> str:
    """How far the forecasts of networks are off."""
    entries = [net[what] for net in found["nets"] for what in ("candidate", "generation")]
    offs = [100 * (e[way] / e["measured"] - 1) for e in entries]
    return f"{min(offs):+.0f} to {max(offs):+.0f} %"


def here(found: dict) -> dict[str, str]:
    """What was measured."""
    code = example(found)
    return {
        "RATES": table(rate_rows(found)),
        "TABLE": table(forecast_rows(found)),
        "RUN": digest(found),
        "NAIVE": least_and_most(found, "by_macs"),
        "BETTER": least_and_most(found, "by_rates"),
        "BARRIER": table(barrier_rows(found)),
        "NAP": f"{found['nap']:.0f}",
        "POPULATION": str(found["population"]),
        "START": f"{found['start_seconds']:.0f}",
        "LOAD": f"{found['load']:.1f}",
        "CORES": str(found["cores"]),
        "MEGABYTES": f"{found['bytes_per_worker'] / 1e6:.0f}",
        "CODE": code,
        "OUTPUT": output_of(code),
    }


def elsewhere(found: dict) -> dict[str, str]:
    """What follows for ImageNet."""
    big, gpu, decoded = found["imagenet"], gpu_macs_per_second(found), found["decoded_per_second"]
    recalibrated, trained = (estimate(found, kind, 100, 30) for kind in ("recalibrated", "all"))

    def search(**changes: Any) -> str:
        return duration(estimate(found, "all", 100, 30, **changes).searching_seconds)

    return {
        "ASSUMED": table((what, f"{value:,}", source) for value, what, source in ASSUMED.values()),
        "BIGMACS": f"{big['macs'] / 1e6:,.0f}",
        "BITS": f"{big['bits']:,}",
        "TERA": f"{gpu / 1e12:.0f}",
        "FORWARD": f"{gpu / big['macs']:,.0f}",
        "USE": percent(2 * gpu / (1e12 * assumed("peak_tflops"))),
        "CHECK": f"{assumed('inference_per_training'):.1f}",
        "DECODED": f"{decoded:,.0f}",
        "FED": f"{assumed('cores_per_gpu') * decoded:,.0f}",
        "CLUSTERS": table(cluster_rows(found)),
        "ONCE": duration(recalibrated.searching_seconds - recalibrated.start_seconds),
        "FINETUNING": duration(recalibrated.finetuning_seconds),
        "TOGETHER": duration(sum_of_finetunings(found)),
        "GIGABYTES": f"{bytes_of_worker(found, 'recalibrated') / 1e9:.1f}",
        "IDLE": percent(trained.idle_share),
        "FOUR": search(cores=4),
        "TWO": search(cores=2),
        "SIXTEEN": duration(trained.searching_seconds),
        "HALF": search(slim_rate=0.5),
    }


def text(found: dict) -> str:
    """book/scaling.md."""
    return filled("scaling", here(found) | elsewhere(found))


if __name__ == "__main__":
    sys.exit(benchmark("scaling", scaling_rates.measure, text))
