"""What a search found, brought to equal MACs, fine-tuned by one recipe and tested once: the arena's
second half.
"""

from __future__ import annotations

import reprlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..coupling.cutting import slim
from ..coupling.genome import from_hex, to_hex
from ..disk import damaged, read_entries, write_json
from ..errors import RunError
from ..fields import to_dict
from ..strategy.history import History
from ..strategy.space import order_of
from . import train
from .arena import Bench
from .families import Reference, grown
from .methods import METHODS, method, seen
from .rows import AGAIN, check_same, finished, history_of, identity, read_row, row_path
from .settings import Training

SHARES = (0.5, 0.7)  # of the MACs, at most
ENTRY = {"method": str, "seed": int, "share": int | float, "training": int, "recipe": dict}
SECOND = 100  # what the seed of a second training has more than that of the first


@dataclass(frozen=True)
class Task:
    """A row to search (``share`` 0), or one network of it to fine-tune."""

    name: str
    seed: int
    share: float = 0.0
    training: int = 0  # the seed of the order of images and of augmentation
    long: bool = False  # trained as long as the networks of the study's own runs
    lr: float | None = None  # peak learning rate of a long training; the recipe's when None

    def path(self, folder: Path) -> Path:
        if not self.share:
            return row_path(folder, self.name, self.seed)
        end = "-long" * self.long + (f"-lr{self.lr!r}" if self.lr else "")
        what = f"{self.name}-s{self.seed}-m{round(100 * self.share)}-t{self.training}{end}"
        return folder / "tuned" / f"{what}.json"

    def done(self, folder: Path) -> bool:
        if self.share:
            return self.path(folder).exists()
        return finished(folder, self.name, self.seed)


def chosen(history: History, share: float) -> int | None:
    """The candidate of least search error among those with at most this share of the MACs; of
    equals the lighter one; else None.
    """
    error, cost = history.F.T
    rows = np.flatnonzero((cost <= share) & np.isfinite(error))
    return int(rows[np.lexsort((cost[rows], error[rows]))[0]]) if len(rows) else None


def at_equal_macs(
    bench: Bench, history: History, name: str, seed: int, share: float
) -> np.ndarray | None:
    """The chosen genome brought up to the share of the MACs by ``grown``, so that no method is
    judged at fewer MACs than another.

    Filters return in the method's own order; where it has none, in one that is drawn from the seed,
    which uses no knowledge.
    """
    row = chosen(seen(name, bench.space, history), share)
    if row is None:
        return None
    rank = method(name).rank(bench.space, seed)
    rank = order_of(bench.space, "random", seed) if rank is None else rank
    return grown(bench.space, history.genomes[row], share, rank)


def tune(bench: Bench, folder: Path, task: Task, known: dict[str, float]) -> dict[str, Any]:
    """Fine-tune and test one network of a finished row, or return what was written before.

    An entry without ``test_error`` says that the method found no network as light as this. The test
    images are read here and nowhere else.
    """
    path, recipe = task.path(folder), bench.arena.recipe(task.long, task.lr)
    if path.exists():
        return read_tuning(path)
    names = {"method": task.name, "seed": task.seed, "share": task.share, "training": task.training}
    entry: dict[str, Any] = names | {"network": bench.network, "recipe": to_dict(recipe)}
    entry |= bench.elsewhere
    genome, found = target(bench, folder, task)
    if genome is not None:
        if (text := to_hex(genome)) not in known:
            known[text] = bench.fitness(genome)
        size = {"macs": bench.layout.macs(genome), "params": bench.layout.params(genome)}
        entry |= {"genome": text} | size | found | {"search_error": known[text]}
        anew = getattr(method(task.name), "of", None)
        entry |= {"anew": anew} if anew else {}
        same = same_network(folder, text, entry)
        entry |= same or trained(bench, genome, recipe, task.training, bool(anew))
        if task.long:  # what it lost is of interest, too
            entry["unpruned_error"] = bench.unpruned_error
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, entry)
    return entry


def target(bench: Bench, folder: Path, task: Task) -> tuple[np.ndarray | None, dict[str, float]]:
    """The genome to train, if there is one so light, and error and cost of the candidate that it
    grew from.

    That of a reference: all filters, or what another method's fine-tuned network kept.
    """
    one = method(task.name)
    if not isinstance(one, Reference):
        head, candidates = read_row(path := row_path(folder, task.name, task.seed))
        check_same(path, head, identity(bench, task.name, task.seed))
        history = history_of(candidates, bench)
        row = chosen(seen(task.name, bench.space, history), task.share)
        if row is None:
            return None, {}
        error, cost = map(float, history.F[row])
        found = {"found_error": error, "found_macs": round(cost, 6)}
        return at_equal_macs(bench, history, task.name, task.seed, task.share), found
    if one.of is None:
        return np.ones(bench.layout.n_bits, dtype=bool), {}
    path = replace(task, name=one.of).path(folder)
    if not path.exists():
        raise RunError(f"{path} is missing: fine-tune {one.of} before its network from scratch")
    text = read_tuning(path).get("genome")
    return (None if text is None else from_hex(text, bench.layout.n_bits)), {}


def trained(
    bench: Bench, genome: np.ndarray, recipe: Training, training: int, anew: bool = False
) -> dict[str, Any]:
    """The outcome of one fine-tuning, or of a training from weights drawn anew: test error, mean
    training loss, seconds.
    """
    start = time.perf_counter()
    network = slim(bench.drawn(training) if anew else bench.model, bench.layout, genome)
    log = train.fit(network.to(bench.device), bench.trained_on, recipe, training)
    seconds = time.perf_counter() - start
    error = train.error_rate(network, bench.trained_on.test, bench.trained_on)
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
        folder.glob(f"tuned/*-m{round(100 * entry['share'])}-t{entry['training']}*.json")
    ):
        other = read_tuning(path)
        same = all(
            other.get(key) == entry.get(key) for key in ("recipe", "training", "anew", "device")
        )
        if other.get("genome") == genome and same:
            return {key: other[key] for key in ("test_error", "train_error", "seconds")}
    return None


def read_tuning(path: Path) -> dict[str, Any]:
    """One entry; raises ``RunError`` for a file that holds none."""
    entry = read_entries(path, *ENTRY, cure=AGAIN)
    if wrong := [name for name, kind in ENTRY.items() if not isinstance(entry[name], kind)]:
        raise damaged(path, f"{wrong[0]} is {reprlib.repr(entry[wrong[0]])}", AGAIN)
    if "-long" in path.stem and not isinstance(entry["recipe"].get("lr"), int | float):
        raise damaged(path, "no learning rate in its recipe", AGAIN)
    if entry["method"] not in METHODS:
        raise damaged(path, f"a method that is not known here, {entry['method']!r}", AGAIN)
    return entry


def check_tuned(folder: Path, bench: Bench) -> None:
    """Raises ``RunError`` for entries of a network with other weights."""
    for path in sorted(folder.glob("tuned/*.json")):
        check_same(path, read_tuning(path), {"network": bench.network})


def read_tuned(folder: Path, long: bool = False) -> list[dict[str, Any]]:
    """All entries of the short or of the long fine-tuning, at any rate; raises ``RunError`` for a
    damaged one.
    """
    paths = sorted(folder.glob("tuned/*.json"))
    return [read_tuning(path) for path in paths if ("-long" in path.stem) == long]
