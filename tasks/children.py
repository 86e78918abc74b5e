"""Run jobs in child processes with one thread each, so that a result has the same bytes whatever else runs.

This module does not import Prefect, so that a child starts quickly.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

DONE, REFUSED, FAILED = "done", "refused", "failed"  # what came of a job: a result, bad input, another error


class ChildFailed(RuntimeError):
    """A job failed in a child process, or the process died. The message holds the child's error or its exit code.

    errno: of an OSError of the job, else None.
    """

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class ChildLost(ChildFailed):
    """A child process died: memory ran out, or it was killed."""


class ChildRefused(ChildFailed):
    """A job met bad input in its child process. The message is the sentence of the child's error."""

    exit_code = 2


class Watch(NamedTuple):
    """A check that a job calls now and then, so that its process ends after the process of the study was killed."""

    parent: int  #: process id

    def __call__(self) -> None:
        """End this process if its parent process is gone."""
        if os.getppid() != self.parent:
            os._exit(1)


class Child(NamedTuple):
    """A child process, which does one job after another."""

    process: BaseProcess
    pipe: Connection

    def end(self) -> None:
        """Close the pipe, so that the process ends, and wait up to 10 s. Killing it would leave semaphores behind."""
        self.pipe.close()
        self.process.join(10)


class Waiting(list[Child]):
    """The waiting processes of one pool. After the pool has `ended`, no further process is started."""

    ended = False


_thread = threading.local()  # .idle: waiting processes, shared by the threads of one pool


@contextmanager
def side_by_side(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """A pool with one thread per core, or per job if there are fewer. Its calls of `in_process` share child processes.

    A process takes seconds to start, so it is used again for the next job. When the block ends, also by an error or an
    interrupt, queued jobs are cancelled and running processes terminated.
    """
    idle = Waiting()
    pool = ThreadPoolExecutor(min(jobs, os.cpu_count() or 1), initializer=setattr, initargs=(_thread, "idle", idle))
    try:
        yield pool
    finally:
        idle.ended = True
        pool.shutdown(wait=False, cancel_futures=True)
        for child in idle:
            child.end()
        for running in multiprocessing.active_children():
            running.terminate()


def in_process(body: Callable[[Any, Watch], Any], job: Any, label: str) -> Any:
    """Return `body(job, watch)`, computed in a child process. Body, job and answer are pickled.

    Raises ChildRefused with the sentence of the body's error if that error has exit code 2, else ChildFailed with the
    error of the body, or with the exit code if the process died. A process that the kernel kills because memory has
    run out leaves no other message.
    """
    idle: Waiting | None = getattr(_thread, "idle", None)
    if idle is not None and idle.ended:
        raise ChildFailed(f"{label}: its pool has ended")
    child = _take(idle) if idle else None
    if child is None or not child.process.is_alive():
        child = _start()
    if idle is not None and idle.ended:  # while the process was starting
        child.process.kill()
    try:
        child.pipe.send((body, job))
        outcome, answer = child.pipe.recv()
    except (EOFError, OSError) as error:
        child.process.join()
        failure = ChildFailed if idle is not None and idle.ended else ChildLost
        raise failure(f"{label}: its process died (exit code {child.process.exitcode})") from error
    except BaseException:  # the study is interrupted
        child.process.kill()
        raise
    if idle is None or outcome != DONE:
        child.end()
    else:
        idle.append(child)
    if outcome == REFUSED:
        raise ChildRefused(answer)
    if outcome == FAILED:
        text, errno = answer
        raise ChildFailed(f"{label}: {text}", errno)
    return answer


def _take(idle: Waiting) -> Child | None:
    try:
        return idle.pop()
    except IndexError:  # another thread took the last one
        return None


def _start() -> Child:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(os.getpid(), theirs), daemon=True)
    with _without_interrupts():
        process.start()
    theirs.close()
    return Child(process, ours)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block SIGINT in this thread, and so in a process that is started from it, from its first instruction on.

    Ctrl-C goes to the whole process group. The study ends its children itself, and they print nothing.
    """
    resource_tracker.ensure_running()  # which unblocks SIGINT when it starts its own process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(parent: int, pipe: Connection) -> None:
    """Do jobs until the pipe is closed. The answer to a job is (DONE, result), (REFUSED, text) or (FAILED, text)."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    with threadpool_limits(1):
        while True:
            try:
                body, job = pipe.recv()
            except EOFError:
                return  # the parent closed the pipe, or is gone
            try:
                pipe.send((DONE, body(job, Watch(parent))))
            except Exception as error:
                if getattr(error, "exit_code", 1) == 2:
                    pipe.send((REFUSED, str(error)))
                else:
                    pipe.send((FAILED, (f"{type(error).__name__}: {error}", getattr(error, "errno", None))))
