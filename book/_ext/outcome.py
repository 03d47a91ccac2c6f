"""The directive ``outcome``: the sentence in which an executed page states its result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


def sentence(page: Path) -> str:
    """The first bold Markdown that a notebook's cells put out; empty if there is none."""
    for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", ()):
            text = "".join(output.get("data", {}).get("text/markdown", ""))
            if text.startswith("**"):
                return text
    return ""


class Outcome(SphinxDirective):
    """The sentence of the chapter that the directive names, with a link to it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        page = Path(self.env.srcdir) / "book" / "chapters" / f"{name}.ipynb"
        self.env.note_dependency(str(page))
        text = page.exists() and sentence(page)
        if not text:
            raise self.error(f"{name} states no outcome: execute it first")
        holder = nodes.container()
        link = f"{text} ({{doc}}`/book/chapters/{name}`)"
        self.state.nested_parse(StringList([link], source="outcome"), 0, holder)
        return holder.children


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("outcome", Outcome)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
