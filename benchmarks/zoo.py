"""Traces, proves and cuts common classifiers of torchvision and timm, and checks each slim network against oracles.

    python benchmarks/zoo.py                     # all networks that zoo.json lacks
    python benchmarks/zoo.py timm/resnet10t      # these anew; --workers 2 for two at a time
    python benchmarks/zoo.py --page              # book/zoo.md from zoo.json

Random weights, small images; see ``check`` for what is demanded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch
from harness import filled, keep, stored
from harness import page as page_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dpes import UnsupportedModel, load, mask, repair, save, slim, trace
from dpes.coupling.subject import randomised

PAGE = page_of("zoo")
TORCHVISION = (
    "alexnet vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn resnet18 resnet34 resnet50 resnet101 resnet152 "
    "resnext50_32x4d wide_resnet50_2 densenet121 densenet161 densenet169 densenet201 squeezenet1_0 squeezenet1_1 googlenet "
    "inception_v3 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large efficientnet_b0 efficientnet_v2_s mnasnet0_5 mnasnet1_0 "
    "shufflenet_v2_x0_5 shufflenet_v2_x1_0 convnext_tiny regnet_x_400mf regnet_y_400mf"
).split()
TIMM = (  # the smallest of each family (a module of timm) whose weights are those of convolutions, or that mixes them with others
    "halonet_h1 botnet26t_256 eca_botnext26ts_256 repvgg_a0 gernet_s mobileone_s0 resnext26ts convmixer_1024_20_ks9_p14 "
    "convnext_atto cpubone_nano cs3darknet_focus_s cspdarknet53 cspresnet50 cspnext_tiny densenet121 dla46x_c dla34 dpn48b "
    "edgenext_xx_small efficientformer_l1 efficientformerv2_s0 mobilenetv1_100 mobilenetv2_050 mnasnet_small spnasnet_100 "
    "mixnet_s efficientnet_lite0 efficientvim_m1 efficientvit_b0 efficientvit_m0 fasternet_t0 fastvit_t8 focalnet_tiny_srf "
    "ghostnet_050 ghostnetv2_100 hardcorenas_a hgnetv2_b0 hrnet_w18_small iformer_t inception_next_atto "
    "inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small lcnet_050 lowformer_b0 mambaout_femto coatnet_nano_cc_224 "
    "poolformerv2_s12 poolformer_s12 convformer_s18 mobilenetv3_small_050 mobilevit_xxs mobilevitv2_050 nasnetalarge nextvit_small "
    "test_nfnet nf_regnet_b0 pnasnet5large pvt_v2_b0 rdnet_tiny regnetx_002 regnety_002 repghostnet_050 repvit_m1 "
    "res2net50_48w_2s resnest14d resnet10t seresnet18 ecaresnet26t resnetv2_18 rexnet_100 selecsls42 legacy_seresnet18 "
    "shvit_s1 skresnet18 starnet_s050 swiftformer_xs tresnet_m vgg11_bn visformer_tiny ese_vovnet19b_slim xception41 "
    "legacy_xception tiny_vit_5m_224 vitamin_small_224"
).split()
NETS = [f"torchvision/{name}" for name in TORCHVISION] + [f"timm/{name}" for name in TIMM]
SIDES = (64, 96, 128, 160, 224, 256, 299, 331)  # pixels a side: the smallest that the network takes


def network(name: str) -> tuple[nn.Module, int, str]:
    """The untrained classifier of ten classes, the side of the smallest images that it takes, and its family."""
    library, name = name.split("/")
    torch.manual_seed(0)
    if library == "timm":
        import timm
        from timm.models._registry import _model_to_module as families

        model, family = timm.create_model(name, pretrained=False, num_classes=10), families[name]
    else:
        import torchvision

        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(name, weights=None, num_classes=10, **options)
        family = type(model).__module__.rsplit(".", 1)[1]
    model.eval()
    for side in SIDES:
        try:
            with torch.no_grad():
                model(torch.zeros(2, 3, side, side))
            return model, side, family
        except (RuntimeError, AssertionError, ValueError):
            continue
    raise RuntimeError(f"{name}: runs at none of {SIDES}")


def weights(model: nn.Module) -> int:
    """How many weights its convolutions and linear layers have."""
    return sum(p.numel() for p in model.parameters() if p.ndim > 1)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference, relative to the largest output."""
    return float((a - b).abs().max() / b.abs().max())


def training(model: nn.Module, x: torch.Tensor) -> str:
    """What keeps gradients from flowing, or nothing; an auxiliary classifier needs larger images."""
    try:
        out = model.train()(x)
        outs = out if isinstance(out, tuple) else [out]
        sum(t.square().sum() for t in outs if isinstance(t, torch.Tensor)).backward()
    except Exception as error:
        return str(error).splitlines()[0]
    return ""


