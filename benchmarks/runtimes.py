"""Would another runtime make a search on the CPU faster? Candidates of a published search, evaluated
with the images judged by each.

    python benchmarks/runtimes.py          # into tried.json; some five minutes on one core
    python benchmarks/speed.py --page      # the page that shows it

A runtime pays if it saves a tenth of a whole evaluation: cut, batch norm re-estimated, the
runtime's own preparation, and the images judged.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._inductor.config
from harness import ROOT, alternate, cifar, keep, machine, network, stored, times
from torch import Tensor, nn

from dpes import open_run
from dpes.coupling.genome import from_hex
from dpes.strategy import judging
from dpes.strategy.settings import Search
from dpes.study import data
from dpes.study.exporting import export, session
from dpes.study.fitness import Fitness

RUN = "resnet56-cifar10-cpu-s0-b1c306d3"
USUAL, PAYS = "eager", 0.9
Forward = Callable[[Tensor], Tensor]


def by_onnxruntime(net: nn.Module) -> Forward:
    """Each candidate exported, and read by ONNX Runtime."""
    with tempfile.TemporaryDirectory() as folder:
        runtime = session(export(net, torch.zeros(2, 3, 32, 32), Path(folder) / "net.onnx"))
    return lambda x: torch.from_numpy(runtime.run(None, {"x": x.contiguous().numpy()})[0])


def compiled(net: nn.Module) -> Forward:
    """Each candidate compiled by torch's own compiler, which turns passes into C++."""
    torch.compiler.reset()
    return torch.compile(net)


def compiled_once(net: nn.Module) -> Forward:
    """At full shape all candidates are one module, so one compiled network serves them all."""
    if not hasattr(compiled_once, "done"):
        compiled_once.done = torch.compile(net)  # type: ignore[attr-defined]
    return compiled_once.done  # type: ignore[attr-defined]


WAYS: dict[str, tuple[str, Callable[[nn.Module], Forward]]] = {
    USUAL: ("slim", lambda net: net),
    "ONNX Runtime": ("slim", by_onnxruntime),
    "torch.compile": ("slim", compiled),
    "torch.compile once, at full shape": ("full", compiled_once),
}


def judges() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """By the name of a runtime: genome -> the class it gives to each judged image."""
    model, layout = network("resnet56")
    found = {}
    for name, (shape, runtime) in WAYS.items():
        search = Search(fitness="recalibrate", shape=shape if shape == "full" else None)
        fitness = Fitness(model, layout, cifar(), search)
        found[name] = judge(fitness, runtime)
    return found


def judge(
    fitness: Fitness, runtime: Callable[[nn.Module], Forward]
) -> Callable[[np.ndarray], np.ndarray]:
    """What ``Fitness`` does with a genome, with another runtime for the judged images."""

    @torch.no_grad()
    def classes(genome: np.ndarray) -> np.ndarray:
        net = fitness.network(fitness.layout.checked(genome))
        judging.recalibrate(net, fitness.calibration_batches())
        forward = runtime(net)
        batches = data.batches(fitness.judged, fitness.at_once)
        answers = [forward(data.normalise(x, fitness.dataset)).argmax(1) for x, _ in batches]
        return torch.cat(answers).numpy()

    return classes


def genomes(n: int) -> list[np.ndarray]:
    """Candidates of the published search, evenly spaced in the order in which it met them."""
    run = open_run(ROOT / "data" / "runs" / RUN)
    texts = run.history.genome
    chosen = np.linspace(len(texts) // n, len(texts) - 1, n).astype(int)
    return [from_hex(texts[i], network("resnet56")[1].n_bits) for i in chosen]


def main() -> None:
    torch.set_num_threads(1)
    torch._inductor.config.compile_threads = 1  # none in the background, whose time nobody counts
    torch._inductor.config.force_disable_caches = True  # a search meets each candidate once
    started, chosen = time.perf_counter(), genomes(4)
    ways = {name: lambda turn, f=f: f(chosen[turn]) for name, f in judges().items()}
    # torch's compiler calls others: their seconds count
    seconds, answers = alternate(ways, len(chosen), clock=lambda: sum(os.times()[:4]))
    measures: list[dict[str, Any]] = []
    for name in list(WAYS)[1:]:
        changed = int((answers[name] != answers[USUAL]).sum())
        entry = times(f"{name}, a whole evaluation of ResNet-56", seconds, name, USUAL)
        entry |= {"changed": changed, "images": len(answers[USUAL])}
        measures.append(entry | {"pays": entry["median"] <= PAYS})
        print(f"{name}: {entry['median']} x; {changed} of {entry['images']} classes change")
    load, took = round(os.getloadavg()[0], 1), round(time.perf_counter() - started)
    row = {"row": "runtimes", "measures": measures, "machine": machine(), "load": load}
    rows = [r for r in stored("tried") if r["row"] != "runtimes"]
    keep("tried", [*rows, row | {"seconds": took}])


if __name__ == "__main__":
    main()
