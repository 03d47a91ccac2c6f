"""The command line: ``python -m dpes run | train | where | show | front | rivals | restore |
export | arena``.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .disk import path_of
from .errors import DpesError, SettingsError, require
from .flags import parser
from .strategy import es
from .strategy.workers import check_workers
from .study import data, profiles
from .study.settings import Settings, flat_fields


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, or 2 after one line that names a mistake and its cure."""
    arguments = parser().parse_args(argv)
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows no other letters than ASCII
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # a cluster's or a system's stop is as orderly as Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        use_threads(getattr(arguments, "threads", None))
        check_workers(getattr(arguments, "workers", 1))
        COMMANDS[arguments.command](arguments)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:  # whoever reads the output, such as head, has what it wanted
        # else Python complains of what is buffered
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE, as a shell says
    except (DpesError, OSError) as error:
        if arguments.debug:
            raise
        print(f"dpes: {in_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dpes: stopped; the same command continues where it was", file=sys.stderr)
        return 130


def in_one_line(error: DpesError | OSError) -> str:
    if isinstance(error, DpesError):
        return str(error)
    place = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{place}; once that is put right, the same command continues"


def use_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        most = 4 * (os.cpu_count() or 1)
        if not 1 <= threads <= most:
            limits = f"must be at least 1 and at most {most}, four for each core"
            raise SettingsError(f"threads = {threads}: {limits}; {os.cpu_count()} here")
        torch.set_num_threads(threads)


def settings_of(arguments: argparse.Namespace) -> Settings:
    given = {name: getattr(arguments, name) for name in flat_fields() if hasattr(arguments, name)}
    return profiles.make_settings(**given)


def located(arguments: argparse.Namespace) -> Any:
    from .study import finished

    return finished.located(arguments.run, arguments.folder)


# ---- commands ------------------------------------------------------------------------------------
def run(arguments: argparse.Namespace) -> None:
    from .study import runs

    means = {
        "progress": not arguments.quiet,
        "workers": arguments.workers,
        "scheduler": arguments.scheduler,
    }
    finished = runs.run(settings_of(arguments), arguments.folder, arguments.device, **means)
    print(finished.path)
    print(table(finished.solutions))


def train(arguments: argparse.Namespace) -> None:
    from .study import train as training
    from .study.baseline import load_baseline
    from .study.environment import check_device

    settings = settings_of(arguments)
    check_device(arguments.device)
    dataset = data.load(settings.dataset, device=arguments.device)
    network = load_baseline(settings, dataset, arguments.device, progress=not arguments.quiet)
    error = training.error_rate(network, dataset.test, dataset)
    print(f"{settings.baseline_id}: test error {100 * error:.2f} %")


def where(arguments: argparse.Namespace) -> None:
    from .study import finished

    print(finished.where(settings_of(arguments), arguments.folder))


def show(arguments: argparse.Namespace) -> None:
    from .study import finished, rivals

    folder = finished.runs_folder(arguments.folder)
    frame = finished.load_runs(folder)
    if frame.empty:
        print(f"no finished run in {folder}; make one with: python -m dpes run")
    for name, rows in frame.groupby("run", sort=False):
        print(f"{name}\n{table(rows)}")
        beside = rivals.read_rivals(finished.open_run(folder / name))
        if beside is not None:
            print("  at the knee's MACs:\n" + "\n".join(table(beside[1:]).splitlines()[1:]))


def front(arguments: argparse.Namespace) -> None:
    if arguments.plot is not None:
        require("matplotlib", "seaborn", extra="study")
        import matplotlib

        matplotlib.use("agg")
        from .report import figures

        figures.check_ending(arguments.plot)
        arguments.plot = path_of(arguments.plot, "plot")
    finished = located(arguments)
    print(table(finished.solutions))
    print("archive (candidates that none other dominates):")
    for row in finished.archive.itertuples():
        costs = f"{row.macs / 1e6:9.3f} M MACs  {row.params:9d} params"
        print(f"  generation {row.generation:3d}  search error {100 * row.error:6.2f} %  {costs}")
    if arguments.plot is not None:
        figures.theme()
        figure, alt = figures.front(finished)
        figure.savefig(arguments.plot)
        print(f"{arguments.plot}: {alt}")


