"""What a search found, brought to equal MACs, fine-tuned by one recipe and tested once: the arena's
second half.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..coupling.cutting import slim
from ..coupling.genome import to_hex
from ..disk import write_json
from ..errors import RunError
from ..fields import to_dict
from ..strategy.space import Evaluated, order_of
from . import train
from .arena import Bench
from .families import grown
from .methods import method
from .rows import history_of, read_row, row_path

SHARES = (0.5, 0.7)  # of the MACs, at most
SECOND = 100  # what the seed of a second training has more than that of the first


def tuned_path(folder: Path, name: str, seed: int, share: float, training: int) -> Path:
    return folder / "tuned" / f"{name}-s{seed}-m{round(100 * share)}-t{training}.json"


def chosen(history: Evaluated, share: float) -> int | None:
    """The candidate of least search error among those with at most this share of the MACs; of
    equals the lighter one; else None.
    """
    rows = np.flatnonzero((history.F[:, 1] <= share) & np.isfinite(history.F[:, 0]))
    if not len(rows):
        return None
    return int(rows[np.lexsort((history.F[rows, 1], history.F[rows, 0]))[0]])


def at_equal_macs(
    bench: Bench, history: Evaluated, name: str, seed: int, share: float
) -> np.ndarray | None:
    """The chosen genome brought up to the share of the MACs by ``grown``, so that no method is
    judged at fewer MACs than another.

    Filters return in the method's own order; where it has none, in one that is drawn from the seed,
    which uses no knowledge.
    """
    row = chosen(history, share)
    if row is None:
        return None
    rank = method(name).rank(bench.space, seed)
    rank = order_of(bench.space, "random", seed) if rank is None else rank
    return grown(bench.space, history.genomes[row], share, rank)


def tune(
    bench: Bench,
    folder: Path,
    name: str,
    seed: int,
    share: float,
    training: int,
    known: dict[str, float],
) -> dict[str, Any]:
    """Fine-tune and test one network of a finished row, or return what was written before.

    training: the seed of the order of images and of augmentation. An entry without ``test_error``
    says that the method found no network as light as this. The test images are read here and
    nowhere else.
    """
    path = tuned_path(folder, name, seed, share, training)
    if path.exists():
        return json.loads(path.read_text())
    history = history_of(read_row(row_path(folder, name, seed))[1], bench)
    genome = at_equal_macs(bench, history, name, seed, share)
    entry: dict[str, Any] = {
        "method": name,
        "seed": seed,
        "share": share,
        "training": training,
        "recipe": to_dict(bench.arena.recipe()),
    }
    if genome is not None:
        text = to_hex(genome)
        if text not in known:
            known[text] = bench.fitness(genome)
        found = history.F[chosen(history, share)]
        entry |= {
            "genome": text,
            "macs": bench.layout.macs(genome),
            "params": bench.layout.params(genome),
        }
        entry |= {
            "found_error": found[0],
            "found_macs": round(float(found[1]), 6),
            "search_error": known[text],
        }
        entry |= same_network(folder, text, entry) or trained(bench, genome, training)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, entry)
    return entry


def trained(bench: Bench, genome: np.ndarray, training: int) -> dict[str, Any]:
    """The outcome of one fine-tuning: test error, mean training loss, seconds."""
    start = time.perf_counter()
    network = slim(bench.model, bench.layout, genome)
    log = train.fit(network, bench.dataset, bench.arena.recipe(), training)
    seconds = time.perf_counter() - start
    error = train.error_rate(network, bench.dataset.test, bench.dataset)
    return {
        "test_error": error,
        "train_error": log[-1]["train_error"],
        "seconds": round(seconds, 1),
    }


def same_network(folder: Path, genome: str, entry: dict[str, Any]) -> dict[str, Any] | None:
    """The outcome for the same genome, recipe and training seed, if another row had it trained
    already.
    """
    for path in sorted(
        folder.glob(f"tuned/*-m{round(100 * entry['share'])}-t{entry['training']}.json")
    ):
        other = json.loads(path.read_text())
        if other.get("genome") == genome and other["recipe"] == entry["recipe"]:
            return {key: other[key] for key in ("test_error", "train_error", "seconds")}
    return None


def read_tuned(folder: Path) -> list[dict[str, Any]]:
    """All entries; raises ``RunError`` for a damaged one."""
    entries = []
    for path in sorted(folder.glob("tuned/*.json")):
        try:
            entries.append(json.loads(path.read_text()))
        except ValueError:
            raise RunError(f"{path}: damaged; delete it, and it is made again") from None
    return entries
