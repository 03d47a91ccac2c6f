"""The directive ``status``: each executed page with its seconds, commit, versions and hardware."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

COLUMNS = ("page", "executed", "seconds", "commit", "torch", "Python", "hardware")


def rows(chapters: Path) -> list[tuple[str, ...]]:
    """A row of Markdown for each executed page of a folder that has a note beside it.

    Pages of runs that took hours only read them; those hours stand in the run's ``env.json``.
    """
    found = []
    for note in sorted(chapters.glob("*.json")):
        if not note.with_suffix(".ipynb").exists():
            continue
        made = json.loads(note.read_text(encoding="utf-8"))
        link = f"{{doc}}`/book/chapters/{note.stem}`"
        hardware = f"{made['device']}, {made['cores']} cores"
        seconds = f"{made['seconds']:.0f}"
        commit = made["commit"] or "not known"
        found.append((link, made["day"], seconds, commit, made["torch"], made["python"], hardware))
    return found


class Status(SphinxDirective):
    """A table of ``rows``."""

    def run(self) -> list[nodes.Node]:
        chapters = Path(self.env.srcdir) / "book" / "chapters"
        table = [COLUMNS, ("---",) * len(COLUMNS), *rows(chapters)]
        lines = ["| " + " | ".join(row) + " |" for row in table]
        self.env.note_reread()  # the notes change with every execution
        holder = nodes.container()
        self.state.nested_parse(StringList(lines, source="status"), 0, holder)
        return holder.children


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("status", Status)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