def rivals(arguments: argparse.Namespace) -> None:
    from .study.rivals import train_rivals

    means = {
        "progress": not arguments.quiet,
        "workers": arguments.workers,
        "widths": arguments.widths,
    }
    print(table(train_rivals(located(arguments), arguments.masks, arguments.device, **means)))


def arena(arguments: argparse.Namespace) -> None:
    from .study import tournament

    names = ("folder", "only", "seeds", "model", "searches", "long", "device", "lr")
    options = tournament.Options(**{name: getattr(arguments, name) for name in names})
    means = {name: getattr(arguments, name) for name in ("workers", "left", "fitness")}
    tournament.run(options, **means, say=lambda line: print(line, flush=True))


def restore(arguments: argparse.Namespace) -> None:
    from .study import runs

    finished = located(arguments)
    errors = runs.restore(finished, arguments.device, not arguments.quiet, arguments.workers)
    for role, error in errors.items():
        before = 100 * finished.result[role]["error"]
        print(f"{role}: test error {100 * error:.2f} %, in the run {before:.2f} %")
    print(f"{finished.path}: all weights are there")


def export(arguments: argparse.Namespace) -> None:
    import torch

    from .study import exporting
    from .study.baseline import load_baseline

    finished = located(arguments)
    solutions = {role: finished.network(role) for role in es.ROLES}
    dataset = data.load(finished.settings.dataset)
    images = data.normalise(dataset.test.x[:64], dataset)
    out = path_of(arguments.out or Path("build") / "onnx" / finished.path.name, "out")
    out.mkdir(parents=True, exist_ok=True)
    networks = {"baseline": load_baseline(finished.settings, dataset)} | solutions
    paths = {
        name: exporting.export(net, images, out / f"{name}.onnx") for name, net in networks.items()
    }
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    worst = {
        name: max(exporting.check(paths[name], networks[name], x) for x in (images, noise))
        for name in paths
    }
    print(f"  {'network':10s}{'size':>15s} {'onnxruntime':>39s} {'torch':>41s}   differs by")
    for name, row in exporting.compare(paths, networks, "baseline", images).items():
        times = (
            f"{1e3 * row[runtime + 'seconds']:9.1f} ms {100 * row[runtime + 'ratio']:5.1f} % "
            f"({100 * row[runtime + 'low']:5.1f} to {100 * row[runtime + 'high']:5.1f})"
            for runtime in ("", "torch_")
        )
        print(f"  {name:10s}{row['bytes'] / 1e3:12.1f} kB {'  '.join(times)}   {worst[name]:.0e}")
    print(
        f"{out}: 64 images; % of the baseline's time, medians and quartiles of pairs; largest "
        "difference from torch, relative"
    )


def table(solutions: Any) -> str:
    """Baseline and solutions as aligned text: test errors in percent, costs, and what is left of
    the baseline's.
    """
    lines = ["  solution   error  (cut, recalibrated)    MACs            parameters"]
    for row in solutions.itertuples():
        steps = ""
        if row.solution != "baseline":
            steps = f"({100 * row.error_cut:5.2f}, {100 * row.error_recalibrated:5.2f})"
        lines.append(
            f"  {row.solution:9s} {100 * row.error:5.2f} %  {steps:18s}  "
            f"{row.macs / 1e6:8.2f} M {100 * row.macs_left:5.1f} %  "
            f"{int(row.params):9d} {100 * row.params_left:5.1f} %"
        )
    return "\n".join(lines)


COMMANDS = {f.__name__: f for f in (run, train, where, show, front, rivals, restore, export, arena)}

if __name__ == "__main__":
    sys.exit(main())
