"""Executes the parameterised notebooks of runs.yml into the chapters of the book; a chapter that is
up to date is left alone.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KERNEL = "python3"


class Mistake(Exception):
    """What the person at the keyboard can put right: one line, exit status 2."""


@dataclass(frozen=True)
class Chapter:
    """A notebook with a named set of parameters; ``root`` is the repository."""

    name: str
    notebook: str
    parameters: dict[str, Any]
    root: Path

    @property
    def source(self) -> Path:
        return self.root / "notebooks" / self.notebook

    @property
    def draft(self) -> Path:
        """Where papermill writes, also when a cell fails."""
        return self.root / "build" / "notebooks" / f"{self.name}.ipynb"

    @property
    def page(self) -> Path:
        """What the book shows: the last execution that succeeded."""
        return self.root / "book" / "chapters" / f"{self.name}.ipynb"

    def digest(self) -> str:
        """SHA-256 of all that the page is made from: the notebook without outputs, its parameters,
        the package.
        """
        cells = [
            (
                cell["cell_type"],
                "".join(cell["source"]),
                {k: v for k, v in cell["metadata"].items() if k not in NOISE},
            )
            for cell in json.loads(self.source.read_text(encoding="utf-8"))["cells"]
        ]
        digest = hashlib.sha256(json.dumps([cells, self.parameters], sort_keys=True).encode())
        texts = (self.root / "notebooks" / "texts").glob("*.md")
        endings = (".py", ".js", ".css")
        package = [p for p in (self.root / "dpes").rglob("*") if p.suffix in endings]
        for path in sorted([*package, *texts]):
            digest.update(
                path.relative_to(self.root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0"
            )
        return digest.hexdigest()

    def own_texts(self) -> dict[str, str]:
        """What the page says of its family of networks alone: name of a part -> Markdown, from
        notebooks/texts/.
        """
        if "model" not in self.parameters:
            return {}
        from dpes.study.models import MODELS

        spec = MODELS[self.parameters["model"]]
        file = self.root / "notebooks" / "texts" / f"{spec.family}.md"
        dataset = self.parameters.get("dataset", "digits").replace("cifar", "CIFAR-")
        text = file.read_text(encoding="utf-8").replace("DATASET", dataset)
        parts = PART.split(text.replace("NETWORK", spec.about.partition(",")[0]))
        return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}

    def state(self) -> str:
        """``fresh``, ``stale`` or ``missing``."""
        if not self.page.exists():
            return "missing"
        try:
            stored = json.loads(self.page.read_text(encoding="utf-8"))["metadata"]["dpes"]["digest"]
        except (ValueError, KeyError):
            return "stale"
        return "fresh" if stored == self.digest() else "stale"


def chapters(root: Path) -> dict[str, Chapter]:
    """All parameter sets of runs.yml by name."""
    import yaml

    runs = yaml.safe_load((root / "notebooks" / "runs.yml").read_text(encoding="utf-8"))
    return {
        name: Chapter(name, notebook, dict(values or {}), root)
        for notebook, sets in runs.items()
        for name, values in sets.items()
    }


def choose(known: dict[str, Chapter], names: Sequence[str]) -> list[Chapter]:
    """The sets of these names or patterns (``quick-*``) in the order of runs.yml; all of them when
    none is named.
    """
    for name in names:
        if not fnmatch.filter(known, name):
            raise Mistake(f"unknown set {name!r}: choose from {', '.join(known)}")
    return [
        chapter
        for name, chapter in known.items()
        if not names or any(fnmatch.fnmatchcase(name, n) for n in names)
    ]


# of parameters that are checked: float takes an int as well
TYPES = ("bool", "dict", "int", "list", "str")


def check(chapter: Chapter) -> None:
    """Refuse a notebook that is not there, and parameters that it does not know or declares of
    another type; papermill would only warn.
    """
    import papermill

    if not chapter.source.exists():
        raise Mistake(f"{chapter.name}: no notebook notebooks/{chapter.notebook}")
    known = papermill.inspect_notebook(str(chapter.source))
    for name, given in chapter.parameters.items():
        if name not in known:
            raise Mistake(
                f"{chapter.name}: unknown parameter {name!r}: notebooks/{chapter.notebook} knows "
                f"{', '.join(known) or 'none'}"
            )
        declared = known[name]["inferred_type_name"]
        if declared in TYPES and type(given).__name__ != declared:
            raise Mistake(
                f"{chapter.name}: {name} = {given!r} is a {type(given).__name__}, "
                f"notebooks/{chapter.notebook} wants {declared}"
            )


def execute(chapter: Chapter, publish: bool = True) -> bool:
    """Execute one chapter in the repository; True when every cell succeeded."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    digest, start = chapter.digest(), time.perf_counter()
    chapter.draft.parent.mkdir(parents=True, exist_ok=True)
    # with agg, figures would vanish from the pages without a word
    os.environ.pop("MPLBACKEND", None)
    try:
        papermill.execute_notebook(
            chapter.source,
            chapter.draft,
            chapter.parameters,
            kernel_name=KERNEL,
            cwd=chapter.root,
            # a kernel that is asked to end while a cell runs prints a traceback
            shutdown_kernel="immediate",
            progress_bar={
                "desc": chapter.name,
                "bar_format": "{desc}: {n_fmt}/{total_fmt} cells, {elapsed}",
                "leave": False,
            },
        )
    except (PapermillExecutionError, DeadKernelError) as error:
        if isinstance(error, PapermillExecutionError):
            reason = " ".join(error.evalue.split())
            what = f"cell {error.cell_index + 1} failed with {error.ename}: {reason}"
        else:
            what = "the kernel died (out of memory?)"
        kept = (
            f"; {relative(chapter.page)} stays as it was"
            if publish and chapter.page.exists()
            else ""
        )
        print(
            f"{chapter.name}: {what}; see {relative(chapter.draft)}{kept}",
            file=sys.stderr,
            flush=True,
        )
        return False
    seconds = round(time.perf_counter() - start, 1)
    strip(chapter.draft, {"digest": digest, "set": chapter.name}, chapter.own_texts())
    if publish:
        chapter.page.parent.mkdir(parents=True, exist_ok=True)
        os.replace(chapter.draft, chapter.page)
        note(chapter.page.with_suffix(".json"), seconds)
    print(
        f"{chapter.name}: {seconds} s, {relative(chapter.page if publish else chapter.draft)}",
        flush=True,
    )
    return True