def check(name: str, draws: int = 3) -> dict:
    """Everything one network is asked, as a row of the table; failed checks are named in ``failed``, a refusal in ``refused``.

    Slim networks of random genomes compute what the masked ones do (float64, random weights), cost what the layout says by
    torch's counter, are the same after saving and loading, and train.
    """
    torch.set_num_threads(1)
    model, side, family = network(name)
    row = {
        "net": name,
        "family": family,
        "side": side,
        "params": sum(p.numel() for p in model.parameters()),
    }
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    started = time.perf_counter()
    try:
        trace(model, x[:1], prove=False)
        row["trace_seconds"] = round(time.perf_counter() - started, 2)
        layout = trace(model, x[:1])
    except UnsupportedModel as error:
        return row | {"refused": str(error), "failed": []}
    row["proof_seconds"] = round(time.perf_counter() - started - row["trace_seconds"], 2)
    least = repair(np.zeros(layout.n_bits, bool), layout.group_of_bit, layout.least)
    row |= {
        "bits": layout.n_bits,
        "groups": len(layout.groups),
        "macs": layout.macs(np.ones(layout.n_bits, bool)),
    }
    row["prunable"] = round(1 - weights(slim(model, layout, least)) / weights(model), 4)
    row["kept"] = sorted({why for _, _, why in layout.kept if why != "reaches the output"})[:6]
    twin, failed, rng, worst = (
        randomised(model, torch.float64),
        set(),
        np.random.default_rng(7),
        0.0,
    )
    for share in np.linspace(0.9, 0.2, draws):
        genome = repair(rng.random(layout.n_bits) < share, layout.group_of_bit, layout.least)
        small = slim(twin, layout, genome)
        with torch.no_grad():
            apart = distance(small(x.double()), mask(twin, layout, genome)(x.double()))
            worst = float(np.max([worst, apart]))  # of numpy, since Python forgets NaN
            with FlopCounterMode(display=False) as counter:
                small(x[:1].double())
        if counter.get_total_flops() != 2 * layout.macs(genome):
            failed.add("MACs")
        if sum(p.numel() for p in small.parameters()) != layout.params(genome):
            failed.add("parameters")
    small = slim(model, layout, genome)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        save(Path(folder) / "small.safetensors", small, layout, genome)
        if not torch.equal(load(Path(folder) / "small.safetensors", model)(x), small(x)):
            failed.add("save and load")
    if (problem := training(small, x)) and not training(model, x):
        failed.add(f"training ({problem})")
    if not worst <= 1e-6:
        failed.add("slim is not masked")
    return row | {"worst": float(f"{worst:.1e}"), "failed": sorted(failed)}


def page(rows: list[dict]) -> str:
    """The text of book/zoo.md."""
    table = []
    for r in sorted(rows, key=lambda r: (r["net"].split("/")[0] != "timm", r["family"], r["net"])):
        library, name = r["net"].split("/")
        if "refused" in r:
            table.append(
                f"| {r['family']} | {name} | {library} | refused: {r['refused']} | | | | |"
            )
            continue
        why = r["kept"][0] if r["kept"] and r["prunable"] < ENOUGH else ""
        table.append(
            f"| {r['family']} | {name} | {library} | {100 * r['prunable']:.1f} | {r['bits']:,} "
            f"| {r['trace_seconds']:.1f} | {r['proof_seconds']:.0f} | {why} |"
        )
    best: dict[str, float] = {}
    for r in rows:
        if r["net"].startswith("timm"):
            best[r["family"]] = max(best.get(r["family"], 0), r.get("prunable", 0))
    enough = sum(share >= ENOUGH for share in best.values())
    values = {"COUNT": len(rows), "FAMILIES": len(best), "ENOUGH": enough}
    values |= {"SHARE": f"{100 * enough / max(1, len(best)):.0f}", "TABLE": "\n".join(table)}
    values["WORST"] = f"{max(r.get('worst', 0) for r in rows):.0e}"
    return filled("zoo", {k: str(v) for k, v in values.items()})


ENOUGH = 0.5  # of the weights of convolutions and linear layers: what can be removed at most


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Check the slim networks of torchvision's and timm's classifiers."
    )
    parser.add_argument(
        "nets",
        nargs="*",
        metavar="net",
        help="such as timm/resnet10t; default: those that zoo.json lacks",
    )
    parser.add_argument("--workers", type=int, default=1, help="how many at a time")
    parser.add_argument("--page", action="store_true", help="only write book/zoo.md from zoo.json")
    arguments = parser.parse_args()
    if unknown := set(arguments.nets) - set(NETS):
        print(
            f"zoo: unknown network {min(unknown)!r}: choose from {', '.join(NETS)}", file=sys.stderr
        )
        return 2
    rows = {r["net"]: r for r in stored("zoo") or []}
    todo = [] if arguments.page else arguments.nets or [n for n in NETS if n not in rows]
    with ProcessPoolExecutor(arguments.workers) as pool:
        jobs = {pool.submit(check, name): name for name in todo}
        for job in as_completed(jobs):
            name = jobs[job]
            rows[name] = job.result()
            keep("zoo", [rows[n] for n in NETS if n in rows])
            shown = {k: v for k, v in rows[name].items() if k not in ("net", "kept")}
            print(name, shown, flush=True)
    PAGE.write_text(page([rows[n] for n in NETS if n in rows]))
    return int(any(r["failed"] for r in rows.values()))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
