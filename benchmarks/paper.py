"""The paper's networks on CIFAR-10 and CIFAR-100, one run after the other, in pieces that continue.

    python benchmarks/paper.py --device cuda --workers 2   # all of it
    python benchmarks/paper.py --device cuda --minutes 10  # a piece; exit status 3 while more is left
    python benchmarks/paper.py --left                      # what is left

The runs are those of the profile paper. Every candidate, generation and epoch is written down as it
ends; what is under way when a piece ends is begun again by the next one, so let a piece be longer
than a candidate and an epoch. On a GPU candidates keep their shape and passes use bfloat16.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dpes.errors import DpesError
from dpes.study import runs
from dpes.study.finished import where
from dpes.study.profiles import PAPER, make_settings
from dpes.study.settings import Settings

DATASETS = ("cifar10", "cifar100")
MORE = 3  # exit status: the piece is over, the study is not
ON_GPU = {
    "shape": "full",
    **{f"{part}precision": "bfloat16" for part in ("", "baseline_", "finetune_")},
}


class PieceOver(BaseException):
    """The minutes are over; like Ctrl-C it ends whatever is under way."""


def series(device: str, only: Sequence[str] = PAPER, **changes: Any) -> list[Settings]:
    """The settings of all runs, data set by data set."""
    special = ON_GPU if device.startswith("cuda") else {}
    names = [{"model": m, "dataset": d} for d in DATASETS for m in PAPER if m in only]
    # published weights stay those of the profile, whatever a recipe says of a training of one's own
    return [
        make_settings(
            "paper", weights=make_settings("paper", **n).weights, **n, **special | changes
        )
        for n in names
    ]


def done(settings: Settings) -> bool:
    return (where(settings) / "result.json").exists()


@contextmanager
def piece(minutes: float | None) -> Iterator[None]:
    """Raises ``PieceOver`` in the block after so many minutes; never when None."""

    def over(number: int, frame: Any) -> None:
        raise PieceOver

    before = signal.signal(signal.SIGALRM, over)
    try:
        signal.setitimer(signal.ITIMER_REAL, 60 * minutes if minutes else 0)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def work(todo: list[Settings], device: str, workers: int, minutes: float | None) -> int:
    """Run what is left; the exit status."""
    try:
        with piece(minutes):
            for settings in todo:
                if done(settings):
                    continue
                started = time.perf_counter()
                run = runs.run(settings, device=device, progress=True, workers=workers)
                print(f"{run.path}: {time.perf_counter() - started:.0f} s", flush=True)
    except PieceOver:
        left = [settings for settings in todo if not done(settings)]
        print(f"{minutes:g} minutes are over, {len(left)} of {len(todo)} runs are left", flush=True)
        return MORE
    return 0


def main(argv: Sequence[str] | None = None, **changes: Any) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1 (default: cpu)")
    about = "processes; --device cuda spreads them over all GPUs (default: 1)"
    parser.add_argument("--workers", type=int, default=1, help=about)
    parser.add_argument("--minutes", type=float, help="of this piece (default: no end)")
    about = f"some networks, comma between them: {', '.join(PAPER)}"
    parser.add_argument("--only", default=",".join(PAPER), help=about)
    parser.add_argument("--left", action="store_true", help="only list what is left")
    given = parser.parse_args(argv)
    only = given.only.split(",")
    if unknown := set(only) - set(PAPER):
        parser.error(f"unknown network {min(unknown)!r}: choose from {', '.join(PAPER)}")
    try:
        todo = series(given.device, only, **changes)
        if given.left:
            print("\n".join(str(where(s)) for s in todo if not done(s)))
            return 0
        return work(todo, given.device, given.workers, given.minutes)
    except DpesError as error:
        print(f"paper: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("paper: stopped; the same command continues", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
