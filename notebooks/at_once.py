"""Chapters executed several at a time in processes of their own, with one line of progress."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from chapters import Chapter

Result = tuple[bool, str]  # whether a chapter succeeded, and a line that says what came of it
Execute = Callable[[Chapter, bool], Result]


@dataclass
class Worker:
    """A process that executes one chapter after the other."""

    process: BaseProcess
    connection: Connection
    chapter: Chapter | None = None  # under way
    since: float = field(default_factory=time.monotonic)

    def begin(self, chapter: Chapter) -> None:
        self.chapter, self.since = chapter, time.monotonic()
        with suppress(BrokenPipeError):  # it died; ``end`` says so
            self.connection.send(chapter)

    def end(self) -> Result:
        chapter, self.chapter = self.chapter, None
        assert chapter is not None
        try:
            return self.connection.recv()
        except EOFError:
            self.process.join()
            return False, f"{chapter.name}: its process died (out of memory?)"


def several(execute: Execute, todo: list[Chapter], publish: bool, at_once: int) -> Iterator[Result]:
    """What came of each chapter, as they end; chapters that share a run wait for each other.

    After Ctrl-C every worker has ended its kernel and removed its half chapter before this raises.
    """
    waiting, total = list(todo), len(todo)
    workers: list[Worker] = []
    try:
        while waiting or any(w.chapter for w in workers):
            workers = [w for w in workers if w.chapter or w.process.is_alive()]
            while len(workers) < min(at_once, total) and waiting:
                workers.append(started(execute, publish))
            for worker in (w for w in workers if not w.chapter):
                if (chapter := next_one(waiting, workers)) is not None:
                    waiting.remove(chapter)
                    worker.begin(chapter)
            show(workers, total, len(waiting))
            busy = {w.connection: w for w in workers if w.chapter}
            for ready in wait(list(busy), timeout=1):
                result = busy[ready].end()  # type: ignore[index]
                clear()
                yield result
    finally:
        clear()
        for w in workers:
            with suppress(ProcessLookupError):
                os.kill(w.process.pid, signal.SIGINT)  # type: ignore[arg-type]
        for w in workers:
            w.process.join()


def next_one(waiting: list[Chapter], workers: list[Worker]) -> Chapter | None:
    """The first chapter whose run no other one is working on."""
    taken = {w.chapter.run for w in workers if w.chapter} - {None}
    return next((c for c in waiting if c.run not in taken), None)


def started(execute: Execute, publish: bool) -> Worker:
    """A new worker; one that has not yet begun to listen never hears of Ctrl-C."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=work, args=(theirs, execute, publish))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # is inherited
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()
    return Worker(process, ours)


def work(connection: Connection, execute: Execute, publish: bool) -> None:
    """Execute the chapters that arrive, until interrupted."""
    os.setpgid(0, 0)  # Ctrl-C comes from the parent, once, not from the terminal, twice
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        while True:
            connection.send(execute(connection.recv(), publish))
    except (KeyboardInterrupt, EOFError):
        os._exit(0)  # nothing is left to say, and nothing may interrupt saying it


def end_with_parent() -> None:
    """A parent that is killed cannot stop its workers; a kernel ends with the process above it."""
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)


# ---- the line of progress ------------------------------------------------------------------------
def show(workers: list[Worker], total: int, waiting: int) -> None:
    if sys.stderr.isatty():
        now = [w for w in workers if w.chapter]
        names = (f"{w.chapter.name} {time.monotonic() - w.since:.0f} s" for w in now if w.chapter)
        done = total - waiting - len(now)
        print(f"\r\033[K{done} of {total} chapters; {', '.join(names)}", end="", file=sys.stderr)
        sys.stderr.flush()


def clear() -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
