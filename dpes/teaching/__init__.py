"""What the chapters that teach share: networks on digits, exercises, figures to explore."""

from . import checks_choose, checks_coupled, checks_cut, checks_search
from .exercises import check

CHECKED = checks_choose, checks_coupled, checks_cut, checks_search  # imported, they are known
__all__ = ["check"]
