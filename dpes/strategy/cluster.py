"""Errors of candidates from a Dask cluster: workers on other machines, or on this one."""

from __future__ import annotations

import json
import logging
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import DpesError, first_line, require
from .loop import Evaluate
from .workers import MOST, Build, Outcome, attempt, settled

CONNECT = 10.0  # seconds until a scheduler that does not answer is given up
PATIENCE = 60.0  # seconds without a single worker until the search stops
PACKAGES = ["dpes", "torch", "numpy", "distributed"]  # of the same version everywhere, as Python
MARK = "dpes of "  # before the client's id: the name under which workers keep network and data
ALIKE = "start it in the environment of this process"
FORMS = "tcp://host:port, the file of dask scheduler --scheduler-file, or local:N"


class ClusterError(DpesError):
    """No scheduler, no worker, or a worker that cannot do its work."""


def locate(scheduler: str) -> str | int:
    """The address of a scheduler, or the number of processes to start; connects to nothing.
    ``scheduler``: see ``FORMS``.
    """
    require("distributed", extra="cluster")
    if scheduler.startswith("local:"):
        number = scheduler.removeprefix("local:")
        if number.isascii() and number.isdecimal() and 1 <= int(number[:9]) <= MOST:
            return int(number)
        raise refused(scheduler, f"must be local:N with N at least 1 and at most {MOST}")
    if "://" in scheduler:
        return scheduler
    try:
        return str(json.loads(Path(scheduler).read_bytes())["address"])
    except OSError as error:
        raise refused(scheduler, f"cannot be read ({error.strerror}); give {FORMS}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        cure = "start dask scheduler --scheduler-file again"
        raise refused(scheduler, f"no address in this file; {cure}") from None


def refused(scheduler: str, why: str) -> ClusterError:
    return ClusterError(f"scheduler {scheduler!r}: {why}")


def probe(scheduler: str) -> None:
    """Raise ``ClusterError`` now rather than after an hour of training, if no scheduler with
    workers is there.
    """
    if isinstance(locate(scheduler), str):
        with connect(scheduler):
            pass


@contextmanager
def connect(scheduler: str) -> Iterator[Any]:
    """A client of a scheduler that has workers; raises ``ClusterError`` where there is none.
    Processes of ``local:N`` end with it.
    """
    place = locate(scheduler)
    from distributed import Client, LocalCluster
    from distributed.utils import silence_logging_cmgr

    with ExitStack() as stack:
        # what matters is said here, in one line
        stack.enter_context(silence_logging_cmgr(logging.CRITICAL))
        # without a limit of memory: Dask would pause workers beside other work
        if isinstance(place, int):
            single = {"threads_per_worker": 1, "memory_limit": 0}
            alone = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
            place = stack.enter_context(LocalCluster(n_workers=place, **single, **alone))
        try:
            client = stack.enter_context(Client(place, timeout=CONNECT))
        # TimeoutError is an OSError; ValueError: an unknown protocol; AssertionError: Dask's own
        # thread did not start in ten seconds, on a machine that stood still
        except (OSError, ValueError, ImportError, AssertionError) as error:
            reason = f"does not answer ({first_line(error)})"
            raise refused(scheduler, f"{reason}; start it, or name another") from None
        with explained(scheduler):
            client.wait_for_workers(1, timeout=PATIENCE)
        yield client


@contextmanager
def explained(scheduler: str) -> Iterator[None]:
    """What goes wrong between here and the workers, as one line."""
    from distributed import CancelledError

    try:
        yield
    except DpesError:
        raise
    except TimeoutError:
        cure = "start dask worker, then this command again"
        raise refused(scheduler, f"no worker for {PATIENCE:.0f} s; {cure}") from None
    except (CancelledError, OSError):
        raise refused(scheduler, "lost; start it, then this command again") from None
    except Exception as error:  # a worker's own, such as a missing module
        raise ClusterError(f"a worker cannot evaluate ({first_line(error)}); {ALIKE}") from None


@contextmanager
def dask(build: Build, arguments: tuple, scheduler: str) -> Iterator[Evaluate]:
    """A function like ``workers.serial`` that computes on the workers of a scheduler, alike.

    Each worker, also one that joins later, calls ``build(*arguments)`` once for the function that
    it computes with. The candidates of a worker that dies go to others; one under which workers die
    even when it is alone counts as failed. scheduler: see ``FORMS``.
    Raises ``ClusterError``: no scheduler, no worker for ``PATIENCE`` seconds, a worker that cannot
    start or has other versions.
    """
    with connect(scheduler) as client:
        name = f"{MARK}{client.id}"

        def errors(genomes: Iterable[np.ndarray]) -> Iterator[float]:
            waiting = list(genomes)
            futures = [client.submit(_evaluate, name, genome, pure=False) for genome in waiting]
            for genome, future in zip(waiting, futures, strict=True):
                with explained(scheduler):
                    found = _outcome(client, future)
                    if found is None:  # perhaps by another one on the same workers: again, alone
                        _outcome(client, *futures)
                        again = client.submit(_evaluate, name, genome, pure=False)
                        found = _outcome(client, again)
                yield settled(found)

        try:
            with explained(scheduler):
                _equip(client, name, _pack(build, arguments))
            yield errors
        finally:
            with suppress(Exception):  # a scheduler that is lost has forgotten it already
                client.unregister_worker_plugin(name)


def _outcome(client: Any, *futures: Any) -> Outcome | None:
    """That of the last genome once all have ended; None if worker after worker died under it."""
    from distributed import KilledWorker, wait

    while True:
        try:
            wait(futures, timeout=PATIENCE)
            break
        except TimeoutError:
            if not client.nthreads():
                raise
    try:
        return futures[-1].result()
    except KilledWorker:
        return None


def _pack(build: Build, arguments: tuple) -> bytes:
    """All that a worker builds its own function from."""
    return pickle.dumps((build, arguments))


def _equip(client: Any, name: str, payload: bytes) -> None:
    """Send it to all workers, present and future, if their versions are those of this process;
    remove what killed clients left.
    """
    from distributed import WorkerPlugin

    # local, so that it is sent by value: a worker without dpes can still say so
    class Equipment(WorkerPlugin):
        def __init__(self, versions: dict[str, Any], payload: bytes, ours: bool):
            self.versions, self.payload, self.ours = versions, payload, ours

        def setup(self, worker: Any) -> None:
            if self.ours:  # Ctrl-C reaches all; this process stops its workers
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                from dpes.strategy.cluster import _prepare

                self.error, self.lock = _prepare(worker, self.versions, self.payload)
            except Exception as error:
                self.problem = str(error)
                raise
            finally:
                del self.payload

    def left(dask_scheduler: Any, mark: str) -> list[str]:
        return [
            n
            for n in dask_scheduler.worker_plugins
            if n.startswith(mark) and n[len(mark) :] not in dask_scheduler.clients
        ]

    for old in client.run_on_scheduler(left, mark=MARK):
        client.unregister_worker_plugin(old)
    versions = client.get_versions(packages=PACKAGES)
    here = versions["client"]["packages"]
    for address, theirs in versions["workers"].items():
        check(address, theirs["packages"], here)
    client.register_plugin(Equipment(here, payload, ours=client.cluster is not None), name=name)


def check(address: str, theirs: dict[str, Any], here: dict[str, Any]) -> None:
    """Refuse a worker of other versions: its errors might differ in the last bits."""
    for package in ("python", *PACKAGES):
        if theirs.get(package) != here[package]:
            difference = f"{package} is {theirs.get(package)}, here {here[package]}"
            raise ClusterError(f"worker {address}: {difference}; {ALIKE}")


def _prepare(
    worker: Any, versions: dict[str, Any], payload: bytes
) -> tuple[Callable[..., float], threading.Lock]:
    """A worker's own function from a job to its error, built there."""
    from distributed.versions import get_versions

    # of one that joins later nobody else asks
    check(worker.address, get_versions(PACKAGES)["packages"], versions)
    torch.set_num_threads(1)
    build, arguments = pickle.loads(payload)
    return build(*arguments), threading.Lock()


def _evaluate(name: str, genome: np.ndarray) -> Outcome:
    """The error of a genome, and why it failed: a warning would be seen by nobody there."""
    from distributed import get_worker

    equipment: Any = get_worker().plugins[name]
    if hasattr(equipment, "problem"):  # it joined later
        raise ClusterError(equipment.problem)
    torch.set_num_threads(1)  # holds for one thread, and a worker may have several
    with equipment.lock:
        return attempt(equipment.error, genome)
