"""dpes: filter pruning of deep CNNs by a multi-objective evolution strategy (DeepPruningES, Fernandes & Yen 2021)."""

from .coupling.cutting import mask, slim
from .coupling.layout import Layout
from .coupling.slimfile import load, save
from .coupling.tracing import UnsupportedModel, macs, trace
from .errors import DpesError, RunError
from .strategy.pruning import Front, prune
from .strategy.settings import Search
from .study.profiles import make_settings
from .study.runs import Run, load_runs, open_run, run, where
from .study.settings import Settings, Training

__version__ = "0.1.0"
__all__ = [
    "DpesError", "Front", "Layout", "Run", "RunError", "Search", "Settings", "Training", "UnsupportedModel",
    "load", "load_runs", "macs", "make_settings", "mask", "open_run", "prune", "run", "save", "slim", "trace", "where",
]  # fmt: skip
