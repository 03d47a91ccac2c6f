"""Each script of a page once: Sphinx writes inline ones twice, and a constant declared twice is an
error."""

from __future__ import annotations

from typing import Any


def scripts_once(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Leave out an inline script whose text stood there before; those with a file stay."""
    seen, kept = set(), []
    for script in context.get("script_files", []):
        body = getattr(script, "attributes", {}).get("body")
        if body is None or body not in seen:
            kept.append(script)
        seen.add(body)
    context["script_files"] = kept


def setup(app: Any) -> dict[str, bool]:
    app.connect("html-page-context", scripts_once, priority=900)  # after all that add scripts
    return {"parallel_read_safe": True, "parallel_write_safe": True}
