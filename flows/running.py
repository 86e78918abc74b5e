"""Running the jobs of a stage: a Prefect sub-flow that goes through a list, one after another or on a Ray cluster."""

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
from storage import failures
from storage.dataset import Dataset, manifest_of
from storage.runs import Entry
from storage.sources.section import rules_of, source_of
from tasks.acquire import ledger, retry, scan
from tasks.stage import Runtime
from tasks.train import sae, train_together

log = logging.getLogger("bridgescope")


def run_job(job: Job, runtime: Runtime, *, refresh: bool = False) -> Entry:
    """Run one cached task and time it. Raises what the task raised."""
    inputs = job.arguments()
    began = time.perf_counter()
    task = job.stage.task.with_options(task_run_name=str(job.key), refresh_cache=runtime.force or refresh)
    state = task(**inputs, runtime=runtime, return_state=True)
    dataset = state.result()
    return _entry(job, dataset, time.perf_counter() - began, cached=state.name == "Cached")


def _entry(job: Job, dataset: Dataset, seconds: float, *, cached: bool) -> Entry:
    log.debug("%s: %s in %.3f s", job.key, "cached" if cached else "made", seconds)
    return job.entry(dataset, seconds, cached=cached)


def run_jobs(jobs: list[Job], runtime: Runtime, cluster: Cluster | None = None) -> Iterator[Entry]:
    """Run jobs one after another, since on one machine each of them uses every core; or side by side on a cluster."""
    if cluster is not None:
        yield from _side_by_side(jobs, runtime, cluster)
        return
    for job in jobs:
        yield run_job(job, runtime)


def _side_by_side(jobs: list[Job], runtime: Runtime, cluster: Cluster) -> Iterator[Entry]:
    """Run jobs on a cluster, and give their entries in the order of the jobs. What is there already goes nowhere.

    After a failure nothing more is handed over; what is going on is waited for, since it is kept, then the first
    failure is raised.
    """
    waiting: deque[tuple[Job, PrefectFuture[Dataset] | None]] = deque()
    failed: list[Exception] = []

    def first() -> list[Entry]:
        job, future = waiting.popleft()
        try:
            return [run_job(job, runtime) if future is None else _ended(job, future, runtime)]
        except Exception as error:
            failed.append(error)
            return []

    for job in jobs:
        there = not runtime.force and job.lookup(runtime.store) is not None
        waiting.append((job, None if there else cluster.submit(job.key.kind, *_task(job, runtime))))
        while len(waiting) > cluster.ahead(job.key.kind):
            yield from first()
        if failed:
            break
    while waiting:
        yield from first()
    if failed:
        raise failed[0]


def _task(job: Job, runtime: Runtime) -> tuple[Task[..., Dataset], dict[str, Any]]:
    """The task of a job, and its arguments."""
    task = job.stage.task.with_options(task_run_name=str(job.key), refresh_cache=runtime.force)
    return task, {**job.arguments(), "runtime": runtime.model_copy(update={"progress": False})}


def _ended(job: Job, future: PrefectFuture[Dataset], runtime: Runtime) -> Entry:
    """Wait for a task on a cluster. Its seconds are those it took to make, not those it waited for its turn."""
    dataset = future.result()
    cached = future.state.name == "Cached"
    return _entry(job, dataset, 0.0 if cached else manifest_of(runtime.store, dataset)["seconds"], cached=cached)


def _acquire(given: Given, runtime: Runtime) -> Iterator[Entry]:
    began = time.perf_counter()
    pairs, source = given.study.pairs, source_of(given.study.pairs)
    scanned = scan(source, pairs.shard_size, runtime)
    if given.last is not None and (scanned.new or scanned.changed):
        log.info("the source changed: %d new shards, %d changed", scanned.new, scanned.changed)

    def listed(shard: int, listing: Dataset) -> Entry:
        entry = Entry(kind="scan", shard=shard, dataset=listing, seconds=round(time.perf_counter() - began, 4))
        given.state.add(entry)
        return entry

    yield from map(listed, range(len(scanned.listings)), scanned.listings)
    fetched: list[Dataset] = []

    def fetch(job: Job) -> Entry:
        shard = job.key.shard or 0
        moved = failures.moved(runtime.store, scanned.source, shard, scanned.moved.get(shard, []))
        told = {"earlier": list(fetched), "moved": moved, "min_success": pairs.min_success}
        entry = run_job(job._replace(inputs={**job.arguments(), **told}), runtime)
        fetched.append(entry.dataset)
        return entry

    yield from map(fetch, fetches(given))
    again = retry(scanned, fetched, source, rules_of(pairs), pairs.retry_after, runtime)
    if again is not None:
        yield listed(len(scanned.listings), again)
        yield fetch(fetches(given)[-1])
    yield Entry(kind="ledger", dataset=ledger(scanned.dropped, fetched, pairs.min_success, runtime))


def _train(given: Given, runtime: Runtime, cluster: Cluster | None) -> Iterator[Entry]:
    """Train missing seeds side by side, then run every job. On a cluster each seed is a task of its own."""
    jobs = list(jobs_of("train", given))
    missing = [job.inputs for job in jobs if job.stage is sae and job.inputs and _is_due(job, runtime)]
    if cluster is not None or len(missing) < 2:
        yield from run_jobs(jobs, runtime, cluster)
        return
    train_together(missing, runtime)
    adopt = runtime.model_copy(update={"force": False})
    for job in jobs:  # the SAEs that were trained just now are adopted, imported ones are made as ever
        yield run_job(job, adopt if job.stage is sae else runtime, refresh=runtime.force)


def _is_due(job: Job, runtime: Runtime) -> bool:
    """Whether a run has to make the dataset of this job."""
    return runtime.force or job.lookup(runtime.store) is None


def run_stage(stage: str, given: Given, runtime: Runtime, cluster: Cluster | None = None) -> list[Entry]:
    """Run one stage as a Prefect sub-flow of its name, and put its entries into `given.state`.

    With a cluster the tasks of a stage that can be spread run there, if any of them has something to make.
    """
    if cluster is not None and not (
        STAGES[stage].spread and any(_is_due(job, runtime) for job in jobs_of(stage, given))
    ):
        cluster = None

    def steps() -> Iterator[Entry]:
        for step in STEPS[stage]:
            yield from run_jobs(step(given), runtime, cluster)

    runners: dict[str, Callable[[], Iterator[Entry]]] = {
        "acquire": lambda: _acquire(given, runtime),
        "train": lambda: _train(given, runtime, cluster),
    }
    here = Here(runners.get(stage, steps))
    entries: list[Entry] = []

    # A closure: handles and studies need not travel through Prefect's parameters.
    @flow(
        name=stage,
        flow_run_name=f"{given.study.name}: {stage}",
        persist_result=False,
        result_storage=runtime.store,
        task_runner=cluster.task_runner(stage) if cluster is not None else None,
    )
    def stage_flow() -> None:
        # The flow's tags are not its tasks': for tagged tasks Prefect asks the server about concurrency limits (60 ms).
        with TagsContext(current_tags=set()):
            for entry in here.body():
                given.state.add(entry)
                entries.append(entry)

    stage_flow()
    return entries
