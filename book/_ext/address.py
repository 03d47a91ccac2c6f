"""Links to the repository, its issues, and to each page's notebook on Colab and Binder, once
``repository_address`` in _config.yml names one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit


def notebooks(root: Path) -> dict[str, str]:
    """Page -> the notebook it is executed from, by runs.yml."""
    import yaml

    sets = yaml.safe_load((root / "notebooks" / "runs.yml").read_text(encoding="utf-8"))
    return {
        f"book/chapters/{page}": f"notebooks/{notebook}"
        for notebook, pages in sets.items()
        for page in pages
    }


def links(address: str, branch: str, notebook: str) -> str:
    """HTML with the places where a notebook can be opened; Colab knows repositories on GitHub."""
    path, found = quote(notebook), {"source": f"{address}/blob/{branch}/{quote(notebook)}"}
    site = urlsplit(address)
    if site.hostname == "github.com":
        name = site.path.strip("/")
        found["Colab"] = f"https://colab.research.google.com/github/{name}/blob/{branch}/{path}"
        found["Binder"] = f"https://mybinder.org/v2/gh/{name}/{branch}?urlpath=lab/tree/{path}"
    items = " · ".join(f'<a href="{url}">{what}</a>' for what, url in found.items())
    install = f"%pip install git+{address}" if "Colab" in found else ""
    hint = f"; on Colab, run <code>{install}</code> first" if install else ""
    return f'<hr><p class="dpes-open">This page is a notebook: {items}{hint}.</p>'


def theme_options(app: Any, config: Any) -> None:
    """The theme's own buttons for repository and issues."""
    if config.repository_address:
        config.html_theme_options |= {
            "repository_url": config.repository_address.rstrip("/"),
            "repository_branch": config.repository_branch,
            "use_repository_button": True,
            "use_issues_button": True,
        }


def open_elsewhere(
    app: Any, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Where a page's notebook can be opened, at its end."""
    config = app.config
    notebook = notebooks(Path(app.srcdir)).get(page)
    if config.repository_address and notebook and "body" in context:
        address = config.repository_address.rstrip("/")
        context["body"] += links(address, config.repository_branch, notebook)


def setup(app: Any) -> dict[str, bool]:
    app.add_config_value("repository_address", "", "html", str)
    app.add_config_value("repository_branch", "main", "html", str)
    app.connect("config-inited", theme_options)
    app.connect("html-page-context", open_elsewhere)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
