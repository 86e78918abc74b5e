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

from flows.cluster import SPREAD, Cluster, Here
from flows.config import Study
from flows.stages import Job, Key, State, acquire_jobs, jobs_of, lookup, train_jobs
from storage import failures
from storage.dataset import Dataset, manifest_of
from storage.errors import BadInput
from storage.runs import Entry, Run
from storage.sources.section import rules_of, source_of
from tasks.acquire import ledger, retry, scan
from tasks.stage import Runtime
from tasks.train import sae, train_together

log = logging.getLogger("bridgescope")


def run_job(job: Job, runtime: Runtime, *, refresh: bool = False) -> Entry:
    """Run one cached task and time it. Raises what the task raised."""
    inputs = _inputs(job)
    began = time.perf_counter()
    task = job.stage.task.with_options(task_run_name=str(job.key), refresh_cache=runtime.force or refresh)
    state = task(**inputs, runtime=runtime, return_state=True)
    dataset = state.result()
    return _entry(job, dataset, time.perf_counter() - began, cached=state.name == "Cached")


def _inputs(job: Job) -> dict[str, Any]:
    if job.inputs is None:
        raise BadInput(f"{job.key}: what it is made from is missing: run the stages before it")
    return job.inputs


def _entry(job: Job, dataset: Dataset, seconds: float, *, cached: bool) -> Entry:
    log.debug("%s: %s in %.3f s", job.key, "cached" if cached else "made", seconds)
    made_from = list(job.stage.address(**_inputs(job)).inputs)
    return Entry(**job.key._asdict(), dataset=dataset, inputs=made_from, seconds=round(seconds, 4), cached=cached)


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
        there = not runtime.force and lookup(job, runtime.store) is not None
        waiting.append((job, None if there else cluster.submit(job.key.stage, *_task(job, runtime))))
        while len(waiting) > cluster.ahead(job.key.stage):
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
    return task, {**_inputs(job), "runtime": runtime.model_copy(update={"progress": False})}


def _ended(job: Job, future: PrefectFuture[Dataset], runtime: Runtime) -> Entry:
    """Wait for a task on a cluster. Its seconds are those it took to make, not those it waited for its turn."""
    dataset = future.result()
    cached = future.state.name == "Cached"
    return _entry(job, dataset, 0.0 if cached else manifest_of(runtime.store, dataset)["seconds"], cached=cached)


def _acquire(study: Study, state: State, last: Run | None, runtime: Runtime) -> Iterator[Entry]:
    began = time.perf_counter()
    pairs, source = study.pairs, source_of(study.pairs)
    scanned = scan(source, pairs.shard_size, runtime)
    if last is not None and (scanned.new or scanned.changed):
        log.info("the source changed: %d new shards, %d changed", scanned.new, scanned.changed)
    for shard, listing in enumerate(scanned.listings):
        state[Key("scan", shard=shard)] = listing
        yield Entry(stage="scan", shard=shard, dataset=listing, seconds=round(time.perf_counter() - began, 4))
    made: list[Dataset] = []

    def fetched(job: Job) -> Entry:
        shard = job.key.shard or 0
        moved = failures.moved(runtime.store, scanned.source, shard, scanned.moved.get(shard, []))
        told = {"earlier": list(made), "moved": moved, "min_success": pairs.min_success}
        entry = run_job(job._replace(inputs={**(job.inputs or {}), **told}), runtime)
        made.append(entry.dataset)
        return entry

    yield from map(fetched, acquire_jobs(study, state))
    again = retry(scanned, made, source, rules_of(pairs), pairs.retry_after, runtime)
    if again is not None:
        shard = len(scanned.listings)
        state[Key("scan", shard=shard)] = again
        yield Entry(stage="scan", shard=shard, dataset=again)
        yield fetched(acquire_jobs(study, state)[-1])
    yield Entry(stage="ledger", dataset=ledger(scanned.dropped, made, pairs.min_success, runtime))


def _in_turn(stage: str, study: Study, state: State, last: Run | None, runtime: Runtime) -> Iterator[Entry]:
    """Run the jobs of a stage of which later ones are made from earlier ones."""
    for place in range(len(jobs_of(stage, study, state, last, runtime.store))):
        job = jobs_of(stage, study, state, last, runtime.store)[place]  # anew: it needs what was made just before
        entry = run_job(job, runtime)
        state[job.key] = entry.dataset
        yield entry


def _train(study: Study, state: State, last: Run | None, runtime: Runtime, cluster: Cluster | None) -> Iterator[Entry]:
    jobs = train_jobs(study, state, last, runtime.store)
    if cluster is not None:  # each seed is a task of its own there
        yield from run_jobs(jobs, runtime, cluster)
        return
    missing = [
        job.inputs
        for job in jobs
        if job.stage is sae and job.inputs is not None and (runtime.force or lookup(job, runtime.store) is None)
    ]
    if len(missing) > 1:
        train_together(missing, runtime)
        adopt = runtime.model_copy(update={"force": False})
        for job in jobs:  # those that were not trained just now are made as ever
            yield run_job(job, adopt if job.stage is sae else runtime, refresh=runtime.force)
    else:
        yield from run_jobs(jobs, runtime)


def run_stage(
    stage: str, study: Study, state: State, last: Run | None, runtime: Runtime, cluster: Cluster | None = None
) -> list[Entry]:
    """Run one stage as a Prefect sub-flow of its name. `state` holds the datasets of the stages before it.

    With a cluster its tasks run there, if they need nothing of each other and any of them has something to make.
    """
    if cluster is not None and not _for_cluster(stage, study, state, last, runtime):
        cluster = None

    def jobs() -> Iterator[Entry]:
        return run_jobs(jobs_of(stage, study, state, last, runtime.store), runtime, cluster)

    runners: dict[str, Callable[[], Iterator[Entry]]] = {
        "acquire": lambda: _acquire(study, state, last, runtime),
        "model": lambda: _in_turn(stage, study, state, last, runtime),
        "report": lambda: _in_turn(stage, study, state, last, runtime),
        "train": lambda: _train(study, state, last, runtime, cluster),
    }
    here = Here(runners.get(stage, jobs))
    entries: list[Entry] = []

    # A closure: handles and studies need not travel through Prefect's parameters.
    @flow(
        name=stage,
        flow_run_name=f"{study.name}: {stage}",
        persist_result=False,
        result_storage=runtime.store,
        task_runner=cluster.task_runner(stage) if cluster is not None else None,
    )
    def stage_flow() -> None:
        # The flow's tags are not its tasks': for tagged tasks Prefect asks the server about concurrency limits (60 ms).
        with TagsContext(current_tags=set()):
            entries.extend(here.body())

    stage_flow()
    return entries


def _for_cluster(stage: str, study: Study, state: State, last: Run | None, runtime: Runtime) -> bool:
    if stage not in SPREAD:
        return False
    jobs = jobs_of(stage, study, state, last, runtime.store)
    return any(runtime.force or lookup(job, runtime.store) is None for job in jobs)
