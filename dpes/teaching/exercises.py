"""``check(name, answer)`` recomputes an exercise of the book and says what is wrong."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from dpes import DpesError

# name -> a function that returns what the reader has shown, or raises Hint
CHECKS: dict[str, Callable[[Any], str]] = {}


class Hint(Exception):
    """What an answer lacks, in one sentence to the reader."""


class UnknownExercise(DpesError):
    """No exercise has this name."""


def exercise(name: str) -> Callable[[Callable[[Any], str]], Callable[[Any], str]]:
    """Register a check under the name that the reader gives."""

    def register(function: Callable[[Any], str]) -> Callable[[Any], str]:
        CHECKS[name] = function
        return function

    return register


def check(name: str, answer: Any) -> bool:
    """Whether the answer to an exercise is right; prints a hint, never the answer, if it is not.

    Parameters
    ----------
    name
        As in the exercise's cell.
    answer
        A number, a function or what else the exercise asks for; ``...`` is no answer yet. An error
        in the reader's own code is told, not raised.

    Raises
    ------
    UnknownExercise
        No exercise has this name.
    """
    if name not in CHECKS:
        raise UnknownExercise(f"unknown exercise {name!r}: choose from {', '.join(sorted(CHECKS))}")
    if answer is ...:
        tell(f"{name}: not answered yet. Put your answer in place of the three dots.")
        return False
    try:
        shown = CHECKS[name](answer)
    except Hint as hint:
        tell(f"{name}: not yet. {hint}")
        return False
    except Exception as error:  # of the reader's code, or an answer that nobody thought of
        tell(f"{name}: not yet. Your answer raised {type(error).__name__}: {error}")
        return False
    tell(f"{name}: right. {shown}")
    return True


def tell(sentence: str) -> None:
    """Print a sentence in lines that fit a page."""
    print(textwrap.fill(sentence, 76))


def call(function: Any, *arguments: Any) -> Any:
    """What the reader's function returns; a hint if it is no function or returns nothing."""
    if not callable(function):
        raise Hint(f"A function is wanted, this is a {type(function).__name__}.")
    result = function(*arguments)
    if result is None or result is ...:
        raise Hint("The function returns nothing yet.")
    return result


def number(answer: Any) -> float:
    """The answer as a number, or a hint."""
    if callable(answer) or isinstance(answer, str):
        raise Hint("A number is wanted.")
    return float(answer)


def equal(theirs: Any, mine: Any, of: str, tolerance: float = 1e-6) -> None:
    """Raise a hint unless both are numerically equal; ``of`` names the case that differs."""
    theirs, mine = array(theirs), array(mine)
    if theirs.shape != mine.shape:
        shapes = f"{list(theirs.shape)}, wanted is {list(mine.shape)}"
        raise Hint(f"{of}: the result has shape {shapes}.")
    if not alike(theirs, mine, tolerance):
        yours = f" Yours is {theirs:.6g}." if theirs.ndim == 0 else ""
        raise Hint(f"{of}: the result is not right.{yours}")


def compare(
    answer: Any,
    arguments: tuple,
    mine: Any,
    of: str,
    mistakes: Sequence[tuple[Any, str]] = (),
    tolerance: float = 1e-6,
) -> None:
    """Raise a hint unless the reader's function returns what is right for these arguments.

    mistakes: what known ones return, each with its hint; one that happens to be right is none.
    """
    theirs = call(answer, *arguments)
    for wrong, hint in mistakes:
        if alike(theirs, wrong, tolerance) and not alike(wrong, mine, tolerance):
            raise Hint(hint)
    equal(theirs, mine, of, tolerance)


def alike(a: Any, b: Any, tolerance: float) -> bool:
    """Whether two answers are of one shape and numerically equal."""
    a, b = array(a), array(b)
    return a.shape == b.shape and np.allclose(a, b, rtol=tolerance, atol=tolerance)


def array(value: Any) -> np.ndarray:
    return np.asarray(value.detach() if isinstance(value, torch.Tensor) else value, dtype=float)
