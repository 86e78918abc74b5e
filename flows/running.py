"""Run the jobs of a stage in a Prefect sub-flow, one after another or in parallel on a Ray cluster."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from prefect import Task, flow
from prefect.context import TagsContext
from prefect.futures import PrefectFuture

from flows.cluster import Cluster, Here
from flows.jobs import STEPS, Given, Job, fetches, jobs_of
from flows.stages import STAGES
from storage import failures, uses
from storage.dataset import Dataset, manifest_of
from storage.runs import Entry
from storage.sources.section import rules_of, source_of
from tasks.acquire import ledger, retry, scan
from tasks.stage import Runtime
from tasks.train import sae, train_together

log = logging.getLogger("bridgescope")


def run_job(job: Job, runtime: Runtime, *, refresh: bool = False) -> Entry:
    """Run the cached task of a job and return its entry, with the seconds it took. Raises the task's own exception.

    refresh: make the dataset again, as `runtime.force` does.
    """
    inputs = job.arguments()
    began = time.perf_counter()
    task = job.stage.task.with_options(task_run_name=str(job.key), refresh_cache=runtime.force or refresh)
    state = task(**inputs, runtime=runtime, return_state=True)
    dataset = state.result()
    return _entry(job, dataset, time.perf_counter() - began, cached=state.name == "Cached")


def _entry(job: Job, dataset: Dataset, seconds: float, *, cached: bool) -> Entry:
    log.debug("%s: %s in %.3f s", job.key, "cached" if cached else "made", seconds)
    return job.entry(dataset, seconds, cached=cached)


def run_jobs(stage: str, jobs: list[Job], runtime: Runtime, cluster: Cluster | None = None) -> Iterator[Entry]:
    """Run jobs of a stage in parallel on a cluster. Without one they run in turn, since each job uses every core."""
    if cluster is not None:
        yield from _side_by_side(stage, jobs, runtime, cluster)
        return
    for job in jobs:
        yield run_job(job, runtime)


def _side_by_side(stage: str, jobs: list[Job], runtime: Runtime, cluster: Cluster) -> Iterator[Entry]:
    """Run jobs on a cluster and yield their entries in the order of the jobs.

    A job whose dataset is complete is not submitted; this process adopts the dataset. After a failure no further job is
    submitted. Jobs that are already submitted run to their end, and their datasets are kept. Then the first exception
    is raised.
    """
    waiting: deque[tuple[Job, PrefectFuture[Dataset] | None]] = deque()
    failed: list[Exception] = []

    def next_entry() -> list[Entry]:
        """Wait for the job that was submitted first. Returns its entry in a list, or an empty list when it failed."""
        job, future = waiting.popleft()
        try:
            return [run_job(job, runtime) if future is None else _ended(job, future, runtime)]
        except Exception as error:
            failed.append(error)
            return []

    for job in jobs:
        waiting.append((job, cluster.submit(stage, *_task(job, runtime)) if _is_due(job, runtime) else None))
        while len(waiting) > cluster.ahead(stage):
            yield from next_entry()
        if failed:
            break
    while waiting:
        yield from next_entry()
    if failed:
        raise failed[0]


def _task(job: Job, runtime: Runtime) -> tuple[Task[..., Dataset], dict[str, Any]]:
    """Task of a job, and its arguments, with progress bars off. The lease is that of this process, not the worker's."""
    uses.note(runtime.store, job.stage.address(**job.arguments()).path)
    task = job.stage.task.with_options(task_run_name=str(job.key), refresh_cache=runtime.force)
    return task, {**job.arguments(), "runtime": runtime.model_copy(update={"progress": False})}


def _ended(job: Job, future: PrefectFuture[Dataset], runtime: Runtime) -> Entry:
    """Wait for a task on a cluster. The entry's seconds are the task's running time, without its time in the queue."""
    dataset = future.result()
    cached = future.state.name == "Cached"
    return _entry(job, dataset, 0.0 if cached else manifest_of(runtime.store, dataset)["seconds"], cached=cached)


