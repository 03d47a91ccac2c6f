"""Work done one after the other, or in processes of one thread each, to the same bits; one policy
for what fails.

A job under which a process dies is done once more, alone; if it dies again, the job is lost. A
candidate that cannot be evaluated, or is lost, counts as worst, and the search goes on.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..errors import CandidateFailed, RunError, SettingsError, first_line
from .loop import Evaluate

Build = Callable[..., Callable[..., Any]]  # makes, in another process, the function that does a job
Outcome = tuple[float, str]  # the error of a candidate, and why its evaluation failed where it did

FAILED = float("inf")  # a failed candidate is worse than every other and never enters a front
LOST: Outcome = (FAILED, "its worker died twice (out of memory?)")


# ---- candidates ----------------------------------------------------------------------------------
def attempt(error: Callable[[np.ndarray], float], genome: np.ndarray) -> Outcome:
    """The error of a genome; one candidate that fails is lost, not the search."""
    try:
        return error(genome), ""
    # out of memory on a device is a RuntimeError
    except (RuntimeError, MemoryError, CandidateFailed) as problem:
        check_alive()
        return FAILED, first_line(problem)


def check_alive() -> None:
    """Raises ``RunError`` if a device has broken down: whatever comes after would fail as well."""
    if torch.cuda.is_available():
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError as error:
            problem = f"the device has failed ({first_line(error)})"
            raise RunError(f"{problem}; start again, the same command continues") from error


def settled(outcome: Outcome | None) -> float:
    """The error of an outcome, ``FAILED`` with a warning where there is none."""
    error, problem = outcome or LOST
    if problem:
        warnings.warn(f"candidate failed and counts as worst: {problem}", stacklevel=2)
    return error


def serial(error: Callable[[np.ndarray], float], genomes: Iterable[np.ndarray]) -> Iterator[float]:
    """Errors of many genomes, one after the other, in their order."""
    for genome in genomes:
        yield settled(attempt(error, genome))


@contextmanager
def processes(build: Build, arguments: tuple, workers: int) -> Iterator[Evaluate]:
    """A function like ``serial`` that computes in so many processes, each with the function
    ``build(*arguments)``.
    """
    with pool(attempting, (build, arguments), workers) as compute:
        yield lambda genomes: (
            settled(outcome) for outcome in compute((genome,) for genome in genomes)
        )


def attempting(build: Build, arguments: tuple) -> Callable[[np.ndarray], Outcome]:
    return partial(attempt, build(*arguments))


MOST = 1024  # processes to start on one machine


def check_workers(workers: int) -> None:
    """Raises ``SettingsError`` for a number of processes that cannot be meant."""
    if not 1 <= workers <= MOST:
        limits = f"must be at least 1 and at most {MOST}"
        raise SettingsError(
            f"workers = {workers}: {limits}; one for each core is enough, {os.cpu_count()} here"
        )


# ---- processes -----------------------------------------------------------------------------------
@contextmanager
def pool(
    build: Build, arguments: tuple, workers: int
) -> Iterator[Callable[[Iterable[tuple]], Iterator[Any]]]:
    """A function from jobs to their results, in order, None for a job that is lost; each process
    calls ``build(*arguments)`` once.
    """
    with parcel(build, arguments) as sent, ExitStack() as pools:

        def renewed() -> ProcessPoolExecutor:
            pools.close()
            return pools.enter_context(workers_of(workers, _start, (sent,)))

        executor = renewed()

        def compute(jobs: Iterable[tuple]) -> Iterator[Any]:
            nonlocal executor
            waiting, alone = list(jobs), False
            while waiting:
                try:
                    for future in submit(executor, _do, waiting[:1] if alone else waiting):
                        result = future.result()
                        waiting.pop(0)
                        yield result
                    alone = False
                # by which job nobody knows: the first one that is not done is tried alone
                except BrokenProcessPool:
                    executor = renewed()
                    if alone:
                        waiting.pop(0)
                        yield None
                    alone = not alone

        yield compute


@contextmanager
def parcel(build: Build, arguments: tuple) -> Iterator[Path]:
    """A file of all that workers build their function from, written once.

    Each maps it into its memory, where the system keeps one copy for all. Pickled for a process,
    tensors would go through /dev/shm, which has 64 MB in a container.
    """
    with tempfile.TemporaryDirectory(prefix="dpes-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "parcel"
        try:
            torch.save((build, arguments), path)
        except RuntimeError as error:  # which is what a full disk is to torch
            cure = "make room there, or let TMPDIR name another folder"
            raise RunError(f"{folder}: cannot be written ({first_line(error)}); {cure}") from error
        yield path


@contextmanager
def workers_of(
    workers: int, start: Callable[..., None], arguments: tuple
) -> Iterator[ProcessPoolExecutor]:
    """Processes that each call ``start(*arguments)`` first; at the end they are stopped, whatever
    they are doing.

    A pool that is left alone would wait for them: to the end of their work, or forever if one of
    them died as it was born.
    """
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), start, arguments)
    # all are started before anything watches them: a pool that starts one more while it finds
    # another one dead would trip over its own list of processes
    pool._safe_to_dynamically_spawn_children = False  # type: ignore[attr-defined]
    try:
        yield pool
    finally:
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        pool.shutdown(cancel_futures=True)


def submit(pool: ProcessPoolExecutor, function: Callable, jobs: Iterable[tuple]) -> list[Future]:
    """A future of ``function(*job)`` for each job; raises ``BrokenProcessPool`` where a process has
    died already.
    """
    try:
        with undisturbed():
            return [pool.submit(function, *job) for job in jobs]
    # one died while another was being started, and its pipes were closed under the latter
    except (ValueError, OSError) as error:
        raise BrokenProcessPool("a process died as it was born") from error


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of the block, and what is born in it never hears of
    Ctrl-C.

    A process whose parent left it half-born, or that is interrupted before it is a worker, would
    complain at length.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(
        signal, "pthread_sigmask"
    ):
        # only that thread is interrupted, and Windows has no masks
        yield
        return
    came: list[int] = []
    handlers = {
        n: signal.signal(n, lambda number, _: came.append(number))
        for n in (signal.SIGINT, signal.SIGTERM)
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # is inherited
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for n, handler in handlers.items():
            signal.signal(n, handler)
        for number in came:
            signal.raise_signal(number)


def _start(sent: Path) -> None:
    global _job
    behave_as_worker()
    # our own file: it may hold any object
    build, arguments = torch.load(sent, map_location="cpu", mmap=True, weights_only=False)
    _job = build(*arguments)


def _do(*job: Any) -> Any:
    return _job(*job)


_job: Callable[..., Any]  # of this process, in workers only


def behave_as_worker() -> None:
    """Make this process, started by another one, a worker of one thread that its parent stops and
    that never outlives it.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    # torch.fx counts with it; its own lock is a semaphore, which a stopped process leaves behind
    tqdm.set_lock(threading.RLock())


def _end_with_parent() -> None:
    """A parent that is killed cannot stop its workers, which would wait for its next genome
    forever.
    """
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)


def keep_freed_memory() -> None:
    """Make glibc keep what a layer frees: it would hand it back and clear it anew, page by page, a
    seventh of a search's time.

    Of the whole process, which then holds on to the most that it ever needed. Elsewhere nothing
    happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library; TypeError: Windows
        return
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    mallopt(-4, 0)  # M_MMAP_MAX
