"""The built book as one PDF: each page printed by Chromium, joined in the order of the contents."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from pypdf import PdfReader, PdfWriter
from pypdf.annotations import Link
from pypdf.generic import ArrayObject, Fit

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "_build" / "html"
NAMES = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-pdf-header-footer"


def pages(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """(part, page) in the order of _toc.yml; the first one has no part."""
    contents = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    yield "", contents["root"]
    for part in contents["parts"]:
        for chapter in part["chapters"]:
            yield part["caption"], chapter["file"]


def printed(browser: str, page: Path, folder: Path) -> Path:
    """A page as PDF in ``folder``."""
    file = folder / f"{page.stem}.pdf"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser, *FLAGS.split(), f"--user-data-dir={profile}", f"--print-to-pdf={file}"]
        command += ["--virtual-time-budget=20000", page.as_uri()]
        done = subprocess.run(command, capture_output=True, timeout=300)
    if done.returncode or not file.exists():
        sys.exit(f"pdf: {browser} could not print {page.name}: run it by hand to see why")
    return file


def join(files: dict[str, tuple[str, Path]], target: Path) -> int:
    """Join the PDFs of pages, with an outline and with links between them; returns the number of
    sheets.

    files: page -> its part and its PDF.
    """
    writer, starts, parts = PdfWriter(), {}, {}
    for page, (part, file) in files.items():
        reader = PdfReader(file)
        starts[(BUILT / page).with_suffix(".html").as_uri()] = start = len(writer.pages)
        writer.append(reader, import_outline=False)
        if part and part not in parts:
            parts[part] = writer.add_outline_item(title=part, page_number=start)
        title = reader.metadata.title.split(" — ")[0]
        writer.add_outline_item(title=title, page_number=start, parent=parts.get(part))
    for number, sheet in enumerate(writer.pages):
        inside(writer, number, sheet, starts)
    writer.add_metadata({"/Title": "Pruning filters by evolution"})
    writer.write(target)
    return len(writer.pages)


def inside(writer: PdfWriter, number: int, sheet: dict, starts: dict[str, int]) -> None:
    """Turn the links of a sheet that lead to pages of the book into links within the file."""
    kept, found = ArrayObject(), []
    for reference in sheet.get("/Annots") or ():
        note = reference.get_object()
        address = str(note.get("/A", {}).get("/URI", ""))
        if address.startswith("file:"):
            if (start := starts.get(address.partition("#")[0])) is not None:
                found.append((note["/Rect"], start))
        else:
            kept.append(reference)
    sheet.update({key: kept for key in sheet if key == "/Annots"})
    for rectangle, start in found:
        link = Link(rect=rectangle, target_page_index=start, fit=Fit.fit_horizontally())
        writer.add_annotation(number, link)


def main() -> None:
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not browser:
        sys.exit(
            "pdf: needs Chromium: install it (Debian, Ubuntu: chromium), or name it in $CHROMIUM"
        )
    known = {page: part for part, page in pages()}
    if missing := [p for p in known if not (BUILT / p).with_suffix(".html").exists()]:
        sys.exit(f"pdf: {missing[0]} is not built: run make book first")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as two:
        built = [(BUILT / page).with_suffix(".html") for page in known]
        files = two.map(lambda page: printed(browser, page, Path(folder)), built)
        joined = dict(zip(known, zip(known.values(), files, strict=True), strict=True))
        target = ROOT / "_build" / "dpes.pdf"
        print(f"{join(joined, target)} pages: {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
