"""Does the fitness tell the truth? Networks that the arena fine-tuned, judged by cheaper and dearer
kinds of fitness.

All networks at one cut have equal MACs, so MACs say nothing here: what a kind of fitness orders
right, it knows from the network.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from ..coupling.genome import from_hex
from ..disk import read_json, write_json
from .arena import Bench
from .fitness import Fitness
from .methods import REFERENCES
from .tuning import read_tuned


def path_of(folder: Path, genome: str, share: float) -> Path:
    """The file of one network."""
    return (
        folder
        / "fidelity"
        / f"m{round(100 * share)}-{hashlib.sha256(genome.encode()).hexdigest()[:12]}.json"
    )


def measure(bench: Bench, genome: str) -> dict[str, Any]:
    """Kind -> error and seconds of this process's own time, one thread."""
    bits, found = from_hex(genome, bench.layout.n_bits), {}
    for name, search in bench.arena.kinds().items():
        fitness = Fitness(bench.model, bench.layout, bench.dataset, search, seed=0)
        start = time.process_time()
        error = fitness(bits)
        found[name] = {"error": error, "seconds": round(time.process_time() - start, 2)}
    return found


def missing(folder: Path) -> list[dict[str, Any]]:
    """Fine-tuned networks that were not measured yet, each once."""
    found = [e for e in read_tuned(folder) if "test_error" in e and e["method"] not in REFERENCES]
    wanted = {path_of(folder, e["genome"], e["share"]): e for e in found}
    return [entry for path, entry in wanted.items() if not path.exists()]


def run(bench: Bench, folder: Path) -> None:
    """Measure all fine-tuned networks of the arena."""
    for entry in missing(folder):
        path = path_of(folder, entry["genome"], entry["share"])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            path,
            {
                "genome": entry["genome"],
                "share": entry["share"],
                "kinds": measure(bench, entry["genome"]),
            },
        )


def read(folder: Path) -> list[dict[str, Any]]:
    """All measured networks."""
    return [read_json(path) for path in sorted(folder.glob("fidelity/*.json"))]
