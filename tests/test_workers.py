"""The one policy for work that fails and workers that die, on jobs made up."""

from __future__ import annotations

import os
import time
from functools import partial

import pytest

from dpes.errors import CandidateFailed
from dpes.strategy import workers


def job(mark, number):
    """Its square; of a negative number the process dies, once for -1 and always for others."""
    if number < 0 and not (number == -1 and mark.exists()):
        mark.touch()
        os._exit(1)
    time.sleep(0.05 if number == 2 else 0)  # slow enough to be under way when another one dies
    return number**2


def build(mark):
    return partial(job, mark)


@pytest.mark.parametrize(
    ("numbers", "results"),
    [
        ([1, -1, 3], [1, 1, 9]),  # done again
        ([2, -5, 3, 4], [4, None, 9, 16]),  # lost, and nobody else
        ([-5, -6], [None, None]),
        ([], []),
    ],
)
def test_a_job_whose_process_dies_is_done_once_more_and_then_lost(numbers, results, tmp_path):
    with workers.pool(build, (tmp_path / "mark",), 2) as compute:
        assert list(compute((n,) for n in numbers)) == results
        assert list(compute([(7,)])) == [49]


@pytest.mark.parametrize(
    "problem",
    [
        RuntimeError("out of memory\nand more"),
        MemoryError(),
        CandidateFailed("the loss became inf"),
    ],
)
def test_a_candidate_that_fails_is_worst_and_said(problem):
    def error(genome):
        if genome == 1:
            raise problem
        return 0.5

    said = str(problem).splitlines()[0] if str(problem) else "MemoryError"
    with pytest.warns(UserWarning, match=f"counts as worst: {said}$"):
        assert list(workers.serial(error, [0, 1, 2])) == [0.5, workers.FAILED, 0.5]
    with pytest.warns(UserWarning, match="counts as worst: its worker died twice"):
        assert workers.settled(None) == workers.FAILED


def test_what_is_no_failure_of_a_candidate_ends_the_search():
    with pytest.raises(ValueError):
        list(workers.serial(lambda genome: int("x"), [0]))
