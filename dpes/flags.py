"""What may be written on the command line: the commands, and a flag for each setting."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from . import __version__, fields
from .study import data, models, profiles
from .study.settings import flat_fields

NAMES: dict[str, list[str]] = {  # settings whose values are names of a registry
    "model": list(models.MODELS),
    "dataset": list(data.DATASETS),
    "weights": ["train", *models.WEIGHTS],
    "profile": list(profiles.PROFILES),
}


class Parser(argparse.ArgumentParser):
    """Ends with one line that names what was wrong, not with the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> Parser:
    """The whole command line; a command is a function of ``__main__``."""
    top = Parser(
        prog="python -m dpes",
        description="Prune the filters of trained CNNs by a multi-objective evolution strategy.",
    )
    top.add_argument("--version", action="version", version=f"dpes {__version__}")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(
        dest="command", metavar="command", required=True, parser_class=Parser
    )

    def command(name: str, about: str, *parts: Callable[[Parser], None]) -> Parser:
        added = commands.add_parser(name, help=about, description=about)
        for part in parts:
            part(added)
        return added

    about = "search, fine-tune and test; a finished run is only read, a half-done one continued"
    scheduler = command("run", about, add_settings, add_folder, add_machine, add_workers)
    about = "evaluate candidates on a Dask cluster: its scheduler's address or file, or local:N"
    scheduler.add_argument("--scheduler", metavar="ADDRESS|FILE|local:N", help=about)
    about = "train (or load) the network that a run starts from, and test it"
    command("train", about, add_settings, add_machine)
    command("where", "print a run's directory and start nothing", add_settings, add_folder)
    about = "list all finished runs with their three solutions, and their rivals"
    command("show", about, add_folder)
    plot = command("front", "print, and plot, the front of a finished run", add_run)
    plot.add_argument(
        "--plot", metavar="FILE", help="draw it, too; the ending says how: png, svg or pdf"
    )
    about = "train rivals of a finished run at its knee's MACs: random masks and uniform L1"
    masks = command("rivals", about, add_run, add_machine, add_workers)
    about = "random masks (default: 3); being ahead of all n of them is luck once in n + 1 times"
    masks.add_argument("--masks", type=int, default=3, help=about)
    about = (
        "also what a search on widths finds (uses L1 norms), which takes as long as the run's own"
    )
    masks.add_argument("--widths", action="store_true", help=about)
    about = (
        "train again the weights that a finished run lacks because they are too large to publish"
    )
    command("restore", about, add_run, add_machine, add_workers)
    about = (
        "write a finished run's networks as ONNX, check them against torch, compare size and speed"
    )
    out = command("export", about, add_run)
    out.add_argument("--out", help="folder for the files (default: build/onnx/<run>)")
    about = "the tournament: every search and every simple method on one network, over seeds"
    rows = command("arena", about, add_workers)
    rows.add_argument("--only", default="", help="some methods, comma between them (default: all)")
    rows.add_argument("--seeds", default="0-4", help="of the searches: 3, or 0-4 (default)")
    rows.add_argument(
        "--folder", type=Path, default=Path("data/arena"), help="of rows (default: data/arena)"
    )
    rows.add_argument("--searches", action="store_true", help="search only, fine-tune nothing")
    about = "judge what was fine-tuned by other kinds of fitness"
    rows.add_argument("--fitness", action="store_true", help=about)
    rows.add_argument("--left", action="store_true", help="only say what is left")
    return top


def add_folder(command: Parser) -> None:
    about = "folder of run directories (default: $DPES_RUNS, else data/runs)"
    command.add_argument("--folder", help=about)


def add_run(command: Parser) -> None:
    command.add_argument("run", help="its directory, or its name in the folder of runs")
    add_folder(command)


def add_machine(command: Parser) -> None:
    command.add_argument(
        "--device", default="cpu", help="torch device, such as cpu or cuda (default: cpu)"
    )
    about = "threads of torch on the CPU; one is best beside other work"
    command.add_argument("--threads", type=int, help=about)
    command.add_argument("--quiet", action="store_true", help="no progress")


def add_workers(command: Parser) -> None:
    about = (
        "processes, of one thread each, that evaluate candidates and train networks (default: 1)"
    )
    command.add_argument("--workers", type=int, default=1, help=about)


def add_settings(command: Parser) -> None:
    """One flag for each setting; what is not given comes from the profile."""
    for name, (_, f) in flat_fields().items():
        flag, about = (
            "--" + name.replace("_", "-"),
            f"{f.metadata['help']} [{f.metadata['origin']}]",
        )
        if limits := fields.limits(f.metadata):
            about += f"; {limits}"
        if choices := NAMES.get(name) or f.metadata.get("choices"):
            about += f": {', '.join(choices)}"
        word = str(f.type).split(" | ")[0]
        options: dict[str, Any] = {"default": "quick" if name == "profile" else argparse.SUPPRESS}
        if word == "bool":
            options["action"] = argparse.BooleanOptionalAction
        elif str(f.type).endswith(" | None"):
            about += "; none leaves it unset"
            options |= {"type": or_none(fields.TYPES[word]), "metavar": word.upper()}
        else:
            options |= {"type": fields.TYPES[word], "metavar": word.upper()}
        command.add_argument(flag, help=about.replace("%", "%%"), **options)


def or_none(read_value: Callable[[str], Any]) -> Callable[[str], Any]:
    """Reads a value of a setting that may be unset, such as one that a profile sets."""

    def read(text: str) -> Any:
        return None if text.lower() == "none" else read_value(text)

    read.__name__ = read_value.__name__  # argparse puts it into its message
    return read
