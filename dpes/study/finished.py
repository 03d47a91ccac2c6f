"""A finished run, read from its directory; where runs live."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..coupling.genome import from_hex
from ..coupling.layout import Layout
from ..coupling.slimfile import load
from ..coupling.tracing import trace
from ..disk import damaged, path_of, read_entries
from ..errors import RunError, SettingsError, suggest
from ..strategy import es
from ..strategy.history import History, archive, read_history
from . import data, models
from .environment import read_env
from .settings import SCHEMA, Settings, from_dict

if TYPE_CHECKING:
    import pandas as pd


def runs_folder(folder: str | Path | None = None) -> Path:
    """The folder of run directories: the argument, else ``$DPES_RUNS``, else ``data/runs`` here or,
    where there is none, in the repository.
    """
    if given := folder or os.environ.get("DPES_RUNS"):
        return path_of(given, "folder")
    here, repository = Path("data/runs"), Path(__file__).resolve().parents[2]
    there = not here.is_dir() and (repository / "pyproject.toml").exists()
    return repository / here if there else here


def located(name: str, folder: str | Path | None = None) -> Run:
    """A finished run by its directory, or by its name in the folder of runs."""
    path = path_of(name, "run")
    return open_run(path if path.exists() else runs_folder(folder) / path)


def where(settings: Settings, folder: str | Path | None = None) -> Path:
    """The directory of a run; asking starts nothing.

    Parameters
    ----------
    folder
        Of run directories; see ``runs_folder``.

    Raises
    ------
    DpesError
        A network, data set or weights that do not exist.
    """
    if not isinstance(settings, Settings):
        kind, cure = type(settings).__name__, "give dpes.make_settings('quick'), for example"
        raise SettingsError(f"settings is of type {kind}, not Settings: {cure}")
    if settings.model not in models.MODELS:
        known = suggest(settings.model, models.MODELS)
        raise models.ModelError(f"unknown model {settings.model!r}: {known}")
    if settings.dataset not in data.DATASETS:
        known = suggest(settings.dataset, data.DATASETS)
        raise data.DataError(f"unknown dataset {settings.dataset!r}: {known}")
    if settings.weights != "train":
        models.published(settings.model, settings.weights)
    return runs_folder(folder) / settings.run_id


@dataclass(frozen=True)
class Run:
    """A finished run."""

    path: Path
    settings: Settings
    result: dict[str, Any]
    env: dict[str, Any]

    @cached_property
    def history(self) -> pd.DataFrame:
        """Every candidate: generation, index, parent, genome (hex), error, macs, params."""
        candidates = read_history(file := self.path / "history.jsonl", mend=False)
        search = self.settings.search
        if len(candidates) != (total := 1 + search.population * search.generations):
            raise damaged(file, f"{len(candidates)} of {total} candidates")
        return History(candidates).frame

    @property
    def archive(self) -> pd.DataFrame:
        """The candidates that no other dominates, by falling cost, without the unpruned network."""
        return archive(self.history, self.settings.search.cost)

    @property
    def solutions(self) -> pd.DataFrame:
        """One row each for baseline, heavy, knee and light.

        Errors are on the test set, costs also relative to the baseline.
        """
        import pandas as pd

        rows = {
            role: {k: v for k, v in self.result[role].items() if not isinstance(v, (dict, list))}
            for role in ("baseline", *es.ROLES)
        }
        frame = pd.DataFrame([{"solution": role} | row for role, row in rows.items()])
        return relative(frame, self.result["baseline"])

    def genome(self, role: str) -> np.ndarray:
        """bool [n_bits] of heavy, knee or light."""
        check_role(role)
        return from_hex(self.result[role]["genome"], self.result["n_bits"])

    @cached_property
    def full(self) -> nn.Module:
        """The full-size network, untrained."""
        shape = self.result["n_classes"], self.result["channels"]
        return models.build(self.settings.model, *shape, source=self.settings.weights)

    @cached_property
    def layout(self) -> Layout:
        """The coupled groups of the full network."""
        return trace(self.full, torch.zeros(1, self.result["channels"], 32, 32), prove=False)

    def network(self, role: str) -> nn.Module:
        """The fine-tuned slim network of a role, in eval mode; ``RunError`` without its weights."""
        check_role(role)
        if not (weights := self.path / f"{role}.safetensors").exists():
            cure = f"train them again: python -m dpes restore {self.path}"
            raise RunError(f"{weights}: not here (large weights are not published); {cure}")
        return load(weights, self.full)


def check_role(role: str) -> None:
    if role not in es.ROLES:
        raise SettingsError(f"unknown solution {role!r}: {suggest(str(role), es.ROLES)}")


def relative(frame: pd.DataFrame, whole: dict[str, Any]) -> pd.DataFrame:
    """Rows of networks with what is left of the unpruned one's MACs and parameters."""
    left = {"macs_left": frame.macs / whole["macs"], "params_left": frame.params / whole["params"]}
    return frame.assign(**left)


def open_run(path: str | Path) -> Run:
    """Read a finished run.

    Parameters
    ----------
    path
        Its directory.

    Raises
    ------
    RunError
        It is unfinished, damaged or of another schema.
    """
    path = path_of(path, "path")
    file = path / "settings.json"
    if not file.exists():
        raise RunError(f"{path}: not a run directory; list them with: python -m dpes show")
    stored = read_entries(file, "schema", "settings")
    if stored["schema"] != SCHEMA:
        cure = "delete it or use the version that wrote it"
        raise RunError(f"{path}: of schema {stored['schema']}, this version reads {SCHEMA}; {cure}")
    if not (path / "result.json").exists():
        raise RunError(f"{path}: not finished; continue it with: python -m dpes run")
    try:
        settings = from_dict(stored["settings"])
    except SettingsError as error:
        raise RunError(f"{file}: {error}; restore it, or delete {path} and run again") from None
    result = read_entries(path / "result.json", "n_bits", "baseline", *es.ROLES)
    return Run(path, settings, result, read_env(path / "env.json"))


def load_runs(folder: str | Path | None = None) -> pd.DataFrame:
    """All finished runs as one tidy frame; a damaged one is left out with a warning.

    Parameters
    ----------
    folder
        Of run directories; see ``runs_folder``.

    Returns
    -------
    A row for each network of ``Run.solutions``, with run, model, dataset, profile and seed.
    """
    import pandas as pd

    about = ["run", "model", "dataset", "profile", "seed"]
    frames = []
    for path in sorted(runs_folder(folder).glob("*/result.json")):
        try:
            run = open_run(path.parent)
        except RunError as error:
            warnings.warn(str(error), stacklevel=2)
            continue
        s = run.settings
        values = (path.parent.name, s.model, s.dataset, s.profile, s.seed)
        frames.append(run.solutions.assign(**dict(zip(about, values, strict=True))))
    empty = pd.DataFrame(columns=[*about, "solution"])
    return pd.concat(frames, ignore_index=True) if frames else empty
