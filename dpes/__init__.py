"""dpes: filter pruning of deep CNNs by a multi-objective evolution strategy (DeepPruningES, Fernandes & Yen 2021)."""

from .channels import UnsupportedModel, macs, trace
from .config import DpesError, Search, Settings, Training, make_settings
from .files import RunError
from .layout import Layout
from .pruning import Front, prune
from .slim import load, mask, save, slim
from .study import Run, load_runs, open_run, run, where

__version__ = "0.1.0"
__all__ = [
    "DpesError", "Front", "Layout", "Run", "RunError", "Search", "Settings", "Training", "UnsupportedModel",
    "load", "load_runs", "macs", "make_settings", "mask", "open_run", "prune", "run", "save", "slim", "trace", "where",
]  # fmt: skip
