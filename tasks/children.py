"""Work in another process, on one thread: the same bytes whatever else runs beside it.

This module imports no orchestrator, so that the process starts quickly.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple


class ChildFailed(RuntimeError):
    """A process ended without an answer; the message is the child's own."""


class Watch(NamedTuple):
    """What a child looks at now and then, so as not to outlive a study that was killed."""

    parent: int

    def __call__(self) -> None:
        """End this process when the one that started it is gone."""
        if os.getppid() != self.parent:
            os._exit(1)


class Child(NamedTuple):
    """A process that does one job after another."""

    process: BaseProcess
    pipe: Connection

    def end(self) -> None:
        """Tell it that there is no other job, and wait a while for it to go: a killed one leaves semaphores behind."""
        self.pipe.close()
        self.process.join(10)


_thread = threading.local()  # .idle: processes that wait for the next job of this thread or of those beside it


@contextmanager
def side_by_side(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """A thread for each core, at most one for each job; processes that end a job for `in_process` do the next one.

    A process takes seconds to start. On leaving, also by an error or an interrupt, nothing queued starts and nothing
    running goes on.
    """
    idle: list[Child] = []
    pool = ThreadPoolExecutor(min(jobs, os.cpu_count() or 1), initializer=setattr, initargs=(_thread, "idle", idle))
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in idle:
            child.end()
        for running in multiprocessing.active_children():
            running.terminate()


def in_process(body: Callable[[Any, Watch], Any], job: Any, label: str) -> Any:
    """`body(job, watch)` in another process; body, job and answer are pickled.

    Raises ChildFailed with what the process said, or with how it died (a kernel out of memory kills it silently).
    """
    idle: list[Child] | None = getattr(_thread, "idle", None)
    child = _waiting(idle) if idle else None
    if child is None or not child.process.is_alive():
        child = _start()
    try:
        child.pipe.send((body, job))
        failed, answer = child.pipe.recv()
    except (EOFError, OSError):
        child.process.join()
        failed, answer = True, f"its process died (exit code {child.process.exitcode})"
    if idle is None or failed:
        child.end()
    else:
        idle.append(child)
    if failed:
        raise ChildFailed(f"{label}: {answer}")
    return answer


def _waiting(idle: list[Child]) -> Child | None:
    try:
        return idle.pop()
    except IndexError:  # another thread was faster
        return None


def _start() -> Child:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(os.getpid(), theirs), daemon=True)
    process.start()
    theirs.close()
    return Child(process, ours)


def _serve(parent: int, pipe: Connection) -> None:
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    with threadpool_limits(1):
        while True:
            try:
                body, job = pipe.recv()
            except EOFError:
                return  # there is no other job, or nobody to give one
            try:
                pipe.send((False, body(job, Watch(parent))))
            except Exception as error:
                pipe.send((True, f"{type(error).__name__}: {error}"))
