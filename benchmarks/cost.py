"""What the paper's networks cost: hours on two cores from rates measured here, hours on a GPU by a
model; and the page about GPUs.

    python benchmarks/cost.py          # measure into cost.json, two minutes
    python benchmarks/cost.py --page   # book/gpu.md from cost.json and, if there is one, gpu.json
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from forecast import search_seconds
from harness import filled, keep, machine, page, processor_seconds, rounded, stored
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dpes import trace
from dpes.study import data, models
from dpes.study.profiles import PAPER, make_settings
from dpes.study.settings import Settings

TRAIN, SEARCHED = 45_000, 0.6  # images of an epoch; share of the MACs that candidates keep
LABELS = {name: models.MODELS[name].about.partition(",")[0] for name in PAPER} | {
    "densenet50": "DenseNet-50"
}

# ---- a GPU, not measured -------------------------------------------------------------------------
ASSUMED = {
    "graph_us": (2.5, "microseconds of a small kernel within a CUDA graph", "ours, from kernels of this size being bound by their own latency"),
    "launch_us": (15.0, "microseconds of a kernel that Python launches", "ours, the usual overhead of eager PyTorch: Python, autograd and the launch"),
    "passes": (20, "times that a training step reads or writes an activation", "counted: convolution, norm and activation, forward and backward"),
    "bandwidth": (2.0e12, "bytes per second that kernels reach", "60 % of the 3.35 TB/s of NVIDIA's data sheet of the H100 SXM"),
    "macs_per_second": (5.0e13, "multiply-adds per second in bfloat16", "10 % of the dense peak of the same data sheet (989 TFLOP/s)"),
}  # fmt: skip


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


def gpu_hours(row: dict[str, Any], settings: Settings) -> dict[str, float]:
    """Hours by phase; a step takes as long as the slowest of launching, moving and multiplying."""
    a = {name: value for name, (value, *_) in ASSUMED.items()}
    work = work_of(settings)
    image = max(
        3 * row["macs"] / a["macs_per_second"],
        2 * a["passes"] * row["activations"] / a["bandwidth"],
    )

    def step(batch: int, microseconds: float) -> float:
        return max(row["kernels"] * microseconds * 1e-6, batch * image)

    usual, partial = settings.finetune.batch_size, max(2, settings.search.batch_size // 2)
    phases = {
        "baseline": work.baseline_steps * step(usual, a["launch_us"]),
        "search": work.search_steps * step(partial, a["graph_us"]) + work.judged_images * image / 3,
        "search, cut": work.search_steps * step(partial, a["launch_us"])
        + work.judged_images * image / 3,
        "fine-tuning": work.finetune_steps * step(usual, a["launch_us"]),
    }
    return {name: seconds / 3600 for name, seconds in phases.items()}


# ---- two cores, measured -------------------------------------------------------------------------
class Kernels(TorchDispatchMode):
    """Counts operations that a GPU would launch a kernel for."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and not any(word in str(func) for word in ("detach", "empty")):
            self.count[str(func)] += 1
        return func(*args, **(kwargs or {}))


def measured(name: str, images: int = 50) -> dict[str, Any]:
    """MACs, activations, kernels of a step, and images per second on one core."""
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
    with Kernels() as kernels:
        step(x[:2])
    return {
        "macs": layout.macs(whole),
        "activations": layout.activations(whole),
        "kernels": sum(kernels.count.values()),
        "images_per_second": rates,
    }


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
    """A row for each network: its GPU hours by the model, and two cores."""
    result, nights = stored("cost"), 0.0
    lines = [
        "| network | MACs (M) | kernels a step | GPU, search | cut instead | fine-tuning | all, with a training of its own | two cores, all |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in PAPER:
        row = result["networks"][name]
        settings = make_settings("paper", model=name, dataset="cifar100")  # trained here, each one
        gpu, cpu = gpu_hours(row, settings), cpu_hours(row, settings)
        total = gpu["baseline"] + gpu["search"] + gpu["fine-tuning"]
        nights += total
        lines.append(
            f"| {LABELS[name]} | {row['macs'] / 1e6:,.0f} | {row['kernels']} | {hours(gpu['search'])} | {hours(gpu['search, cut'])} "
            f"| {hours(gpu['fine-tuning'])} | {hours(total)} | {hours(sum(cpu.values()))} |"
        )
    lines += ["", f"All seven, on both data sets: {hours(2 * nights)} on one GPU."]
    return "\n".join(lines)


def assumptions() -> str:
    rows = [f"| {what} | {value:,g} | {source} |" for value, what, source in ASSUMED.values()]
    return "\n".join(["| assumed, not measured | value | source |", "|---|---|---|", *rows])


def found() -> str:
    """What ``make gpu`` has measured, or that it has not been run."""
    result = stored("gpu")
    if result is None:
        return "**Not run yet.** No GPU was at hand; whoever has one runs `make gpu` and commits `benchmarks/gpu.json`."
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
    lines += [
        "",
        "Training steps of 125 images:",
        "",
        "| network | way | images per second | kernels | launches | copies from the host |",
        "|---|---|---|---|---|---|",
    ]
    for name, entry in result["speed"].items():
        for way, row in entry["training"].items():
            if "failed" in row:
                lines.append(
                    f"| {LABELS.get(name, name)} | {way} | failed: {row['failed']} | | | |"
                )
                continue
            counts = " | ".join(
                str(row.get(k, "")) for k in ("kernels", "launches", "copies_from_host")
            )
            lines.append(
                f"| {LABELS.get(name, name)} | {way} | {row['images_per_second']:,.0f} | {counts} |"
            )
    return "\n".join(lines)


def write() -> None:
    about, values = (
        stored("cost")["machine"],
        {"COSTS": costs(), "ASSUMED": assumptions(), "FOUND": found()},
    )
    page("gpu").write_text(
        filled("gpu", values | {"CPU": about["cpu"], "LEFT": f"{100 * SEARCHED:.0f}"})
    )


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
