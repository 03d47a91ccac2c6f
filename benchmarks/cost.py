"""What the paper's networks cost: hours on two cores from rates measured here, hours on a GPU from
its own; and the page about GPUs.

    python benchmarks/cost.py          # measure into cost.json, two minutes
    python benchmarks/cost.py --page   # book/gpu.md from cost.json and gpu.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from forecast import search_seconds
from harness import ROOT, filled, keep, machine, page, processor_seconds, rounded, stored
from torch import Tensor

from dpes import trace
from dpes.study import data, models
from dpes.study.profiles import PAPER, make_settings
from dpes.study.settings import Settings
from dpes.study.tuning import read_tuned

TRAIN, SEARCHED = 45_000, 0.6  # images of an epoch; share of the MACs that candidates keep
LABELS = {name: models.MODELS[name].about.partition(",")[0] for name in PAPER} | {
    "densenet50": "DenseNet-50"
}


# ---- a GPU ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Work:
    """Training steps and judged images of a run."""

    baseline_steps: int
    search_steps: int
    judged_images: int
    finetune_steps: int


def work_of(settings: Settings) -> Work:
    search = settings.search
    candidates = 1 + search.population * search.generations
    partial, judged = TRAIN // max(2, search.batch_size // 2), min(search.search_images, TRAIN)
    steps = {r: r.epochs * (TRAIN // r.batch_size) for r in (settings.baseline, settings.finetune)}
    return Work(
        steps[settings.baseline] if settings.weights == "train" else 0,
        candidates * search.partial_epochs * partial,
        candidates * judged,
        3 * steps[settings.finetune],
    )


def gpu_hours(rates: dict[str, Any], settings: Settings, way: str) -> dict[str, float]:
    """Hours by phase, at the images per second that training steps reached; a forward pass is taken
    for a third of a step.
    """
    work, rate = work_of(settings), rates[way]["images_per_second"]
    partial = max(2, settings.search.batch_size // 2)
    phases = {
        "baseline": work.baseline_steps * settings.baseline.batch_size,
        "search": work.search_steps * partial + work.judged_images / 3,
        "fine-tuning": work.finetune_steps * settings.finetune.batch_size,
    }
    return {name: images / rate / 3600 for name, images in phases.items()}


# ---- two cores, measured -------------------------------------------------------------------------
def measured(name: str, images: int = 50) -> dict[str, Any]:
    """MACs, and images per second on one core."""
    network = models.build(name).to(memory_format=torch.channels_last)
    layout = trace(network, torch.zeros(1, 3, 32, 32), prove=False)
    whole = np.ones(layout.n_bits, dtype=bool)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    split = data.Split(pixels, torch.arange(images) % 10)
    same = data.Dataset(
        "random", split, split, split, (0.5,) * 3, (0.25,) * 3, True, tuple("0123456789")
    )
    x = data.normalise(pixels, same)

    def step(x: Tensor = x) -> None:
        F.cross_entropy(network.train()(x), split.y[: len(x)]).backward()

    @torch.no_grad()
    def judge() -> None:
        network.eval()(x)

    rates = {}
    for what, do in (("training", step), ("forward", judge)):
        do()
        rates[what] = images / min(processor_seconds(do) for _ in range(3))
        network.zero_grad()
    return {"macs": layout.macs(whole), "images_per_second": rates}


def slim_rate(family: str) -> float:
    """MACs per second of a thinned network as a share of the whole one's, measured on one of the
    family.
    """
    nets = {models.MODELS[row["net"]].family: row for row in stored("scaling")["nets"]}
    return nets[family]["slim_macs_per_second"] / nets[family]["macs_per_second"]


def cpu_hours(row: dict[str, Any], settings: Settings) -> dict[str, float]:
    """Hours of two processes by phase, from one core's rates; candidates keep a share of the MACs."""
    rates = row["images_per_second"]
    macs_per_second = rates["forward"] * row["macs"]
    training_rate = 3 * rates["training"] / rates["forward"]
    known = {
        "macs_per_image": row["macs"],
        "macs_per_second": macs_per_second,
        "training_rate": training_rate,
    }
    seconds = search_seconds(
        settings, **known, train_images=TRAIN, macs_left=SEARCHED, solutions_left=(0.9, 0.6, 0.4),
        slim_rate=slim_rate(models.MODELS[settings.model].family), workers=2, finetunings_at_once=2,
    )  # fmt: skip
    training = settings.baseline.epochs * TRAIN / rates["training"]
    return {
        "baseline": training / 3600 if settings.weights == "train" else 0.0,
        "search": seconds.searching_seconds / 3600,
        "fine-tuning": seconds.finetuning_seconds / 3600,
    }


# ---- the page ------------------------------------------------------------------------------------
def hours(value: float) -> str:
    return f"{value / 24:,.0f} days" if value >= 72 else f"{value:,.1f} h"


