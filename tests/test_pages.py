"""The built book and its figures in a browser: silent, self-contained, answering keys."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from browser import Browser, executable
from PIL import Image

from dpes import open_run
from dpes.teaching import explore

ROOT = Path(__file__).parents[1]
BOOK = Path(os.environ.get("BOOK") or ROOT / "_build" / "html")
PAGES = sorted((BOOK / "book").rglob("*.html"))
RUN = ROOT / "data" / "runs" / "densenet22-cifar10-cpu-s0-89d98c17"

pytest.importorskip("websocket", reason="needs websocket-client, which comes with jupyterlab")
pytestmark = [
    pytest.mark.skipif(not executable(), reason="needs Chromium, or $CHROMIUM"),
    # the browser's sockets are closed when its process ends
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
built = pytest.mark.skipif(not PAGES, reason="needs the built book: make book, or $BOOK")


@pytest.fixture(scope="module")
def browser():
    with Browser() as page:
        yield page


@pytest.fixture(scope="module")
def figures(tmp_path_factory) -> str:
    """The address of a page with the four kinds of figures."""
    run = open_run(RUN)
    shown = (
        explore.front(run),
        explore.generations(run),
        explore.toy(),
        explore.drag({"A": (0.1, 100), "B": (0.12, 80), "C": (0.2, 50), "E": (0.5, 20)}),
    )
    file = tmp_path_factory.mktemp("figures") / "figures.html"
    body = "".join(f._repr_html_() for f in shown)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>figures</title>'
    file.write_text(f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>')
    return file.as_uri()


def set_range(browser: Browser, figure: str, label: str, value: float) -> None:
    """Move the slider of a figure with this label, as a reader would."""
    found = browser.js(
        f"""(() => {{ for (const l of document.querySelectorAll("[id^='dpes-{figure}'] label"))
        if (l.textContent.includes({label!r})) {{ const i = l.querySelector("input");
        i.value = {value}; i.dispatchEvent(new Event("input")); return true; }} return false; }})()"""
    )
    assert found, f"no slider {label!r}"
    browser.settle()


def text(browser: Browser, figure: str, part: str = ".dpes-told") -> str:
    return browser.js(f"""document.querySelector("[id^='dpes-{figure}'] {part}").textContent""")


def outside(browser: Browser) -> list[str]:
    return [r for r in browser.requests if not r.startswith(("file:", "data:", "blob:"))]


@pytest.mark.parametrize("width", [1400, 390])
def test_figures_fit_ask_for_nothing_and_are_silent(browser, figures, width):
    browser.open(figures, width)
    assert browser.js("document.querySelectorAll('.dpes-explore[data-ready]').length") == 4
    assert browser.js("document.querySelectorAll('.dpes-plot circle').length") > 100
    assert browser.js("document.documentElement.scrollWidth") <= width
    small = "[...document.querySelectorAll('.dpes-explore svg text')]"
    size = browser.js(f"Math.min(...{small}.map(t => parseFloat(getComputedStyle(t).fontSize)))")
    assert size >= 11
    assert browser.console == [] and outside(browser) == []


def test_a_budget_picks_the_network_of_least_error_within_it(browser, figures):
    browser.open(figures)
    archive = explore.front(open_run(RUN)).data["archive"]
    for budget in (90, 60):
        best = min((p for p in archive if p["left"] <= budget / 100), key=lambda p: p["error"])
        set_range(browser, "front", "Budget", budget)
        told = text(browser, "front")
        assert f"{100 * best['error']:.1f} % at {100 * best['left']:.1f} % of the MACs" in told
    set_range(browser, "front", "Budget", 5)
    assert "No candidate" in text(browser, "front")


def test_keys_walk_along_the_front_and_show_the_commands(browser, figures):
    browser.open(figures)
    browser.js("""document.querySelector("[id^='dpes-front'] .dpes-point[tabindex='0']").focus()""")
    before = text(browser, "front")
    browser.key("ArrowLeft", 37)
    assert text(browser, "front") != before
    browser.key("ArrowRight", 39)
    assert text(browser, "front") == before
    browser.key("Enter", 13)
    command = text(browser, "front", ".dpes-code")
    assert "dpes.open_run" in command and "iloc[ROW]" not in command


def test_a_hover_tells_the_point_under_the_mouse(browser, figures):
    browser.open(figures)
    at = browser.js(
        """(() => { const p = [...document.querySelectorAll("[id^='dpes-front'] .dpes-point")][0];
        p.scrollIntoView({block: "center"}); const b = p.getBoundingClientRect();
        return [b.x + b.width / 2, b.y + b.height / 2]; })()"""
    )
    browser.mouse("mouseMoved", *at)
    first = explore.front(open_run(RUN)).data["archive"][0]
    assert f"Error {100 * first['error']:.1f} %" in text(browser, "front")


def test_the_slider_of_generations_moves_all_three_pictures(browser, figures):
    browser.open(figures)
    steps = explore.generations(open_run(RUN)).data["generations"]
    for k in (1, len(steps)):
        set_range(browser, "generations", "Generation", k)
        assert f"Hypervolume {steps[k - 1]['hypervolume']:.3f}" in text(browser, "generations")


def test_a_larger_p_moves_the_toy_search_to_fewer_macs(browser, figures):
    browser.open(figures)
    light = {}
    for p in (0.01, 0.2):
        set_range(browser, "toy", "Mutation rate", p)
        light[p] = int(text(browser, "toy").split("light ")[1].split(" %")[0])
    assert light[0.2] < light[0.01] - 10


def test_a_dragged_point_moves_the_knee(browser, figures):
    browser.open(figures)
    assert "Knee by MMD (diamond): C" in text(browser, "drag")
    place = """(() => { const p = document.querySelectorAll("[id^='dpes-drag'] .dpes-point")[2];
        p.scrollIntoView({block: "center"}); const b = p.getBoundingClientRect();
        return [b.x + b.width / 2, b.y + b.height / 2]; })()"""
    x, y = browser.js(place)
    browser.mouse("mouseMoved", x, y)
    browser.mouse("mousePressed", x, y)
    browser.mouse("mouseMoved", x, y - 70)  # more error
    browser.mouse("mouseReleased", x, y - 70)
    assert "Knee by MMD (diamond): B" in text(browser, "drag")
    browser.js("""document.querySelectorAll("[id^='dpes-drag'] .dpes-point")[2].focus()""")
    for _ in range(25):
        browser.key("ArrowDown", 40)
    assert "Knee by MMD (diamond): C" in text(browser, "drag")


@built
@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 390])
def test_pages_are_silent_self_contained_and_never_scroll_sideways(browser, width):
    for page in PAGES:
        browser.open(page.as_uri(), width)
        assert browser.console == [], page.name
        assert outside(browser) == [], page.name
        assert browser.js("document.documentElement.scrollWidth") <= width, page.name


@built
@pytest.mark.slow
def test_text_in_figures_can_be_read_on_a_telephone(browser):
    """Labels of 11 points are 11 pixels high or more where dots per inch x scale is 72 or more."""
    pictures = """[...document.querySelectorAll('article figure img')]
        .map(i => [i.getAttribute('src'), i.clientWidth / i.naturalWidth])"""
    for page in PAGES:
        browser.open(page.as_uri(), 390)
        for source, scale in browser.js(pictures):
            if source.endswith(".png"):
                dots = Image.open(page.parent / source).info["dpi"][0]
                assert scale * dots >= 71, f"{page.name}: {source}"


@built
def test_titles_never_repeat(browser):
    titles = []
    for page in PAGES:
        browser.open(page.as_uri())
        titles.append(browser.js("document.querySelector('h1')?.firstChild.textContent.trim()"))
    assert len(set(titles)) == len(titles) and all(titles)


@built
def test_every_internal_link_leads_somewhere(browser):
    names: dict[Path, set[str]] = {}
    links = "[...document.querySelectorAll('article a[href]')].map(a => a.href)"
    for page in PAGES:
        browser.open(page.as_uri())
        for link in filter(lambda link: link.startswith("file:"), browser.js(links)):
            address, anchor = urldefrag(link)
            target = Path(unquote(address.removeprefix("file://")))
            assert target.exists(), f"{page.name}: {link}"
            if anchor and target.suffix == ".html":
                if target not in names:
                    names[target] = set(target.read_text(encoding="utf-8").split('id="'))
                found = any(part.startswith(f'{unquote(anchor)}"') for part in names[target])
                assert found, f"{page.name}: {link}"


@built
def test_the_search_finds_the_knee(browser):
    browser.open(f"{(BOOK / 'search.html').as_uri()}?q=knee")
    count = "document.querySelectorAll('ul.search li').length"
    browser.js(
        f"new Promise(r => {{ const t = setInterval(() => {{ if ({count}) {{ clearInterval(t); r(1); }} }}, 50);"
        " setTimeout(r, 15000); })"
    )
    assert browser.js(count) > 3
    browser.js("localStorage.clear()")  # or the next page marks what was searched


AXE = Path(os.environ.get("AXE") or ROOT / "node_modules" / "axe-core" / "axe.min.js")
OTHERS = {
    "label-content-name-mismatch",  # buttons of the theme and of myst-nb
    "aria-required-children",  # the list of sphinxcontrib-bibtex
}


@built
@pytest.mark.slow
@pytest.mark.skipif(not AXE.exists(), reason="needs axe-core: npm install axe-core, or $AXE")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_violation(browser, theme):
    run = """axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations
        .filter(v => ["serious", "critical"].includes(v.impact))
        .map(v => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 100)]))"""
    for page in PAGES:
        browser.open(page.as_uri(), dark=theme == "dark")
        assert browser.js("document.documentElement.dataset.theme") == theme
        browser.js("new Promise(r => setTimeout(r, 300))")  # colours fade in
        browser.js(AXE.read_text(encoding="utf-8") + "; 0")
        found = [v for v in browser.js(run) if v[0] not in OTHERS]
        assert found == [], page.name
