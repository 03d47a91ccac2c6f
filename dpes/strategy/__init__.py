"""The search for smaller networks, for any network."""

from .es import ROLES, State, ask, mutate_widths, repair, start, tell
from .history import Candidate, History, archive
from .loop import Task, search
from .pruning import Front, prune
from .settings import Search

__all__ = [
    "ROLES", "Candidate", "Front", "History", "Search", "State", "Task",
    "archive", "ask", "mutate_widths", "prune", "repair", "search", "start", "tell",
]  # fmt: skip
