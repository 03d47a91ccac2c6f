"""Prunes every common torchvision classifier at random and checks each slim network against independent oracles.

    python benchmarks/zoo.py            # all networks that zoo.json lacks; two to three hours on one core
    python benchmarks/zoo.py resnet18   # these anew
    python benchmarks/zoo.py --page     # book/zoo.md from zoo.json

Untrained weights with random norm statistics, 20 random genomes a network; see ``check`` for what is demanded.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from harness import filled, results
from harness import page as page_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dpes import load, mask, save, slim, trace
from dpes.coupling import cost
from dpes.coupling.layout import Layout
from dpes.strategy.es import repair
from dpes.study import exporting

RESULTS, PAGE = results("zoo"), page_of("zoo")
GENOMES = 20
NETS = (
    "alexnet vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn resnet18 resnet34 resnet50 resnet101 resnet152 wide_resnet50_2 "
    "densenet121 densenet161 densenet169 densenet201 squeezenet1_0 squeezenet1_1 googlenet mobilenet_v2 mobilenet_v3_small "
    "mobilenet_v3_large efficientnet_b0 mnasnet1_0 convnext_tiny regnet_x_400mf regnet_y_400mf"
).split()


def network(name: str, seed: int = 0) -> nn.Module:
    """The untrained classifier with random norm statistics, shifts and layer scales: a silenced filter that still speaks is heard."""
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = torchvision.models.get_model(name, weights=None, num_classes=10, **options).eval()
        with torch.no_grad():
            for key, value in (*model.named_parameters(), *model.named_buffers()):
                kind = key.rsplit(".", 1)[-1]
                if (
                    kind == "running_var"
                    or kind == "layer_scale"
                    or (kind == "weight" and value.ndim == 1)
                ):
                    value.uniform_(0.5, 1.5)
                elif kind in ("running_mean", "bias"):
                    value.normal_(0, 0.1)
    return model


def size_of(name: str) -> int:
    """Pixels a side of the checked images: small, for speed; alexnet, googlenet and squeezenet need more."""
    return 96 if name in ("alexnet", "googlenet", "squeezenet1_0", "squeezenet1_1") else 64


def any_genome(layout: Layout, rng: np.random.Generator) -> np.ndarray:
    return repair(rng.random(layout.n_bits) < rng.uniform(0.2, 0.95), layout.group_of_bit)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference, relative to the largest output."""
    return float((a - b).abs().max() / b.abs().max())


def check(name: str, genomes: int = GENOMES, onnx: bool = True) -> dict:
    """Everything one network is asked, as a row of the table; raises nothing, failed checks are named in ``failed``."""
    model, x = (
        network(name),
        torch.randn(2, 3, size_of(name), size_of(name), generator=torch.Generator().manual_seed(1)),
    )
    started = time.perf_counter()
    layout = trace(model, x[:1])
    seconds = time.perf_counter() - started
    full, whole = trace(model, torch.zeros(1, 3, 224, 224)), np.ones(layout.n_bits, dtype=bool)
    rng, failed = np.random.default_rng(0), set()
    distances: dict[str, list[float]] = {"float32": [], "float64": [], "onnx": []}
    for _ in range(genomes):
        genome = any_genome(layout, rng)
        small = slim(model, layout, genome)
        with torch.no_grad():
            out = small(x)
            distances["float32"].append(distance(out, mask(model, layout, genome)(x)))
            with FlopCounterMode(display=False) as counter:
                small(x[:1])
        if counter.get_total_flops() != 2 * cost.macs(layout, genome):
            failed.add("MACs")
        if sum(p.numel() for p in small.parameters()) != cost.params(layout, genome):
            failed.add("parameters")
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder) / "small.safetensors", small, layout, genome)
            with torch.no_grad():
                if not torch.equal(load(Path(folder) / "small.safetensors", model)(x), out):
                    failed.add("save and load")
            if onnx:
                exporting.export(small, x, Path(folder) / "small.onnx")
                distances["onnx"].append(exporting.check(Path(folder) / "small.onnx", small, x))
        small.train()(x).square().sum().backward()
        if not all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters()):
            failed.add("backward")
    model, x = model.double(), x.double()
    with torch.no_grad():
        for _ in range(genomes):
            genome = any_genome(layout, rng)
            distances["float64"].append(
                distance(slim(model, layout, genome)(x), mask(model, layout, genome)(x))
            )
    worst = {
        kind: float(np.max(values, initial=0)) for kind, values in distances.items()
    }  # of numpy, since Python's forgets NaN
    for kind, limit in {"float32": 1e-4, "float64": 1e-9, "onnx": 1e-4}.items():
        if not worst[kind] <= limit:
            failed.add(kind)
    reasons = sorted(
        {
            (why.split(" of ")[0] if "kept whole" not in why else why): 0
            for _, _, why in layout.frozen
        }
    )
    return {
        "net": name,
        "bits": layout.n_bits,
        "groups": len(layout.groups),
        "frozen": sum(n for _, n, _ in layout.frozen),
        "reasons": reasons[:4],
        "macs": cost.macs(full, whole),
        "params": cost.params(layout, whole),
        "seconds": round(seconds, 2),
        "worst": {k: float(f"{v:.1e}") for k, v in worst.items()},
        "genomes": genomes,
        "failed": sorted(failed),
    }


def page(rows: list[dict]) -> str:
    """book/zoo.md."""
    table = "\n".join(
        f"| {r['net']} | {r['bits']:,} | {r['groups']} | {r['frozen']:,} | {r['macs'] / 1e6:,.0f} | {r['params'] / 1e6:.1f} | "
        f"{r['seconds']:.1f} | "
        f"{r['worst']['float32']:.0e} | {r['worst']['float64']:.0e} | {r['worst']['onnx']:.0e} |"
        for r in rows
    )
    fewest = str(min(r["genomes"] for r in rows))
    return filled("zoo", {"TABLE": table, "COUNT": str(len(rows)), "GENOMES": fewest})


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Check the slim networks of torchvision's classifiers against oracles."
    )
    parser.add_argument(
        "nets",
        nargs="*",
        metavar="net",
        help=f"of {', '.join(NETS)}; default: those that zoo.json lacks",
    )
    parser.add_argument("--page", action="store_true", help="only write book/zoo.md from zoo.json")
    arguments = parser.parse_args()
    if unknown := set(arguments.nets) - set(NETS):
        print(
            f"zoo: unknown network {min(unknown)!r}: choose from {', '.join(NETS)}", file=sys.stderr
        )
        return 2
    rows = {r["net"]: r for r in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    if not arguments.page:
        torch.set_num_threads(1)
        for name in arguments.nets or [n for n in NETS if n not in rows]:
            started = time.perf_counter()
            rows[name] = check(name)
            RESULTS.write_text(json.dumps([rows[n] for n in NETS if n in rows], indent=1) + "\n")
            print(
                f"{name}: {rows[name]['failed'] or 'all checks passed'}, {time.perf_counter() - started:.0f} s",
                flush=True,
            )
    PAGE.write_text(page([rows[n] for n in NETS if n in rows]))
    return int(any(r["failed"] for r in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
