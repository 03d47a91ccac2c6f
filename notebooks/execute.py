"""Executes the parameterised notebooks of runs.yml into the chapters of the book, two at a time; a
chapter that is up to date is left alone.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from at_once import several
from chapters import Chapter, Mistake, chapters, check, choose
from outputs import strip

ROOT = Path(__file__).resolve().parents[1]
KERNEL = "python3"


def execute(chapter: Chapter, publish: bool = True) -> tuple[bool, str]:
    """Execute one chapter in the repository: whether every cell succeeded, and a line that says
    what came of it.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    digest, start = chapter.digest(), time.perf_counter()
    chapter.draft.parent.mkdir(parents=True, exist_ok=True)
    # with agg, figures would vanish from the pages without a word
    os.environ.pop("MPLBACKEND", None)
    try:
        try:
            by_papermill(chapter)
        except RuntimeError as error:
            if isinstance(error, DeadKernelError):
                raise
            # it did not start: Jupyter chooses ports, and another kernel may have been faster
            by_papermill(chapter)
    except (PapermillExecutionError, RuntimeError) as error:
        if isinstance(error, PapermillExecutionError):
            reason = " ".join(error.evalue.split())
            what = f"cell {error.cell_index + 1} failed with {error.ename}: {reason}"
        elif isinstance(error, DeadKernelError):
            what = "the kernel died (out of memory?)"
        else:
            what = f"no kernel starts: {' '.join(str(error).split())}"
        kept = publish and chapter.page.exists()
        stays = f"; {relative(chapter.page)} stays as it was" if kept else ""
        return False, f"{chapter.name}: {what}; see {relative(chapter.draft)}{stays}"
    except KeyboardInterrupt:
        chapter.draft.unlink(missing_ok=True)  # half a chapter is of no use
        raise
    strip(chapter.draft, {"digest": digest, "set": chapter.name}, chapter.own_texts())
    if publish:
        chapter.page.parent.mkdir(parents=True, exist_ok=True)
        os.replace(chapter.draft, chapter.page)
    seconds, place = time.perf_counter() - start, chapter.page if publish else chapter.draft
    if publish:
        note(place.with_suffix(".json"), round(seconds, 1))
    return True, f"{chapter.name}: {seconds:.1f} s, {relative(place)}"


def by_papermill(chapter: Chapter) -> None:
    """The chapter's draft, in a new kernel."""
    import papermill

    papermill.execute_notebook(
        chapter.source,
        chapter.draft,
        chapter.parameters,
        kernel_name=KERNEL,
        cwd=chapter.root,
        # a kernel that is asked to end while a cell runs prints a traceback
        shutdown_kernel="immediate",
        progress_bar=False,
    )


def note(path: Path, seconds: float) -> None:
    """What the page of status says of this execution; apart from the page, whose bytes repeat."""
    from dpes.study.environment import environment

    made = environment("cpu") | {"cores": os.cpu_count(), "seconds": seconds}
    path.write_text(json.dumps(made | {"day": time.strftime("%Y-%m-%d")}, indent=1) + "\n")


def value(text: str) -> Any:
    """A parameter from the command line as number, truth value, None, list or else text."""
    words = {"true": True, "false": False, "null": None}
    if text in words:
        return words[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def relative(path: Path) -> str:
    return os.path.relpath(path)


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """0, 1 when a notebook failed (the others are executed all the same), 2 for a mistake in the
    command, 130 after Ctrl-C.
    """
    try:
        return run(parser().parse_args(argv), root)
    except Mistake as mistake:
        print(f"execute: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "execute: stopped; finished chapters are kept, the same command does the rest",
            file=sys.stderr,
        )
        return 130


def run(arguments: argparse.Namespace, root: Path) -> int:
    extra = {name: value(text) for name, text in arguments.p}
    publish = not arguments.draft and (arguments.publish or not extra)
    chosen = choose(chapters(root), arguments.names)
    chosen = [replace(c, parameters=c.parameters | extra) for c in chosen]
    if arguments.list:
        for c in chosen:
            state = c.state() if c.source.exists() else "no notebook"
            given = ", ".join(f"{k}={v}" for k, v in c.parameters.items())
            print(f"{c.name:20s} {state:8s} {c.notebook}  {given}")
        return 0
    todo = [
        c
        for c in chosen
        if arguments.force or not publish or not c.source.exists() or c.state() != "fresh"
    ]
    for c in todo:
        check(c)
    todo.sort(key=lambda c: c.run is None)  # those that take longest begin
    for c in chosen:
        if c not in todo:
            print(f"{c.name}: up to date", flush=True)
    done = []
    with closing(several(execute, todo, publish, arguments.workers)) as results:
        for succeeded, line in results:
            print(line, file=sys.stdout if succeeded else sys.stderr, flush=True)
            done.append(succeeded)
    return 0 if all(done) else 1


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Execute the notebooks of notebooks/runs.yml into book/chapters/."
    )
    about = "sets of runs.yml, or patterns such as 'quick-*'; all when none is given"
    parser.add_argument("names", nargs="*", metavar="set", help=about)
    where = parser.add_mutually_exclusive_group()
    which = parser.add_mutually_exclusive_group()
    about = "only chapters whose notebook, parameters or package changed (default)"
    which.add_argument("--only-stale", action="store_true", help=about)
    about = "execute chapters that are up to date, too"
    which.add_argument("--force", action="store_true", help=about)
    about = "replace a parameter for this time"
    names = ("NAME", "VALUE")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=names, help=about)
    about = "with -p: write to book/chapters/, not to build/notebooks/"
    where.add_argument("--publish", action="store_true", help=about)
    about = "write to build/notebooks/, whether the pages are up to date or not"
    where.add_argument("--draft", action="store_true", help=about)
    about = "list the sets and their state, execute nothing"
    parser.add_argument("--list", action="store_true", help=about)
    about = "chapters to execute at a time (default: 2, on one core 1)"
    usual = min(2, os.cpu_count() or 1)
    parser.add_argument("--workers", type=at_least_one, default=usual, metavar="N", help=about)
    return parser


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number of chapters, at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
