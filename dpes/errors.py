"""Errors that a user can cause: each is one line that names what was wrong and the cure."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable


class DpesError(Exception):
    """Base of every error a user can cause; its message is one line that names the cure."""


class SettingsError(DpesError):
    """A setting, profile or parameter that does not exist or lies outside its range."""


class RunError(DpesError):
    """A run directory that is damaged, of other settings or another schema, or in use."""


class CandidateFailed(DpesError):
    """One candidate of a search cannot be evaluated; it counts as worst, and the search goes on."""


def first_line(problem: BaseException) -> str:
    """What an error says, in one line of at most 300 characters; a worker's tells it at the end."""
    lines = (str(problem).strip() or type(problem).__name__).splitlines()
    said = lines[-1] if "Original Traceback" in str(problem) else lines[0]
    return said if len(said) <= 300 else f"{said[:299]}…"


def shown(value: object) -> str:
    """A value of a user's, in one line of at most 60 characters."""
    return f"{(repr(value).splitlines() or [''])[0]:.60}"


class MissingPackage(DpesError):
    """A package that one of the extras brings."""


def require(*modules: str, extra: str) -> None:
    """Raise ``MissingPackage`` unless all of these modules can be imported."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingPackage(f"{module} is not installed: pip install 'dpes[{extra}]'")


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name, and all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"choose from {', '.join(known)}"
