"""The chapters of the book, as notebooks/runs.yml names them: what each is made from, and whether
its page is up to date.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PART = re.compile(r"^<!-- ([a-z]+) -->\n", re.M)  # heads a part of a file in notebooks/texts/
NOISE = ("papermill", "execution")  # metadata that differs from run to run


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

    @property
    def run(self) -> tuple[Any, ...] | None:
        """What tells its run directory from others: two chapters on one run wait for each other."""
        names = ("profile", "model", "dataset", "seed")
        return tuple(map(self.parameters.get, names)) if "model" in self.parameters else None

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
