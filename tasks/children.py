"""Work in a process of its own, on one thread: the same bytes whatever else runs beside it.

This module imports no orchestrator, so that the process starts quickly.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
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


def in_process(body: Callable[[Any, Watch], Any], job: Any, label: str) -> Any:
    """`body(job, watch)` in a fresh process; body, job and answer are pickled.

    Raises ChildFailed with what the process said, or with how it died (a kernel out of memory kills it silently).
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(body, job, os.getpid(), theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        failed, answer = ours.recv()
    except EOFError:
        process.join()
        failed, answer = True, f"its process died (exit code {process.exitcode})"
    process.join()
    if failed:
        raise ChildFailed(f"{label}: {answer}")
    return answer


def stop_all() -> None:
    """End every child of this process: the study was interrupted and nobody waits for them."""
    for child in multiprocessing.active_children():
        child.terminate()


def _answer(body: Callable[[Any, Watch], Any], job: Any, parent: int, out: Connection) -> None:
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            out.send((False, body(job, Watch(parent))))
    except Exception as error:
        out.send((True, f"{type(error).__name__}: {error}"))
