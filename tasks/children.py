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

from storage.errors import is_bad_input

DONE, REFUSED, FAILED = "done", "refused", "failed"  # outcomes of a job: a result, bad input, another error


class ChildFailed(RuntimeError):
    """A job failed in a child process, or the process died. The message holds the child's error or its exit code.

    errno: the errno of the job's error if the error has one, else None.
    """

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class ChildLost(ChildFailed):
    """A child process died: memory ran out, or it was killed."""


class ChildRefused(ChildFailed):
    """A job met bad input in its child process. The message is that of the error in the child."""

    exit_code = 2


class Watch(NamedTuple):
    """A check that a job calls from time to time. It ends the job's process after the study's process was killed."""

    parent: int  #: process id of the parent, the study's process

    def __call__(self) -> None:
        """End this process if its parent process is gone."""
        if os.getppid() != self.parent:
            os._exit(1)


class Child(NamedTuple):
    """A child process, which does one job after another."""

    process: BaseProcess
    pipe: Connection

    def end(self) -> None:
        """Close the pipe, so that the process ends, and wait up to 10 s. A kill would leave semaphores behind."""
        self.pipe.close()
        self.process.join(10)


class Pool:
    """The child processes of one pool. Once `ended` is true, no further job is started, and no process is kept."""

    def __init__(self) -> None:
        self.ended = False
        self._lock = threading.Lock()
        self._waiting: list[Child] = []
        self._busy: list[Child] = []

    def take(self) -> Child:
        """A process for a job: one that waits for it, or a new one. It is killed if the pool ended meanwhile."""
        with self._lock:
            child = self._waiting.pop() if self._waiting else None
        if child is None or not child.process.is_alive():
            child = _start()
        with self._lock:
            self._busy.append(child)
            ended = self.ended
        if ended:
            child.process.kill()
        return child

    def give_back(self, child: Child, *, keep: bool) -> None:
        """Note that the job of a process has ended. keep: whether the process waits for the next job, or ends."""
        with self._lock:
            self._busy.remove(child)
            keep = keep and not self.ended
            if keep:
                self._waiting.append(child)
        if not keep:
            child.end()

    def end(self) -> None:
        """Let the processes that wait end, and terminate those that run a job. Those of other pools go on."""
        with self._lock:
            self.ended = True
            waiting, busy = self._waiting, [*self._busy]
            self._waiting = []
        for child in waiting:
            child.end()
        for child in busy:
            child.process.terminate()


_thread = threading.local()  # its attribute `pool`: the child processes that the threads of one pool share


@contextmanager
def side_by_side(processes: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of as many threads as processes may run at once. Its threads share their child processes.

    A process takes seconds to start, so it is used again for a later call of `in_process`. When the block ends, also by
    an error or an interrupt, queued jobs are cancelled and the pool's own running processes terminated.
    """
    children = Pool()
    pool = ThreadPoolExecutor(processes, initializer=setattr, initargs=(_thread, "pool", children))
    try:
        yield pool
    finally:
        children.ended = True  # before jobs are cancelled: a thread that ends one must not begin another
        pool.shutdown(wait=False, cancel_futures=True)
        children.end()


def in_process(body: Callable[[Any, Watch], Any], job: Any, label: str) -> Any:
    """Return `body(job, watch)`, computed in a child process. Body, job and answer are pickled.

    If the body raises an error with exit code 2, raises ChildRefused with the message of the error. If the body raises
    another error, raises ChildFailed with this error. If the process died, raises ChildLost with its exit code (or
    ChildFailed if the pool has ended). There is no other message when the kernel kills a process for lack of memory.
    """
    shared: Pool | None = getattr(_thread, "pool", None)
    pool = Pool() if shared is None else shared
    if pool.ended:
        raise ChildFailed(f"{label}: its pool has ended")
    child, keep = pool.take(), False
    try:
        child.pipe.send((body, job))
        outcome, answer = child.pipe.recv()
        keep = shared is not None and outcome == DONE
    except (EOFError, OSError) as error:
        child.process.join()
        failure = ChildFailed if pool.ended else ChildLost
        raise failure(f"{label}: its process died (exit code {child.process.exitcode})") from error
    except BaseException:  # the study is interrupted
        child.process.kill()
        raise
    finally:
        pool.give_back(child, keep=keep)
    if outcome == REFUSED:
        raise ChildRefused(answer)
    if outcome == FAILED:
        text, errno = answer
        raise ChildFailed(f"{label}: {text}", errno)
    return answer


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
    """Block SIGINT in this thread. A process that this thread starts then blocks it from its first instruction on.

    Ctrl-C sends SIGINT to the whole process group. With SIGINT blocked, the children print nothing, and the study ends
    them itself.
    """
    resource_tracker.ensure_running()  # must run before SIGINT is blocked: starting the tracker unblocks it
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
                return  # the parent closed the pipe or has ended
            try:
                pipe.send((DONE, body(job, Watch(parent))))
            except Exception as error:
                if is_bad_input(error):
                    pipe.send((REFUSED, str(error)))
                else:
                    pipe.send((FAILED, (f"{type(error).__name__}: {error}", getattr(error, "errno", None))))