def note(path: Path, seconds: float) -> None:
    """What the page of status says of this execution; apart from the page, whose bytes repeat."""
    from dpes.study.environment import environment

    made = environment("cpu") | {"cores": os.cpu_count(), "seconds": seconds}
    path.write_text(json.dumps(made | {"day": time.strftime("%Y-%m-%d")}, indent=1) + "\n")


# in labels of a notebook's figures and exercises: several chapters of one book are made from it
PLACEHOLDER = "CHAPTER"
PART = re.compile(r"^<!-- ([a-z]+) -->\n", re.M)  # heads a part of a file in notebooks/texts/
NOISE = ("papermill", "execution")  # metadata that differs from run to run
# in the name of an object: <Styler at 0x7f39435a8990>
ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}(?=>)")
CELL_FILE = re.compile(r"\S*ipykernel_\d+/\d+\.py")  # in a warning: the kernel's number and a hash


def strip(path: Path, origin: dict[str, Any], own: dict[str, str]) -> None:
    """Remove what differs from run to run, keep the outputs, note the origin: executing twice gives
    the same bytes.

    own: Markdown in place of the cells that are tagged ``own-NAME``.
    """
    import nbformat

    nb = nbformat.read(path, as_version=4)
    nb.metadata.pop("papermill", None)
    nb.metadata.get("language_info", {}).pop("version", None)
    nb.metadata["dpes"] = origin
    for i, cell in enumerate(nb.cells):
        cell["id"] = f"cell-{i}"  # papermill draws new ones for the cells that it injects
        for tag in [tag for tag in cell.metadata.get("tags", []) if tag.startswith("own-")]:
            cell.source = own.get(tag.removeprefix("own-"), cell.source)
            cell.metadata["tags"].remove(tag)
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace(PLACEHOLDER, origin["set"])
        if figure := cell.metadata.get("mystnb", {}).get("figure"):
            figure["name"] = figure["name"].replace(PLACEHOLDER, origin["set"])
        for key in NOISE:
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = settled(cell.outputs)
    nbformat.write(nb, path)


def settled(outputs: list[Any]) -> list[Any]:
    """The outputs of a cell without addresses in memory, and printed text in one piece, however it
    arrived.
    """
    kept: list[Any] = []
    for output in outputs:
        if (
            output.output_type == "stream"
            and kept
            and (kept[-1].output_type, kept[-1].get("name")) == ("stream", output.name)
        ):
            kept[-1].text += output.text
        else:
            kept.append(output)
    for output in kept:
        texts = output if output.output_type == "stream" else output.get("data", {})
        for key in ("text", "text/plain", "text/html", "text/markdown"):
            if isinstance(texts.get(key), str):
                texts[key] = CELL_FILE.sub("cell.py", ADDRESS.sub("", texts[key]))
    return kept


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
        return run(argv, root)
    except KeyboardInterrupt:
        print(
            "execute: stopped; finished chapters are kept, the same command does the rest",
            file=sys.stderr,
        )
        return 130


def run(argv: Sequence[str] | None, root: Path) -> int:
    parser = argparse.ArgumentParser(
        description="Execute the notebooks of notebooks/runs.yml into book/chapters/."
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="set",
        help="sets of runs.yml, or patterns such as 'quick-*'; all when none is given",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--only-stale",
        action="store_true",
        help="only chapters whose notebook, parameters or package changed (default)",
    )
    which.add_argument(
        "--force", action="store_true", help="execute chapters that are up to date, too"
    )
    parser.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="replace a parameter for this time",
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="with -p: write to book/chapters/, not to build/notebooks/",
    )
    parser.add_argument(
        "--list", action="store_true", help="list the sets and their state, execute nothing"
    )
    arguments = parser.parse_args(argv)
    extra = {name: value(text) for name, text in arguments.p}
    publish = arguments.publish or not extra
    try:
        chosen = choose(chapters(root), arguments.names)
        chosen = [replace(c, parameters=c.parameters | extra) for c in chosen]
        if arguments.list:
            for c in chosen:
                state = c.state() if c.source.exists() else "no notebook"
                print(
                    f"{c.name:20s} {state:8s} {c.notebook}  "
                    f"{', '.join(f'{k}={v}' for k, v in c.parameters.items())}"
                )
            return 0
        todo = [
            c
            for c in chosen
            if arguments.force or not publish or not c.source.exists() or c.state() != "fresh"
        ]
        for c in todo:
            check(c)
    except Mistake as mistake:
        print(f"execute: {mistake}", file=sys.stderr)
        return 2
    for c in chosen:
        if c not in todo:
            print(f"{c.name}: up to date", flush=True)
    done = []
    for c in todo:
        try:
            done.append(execute(c, publish))
        except KeyboardInterrupt:
            c.draft.unlink(missing_ok=True)  # half a chapter is of no use
            raise
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
