"""Figures to explore in the page, offline: their data as JSON beside one small script of ours."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

import dpes
from dpes.coupling.genome import from_hex
from dpes.strategy import pareto

PAGE = Path(__file__).with_name("page")
SCRIPTS = "shared.js", "run.js", "toy.js", "start.js"  # in one function, as none loads another
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
    """An interactive figure as HTML that needs no server; Jupyter and the book show it."""

    def __init__(self, kind: str, **data: Any):
        self.kind, self.data = kind, data | {"kind": kind}

    def _repr_html_(self) -> str:
        text = json.dumps(self.data, separators=(",", ":")).replace("</", "<\\/")
        digest = hashlib.sha256(text.encode()).hexdigest()[:6]  # the same at each execution
        return (
            f'<div class="dpes-explore" id="dpes-{self.kind}-{digest}">'
            f'<script type="application/json">{text}</script>'
            "<noscript>This needs JavaScript; the picture beside it does not.</noscript></div>"
            f"<style>{part('style.css')}</style>"
            f'<script>(() => {{ "use strict";\n{"".join(map(part, SCRIPTS))}}})();</script>'
        )

    def __repr__(self) -> str:
        return f"an interactive figure ({self.kind})"


def part(name: str) -> str:
    """The text of a file in ``page/``."""
    return (PAGE / name).read_text(encoding="utf-8")


def genomes(run: dpes.Run) -> np.ndarray:
    """bool [candidates, n_bits]: all genomes of a run, in the order of its history."""
    return np.array([from_hex(genome, run.layout.n_bits) for genome in run.history.genome])


def kept_by_group(run: dpes.Run, chosen: np.ndarray) -> np.ndarray:
    """int [n, groups]: how many filters each genome keeps in each coupled group."""
    return np.stack([chosen[:, group.bits].sum(1) for group in run.layout.groups], axis=1)


def front(run: dpes.Run) -> Explorer:
    """All candidates of a run; those of the archive tell their numbers and how to cut them."""
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
    """The search of a run step by step: candidates, front, hypervolume, what each group keeps."""
    history, whole = run.history, float(run.history.macs.iloc[0])
    sizes = np.array([g.size for g in run.layout.groups])
    chosen = genomes(run)
    kept = kept_by_group(run, chosen)
    steps, seen = [], np.empty((0, 2))
    for generation in range(1, int(history.generation.max()) + 1):
        mine = (history.generation == generation).to_numpy() & np.isfinite(history.error.to_numpy())
        points = np.column_stack([history.macs[mine] / whole, history.error[mine]])
        seen = np.concatenate([seen, points[:, ::-1]])
        steps.append(
            {
                "points": points.round(4).tolist(),
                "hypervolume": round(pareto.hypervolume(seen, (1, 1)), 4),
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


def toy() -> Explorer:
    """The strategy on a made-up error, run in the page; a slider for p."""
    return Explorer("toy", layers=10, filters=24, population=30, generations=10)


def drag(points: dict[str, tuple[float, float]]) -> Explorer:
    """A few networks, name -> (error, MACs in millions up to 100), to be moved."""
    return Explorer("drag", names=list(points), points=[list(p) for p in points.values()])
