"""The command line: ``python -m dpes run | train | where | show | front | rivals | restore | export | arena``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import fields
from .errors import DpesError, SettingsError
from .study import profiles
from .study.settings import Settings, flat_fields


class Parser(argparse.ArgumentParser):
    """Ends with one line that names what was wrong, not with the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> Parser:
    top = Parser(prog="python -m dpes", description="Prune the filters of trained CNNs by a multi-objective evolution strategy.")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", metavar="command", required=True, parser_class=Parser)
    for name, about in (
        ("run", "search, fine-tune and test; a finished run is only read, a half-done one continued"),
        ("train", "train (or load) the network that a run starts from, and test it"),
        ("where", "print a run's directory and start nothing"),
    ):
        command = commands.add_parser(name, help=about, description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        add_settings(command)
        command.add_argument("--folder", help="folder of run directories (default: $DPES_RUNS, else data/runs)", default=argparse.SUPPRESS)
        if name != "where":
            command.add_argument("--device", default="cpu", help="torch device, such as cpu or cuda")
            command.add_argument("--threads", type=int, default=None, help="threads of torch on the CPU; one is best beside other work")
            if name == "run":
                command.add_argument(
                    "--workers", type=int, default=1, help="processes, of one thread each, that evaluate candidates and fine-tune solutions"
                )
                about = "evaluate candidates on a Dask cluster instead: its scheduler's address or file, or local:N for N processes"
                command.add_argument("--scheduler", metavar="ADDRESS|FILE|local:N", default=None, help=about)
            command.add_argument("--quiet", action="store_true", help="no progress")
    show = commands.add_parser("show", help="list all finished runs with their three solutions, and their rivals")
    show.add_argument("--folder", default=None, help="folder of run directories")
    front = commands.add_parser("front", help="print, and plot, the front of a finished run")
    front.add_argument("run", help="its directory, or its name in the folder of runs")
    front.add_argument("--folder", default=None, help="folder of run directories")
    front.add_argument("--plot", metavar="FILE", help="draw it, too; the ending says how: png, svg or pdf")
    rivals = commands.add_parser("rivals", help="train rivals of a finished run at its knee's MACs: random masks and uniform L1")
    rivals.add_argument("run", help="its directory, or its name in the folder of runs")
    rivals.add_argument("--folder", default=None, help="folder of run directories")
    about = "how many random masks (default: 3); being ahead of all n of them is luck once in n + 1 times"
    rivals.add_argument("--masks", type=int, default=3, help=about)
    rivals.add_argument(
        "--widths", action="store_true", help="also what a search on widths finds (uses L1 norms), which takes as long as the run's own"
    )
    restore = commands.add_parser("restore", help="train again the weights that a finished run lacks because they are too large to publish")
    restore.add_argument("run", help="its directory, or its name in the folder of runs")
    restore.add_argument("--folder", default=None, help="folder of run directories")
    for command in (rivals, restore):
        command.add_argument("--device", default="cpu", help="torch device, such as cpu or cuda")
        command.add_argument("--threads", type=int, default=None, help="threads of torch on the CPU; one is best beside other work")
        command.add_argument("--workers", type=int, default=1, help="processes, of one thread each, that train them")
        command.add_argument("--quiet", action="store_true", help="no progress")
    export = commands.add_parser("export", help="write a finished run's networks as ONNX, check them against torch, compare size and speed")
    export.add_argument("run", help="its directory, or its name in the folder of runs")
    export.add_argument("--folder", default=None, help="folder of run directories")
    export.add_argument("--out", default=None, help="folder for the files (default: build/onnx/<run>)")
    arena = commands.add_parser("arena", help="the tournament: every search and every simple method on one network, over seeds")
    arena.add_argument("--only", default="", help="some methods, comma between them (default: all)")
    arena.add_argument("--seeds", default="0-4", help="of the searches: 3, or 0-4 (default)")
    arena.add_argument("--workers", type=int, default=1, help="processes at the same time, one thread each")
    arena.add_argument("--folder", type=Path, default=Path("data/arena"), help="where rows lie (default: data/arena)")
    arena.add_argument("--searches", action="store_true", help="search only, fine-tune nothing")
    arena.add_argument("--fitness", action="store_true", help="judge what was fine-tuned by other kinds of fitness")
    arena.add_argument("--left", action="store_true", help="only say what is left")
    return top


def add_settings(command: argparse.ArgumentParser) -> None:
    """One flag for each setting; what is not given comes from the profile."""
    for name, (_, f) in flat_fields().items():
        flag, about = "--" + name.replace("_", "-"), f"{f.metadata['help']} [{f.metadata['origin']}]"
        if limits := fields.limits(f.metadata):
            about += f"; {limits}"
        kind = f.type.split(" | ")[0]
        if name in NAMES:
            about += f": {', '.join(NAMES[name]())}"
        if name == "profile":
            command.add_argument(flag, default="quick", help=f"{about}: {', '.join(profiles.PROFILES)}")
        elif kind == "bool":
            command.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=about)
        else:
            if "choices" in f.metadata:
                about += f": {', '.join(f.metadata['choices'])}"
            reads: Callable[[str], Any] = fields.TYPES[kind]
            if f.type.endswith(" | None"):
                about, reads = f"{about}; none leaves it unset", or_none(reads)
            command.add_argument(flag, type=reads, default=argparse.SUPPRESS, help=about, metavar=kind.upper())


