"""From genomes to errors: what a search calls the fitness of a candidate, and the ways to compute many of them."""

from __future__ import annotations

import copy
import ctypes
import hashlib
import math
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import data, train
from .channels import trace
from .config import Search, Training
from .layout import Layout
from .slim import cut

Job = tuple[np.ndarray, float]  # a genome, and the error above which it is dominated: arguments of ``Fitness``

FAILED = float("inf")  # a failed candidate is worse than every other and never enters a front


@dataclass
class Fitness:
    """The error of a genome: cut from the original weights, made fit as ``search.fitness`` says, errors counted.

    A genome's error depends on nothing but the genome, the seed and the device: not on order, batch of genomes or worker.
    Sources: partial training from the original weights: authors' later code; recalibration, alone or after it: ours.
    """

    model: nn.Module
    layout: Layout
    dataset: data.Dataset
    search: Search
    seed: int = 0
    device: str | torch.device = "cpu"
    bench: nn.Module = field(init=False)  # the module tree that every candidate is cut into
    calibration: Tensor = field(init=False)  # uint8, augmented once: the same images for all candidates make fair comparisons

    def __post_init__(self) -> None:
        keep_freed_memory()
        # images are channels-last, which decides for the passes; weights lie kernel by kernel, which is faster to cut
        self.model = self.model.to(self.device).to(memory_format=torch.contiguous_format).eval()
        self.dataset = self.dataset.to(self.device)
        self.bench = copy.deepcopy(self.model)
        generator = torch.Generator().manual_seed(self.seed)
        images = self.dataset.train.x
        chosen = images[torch.randperm(len(images), generator=generator)[: self.search.calibration_images].to(images.device)]
        # batch norm saw augmented images in training: statistics of plain ones cost an intact ResNet-56 1.5 points
        self.calibration = data.augment(chosen, generator, flip=self.dataset.flip)
        pool = self.dataset.search if self.search.error_on == "search" else self.dataset.train
        self.judged = pool.first(self.search.search_images)

    def __call__(self, genome: np.ndarray, limit: float = float("inf")) -> float:
        """Error in [0, 1] of one genome, bool [n_bits]; ``inf`` with a warning if its evaluation fails.

        limit: the error above which it is dominated; with ``search.racing`` an error above it is that of the images counted so far.
        """
        return guarded(self.error, genome, limit)

    def error(self, genome: np.ndarray, limit: float = float("inf")) -> float:
        network = cut(self.bench, self.model, self.layout, self.layout.keep(genome))
        if "partial" in self.search.fitness:
            train.fit(network, self.dataset, self.partial_recipe(), genome_seed(self.seed, genome))
        # only around passes whose weights stay as they are: autocast remembers the weights it has converted
        with torch.autocast(self.calibration.device.type, torch.bfloat16, enabled=self.search.precision == "bfloat16"):
            # after a brief training the running averages of batch norm still are mostly those of the full network
            if "recalibrate" in self.search.fitness:
                train.recalibrate(network, self.calibration_batches())
            return self.counted(network, limit)

    def counted(self, network: nn.Module, limit: float) -> float:
        """The error of a network over the images that judge it, or over the first of them if ``search.racing`` stops it."""
        if self.search.racing is None:
            return train.error_rate(network, self.judged, self.dataset, self.search.batch_size)
        network.eval()
        wrong, seen = 0, 0
        for pair in train.inputs(self.judged, self.dataset, self.search.batch_size):
            wrong, seen = wrong + int(train.errors(network, [pair])), seen + len(pair[1])
            if above(limit, wrong, seen, len(self.judged), self.search.racing):
                break
        return wrong / seen

    def calibration_batches(self) -> Iterator[Tensor]:
        for images in self.calibration.split(self.search.batch_size):
            yield data.normalise(images, self.dataset)

    def partial_recipe(self) -> Training:
        return Training(
            epochs=self.search.partial_epochs,
            lr=self.search.partial_lr,
            schedule="constant",
            weight_decay=0.0,
            batch_size=max(2, self.search.batch_size // 2),
            images=self.search.partial_images,
            precision=self.search.precision,
        )


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


def above(limit: float, wrong: int, seen: int, total: int, risk: float) -> bool:
    """Whether an error rate over ``total`` images ends above ``limit``, after ``wrong`` of ``seen``: for certain, or at a risk.

    At a risk: the bound of Hoeffding (1963), narrowed for draws without replacement (Serfling 1974). It holds at one look; a
    candidate is looked at after every batch, so the risk over all of them is larger. Source: Maron & Moore 1994 (races).
    """
    if wrong > limit * total:
        return True
    left = 1 - (seen - 1) / total
    return risk > 0 and wrong / seen - math.sqrt(left * math.log(1 / risk) / (2 * seen)) > limit


def guarded(error: Callable[..., float], *job: Any) -> float:
    """The error of a job, or ``inf`` with a warning where its evaluation fails: one candidate is lost, not the search."""
    try:
        return error(*job)
    except (RuntimeError, MemoryError, train.TrainingDiverged) as problem:  # out of memory on a device is a RuntimeError
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        warnings.warn(f"candidate failed and counts as worst: {(str(problem) or type(problem).__name__).splitlines()[0]}", stacklevel=2)
        return FAILED


def genome_seed(seed: int, genome: np.ndarray) -> int:
    """The seed of a genome's own random stream, from the study's seed and the genome."""
    digest = hashlib.sha256(seed.to_bytes(8, "little") + np.packbits(genome).tobytes()).digest()
    return int.from_bytes(digest[:6], "little")


def serial(fitness: Callable[..., float], jobs: Iterable[Job]) -> Iterator[float]:
    """Errors of many jobs, one after the other, in their order."""
    for job in jobs:
        yield fitness(*job)


@contextmanager
def processes(fitness: Fitness, workers: int) -> Iterator[Callable[[Iterable[Job]], Iterator[float]]]:
    """A function like ``serial`` that computes in so many processes of one thread each, to the bits of one thread in series.

    Network and data go to each process once. A process that dies is replaced and its jobs are done again; a job under which
    processes die twice counts as failed.
    """

    without_test = replace(fitness.dataset, test=fitness.dataset.test.first(0))
    arguments = fitness.model, without_test, fitness.layout.example, fitness.search, fitness.seed, fitness.device
    with ExitStack() as pools:
        pool = pools.enter_context(workers_of(workers, _start_worker, arguments))

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
                    pool, deaths = pools.enter_context(workers_of(workers, _start_worker, arguments)), deaths + 1
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


def _start_worker(model: nn.Module, dataset: data.Dataset, example: tuple[int, ...], search: Search, seed: int, device: str) -> None:
    global _worker
    behave_as_worker()
    _worker = Fitness(model, trace(model, torch.zeros(1, *example, device=device)), dataset, search, seed, device)


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
    return _worker(*job)


_worker: Fitness  # of this process, in workers only
