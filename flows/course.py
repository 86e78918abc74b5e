"""The course of a run: what its stages share, and how the jobs of a step are run, in turn or on a Ray cluster.

A job that fails does not stop the others. Jobs that need its dataset are left out, and the run ends with a list of
failures.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from prefect import Task
from prefect.futures import PrefectFuture

from flows.cluster import Cluster, ClusterError
from flows.failures import is_of_surroundings
from flows.jobs.job import Given, Job, Step
from flows.narrow import WHOLE, Narrow
from storage import uses
from storage.dataset import Dataset, manifest_of
from storage.listing import Scan
from storage.record import Record
from storage.runs import Entry, Key
from tasks.stage import Runtime

log = logging.getLogger("bridgescope")


class Failed(NamedTuple):
    """A job that failed, and its exception."""

    key: Key
    error: Exception
    known: bool = False  #: whether the error is bad input that was met before any work of the job


Outcome = Entry | Failed
Outcomes = Generator[Outcome, None, None]


class Course(NamedTuple):
    """What the stages of one run share."""

    given: Given
    runtime: Runtime
    record: Record
    cluster: Cluster | None
    narrow: Narrow
    errors: list[Failed]  #: the failures so far, in all stages
    scanned: Scan | None = None  #: the scan of the source, if one was made before Prefect was started

    def jobs(self, step: Step) -> list[Job]:
        """List a step, and return the jobs that this run has to do: see `wanted`.

        In a narrowed run the complete datasets outside `narrow` are adopted, since later steps may read them.
        """
        listed = step(self.given)
        if self.narrow != WHOLE:
            self.adopt(job for job in listed if not self.narrow.includes(job.key))
        return self.wanted(listed)

    def wanted(self, jobs: Iterable[Job]) -> list[Job]:
        """The jobs that this run has to do. Jobs outside `narrow` are left out.

        After a failure and in a narrowed run, jobs with missing inputs are left out too.
        """
        wanted = [job for job in jobs if self.narrow.includes(job.key)]
        if not self.errors and self.narrow == WHOLE:
            return wanted
        return [job for job in wanted if job.inputs is not None or job.problem is not None]

    def adopt(self, jobs: Iterable[Job]) -> bool:
        """Add the complete datasets of some jobs to the state and the record. Returns whether all are complete."""
        whole, found = True, []
        for job in jobs:
            dataset = job.stage.adopt(self.given.store, **job.inputs) if job.inputs is not None else None
            if dataset is None:
                whole = False
            else:
                found.append(job.entry(dataset, cached=True))
        self.given.state.add(*found)
        self.record.add(*found)
        return whole


def run_job(job: Job, runtime: Runtime, *, refresh: bool = False) -> Entry:
    """Run the cached task of a job and return its entry. Raises the task's own exception.

    The entry's seconds are the time it took to make the dataset, even if a training process or an earlier, killed call
    made it. For a cached dataset, they are the time it took to find the dataset.

    refresh: make the dataset again even if it is complete, as with `runtime.force`.
    """
    inputs = job.arguments()
    began = time.perf_counter()
    task = job.stage.task.with_options(task_run_name=str(job.key), refresh_cache=runtime.force or refresh)
    state = task(**inputs, runtime=runtime, return_state=True)
    dataset = state.result()
    took, cached = time.perf_counter() - began, state.name == "Cached"
    return _entry(job, dataset, took if cached else manifest_of(runtime.store, dataset)["seconds"], cached=cached)


def _entry(job: Job, dataset: Dataset, seconds: float, *, cached: bool) -> Entry:
    log.debug("%s: %s in %.3f s", job.key, "cached" if cached else "made", seconds)
    return job.entry(dataset, seconds, cached=cached)


class Apart:
    """Decides after each failure whether the other jobs go on.

    A failure of the surroundings (the disk, the Prefect server, the cluster) would meet every other job too, so it
    stops the run. After two shards of a model or SAE have failed for the same reason, its other shards are not tried.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self.causes: dict[Key, list[str]] = {}

    def failed(self, job: Job, error: Exception) -> Failed:
        """Note a failure and return it. Raises `error` itself if it stops the run."""
        if isinstance(error, ClusterError) or is_of_surroundings(error, self.store):
            raise error
        self.causes.setdefault(job.key._replace(shard=None), []).append(str(error))
        return Failed(job.key, error, known=error is job.problem)

    def gave_up(self, job: Job) -> bool:
        """Whether two shards of the same model or SAE have failed with the same message."""
        causes = self.causes.get(job.key._replace(shard=None), [])
        return len(causes) != len(set(causes))


