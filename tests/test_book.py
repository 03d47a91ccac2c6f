"""What the book is made with beside its pages: status, addresses, slides, PDF."""

from __future__ import annotations

import base64
import importlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "book"), str(ROOT / "book" / "_ext")]
import address  # noqa: E402
import outcome  # noqa: E402
import pdf  # noqa: E402
import slides  # noqa: E402
import status  # noqa: E402

GITHUB = "https://github.com/someone/dpes"
MADE = {"commit": "abc", "torch": "2.14.1", "python": "3.11.7", "device": "x86_64", "cores": 2}
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PAGE = """<html><body><article><h1>Cut<a class="headerlink" href="#c">#</a></h1>
<p><strong>You will learn</strong> to cut.<br>It takes a minute.</p><h2>First<a class="headerlink">#</a></h2>
<figure><img src="../dot.png" alt="a dot"><figcaption><p>A dot.</p></figcaption></figure>
<div class="exercise admonition"><p class="admonition-title">Exercise 1</p>
<section id="exercise-content"><p>Cut \\(x\\).</p></section></div></article></body></html>"""


def test_the_page_of_status_has_a_row_for_each_page_that_was_executed(tmp_path):
    for name in ("learn-cut", "gone"):
        made = MADE | {"seconds": 12.3, "day": "2026-01-02"}
        (tmp_path / f"{name}.json").write_text(json.dumps(made))
    (tmp_path / "learn-cut.ipynb").touch()
    ((page, day, seconds, commit, *_, hardware),) = status.rows(tmp_path)
    assert page == "{doc}`/book/chapters/learn-cut`" and (day, seconds) == ("2026-01-02", "12")
    assert (commit, hardware) == ("abc", "x86_64, 2 cores")


def context(repository: str, page: str = "book/chapters/learn-cut") -> str:
    shown = {"body": "text"}
    config = SimpleNamespace(repository_address=repository, repository_branch="main")
    app = SimpleNamespace(config=config, srcdir=ROOT)
    address.open_elsewhere(app, page, "page.html", shown, None)
    return shown["body"]


def test_a_notebook_can_be_opened_elsewhere_once_the_address_is_set():
    body = context(f"{GITHUB}/")
    assert f'"{GITHUB}/blob/main/notebooks/cut.ipynb"' in body
    assert "https://colab.research.google.com/github/someone/dpes/blob/main/notebooks/" in body
    assert "https://mybinder.org/v2/gh/someone/dpes/main?urlpath=lab/tree/notebooks/" in body
    assert "Colab" not in context("https://example.org/dpes")  # which knows GitHub alone
    assert context("") == context(GITHUB, "book/index") == "text"


def test_the_theme_gets_its_buttons_from_the_same_address():
    config = SimpleNamespace(repository_address="", repository_branch="main", html_theme_options={})
    address.theme_options(None, config)
    assert config.html_theme_options == {}
    config.repository_address = GITHUB
    address.theme_options(None, config)
    assert config.html_theme_options["repository_url"] == GITHUB
    assert config.html_theme_options["use_issues_button"]


def test_every_lesson_has_pages_that_exist():
    plan = slides.lessons((ROOT / "book" / "lecturers.md").read_text(encoding="utf-8"))
    assert [title.partition(":")[0] for title in plan] == [f"Lesson {n}" for n in range(1, 5)]
    known = address.notebooks(ROOT)
    assert all(pages and set(pages) <= set(known) for pages in plan.values())


def test_slides_show_aim_figures_and_exercises_and_carry_their_pictures(tmp_path):
    (tmp_path / "dot.png").write_bytes(DOT)
    (tmp_path / "a").mkdir()
    (page := tmp_path / "a" / "cut.html").write_text(PAGE)
    title, figure, exercise = slides.slides(page)
    assert "<h1>Cut</h1>" in title and "to cut." in title and "minute" not in title
    assert figure.startswith("<h2>First</h2>") and "data:image/png;base64,iVBOR" in figure
    assert 'alt="a dot"' in figure and "A dot." in figure
    assert exercise == "<h2>Exercise</h2><p>Cut \\(x\\).</p>"


def test_the_pdf_has_every_page_once_in_the_order_of_the_contents():
    pages = [page for _, page in pdf.pages()]
    assert pages[0] == "book/index" and len(pages) == len(set(pages)) > 40
    assert all((ROOT / f"{p}.md").exists() or p.startswith("book/chapters/") for p in pages)


def test_links_between_pages_stay_inside_the_pdf(tmp_path, monkeypatch):
    from pypdf import PdfReader, PdfWriter
    from pypdf.annotations import Link

    monkeypatch.setattr(pdf, "BUILT", tmp_path)
    for name, other in (("a", "b"), ("b", "a")):
        writer = PdfWriter()
        writer.add_blank_page(100, 100)
        for url in ((tmp_path / f"{other}.html").as_uri() + "#x", "https://example.org"):
            writer.add_annotation(0, Link(rect=(0, 0, 9, 9), url=url))
        writer.add_metadata({"/Title": f"Page {name} — book"})
        writer.write(tmp_path / f"{name}.pdf")
    files = {name: ("Part" if name == "b" else "", tmp_path / f"{name}.pdf") for name in "ab"}
    assert pdf.join(files, tmp_path / "joined.pdf") == 2
    joined = PdfReader(tmp_path / "joined.pdf")
    for sheet, other in zip(joined.pages, reversed(joined.pages), strict=True):
        notes = [note.get_object() for note in sheet["/Annots"]]
        assert sorted(str(n["/A"]["/URI"]) for n in notes if "/A" in n) == ["https://example.org"]
        (inside,) = [note["/Dest"] for note in notes if "/Dest" in note]
        assert inside[0].get_object() == other.get_object()
    assert [o if isinstance(o, list) else o.title for o in joined.outline][:2] == ["Page a", "Part"]


def test_a_missing_browser_or_page_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(pdf, "BUILT", tmp_path)
    monkeypatch.setenv("CHROMIUM", "chromium")
    with pytest.raises(SystemExit, match=r"^pdf: book/index is not built: run make book first$"):
        pdf.main()
    monkeypatch.delenv("CHROMIUM")
    monkeypatch.setattr(pdf.shutil, "which", lambda _: None)
    with pytest.raises(SystemExit, match=r"^pdf: needs Chromium: install it"):
        pdf.main()


@pytest.mark.parametrize("page", ["cpu-arena", "cpu-results"])
def test_the_index_repeats_the_outcome_in_which_a_page_begins(page):
    file = ROOT / "book" / "chapters" / f"{page}.ipynb"
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    first = next(k for k, cell in enumerate(cells) if cell.get("outputs"))
    assert not any(cell["cell_type"] == "markdown" for cell in cells[1:first])
    assert outcome.sentence(file).endswith(".**")
    index = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    assert f"```{{outcome}} {page}\n```" in index


def test_the_page_on_the_package_names_what_there_is():
    page = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    for name, options in re.findall(r"automodule:: (\S+)\n((?:   .*\n)*)", page):
        module, named = importlib.import_module(name), re.search(r":members: (.+)", options)
        for member in re.split(r",\s*", named[1].strip()) if named else ():
            assert hasattr(module, member), f"{name}.{member}"