def _acquire(given: Given, runtime: Runtime) -> Iterator[Entry]:
    began = time.perf_counter()
    pairs, source = given.study.pairs, source_of(given.study.pairs)
    scanned = scan(source, pairs.shard_size, runtime)
    if given.last is not None and (scanned.new or scanned.changed):
        log.info("the source changed: %d new shards, %d changed", scanned.new, scanned.changed)

    def scan_entry(shard: int, listing: Dataset) -> Entry:
        entry = Entry(kind="scan", shard=shard, dataset=listing, seconds=round(time.perf_counter() - began, 4))
        given.state.add(entry)
        return entry

    yield from map(scan_entry, range(len(scanned.listings)), scanned.listings)
    fetched: list[Dataset] = []

    def fetch(job: Job) -> Entry:
        shard = job.key.shard or 0
        moved = failures.moved(runtime.store, scanned.source, shard, scanned.moved.get(shard, []))
        unhashed = {"earlier": list(fetched), "moved": moved, "min_success": pairs.min_success}
        entry = run_job(job._replace(inputs={**job.arguments(), **unhashed}), runtime)
        fetched.append(entry.dataset)
        return entry

    yield from map(fetch, fetches(given))
    retried = retry(scanned, fetched, source, rules_of(pairs), pairs.retry_after, runtime)
    if retried is not None:
        yield scan_entry(len(scanned.listings), retried)
        yield fetch(fetches(given)[-1])
    yield Entry(kind="ledger", dataset=ledger(scanned.dropped, fetched, pairs.min_success, runtime))


def _train(given: Given, runtime: Runtime, cluster: Cluster | None) -> Iterator[Entry]:
    """Train the missing seeds in parallel, then run every job. On a cluster each seed is a task of its own."""
    jobs = list(jobs_of("train", given))
    missing = [job.inputs for job in jobs if job.stage is sae and job.inputs and _is_due(job, runtime)]
    if cluster is not None or len(missing) < 2:
        yield from run_jobs("train", jobs, runtime, cluster)
        return
    train_together(missing, runtime)
    adopt = runtime.model_copy(update={"force": False})
    for job in jobs:  # SAEs that `train_together` trained are adopted; imported ones are made here
        yield run_job(job, adopt if job.stage is sae else runtime, refresh=runtime.force)


def _is_due(job: Job, runtime: Runtime) -> bool:
    """Return True when the dataset of this job must be made: it is incomplete, or `runtime.force` is set."""
    return runtime.force or job.lookup(runtime.store) is None


def run_stage(stage: str, given: Given, runtime: Runtime, cluster: Cluster | None = None) -> list[Entry]:
    """Run one stage as a Prefect sub-flow of its name. Adds the entries to `given.state` and returns them.

    The tasks run on the cluster if there is one, the stage is marked as `spread`, and a dataset must be made.
    """
    if cluster is not None and not (
        STAGES[stage].spread and any(_is_due(job, runtime) for job in jobs_of(stage, given))
    ):
        cluster = None

    def steps() -> Iterator[Entry]:
        for step in STEPS[stage]:
            yield from run_jobs(stage, step(given), runtime, cluster)

    runners: dict[str, Callable[[], Iterator[Entry]]] = {
        "acquire": lambda: _acquire(given, runtime),
        "train": lambda: _train(given, runtime, cluster),
    }
    entries: list[Entry] = []

    def body() -> None:
        for entry in runners.get(stage, steps)():
            given.state.add(entry)
            entries.append(entry)

    here = Here(body)

    # Prefect pickles the flow with every task that it submits to a cluster, so the flow refers only to `here`.
    @flow(
        name=stage,
        flow_run_name=f"{given.study.name}: {stage}",
        persist_result=False,
        result_storage=runtime.store,
        task_runner=cluster.task_runner(stage) if cluster is not None else None,
    )
    def stage_flow() -> None:
        # Tasks do not inherit the flow's tags. For each tagged task Prefect would ask the server for concurrency
        # limits, which takes 60 ms.
        with TagsContext(current_tags=set()):
            here.body()

    stage_flow()
    return entries