def costs() -> str:
    """A row for each network: its hours on the GPU that was measured, and on two cores."""
    result, measured, nights = stored("cost"), stored("gpu")["speed"], 0.0
    lines = [
        "| network | MACs (M) | search | fine-tuning | all, with a training of its own | the same, launched by Python | two cores, all |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in PAPER:
        row, rates = result["networks"][name], measured[name]["training"]
        settings = make_settings("paper", model=name, dataset="cifar100")  # trained here, each one
        gpu, plain = (gpu_hours(rates, settings, way) for way in ("bfloat16, recorded", "bfloat16"))
        total = sum(gpu.values())
        nights += total
        lines.append(
            f"| {LABELS[name]} | {row['macs'] / 1e6:,.0f} | {hours(gpu['search'])} | {hours(gpu['fine-tuning'])} | {hours(total)} "
            f"| {hours(sum(plain.values()))} | {hours(sum(cpu_hours(row, settings).values()))} |"
        )
    lines += ["", f"All seven, on both data sets: {hours(2 * nights)} on one GPU."]
    return "\n".join(lines)


def found() -> str:
    """What ``make gpu`` has measured."""
    result = stored("gpu")
    about = result["about"]
    lines = [
        f"{about['device']}, PyTorch {about['torch']}; {result['seconds']} s in all. The largest difference of an error from the "
        "CPU's, over the genomes tried (with a little training, the images of a step are drawn on the device, so others):",
        "", "| network | fitness | cut | at full shape | in bfloat16 | twice the same |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, kinds in result["agreement"].items():
        for kind, entry in kinds.items():
            d = entry["differs_at_most"]
            cells = " | ".join(
                f"{100 * d[way]:.2f} %" for way in ("cut", "full", "bfloat16", "again")
            )
            lines.append(f"| {models.MODELS[name].about.partition(',')[0]} | `{kind}` | {cells} |")
    ways = list(dict.fromkeys(way for e in result["speed"].values() for way in e["training"]))
    lines += [
        "",
        "Training steps of 125 images, images per second; nothing is copied from the host within a step:",
        "",
        f"| network | {' | '.join(ways)} | kernels a step, bfloat16 |",
        f"|---|{'---|' * len(ways)}---|",
    ]
    for name, entry in result["speed"].items():
        rows = [entry["training"].get(way, {}) for way in ways]
        cells = [
            f"{row['images_per_second']:,.0f}" if "images_per_second" in row else "failed"
            for row in rows
        ]
        kernels = entry["training"].get("bfloat16", {}).get("kernels", "")
        lines.append(f"| {LABELS.get(name, name)} | {' | '.join(cells)} | {kernels} |")
    lines += [
        "",
        "Whole trainings in bfloat16, 128 images a step:",
        "",
        "| network | way | seconds for 100 steps | images per second, all together |",
        "|---|---|---|---|",
    ]
    for name, ways in result["trainings"].items():
        for way, epochs in ways.items():
            at_once, seconds = 6 if "six" in way else 1, statistics.median(epochs)
            lines.append(
                f"| {models.MODELS[name].about.partition(',')[0]} | {way} | {seconds:.2f} "
                f"| {at_once * 12_800 / seconds:,.0f} |"
            )
    return "\n".join(lines)


def in_sentences() -> dict[str, str]:
    """The numbers that sentences of the page name."""
    result = stored("gpu")
    speed = {name: entry["training"] for name, entry in result["speed"].items()}
    one, tuned, spread = speed["resnet56"], result["trainings"]["resnet56"], result["spread"]
    plain, recorded, six = (
        statistics.median(tuned[way]) for way in ("plain", "recorded", "recorded, six at once")
    )

    def apart(rows: dict[str, Any], way: str) -> float:
        """Microseconds from one kernel to the next."""
        return 1e6 * 125 / rows[way]["images_per_second"] / rows[way]["kernels"]

    more = [rows["bfloat16"]["kernels"] / rows["float32"]["kernels"] for rows in speed.values()]
    waits = [apart(rows, "bfloat16, recorded") for rows in speed.values()]
    gpu, cpu = long_trainings()
    alone, both = (seconds for _, seconds in sorted(spread["seconds"].items()))
    return {
        "FASTER": f"{plain / recorded:.1f}",
        "MORE": f"{min(more):.1f} to {max(more):.1f}",
        "WAITS": f"{min(waits):.0f} to {max(waits):.0f}",
        "SIX": f"{six / recorded:.1f}",
        "BOTH": f"{100 * both / alone:.0f}",
        "KERNELS": f"{one['bfloat16']['kernels']:,}",
        "PLAIN": f"{one['bfloat16']['images_per_second']:,.0f}",
        "RECORDED": f"{one['bfloat16, recorded']['images_per_second']:,.0f}",
        "PLAIN_US": f"{apart(one, 'bfloat16'):.0f}",
        "RECORDED_US": f"{apart(one, 'bfloat16, recorded'):.0f}",
        "LONG": str(len(gpu)),
        "LONG_SECONDS": f"{min(gpu):.0f} to {max(gpu):.0f}",
        "LONG_HALF": f"{statistics.mean(gpu) / 2:.0f}",
        "LONG_MINUTES": f"{min(cpu) / 60:.0f}",
    }


def long_trainings() -> tuple[list[float], list[float]]:
    """Seconds of the ResNet-56 that were trained long at half of the MACs, on a GPU and on a core."""
    entries = read_tuned(ROOT / "data" / "arena" / "resnet56", long=True)
    half = [entry for entry in entries if entry["share"] == 0.5]
    gpu = [entry["seconds"] for entry in half if "device" in entry]
    return gpu, [entry["seconds"] for entry in half if "device" not in entry]


def write() -> None:
    values = {"COSTS": costs(), "FOUND": found(), "LEFT": f"{100 * SEARCHED:.0f}"}
    values |= {"CPU": stored("cost")["machine"]["cpu"]} | in_sentences()
    page("gpu").write_text(filled("gpu", values))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--page", action="store_true", help="only the page")
    if not parser.parse_args().page:
        torch.set_num_threads(1)
        keep(
            "cost",
            rounded({"machine": machine(), "networks": {name: measured(name) for name in PAPER}}),
        )
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
