"""Outputs of an executed notebook without what differs from run to run."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from chapters import NOISE

# in labels of a notebook's figures and exercises: several chapters of one book are made from it
PLACEHOLDER = "CHAPTER"
# in the name of an object: <Styler at 0x7f39435a8990>
ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}(?=>)")
TABLE = re.compile(r"\bT_[0-9a-f]{5}(?=\b|_)")  # in a styled table: an id that pandas draws
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
        if isinstance(html := texts.get("text/html"), str):
            own = hashlib.sha256(TABLE.sub("", html).encode()).hexdigest()[:10]
            texts["text/html"] = TABLE.sub(f"T_{own}", html)
    return kept
