"""The one policy for work that fails and workers that die, on jobs made up."""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest
import torch

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


def total(images, number):
    return images.sum().item() + number


def with_images(images):
    """A job on images, after a look at where they lie."""
    maps = Path("/proc/self/maps")
    if maps.exists():
        text = maps.read_text()
        assert "/dev/shm/torch" not in text and "/parcel" in text
    return partial(total, images)


def test_images_reach_workers_by_a_file_that_is_written_once_and_removed(tmp_path, monkeypatch):
    """Not through /dev/shm: 64 MB in a container, a tenth of what a study may send."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    images = torch.ones(70 * 2**20, dtype=torch.uint8)
    with workers.pool(with_images, (images,), 2) as compute:
        assert list(compute([(1,), (2,)])) == [70 * 2**20 + 1, 70 * 2**20 + 2]
        (folder,) = tmp_path.iterdir()
        assert [p.name for p in folder.iterdir()] == ["parcel"]
    assert not images.is_shared() and not list(tmp_path.iterdir())