def or_none(read_value: Callable[[str], Any]) -> Callable[[str], Any]:
    """Reads a value of a setting that may be unset, such as one that a profile sets."""

    def read(text: str) -> Any:
        return None if text.lower() == "none" else read_value(text)

    read.__name__ = read_value.__name__  # argparse puts it into its message
    return read


def names_of(module: str, table: str) -> list[str]:
    import importlib

    return list(getattr(importlib.import_module(f".study.{module}", __package__), table))


NAMES = {  # settings whose values are names of a registry
    "model": lambda: names_of("models", "MODELS"),
    "dataset": lambda: names_of("data", "DATASETS"),
    "weights": lambda: ["train", *names_of("models", "WEIGHTS")],
}


def settings_of(arguments: argparse.Namespace) -> Settings:
    return profiles.make_settings(**{name: getattr(arguments, name) for name in flat_fields() if hasattr(arguments, name)})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, or 2 after one line on stderr that names a mistake and its cure."""
    arguments = parser().parse_args(argv)
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster's or a system's stop is as orderly as Ctrl-C
    try:
        use_threads(getattr(arguments, "threads", None))
        COMMANDS[arguments.command](arguments)
        sys.stdout.flush()
        return 0
    except DpesError as error:
        if arguments.debug:
            raise
        print(f"dpes: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads the output, such as head, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains of what is still buffered
        return 141  # 128 + SIGPIPE, as a shell says
    except OSError as error:
        if arguments.debug:
            raise
        place = f": {error.filename}" if error.filename else ""
        print(f"dpes: {error.strerror or error}{place}; once that is put right, the same command continues", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dpes: stopped; the same command continues where it was", file=sys.stderr)
        return 130


def use_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        cores = os.cpu_count() or 1
        if not 1 <= threads <= 4 * cores:
            raise SettingsError(f"threads = {threads}: must be at least 1 and at most {4 * cores}, four for each core; {cores} here")
        torch.set_num_threads(threads)


def check_workers(workers: int) -> None:
    from .strategy.cluster import MOST

    if not 1 <= workers <= MOST:
        limits = f"must be at least 1 and at most {MOST}"
        raise SettingsError(f"workers = {workers}: {limits}; one for each core is enough, {os.cpu_count()} here")


def run(arguments: argparse.Namespace) -> None:
    from .study import runs

    check_workers(arguments.workers)
    folder = getattr(arguments, "folder", None)
    how = {"progress": not arguments.quiet, "workers": arguments.workers, "scheduler": arguments.scheduler}
    finished = runs.run(settings_of(arguments), folder, arguments.device, **how)
    print(finished.path)
    print(table(finished.solutions))


def train(arguments: argparse.Namespace) -> None:
    from .study import data
    from .study import train as training
    from .study.baseline import load_baseline
    from .study.environment import check_device

    settings = settings_of(arguments)
    check_device(arguments.device)
    dataset = data.load(settings.dataset, device=arguments.device)
    network = load_baseline(settings, dataset, arguments.device, progress=not arguments.quiet)
    print(f"{settings.baseline_id}: test error {100 * training.error_rate(network, dataset.test, dataset, 250):.2f} %")


def where(arguments: argparse.Namespace) -> None:
    from .study import runs

    print(runs.where(settings_of(arguments), getattr(arguments, "folder", None)))


def show(arguments: argparse.Namespace) -> None:
    from .study import rivals, runs

    frame = runs.load_runs(arguments.folder)
    if frame.empty:
        print(f"no finished run in {runs.runs_folder(arguments.folder)}; make one with: python -m dpes run")
    for name, rows in frame.groupby("run", sort=False):
        print(f"{name}\n{table(rows)}")
        frame = rivals.read_rivals(runs.open_run(runs.runs_folder(arguments.folder) / name))
        if frame is not None:
            print("  at the knee's MACs:\n" + "\n".join(table(frame[1:]).splitlines()[1:]))


def rivals(arguments: argparse.Namespace) -> None:
    from .study import rivals as rival_runs
    from .study import runs

    if arguments.masks < 0:
        raise SettingsError(f"masks = {arguments.masks}: must be at least 0")
    check_workers(arguments.workers)
    finished = runs.open_run(located(arguments))
    how = {"progress": not arguments.quiet, "workers": arguments.workers, "widths": arguments.widths}
    print(table(rival_runs.train_rivals(finished, arguments.masks, arguments.device, **how)))


def restore(arguments: argparse.Namespace) -> None:
    from .study import runs

    check_workers(arguments.workers)
    finished = runs.open_run(located(arguments))
    for role, error in runs.restore(finished, arguments.device, not arguments.quiet, arguments.workers).items():
        print(f"{role}: test error {100 * error:.2f} %, in the run {100 * finished.result[role]['error']:.2f} %")
    print(f"{finished.path}: all weights are there")


def front(arguments: argparse.Namespace) -> None:
    from .study import runs

    if arguments.plot is not None:
        from .report import figures

        figures.check_ending(arguments.plot)
    finished = runs.open_run(located(arguments))
    print(table(finished.solutions))
    print("archive (candidates that none other dominates):")
    for row in finished.archive.itertuples():
        print(
            f"  generation {row.generation:3d}  search error {100 * row.error:6.2f} %  {row.macs / 1e6:9.3f} M MACs  {row.params:9d} params"
        )
    if arguments.plot is not None:
        import matplotlib

        matplotlib.use("agg")
        figures.theme()
        figure, alt = figures.front(finished)
        figure.savefig(arguments.plot)
        print(f"{arguments.plot}: {alt}")


def arena(arguments: argparse.Namespace) -> None:
    from .study import tournament

    check_workers(arguments.workers)
    options = {name: getattr(arguments, name) for name in ("folder", "only", "seeds", "workers", "searches", "left", "fitness")}
    tournament.run(**options, say=lambda line: print(line, flush=True))


def located(arguments: argparse.Namespace) -> Path:
    """A run named by its directory, or by its name in the folder of runs."""
    from .study.runs import runs_folder

    return Path(arguments.run) if Path(arguments.run).exists() else runs_folder(arguments.folder) / arguments.run


def export(arguments: argparse.Namespace) -> None:
    import torch

    from .strategy import es
    from .study import data, runs
    from .study import exporting as onnx
    from .study.baseline import load_baseline

    finished = runs.open_run(located(arguments))
    solutions = {role: finished.network(role) for role in es.ROLES}
    dataset = data.load(finished.settings.dataset)
    images = data.normalise(dataset.test.x[:64], dataset)
    out = Path(arguments.out or Path("build") / "onnx" / finished.path.name)
    out.mkdir(parents=True, exist_ok=True)
    networks = {"baseline": load_baseline(finished.settings, dataset)} | solutions
    paths = {name: onnx.export(network, images, out / f"{name}.onnx") for name, network in networks.items()}
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    worst = {name: max(onnx.check(paths[name], networks[name], x) for x in (images, noise)) for name in paths}
    print(f"  {'network':10s}{'size':>15s} {'onnxruntime':>39s} {'torch':>41s}   differs by")
    for name, row in onnx.compare(paths, networks, "baseline", images).items():
        times = (
            f"{1e3 * row[runtime + 'seconds']:9.1f} ms {100 * row[runtime + 'ratio']:5.1f} % "
            f"({100 * row[runtime + 'low']:5.1f} to {100 * row[runtime + 'high']:5.1f})"
            for runtime in ("", "torch_")
        )
        print(f"  {name:10s}{row['bytes'] / 1e3:12.1f} kB {'  '.join(times)}   {worst[name]:.0e}")
    print(f"{out}: 64 images; % of the baseline's time, medians and quartiles of pairs; largest difference from torch, relative")


def table(solutions: Any) -> str:
    """Baseline and solutions as aligned text: test errors in percent, costs, and what is left of the baseline's."""
    lines = ["  solution   error  (cut, recalibrated)    MACs            parameters"]
    for row in solutions.itertuples():
        steps = "" if row.solution == "baseline" else f"({100 * row.error_cut:5.2f}, {100 * row.error_recalibrated:5.2f})"
        lines.append(
            f"  {row.solution:9s} {100 * row.error:5.2f} %  {steps:18s}  {row.macs / 1e6:8.2f} M {100 * row.macs_left:5.1f} %  "
            f"{int(row.params):9d} {100 * row.params_left:5.1f} %"
        )
    return "\n".join(lines)


COMMANDS = {function.__name__: function for function in (run, train, where, show, front, rivals, restore, export, arena)}

if __name__ == "__main__":
    sys.exit(main())
