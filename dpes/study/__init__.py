"""Recipes, runs and rivals of the reproducible study."""

from .baseline import load_baseline
from .finished import Run, load_runs, open_run, where
from .fitness import Fitness
from .profiles import PROFILES, make_settings
from .rivals import read_rivals, train_rivals
from .runs import restore, run
from .settings import Settings, Training

__all__ = [
    "PROFILES", "Fitness", "Run", "Settings", "Training",
    "load_baseline", "load_runs", "make_settings", "open_run", "read_rivals", "restore", "run",
    "train_rivals", "where",
]  # fmt: skip
