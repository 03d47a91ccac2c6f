"""What the chapters that teach share: small networks on digits, exercises that check themselves, figures to explore."""

from .exercises import check

__all__ = ["check"]
