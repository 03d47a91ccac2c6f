"""Figures that a reader can explore in the page, offline: their data as JSON beside one small script of ours."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

import dpes

SCRIPT = Path(__file__).with_name("explore.js")
STYLE = """
.dpes-explore { background: #fff; color: #222; border: 1px solid #bbb; border-radius: 6px; padding: 10px; max-width: 100%; }
.dpes-explore svg { display: block; max-width: 100%; font: 13px sans-serif; }
.dpes-explore svg text { fill: #222; }
.dpes-explore svg text.dpes-letter { fill: #fff; font: bold 11px sans-serif; pointer-events: none; }
.dpes-explore .dpes-point { cursor: pointer; touch-action: none; }
.dpes-explore .dpes-point:focus { outline: 3px solid #b35900; outline-offset: 2px; }
.dpes-explore .dpes-row { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin: 6px 0; color: #222; }
.dpes-explore input[type=range] { flex: 1 1 160px; accent-color: #0173b2; min-height: 24px; }
.dpes-explore select { color: #222; background: #fff; border: 1px solid #555; font-size: 14px; }
.dpes-explore output { min-width: 4em; font-variant-numeric: tabular-nums; }
.dpes-explore .dpes-told { margin: 6px 0; color: #222; }
.dpes-explore .dpes-code { background: #f4f4f4; color: #222; padding: 8px; overflow-x: auto; font-size: 13px; white-space: pre; }
.dpes-explore .dpes-table { border-collapse: collapse; color: #222; }
.dpes-explore .dpes-table :is(td, th) { padding: 2px 10px; text-align: right; color: #222; background: #fff; }
"""
COMMAND = """import numpy as np
import dpes

run = dpes.open_run("data/runs/{name}")
row = run.history.iloc[ROW]
packed = np.frombuffer(bytes.fromhex(row.genome), np.uint8)
genome = np.unpackbits(packed)[: run.layout.n_bits].astype(bool)
small = dpes.slim(run.full, run.layout, genome)
# run.full has no trained weights; load those that the run
# started from before you cut, then fine-tune"""


class Explorer:
    """An interactive figure as HTML that needs no server; Jupyter and the book display it by itself."""

    def __init__(self, kind: str, **data: Any):
        self.kind, self.data = kind, data | {"kind": kind}

    def _repr_html_(self) -> str:
        text = json.dumps(self.data, separators=(",", ":")).replace("</", "<\\/")
        name = f"dpes-{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"  # the same at each execution
        return (
            f'<div class="dpes-explore" id="{name}"><script type="application/json">{text}</script>'
            "<noscript>This figure needs JavaScript; the picture beside it shows the same.</noscript></div>"
            f"<style>{STYLE}</style><script>{SCRIPT.read_text(encoding='utf-8')}</script>"
        )

    def __repr__(self) -> str:
        return f"an interactive figure ({self.kind})"


def genomes(run: dpes.Run) -> np.ndarray:
    """bool [candidates, n_bits]: all genomes of a run, in the order of its history."""
    packed = np.array([np.frombuffer(bytes.fromhex(g), np.uint8) for g in run.history.genome])
    return np.unpackbits(packed, axis=1)[:, : run.layout.n_bits].astype(bool)


def kept_by_group(run: dpes.Run, chosen: np.ndarray) -> np.ndarray:
    """int [n, groups]: how many filters each genome keeps in each coupled group."""
    return np.stack([chosen[:, group.bits].sum(1) for group in run.layout.groups], axis=1)


def hypervolume(points: np.ndarray) -> float:
    """The area between the front of points (cost, error) and (1, 1): 0 to 1; larger is better."""
    volume, cheapest = 0.0, 1.0
    for cost, error in points[np.lexsort((points[:, 0], points[:, 1]))]:
        if error < 1 and cost < cheapest:
            volume += (cheapest - cost) * (1 - error)
            cheapest = cost
    return volume


def front(run: dpes.Run) -> Explorer:
    """All candidates of a run; those of the archive tell their error, MACs and filters, and the commands that cut them."""
    history, whole = run.history, float(run.history.macs.iloc[0])
    archive = run.archive.sort_values("error")
    kept = kept_by_group(run, genomes(run))
    points = [
        {
            "left": round(row.macs / whole, 5),
            "error": round(row.error, 5),
            "generation": int(row.generation),
            "row": int(row.Index),
            "kept": kept[row.Index].tolist(),
        }
        for row in archive.itertuples()
    ]
    place = {row.genome: i for i, row in enumerate(archive.itertuples())}
    roles = {
        r: place[run.result[r]["genome"]]
        for r in ("heavy", "knee", "light")
        if run.result[r]["genome"] in place
    }
    cloud = history[history.generation > 0]
    return Explorer(
        "front",
        title=run.path.name,
        error_name="search error",
        groups=[[g.name, g.size] for g in run.layout.groups],
        cloud=[
            [round(m / whole, 4), round(e, 4)]
            for m, e in zip(cloud.macs, cloud.error, strict=True)
            if np.isfinite(e)
        ],
        archive=points,
        roles=roles,
        command=COMMAND.format(name=run.path.name),
    )


def generations(run: dpes.Run) -> Explorer:
    """The search of a run step by step: its candidates, the front so far, its hypervolume, the share of each group that is kept."""
    history, whole = run.history, float(run.history.macs.iloc[0])
    sizes = np.array([g.size for g in run.layout.groups])
    chosen = genomes(run)
    kept = kept_by_group(run, chosen)
    steps, seen = [], np.empty((0, 2))
    for generation in range(1, int(history.generation.max()) + 1):
        mine = (history.generation == generation).to_numpy() & np.isfinite(history.error.to_numpy())
        points = np.column_stack([history.macs[mine] / whole, history.error[mine]])
        seen = np.concatenate([seen, points])
        steps.append(
            {
                "points": points.round(4).tolist(),
                "hypervolume": round(hypervolume(seen), 4),
                "kept": round(float(chosen[mine].mean()), 4),
                "heat": (kept[mine] / sizes).mean(0).round(3).tolist(),
            }
        )
    groups = [[g.name, g.size] for g in run.layout.groups]
    return Explorer(
        "generations",
        title=run.path.name,
        error_name="search error",
        groups=groups,
        generations=steps,
    )


def toy(layers: int = 10, filters: int = 24, population: int = 30, steps: int = 10) -> Explorer:
    """The strategy on a made-up error, run in the page: a slider for the mutation rate, a choice of the knee's rule."""
    return Explorer("toy", layers=layers, filters=filters, population=population, generations=steps)


def drag(points: dict[str, tuple[float, float]]) -> Explorer:
    """A few networks, name -> (error, MACs in millions up to 100), that can be moved; the knee by both rules follows."""
    return Explorer("drag", names=list(points), points=[list(p) for p in points.values()])
