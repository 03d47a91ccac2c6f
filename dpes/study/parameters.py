"""Parameters of a notebook, all of them checked before anything of it runs."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import DpesError, SettingsError, suggest
from ..fields import ARTICLES
from .data import DATASETS
from .environment import check_device
from .finished import located, where
from .models import MODELS
from .profiles import PROFILES, make_settings
from .rivals import check_asked
from .settings import SEEDS

SEED = range(SEEDS)
THREADS = range(1, 4 * (os.cpu_count() or 1) + 1)


def check(given: dict[str, Any], /, **wanted: Any) -> None:
    """Raises ``SettingsError`` for the first parameter of a notebook that is unknown or unfit.

    given: ``globals()``, in the cell after the parameters. wanted: for each parameter its type, a
    ``range`` of whole numbers, a pair of limits, a collection of names, one of these in a list for
    a list of such values, or a function that raises a ``DpesError``.
    """
    for name in injected(given.get("In", ())):
        if name not in wanted:
            raise SettingsError(f"unknown parameter {name!r}: {suggest(name, wanted)}")
    for name, want in wanted.items():
        if problem := unfit(given.get(name), want):
            raise SettingsError(f"{name} = {given.get(name)!r}: {problem}")


def injected(cells: Iterable[str]) -> set[str]:
    """The names that papermill has put into a notebook, from the source of the cells before."""
    found = set()
    for text in cells:
        if text.startswith("# Parameters\n"):
            for line in ast.parse(text).body:
                found |= {t.id for t in getattr(line, "targets", ()) if isinstance(t, ast.Name)}
    return found


def unfit(value: Any, want: Any) -> str:
    """What is wrong with a value, in words; empty if nothing is."""
    whole = type(value) is int
    if isinstance(want, range):
        limits = f"must be a whole number from {want.start} to {want.stop - 1}"
        return "" if whole and value in want else limits
    if isinstance(want, tuple):
        fits = (whole or type(value) is float) and want[0] <= value <= want[1]
        return "" if fits else f"must be a number from {want[0]} to {want[1]}"
    if isinstance(want, list) and len(want) == 1:
        if not isinstance(value, list) or not value:
            return "must be a list of one value or more"
        return next((f"{v!r} {p}" for v in value if (p := unfit(v, want[0]))), "")
    if isinstance(want, type):
        words = ARTICLES.get(want.__name__, "names with their values, such as {'population': 20}")
        return "" if type(value) is want else f"must be {words}"
    if callable(want):
        try:
            want(value)
        except (DpesError, TypeError) as error:
            return str(error)
        return ""
    return "" if isinstance(value, str) and value in want else suggest(str(value), want)


def run_name(name: Any) -> None:
    """Raises a ``DpesError`` if no finished run has this name."""
    if not isinstance(name, str):
        raise SettingsError("must be the name of a run")
    located(name)


def some_folder(name: Any) -> None:
    """Raises a ``DpesError`` for a folder that is named and not there; empty stands for none."""
    if not isinstance(name, str) or (name and not Path(name).expanduser().is_dir()):
        raise SettingsError("must be a folder, or empty")


def check_network(names: dict[str, Any]) -> None:
    """The parameters of ``network.ipynb``: its runs, its rivals, and the machine."""
    check(
        names, profile=PROFILES, model=MODELS, dataset=DATASETS, seed=SEED, device=str,
        threads=THREADS, masks=range(1000), widths=bool, beside=dict, overrides=dict,
    )  # fmt: skip
    check_device(names["device"])
    for part in ("overrides", "beside"):
        if own := {"profile", "model", "dataset", "seed"} & names[part].keys():
            raise SettingsError(f"{part} names {min(own)!r}: it is a parameter of its own")
        given = names["overrides"] | (names["beside"] if part == "beside" else {})
        own = {name: names[name] for name in ("model", "dataset", "seed")}
        try:
            settings = make_settings(names["profile"], **own, **given)
        except SettingsError as error:
            raise SettingsError(f"{part}: {error}") from None
        where(settings)
        check_asked(settings, names["masks"], names["widths"])
