"""What may be written on the command line: the commands, and a flag for each setting."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from . import __version__, fields
from .disk import path_of
from .study import data, models, profiles
from .study.arena import ARENAS
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
    about = "Prune the filters of trained CNNs by a multi-objective evolution strategy."
    top = Parser(prog="python -m dpes", description=about)
    top.add_argument("--version", action="version", version=f"dpes {__version__}")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    names: dict[str, Any] = {"dest": "command", "metavar": "command", "required": True}
    commands = top.add_subparsers(parser_class=Parser, **names)
    for name, (about, parts) in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=about)
        for part in parts:
            part(command)
    return top


def add_folder(command: Parser) -> None:
    about = (
        "folder of run directories (default: $DPES_RUNS, else data/runs here or in the repository)"
    )
    command.add_argument("--folder", help=about)


def add_run(command: Parser) -> None:
    command.add_argument("run", help="its directory, or its name in the folder of runs")
    add_folder(command)


def add_machine(command: Parser) -> None:
    about = "torch device, such as cpu or cuda (default: cpu)"
    command.add_argument("--device", default="cpu", help=about)
    about = "threads of torch on the CPU, which decide the last bits; beside other work one is best"
    command.add_argument("--threads", type=int, help=about)
    command.add_argument("--quiet", action="store_true", help="no progress")


def add_workers(command: Parser) -> None:
    about = "processes, of one thread each, that evaluate candidates and train (default: 1)"
    command.add_argument("--workers", type=int, default=1, help=about)


def add_scheduler(command: Parser) -> None:
    about = "evaluate candidates on a Dask cluster: its scheduler's address or file, or local:N"
    command.add_argument("--scheduler", metavar="ADDRESS|FILE|local:N", help=about)


def add_plot(command: Parser) -> None:
    about = "draw it, too; the ending says how: png, svg or pdf"
    command.add_argument("--plot", metavar="FILE", help=about)


def add_masks(command: Parser) -> None:
    about = "random masks (default: 3); being ahead of all n of them is luck once in n + 1 times"
    command.add_argument("--masks", type=int, default=3, help=about)
    about = "also what a search on widths finds (uses L1 norms), as long as the run's own"
    command.add_argument("--widths", action="store_true", help=about)


def add_out(command: Parser) -> None:
    command.add_argument("--out", help="folder for the files (default: build/onnx/<run>)")


def add_tournament(command: Parser) -> None:
    about = "some methods, comma between them (default: all)"
    command.add_argument("--only", default="", help=about)
    command.add_argument("--seeds", default="0-4", help="of the searches: 3, or 0-4 (default)")
    place = Path("data/arena")
    about = f"of rows (default: {place})"
    command.add_argument("--folder", type=folder_of, default=place, help=about)
    about = "resnet20 (default), or a larger network on which few methods are confirmed; its rows "
    about += "lie in a folder of its name: " + ", ".join(ARENAS)
    command.add_argument("--model", default="resnet20", choices=ARENAS, metavar="MODEL", help=about)
    command.add_argument("--searches", action="store_true", help="search only, fine-tune nothing")
    about = "train the networks of rows that are there as long as the study's own runs (--only: by "
    about += "default those that decide the question)"
    command.add_argument("--long", action="store_true", help=about)
    about = "torch device of long trainings, such as cuda (default: cpu, where all else happens)"
    command.add_argument("--device", default="cpu", help=about)
    about = "peak learning rate of long trainings, beside those at their recipe's own"
    command.add_argument("--lr", type=float, help=about)
    about = "judge what was fine-tuned by other kinds of fitness"
    command.add_argument("--fitness", action="store_true", help=about)
    command.add_argument("--left", action="store_true", help="only say what is left")


def folder_of(text: str) -> Path:
    return path_of(text, "folder")


def add_settings(command: Parser) -> None:
    """One flag for each setting; what is not given comes from the profile."""
    for name, (_, f) in flat_fields().items():
        flag = "--" + name.replace("_", "-")
        about = f"{f.metadata['help']} [{f.metadata['origin']}]"
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


COMMANDS: dict[str, tuple[str, list[Callable[[Parser], None]]]] = {
    "run": (
        "search, fine-tune and test; a finished run is only read, a half-done one continued",
        [add_settings, add_folder, add_machine, add_workers, add_scheduler],
    ),
    "train": (
        "train (or load) the network that a run starts from, and test it",
        [add_settings, add_machine],
    ),
    "where": ("print a run's directory and start nothing", [add_settings, add_folder]),
    "show": ("list all finished runs with their solutions, and their rivals", [add_folder]),
    "front": ("print, and plot, the front of a finished run", [add_run, add_plot]),
    "rivals": (
        "train rivals of a finished run at its knee's MACs: random masks and uniform L1",
        [add_run, add_machine, add_workers, add_masks],
    ),
    "restore": (
        "train again the weights that a finished run lacks, as large ones are not published",
        [add_run, add_machine, add_workers],
    ),
    "export": (
        "write a finished run's networks as ONNX, check them against torch, compare speed",
        [add_run, add_out],
    ),
    "arena": (
        "the tournament: every search and every simple method on one network, over seeds",
        [add_workers, add_tournament],
    ),
}
