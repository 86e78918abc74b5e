"""Makes the embeddings of several models and one shard in one pass, in which each image is decoded once.

The datasets are those that the models' own jobs make, at the same addresses. So this is a short cut: a model that fails
here is left to its own job, which reports the error.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

from storage.dataset import Dataset
from tasks.children import Watch, in_process, side_by_side
from tasks.embed import Wanted, embed, embed_shard
from tasks.embed_pass import Made
from tasks.placed import Job, Part, place_together
from tasks.stage import Runtime

log = logging.getLogger("bridgescope")


def passes(jobs: Sequence[Job], at_once: int | None, side_by_side: int) -> list[list[Job]]:
    """The jobs by shard, and at most `at_once` models of a shard in one pass.

    If there are fewer passes than can run beside each other, the models of a shard are divided among them.
    """
    shards = [list(same) for _, same in groupby(sorted(jobs, key=_shard), key=_shard)]
    found = []
    for same in shards:
        most = min(at_once or len(same), math.ceil(len(same) * len(shards) / max(side_by_side, len(shards))))
        found += [same[start : start + most] for start in range(0, len(same), most)]
    return found


def _shard(job: Job) -> str:
    pairs: Dataset = job["pairs"]
    return pairs.path


class _Pass(NamedTuple):
    jobs: list[Job]
    runtime: Runtime


class _Waiting(NamedTuple):
    """A pass that waits for a device."""

    jobs: list[Job]
    future: Future[None]


_Queue = SimpleQueue[_Waiting | None]  # None ends a device
Submit = Callable[[Sequence[Job]], Future[None]]


@contextmanager
def on_devices(places: Sequence[str], runtime: Runtime) -> Iterator[Submit]:
    """Yield a function that submits a pass, which runs on one of several GPUs, and returns its future.

    Each GPU has one process, since threads share one lock. It runs one pass after another until the block ends, so that
    it loads the models once for all shards. A future has no result; it holds the error of a pass that was not run to
    its end. Passes that wait when the block ends are cancelled.
    """
    waiting: _Queue = SimpleQueue()
    share = max(1, (os.cpu_count() or 1) // len(places))

    def submit(jobs: Sequence[Job]) -> Future[None]:
        future: Future[None] = Future()
        waiting.put(_Waiting(list(jobs), future))
        return future

    with ExitStack() as stack:
        # A pool with one thread for each device: its process serves this device alone, and keeps the models.
        pools = [stack.enter_context(side_by_side(1)) for _ in places]
        stack.callback(_cancel, waiting, len(places))  # called before the pools end
        for pool, at in zip(pools, places, strict=True):
            pool.submit(_serve, waiting, runtime.model_copy(update={"device": at, "cores": share, "progress": False}))
        yield submit


def _cancel(waiting: _Queue, devices: int) -> None:
    """Cancel the passes that wait, and end the threads of the devices."""
    with suppress(Empty):  # until none waits
        while (each := waiting.get_nowait()) is not None:
            each.future.cancel()
    for _ in range(devices):
        waiting.put(None)


def _serve(waiting: _Queue, runtime: Runtime) -> None:
    """Run passes in the process of one device, until None comes out of the queue."""
    while (each := waiting.get()) is not None:
        try:
            told = in_process(_in_child, _Pass(each.jobs, runtime), f"embed on {runtime.device}")
        except Exception as error:
            each.future.set_exception(error)
            continue
        for level, line in told:
            log.log(level, "%s", line)
        each.future.set_result(None)


def _in_child(job: _Pass, watch: Watch) -> list[tuple[int, str]]:
    """Run a pass. Returns its log lines, which the process of the study prints."""
    lines: list[tuple[int, str]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            watch()
            lines.append((record.levelno, record.getMessage()))

    keep = Keep(logging.INFO)
    log.addHandler(keep)
    log.setLevel(logging.INFO)
    try:
        embed_together(job.jobs, job.runtime)
    finally:
        log.removeHandler(keep)
    return lines


def embed_together(jobs: Sequence[Job], runtime: Runtime) -> None:
    """Make the datasets of some jobs of `embed` for one shard. Jobs whose dataset is complete are left out.

    A dataset whose model fails stays as an interrupted call leaves it. An error that stops the pass is logged only.
    """

    def make(outs: dict[int, Path]) -> dict[int, Part | Exception]:
        wanted = {number: Wanted(*(jobs[number][key] for key in ("model", "spec", "dtype"))) for number in outs}
        first = jobs[min(outs)]
        options = {key: first[key] for key in ("max_pixels", "decode") if key in first}
        made = embed_shard(first["pairs"], {wanted[number]: out for number, out in outs.items()}, runtime, **options)
        return {number: _part(found) for number, found in zip(outs, made, strict=True)}

    errors = place_together(embed, jobs, runtime, make)
    for job, error in zip(jobs, errors, strict=True):
        if error is not None:
            log.debug("%s: not embedded together with other models: %s", job["spec"], error)


def _part(found: Made | Exception) -> Part | Exception:
    return found if isinstance(found, Exception) else Part(found.rows, found.seconds)
