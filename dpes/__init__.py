"""dpes: filter pruning of deep CNNs by a multi-objective evolution strategy (DeepPruningES,
Fernandes & Yen 2021).
"""

from .coupling import Layout, UnsupportedModel, load, macs, mask, repair, save, slim, trace
from .errors import DpesError, RunError
from .strategy import Front, Search, prune
from .study import Run, Settings, Training, load_runs, make_settings, open_run, run, where

__version__ = "0.1.0"
__all__ = [
    "DpesError", "Front", "Layout", "Run", "RunError", "Search", "Settings", "Training",
    "UnsupportedModel", "load", "load_runs", "macs", "make_settings", "mask", "open_run", "prune",
    "repair", "run", "save", "slim", "trace", "where",
]  # fmt: skip
