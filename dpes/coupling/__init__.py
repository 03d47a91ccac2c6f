"""Which filters of a network hang together, and how they are cut out of it."""

from .cutting import mask, slim
from .genome import repair
from .layout import GenomeError, Group, Layout
from .rules import rule
from .slimfile import FileError, load, read_header, save
from .tracing import UnsupportedModel, macs, trace

__all__ = [
    "FileError", "GenomeError", "Group", "Layout", "UnsupportedModel",
    "load", "macs", "mask", "read_header", "repair", "rule", "save", "slim", "trace",
]  # fmt: skip
