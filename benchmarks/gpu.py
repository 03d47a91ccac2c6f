"""Four minutes on a GPU: does it compute what the CPU does, what is launched and copied, how fast.

    python benchmarks/gpu.py               # on cuda, into gpu.json
    python benchmarks/cost.py --page       # then book/gpu.md from it

Needs no data but the digits: networks for other images are untrained and see random ones, which
changes no time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from harness import genome_of, keep, machine, rounded
from torch import nn
from torch.profiler import ProfilerActivity, profile

from dpes import trace
from dpes.coupling.layout import Layout
from dpes.errors import DpesError
from dpes.strategy.workers import processes, serial
from dpes.study import data, devices, models, train
from dpes.study.environment import check_device
from dpes.study.fitness import Fitness, build
from dpes.study.profiles import PAPER, make_settings
from dpes.study.settings import Training

TRAINED = ("vgg-narrow", "resnet20", "densenet16")  # on digits, in the repository
TUNED = ("resnet20", "resnet56")  # of which whole trainings are timed, too
BATCH = 125  # images of a step of partial training in the profile paper


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], Any], device: str, rounds: int) -> float:
    """Of one round, after two that warm up."""
    for turn in range(rounds + 2):
        if turn == 2:
            wait(device)
            started = time.perf_counter()
        work()
    wait(device)
    return (time.perf_counter() - started) / rounds


# ---- right? --------------------------------------------------------------------------------------
def on_digits(name: str, device: str, **changes: Any) -> Fitness:
    """The fitness of the quick study, with the trained network."""
    digits = data.load("digits")
    network = models.load_weights(name, "digits", channels=1)
    layout = trace(network, torch.zeros(1, 1, 32, 32), prove=False)
    search = make_settings("quick", model=name, **changes).search
    return Fitness(network, layout, digits, search, 0, device)


def agreement(name: str, device: str, n: int) -> dict[str, Any]:
    """Errors of the same genomes on the CPU and on the device, cut and at full shape, and twice."""
    training = {
        "fitness": "partial-recalibrate",
        "partial_epochs": 1,
        "partial_images": 250,
        "partial_lr": 0.01,
    }
    ways = {
        "cpu": ("cpu", {}), "cut": (device, {}), "again": (device, {}), "full": (device, {"shape": "full"}),
        "bfloat16": (device, {"precision": "bfloat16"}),
    }  # fmt: skip
    found = {}
    for kind, changes in (("recalibrate", {}), ("partial", training)):
        errors = {}
        for way, (place, more) in ways.items():
            fitness = on_digits(name, place, **changes, **more)
            genomes = [
                genome_of(fitness.layout, share, k)
                for k, share in enumerate(np.linspace(0.9, 0.4, n))
            ]
            errors[way] = list(serial(fitness, genomes))
        worst = {
            way: float(
                np.max(np.abs(np.subtract(errors[way], errors["cut" if way == "again" else "cpu"])))
            )
            for way in list(ways)[1:]
        }
        found[kind] = {"cpu": errors["cpu"], "differs_at_most": worst}
    return found


# ---- how fast? -----------------------------------------------------------------------------------
class Steps:
    """Training steps of a network on random images, as all trainings take them."""

    def __init__(self, name: str, device: str, precision: str | None, recorded: bool, batch: int):
        network = models.build(name).to(device).train()
        pixels = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8, device=device)
        split = data.Split(pixels, torch.arange(batch, device=device) % 10)
        scale = ((0.5,) * 3, (0.25,) * 3)
        images = data.Dataset("random", split, split, split, *scale, True, tuple("0123456789"))
        recipe = Training(epochs=1, lr=1e-3, batch_size=batch, precision=precision)
        self.course = train.Course.begun(network, images, recipe, 0)
        if recorded:
            self.course.record()

    def __call__(self) -> None:
        for x, y in self.course.prepared(0):
            (self.course.recorded or self.course.plain)(x, y)


WAYS: dict[str, tuple[str | None, bool]] = {
    "float32": (None, False),
    "bfloat16": ("bfloat16", False),
    "float32, recorded": (None, True),
    "bfloat16, recorded": ("bfloat16", True),
}


def speed(name: str, device: str, rounds: int, batch: int = BATCH) -> dict[str, Any]:
    """Images a second in training, and what a step launches and copies from the host."""
    rows = {}
    for way, (precision, recorded) in WAYS.items():
        try:
            step = Steps(name, device, precision, recorded, batch)
            each = seconds(step, device, rounds)
            rows[way] = {"images_per_second": batch / each, **launched(step, device)}
        except RuntimeError as error:  # one way that fails tells nothing of the others
            rows[way] = {"failed": str(error).splitlines()[0]}
    network: nn.Module = models.build(name)
    layout: Layout = trace(network, torch.zeros(1, 3, 32, 32), prove=False)
    values = layout.activations(np.ones(layout.n_bits, dtype=bool))
    return {"training": rows, "evaluation_batch": devices.images_at_once(device, values, 250)}


def training(
    name: str, device: str, recorded: bool, epochs: int = 2, n: int = 12_800
) -> list[dict[str, Any]]:
    """The epochs of a fine-tuning on n random images, so a hundred steps each: losses, seconds."""
    pixels = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8)
    split = data.Split(pixels, torch.arange(len(pixels)) % 10)
    scale = ((0.5,) * 3, (0.25,) * 3)
    images = data.Dataset("random", split, split, split, *scale, True, tuple("0123456789"))
    recipe = Training(epochs=epochs, lr=0.01, precision="bfloat16")
    course = train.Course.begun(models.build(name).to(device), images.to(device), recipe, 0)
    if recorded:
        course.record()
    return course.run([])


def at_once(name: str, device: str, n: int, *size: int) -> list[float]:
    """Seconds of the epochs of one of n such trainings in processes beside each other, without the
    first epoch. size: epochs and images.
    """
    with get_context("spawn").Pool(n) as pool:
        logs = pool.starmap(training, [(name, device, True, *(size or (5,)))] * n)
    return [entry["seconds"] for entry in logs[0][1:]]


def launched(step: Steps, device: str) -> dict[str, int]:
    """Kernels, launches by the CPU and copies from the host within a step; none known on a CPU."""
    if not device.startswith("cuda"):
        return {}
    wait(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        step()
        wait(device)
    names = [event.name for event in seen.events()]
    on_device = [e.name for e in seen.events() if "cuda" in str(e.device_type).lower()]
    return {
        "kernels": sum(not name.startswith(("Memcpy", "Memset")) for name in on_device),
        "launches": sum(
            n.startswith(("cudaLaunchKernel", "cudaGraphLaunch", "cuLaunchKernel")) for n in names
        ),
        "copies_from_host": sum("HtoD" in name for name in on_device),
    }


def spread(device: str, n: int) -> dict[str, Any]:
    """Seconds of a generation in one process and in two for each GPU, and whether errors agree."""
    fitness = on_digits("resnet20", device)
    genomes = [genome_of(fitness.layout, 0.6, seed) for seed in range(n)]
    found: dict[str, Any] = {"gpus": torch.cuda.device_count(), "seconds": {}}
    started = time.perf_counter()
    alone = list(serial(fitness, genomes))
    found["seconds"]["1"] = time.perf_counter() - started
    workers = 2 * max(1, torch.cuda.device_count())
    with processes(build, fitness.parts(), workers) as compute:
        list(compute(genomes[:workers]))  # all are ready
        started = time.perf_counter()
        together = list(compute(genomes))
        found["seconds"][str(workers)] = time.perf_counter() - started
    return found | {"differs_at_most": float(np.max(np.abs(np.subtract(alone, together))))}


def about(device: str) -> dict[str, Any]:
    if not device.startswith("cuda"):
        return machine() | {"device": "cpu"}
    properties = torch.cuda.get_device_properties(device)
    return machine() | {
        "device": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
    }


def measured(device: str, networks: Sequence[str], rounds: int, genomes: int) -> dict[str, Any]:
    """All of it, a line for each part as it ends."""
    started, result = time.perf_counter(), {"about": about(device)}
    result |= {"agreement": {}, "speed": {}, "trainings": {}, "losses": {}}

    def say(what: str) -> None:
        print(f"{time.perf_counter() - started:5.0f} s  {what}", flush=True)

    for name in TRAINED:
        result["agreement"][name] = agreement(name, device, genomes)
        say(f"errors of {name}")
    for name in networks:
        result["speed"][name] = speed(name, device, rounds)
        say(f"speed of {name}")
    for name in TUNED:
        plain, recorded = (training(name, device, way) for way in (False, True))
        seconds = {"plain": plain, "recorded": recorded}
        result["trainings"][name] = {
            way: [entry["seconds"] for entry in log] for way, log in seconds.items()
        } | {"recorded, six at once": at_once(name, device, 6)}
        pairs = zip(plain, recorded, strict=True)
        result["losses"][name] = [[a["loss"], b["loss"]] for a, b in pairs]
        say(f"trainings of {name}")
    result["spread"] = spread(device, 2 * genomes)
    say("processes")
    return result | {"seconds": round(time.perf_counter() - started)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda or cuda:1 (default: cuda)")
    parser.add_argument("--rounds", type=int, default=50, help="steps that are timed (default: 50)")
    given = parser.parse_args(argv)
    try:
        check_device(given.device)
        keep("gpu", rounded(measured(given.device, PAPER, given.rounds, genomes=8)))
    except DpesError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2
    print(
        "benchmarks/gpu.json is written: commit it, and its page, by python benchmarks/cost.py --page"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
