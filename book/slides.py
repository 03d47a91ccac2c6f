"""Slides for the four lessons, from the figures and exercises of the built pages."""

from __future__ import annotations

import base64
import mimetypes
import re
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "_build" / "html"
LESSON = re.compile(r"^## (Lesson \d: .*)$", re.M)
HEAD = """<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="../_static/slides.css">
<script defer src="../_static/slides.js"></script>
<script>MathJax = {options: {processHtmlClass: "math", ignoreHtmlClass: "deck"}}</script>
<script defer src="../_static/mathjax/tex-chtml.js"></script>"""


def lessons(plan: str) -> dict[str, list[str]]:
    """Title of a lesson -> its pages, in the order of the lecturers' plan (Markdown)."""
    _, *parts = LESSON.split(plan)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    names = re.compile(r"\{doc\}`/(book/chapters/[^`]+)`")
    return {title: list(dict.fromkeys(names.findall(text))) for title, text in pairs}


def embedded(image: Tag, page: Path) -> str:
    """An image of a page as an element that carries its bytes."""
    file = (page.parent / str(image["src"])).resolve()
    kind = mimetypes.guess_type(file.name)[0]
    data = base64.b64encode(file.read_bytes()).decode()
    return f'<img src="data:{kind};base64,{data}" alt="{escape(str(image.get("alt", "")))}">'


def slides(page: Path) -> Iterator[str]:
    """The slides of a built page: title and aim, then figures and exercises in their order."""
    article = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").article
    for link in article.select("a.headerlink"):
        link.decompose()
    aim = next(p for p in article.find_all("p") if "You will" in p.text)
    yield f"<h1>{article.h1.text}</h1><p>{aim.decode_contents().partition('<br')[0]}</p>"
    heading = article.h1.text
    for part in article.select("h2, figure, div.exercise"):
        if part.name == "h2":
            heading = part.text
        elif part.name == "figure" and part.img:
            caption = part.figcaption.p if part.figcaption else None
            text = caption.decode_contents() if caption else ""
            picture = f"<figure>{embedded(part.img, page)}<figcaption>{text}</figcaption></figure>"
            yield f"<h2>{heading}</h2>{picture}"
        elif part.name == "div" and (body := part.select_one("#exercise-content, .section")):
            yield f"<h2>Exercise</h2>{body.decode_contents()}"


def main() -> None:
    plan = lessons((ROOT / "book" / "lecturers.md").read_text(encoding="utf-8"))
    target = BUILT / "slides"
    target.mkdir(parents=True, exist_ok=True)
    for number, (title, pages) in enumerate(plan.items(), 1):
        files = [(BUILT / page).with_suffix(".html") for page in pages]
        if missing := [file for file in files if not file.exists()]:
            sys.exit(f"slides: {missing[0].relative_to(ROOT)} is not built: run make book first")
        shown = [f"<h1>{title}</h1>", *(slide for file in files for slide in slides(file))]
        body = "\n".join(f"<section>{slide}</section>" for slide in shown)
        head = f'<!doctype html><html lang="en"><head>{HEAD}<title>{title}</title></head>'
        file = target / f"lesson-{number}.html"
        text = f'{head}<body class="deck">{body}</body></html>'
        file.write_text(text, encoding="utf-8")
        print(f"{len(shown)} slides: {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
