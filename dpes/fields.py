"""A setting that knows its help text, origin and limits, and the identity of a set of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import field, fields
from typing import Any

from .errors import SettingsError, suggest


def setting(default: Any, help: str, origin: str = "ours", **limits: Any) -> Any:
    """A dataclass field that knows its help text, its origin and its limits (``choices``, ``low``,
    ``high``, ``above``).
    """
    return field(default=default, metadata={"help": help, "origin": origin, **limits})


TYPES = {"int": int, "float": float, "bool": bool, "str": str}

ARTICLES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


class Checked:
    """Validates each field against the limits in its own definition."""

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]
            value, m = getattr(self, f.name), f.metadata
            kind, _, unset = f.type.partition(" | ")
            if kind not in TYPES:
                if type(value).__name__ != kind:
                    found = f"is of type {type(value).__name__}, not {kind}"
                    raise SettingsError(f"{f.name} {found}: use dpes.make_settings")
                continue
            if value is None and unset:
                continue
            if plain := isinstance(value, int) and not isinstance(value, bool):
                value = float(value) if kind == "float" else value
            elif plain := getattr(value, "ndim", None) == 0:  # a number of numpy or torch
                value = value.item()
            if plain:
                object.__setattr__(self, f.name, value)
            if type(value) is not TYPES[kind]:
                raise SettingsError(f"{f.name} = {value!r}: must be {ARTICLES[kind]}")
            if "choices" in m and value not in m["choices"]:
                raise SettingsError(f"{f.name} = {value!r}: {suggest(str(value), m['choices'])}")
            low, above, high = m.get("low"), m.get("above"), m.get("high")
            if (
                value != value
                or (low is not None and value < low)
                or (above is not None and value <= above)
                or (high is not None and value > high)
            ):
                raise SettingsError(f"{f.name} = {value!r}: must be {limits(m)}")


def limits(metadata: Any) -> str:
    """A field's limits in words, for help texts and errors."""
    parts = [
        f"{words} {metadata[key]}"
        for key, words in (("low", "at least"), ("above", "above"), ("high", "at most"))
        if key in metadata
    ]
    return " and ".join(parts)


def to_dict(settings: Any) -> Any:
    """Settings as plain JSON values; a setting that is off (``None``) is left out.

    Leaving it out lets a later version add a feature without renaming the runs made before it.
    """
    if dataclasses.is_dataclass(settings):
        return {
            f.name: to_dict(getattr(settings, f.name))
            for f in fields(settings)
            if getattr(settings, f.name) is not None
        }
    return [to_dict(v) for v in settings] if isinstance(settings, tuple) else settings


def fingerprint(settings: Any) -> str:
    """First 8 hex digits of the SHA-256 of the canonical JSON of the settings."""
    text = json.dumps(to_dict(settings), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]
