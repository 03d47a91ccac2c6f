"""Errors of many candidates: one after the other, or in processes of one thread each."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from tqdm import tqdm

from ..errors import CandidateFailed
from .loop import Job

Build = Callable[..., Callable[..., float]]  # makes, in another process, the function from a job to its error

FAILED = float("inf")  # a failed candidate is worse than every other and never enters a front


def guarded(error: Callable[..., float], *job: Any) -> float:
    """The error of a job, or ``inf`` with a warning where its evaluation fails: one candidate is lost, not the search."""
    try:
        return error(*job)
    except (RuntimeError, MemoryError, CandidateFailed) as problem:  # out of memory on a device is a RuntimeError
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        warnings.warn(f"candidate failed and counts as worst: {(str(problem) or type(problem).__name__).splitlines()[0]}", stacklevel=2)
        return FAILED


def serial(fitness: Callable[..., float], jobs: Iterable[Job]) -> Iterator[float]:
    """Errors of many jobs, one after the other, in their order."""
    for job in jobs:
        yield fitness(*job)


@contextmanager
def processes(build: Build, arguments: tuple, workers: int) -> Iterator[Callable[[Iterable[Job]], Iterator[float]]]:
    """A function like ``serial`` that computes in so many processes of one thread each, to the bits of one thread in series.

    Each process calls ``build(*arguments)`` once for the function that it computes with. A process that dies is replaced and its
    jobs are done again; a job under which processes die twice counts as failed.
    """
    start = _start_worker, (build, arguments)
    with ExitStack() as pools:
        pool = pools.enter_context(workers_of(workers, *start))

        def errors(jobs: Iterable[Job]) -> Iterator[float]:
            nonlocal pool
            waiting, deaths = list(jobs), 0
            while waiting:
                try:
                    for future in submit(pool, _evaluate_in_worker, waiting):
                        error = future.result()
                        deaths = 0
                        waiting.pop(0)
                        yield error
                except BrokenProcessPool:
                    pools.close()
                    pool, deaths = pools.enter_context(workers_of(workers, *start)), deaths + 1
                    if deaths == 2:
                        warnings.warn("candidate failed and counts as worst: its process died twice (out of memory?)", stacklevel=2)
                        deaths = 0
                        waiting.pop(0)
                        yield FAILED

        yield errors


@contextmanager
def workers_of(workers: int, start: Callable[..., None], arguments: tuple) -> Iterator[ProcessPoolExecutor]:
    """Processes that each call ``start(*arguments)`` first; at the end they are stopped, whatever they are doing.

    A pool that is left alone would wait for them: to the end of their work, or forever if one of them died as it was born.
    """
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), start, arguments)
    try:
        yield pool
    finally:
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        pool.shutdown(cancel_futures=True)


def submit(pool: ProcessPoolExecutor, function: Callable, jobs: Iterable[tuple]) -> list[Future]:
    """A future of ``function(*job)`` for each job; raises ``BrokenProcessPool`` where a process has died already."""
    try:
        with undisturbed():
            return [pool.submit(function, *job) for job in jobs]
    except (ValueError, OSError) as error:  # one died while another was being started, and its pipes were closed under the latter
        raise BrokenProcessPool("a process died as it was born") from error


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of the block, and what is born in it never hears of Ctrl-C.

    A process whose parent left it half-born, or that is interrupted before it is a worker, would complain at length.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        # only that thread is interrupted, and Windows has no masks
        yield
        return
    came: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: came.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # is inherited
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def _start_worker(build: Build, arguments: tuple) -> None:
    global _error
    behave_as_worker()
    _error = build(*arguments)


def behave_as_worker() -> None:
    """Make this process, started by another one, a worker of one thread that its parent stops and that never outlives it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # torch.fx counts with it; its own lock is a semaphore, which a stopped process leaves behind


def _end_with_parent() -> None:
    """A parent that is killed cannot stop its workers, which would wait for its next genome forever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _evaluate_in_worker(*job: Any) -> float:
    return guarded(_error, *job)


_error: Callable[..., float]  # of this process, in workers only


def keep_freed_memory() -> None:
    """Make glibc keep what a layer frees: it would hand it back and clear it anew, page by page, a seventh of a search's time.

    Of the whole process, which then holds on to the most that it ever needed. Elsewhere nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library; TypeError: Windows
        return
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    mallopt(-4, 0)  # M_MMAP_MAX