def run_jobs(stage: str, jobs: list[Job], runtime: Runtime, cluster: Cluster | None = None) -> Outcomes:
    """Run jobs of a stage in parallel on a cluster. Without a cluster they run in turn: each job uses every core."""
    apart = Apart(runtime.store)
    if cluster is not None:
        yield from _side_by_side(stage, jobs, runtime, cluster, apart)
        return
    for job in jobs:
        if not apart.gave_up(job):
            yield outcome_of(job, apart, partial(run_job, job, runtime))


def outcome_of(job: Job, apart: Apart, run: Callable[[], Entry]) -> Outcome:
    """The entry that `run` returns, or the failure of the job. Raises a failure that stops the run."""
    try:
        return run()
    except Exception as error:
        return apart.failed(job, error)


def _side_by_side(stage: str, jobs: list[Job], runtime: Runtime, cluster: Cluster, apart: Apart) -> Outcomes:
    """Run jobs on a cluster and yield their outcomes in the order of the jobs. Complete datasets are not submitted.

    After a failure that stops the run, no further job is submitted. The submitted jobs run to their end, since their
    datasets are kept. Then the failure is raised.
    """
    waiting: deque[tuple[Job, PrefectFuture[Dataset] | None]] = deque()
    stopped: list[Exception] = []

    def outcomes() -> list[Outcome]:
        """Wait for the oldest job in `waiting`. Returns its outcome, or an empty list if its failure stops the run."""
        job, future = waiting.popleft()
        try:
            run = partial(run_job, job, runtime) if future is None else partial(_ended, job, future, runtime)
            return [outcome_of(job, apart, run)]
        except Exception as error:
            stopped.append(error)
            return []

    for job in jobs:
        if apart.gave_up(job):
            continue
        if job.problem is not None:
            yield apart.failed(job, job.problem)
            continue
        waiting.append((job, cluster.submit(stage, *_task(job, runtime)) if is_due(job, runtime) else None))
        while len(waiting) > cluster.ahead(stage):
            yield from outcomes()
        if stopped:
            break
    while waiting:
        yield from outcomes()
    if stopped:
        raise stopped[0]


def _task(job: Job, runtime: Runtime) -> tuple[Task[..., Dataset], dict[str, Any]]:
    """(task of a job, its arguments), to run on a cluster with progress bars off.

    The dataset is marked as in use under the lease of this process, not of the worker.
    """
    uses.note(runtime.store, job.stage.address(**job.arguments()).path)
    task = job.stage.task.with_options(task_run_name=str(job.key), refresh_cache=runtime.force)
    return task, {**job.arguments(), "runtime": on_cluster(runtime)}


def on_cluster(runtime: Runtime) -> Runtime:
    """The options of a task on a cluster.

    Ray starts as many tasks on a machine as it has room for: each with decoding processes for all cores would be too
    many.
    """
    threads = "threads" if runtime.decoders == "auto" else runtime.decoders
    return runtime.model_copy(update={"progress": False, "decoders": threads})


def _ended(job: Job, future: PrefectFuture[Dataset], runtime: Runtime) -> Entry:
    """Wait for a task on a cluster. The entry's seconds are the task's running time, without its time in the queue."""
    dataset = future.result()
    cached = future.state.name == "Cached"
    return _entry(job, dataset, 0.0 if cached else manifest_of(runtime.store, dataset)["seconds"], cached=cached)


def is_due(job: Job, runtime: Runtime) -> bool:
    """Return True when the dataset of this job must be made: it is incomplete, or `runtime.force` is set."""
    return runtime.force or job.lookup(runtime.store) is None
