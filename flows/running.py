"""Run the jobs of a stage in a Prefect sub-flow, and record what becomes of each."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.context import TagsContext

from flows.cluster import Cluster, Here
from flows.course import Apart, Course, Failed, Outcome, Outcomes, is_due, outcome_of, run_job, run_jobs
from flows.embedding import embed_shards
from flows.failures import release, sentence_of
from flows.jobs.acquire import fetches
from flows.jobs.job import STEPS, Job
from flows.jobs.train import saes
from flows.records import keeping_records
from flows.stages import STAGES
from storage import failures
from storage.dataset import Dataset
from storage.listing import write_labels
from storage.runs import Entry
from storage.sources.section import rules_of, source_of
from tasks import acquire, train
from tasks.checks import tell_checks
from tasks.stage import Runtime
from tasks.train import sae

log = logging.getLogger("bridgescope")

_uncached = task(persist_result=False, cache_policy=NO_CACHE)
scan, retry, ledger = _uncached(acquire.scan), _uncached(acquire.retry), _uncached(acquire.ledger)
train_together = _uncached(train.train_together)


class JobsFailed(RuntimeError):
    """Raised when jobs of a stage failed. Prefect shows the stage as failed; the run goes on with the other jobs."""


def _acquire(course: Course) -> Outcomes:
    """Scan the source, fetch its shards, retry items whose failure may pass, and write the ledger.

    The first failure is raised, since no other stage can go on without pairs.
    """
    given, runtime = course.given, course.runtime
    began = time.perf_counter()
    pairs, source = given.study.pairs, source_of(given.study.pairs)
    scanned = course.scanned or scan(source, pairs.shard_size, runtime)
    if given.last is not None and (scanned.new or scanned.changed):
        log.info("the source changed: %d new shards, %d changed", scanned.new, scanned.changed)

    def scan_entry(shard: int, listing: Dataset) -> Entry:
        entry = Entry(kind="scan", shard=shard, dataset=listing, seconds=round(time.perf_counter() - began, 4))
        given.state.add(entry)
        return entry

    yield from map(scan_entry, range(len(scanned.listings)), scanned.listings)
    fetched: list[Dataset] = []
    so_far = failures.Progress()

    def fetch(job: Job) -> Entry:
        shard = job.key.shard or 0
        moved = failures.moved(runtime.store, scanned.source, shard, scanned.moved.get(shard, []))
        unhashed = {"progress": so_far, "moved": moved, "min_success": pairs.min_success}
        entry = run_job(job._replace(inputs={**job.arguments(), **unhashed}), runtime)
        so_far.add(runtime.store, entry.dataset)
        fetched.append(entry.dataset)
        return entry

    yield from map(fetch, fetches(given))
    retried = retry(scanned, fetched, source, rules_of(pairs), pairs.retry_after, runtime)
    if retried is not None:
        yield scan_entry(len(scanned.listings), retried)
        yield fetch(fetches(given)[-1])
    for step in STEPS["acquire"][1:]:  # the steps that read all fetched shards
        yield from (run_job(job, runtime) for job in step(given))
    acquired = [e.dataset for e in given.state.of("acquire")]
    written = ledger(scanned.dropped, acquired, pairs.min_success, runtime)
    yield Entry(kind="ledger", dataset=written, inputs=acquired)
    labels = write_labels(runtime.store, scanned.labels)
    if labels is not None:
        yield Entry(kind="labels", dataset=labels)


def _train(course: Course, cluster: Cluster | None) -> Outcomes:
    """Train the missing seeds in parallel, then run every job. On a cluster each seed is a task of its own."""
    runtime = course.runtime
    jobs = course.jobs(saes)
    missing = [job for job in jobs if job.stage is sae and job.inputs and is_due(job, runtime)]
    if cluster is not None or len(missing) < 2:
        yield from run_jobs("train", jobs, runtime, cluster)
    else:
        yield from _trained_together(jobs, missing, runtime)
    for step in STEPS["train"][1:]:  # the steps that read the SAEs of all seeds
        yield from run_jobs("train", course.jobs(step), runtime, cluster)


def _trained_together(jobs: list[Job], missing: list[Job], runtime: Runtime) -> Outcomes:
    """Train the missing SAEs in parallel, then run every job."""
    errors = train_together([job.arguments() for job in missing], runtime)
    failed = {job.key: error for job, error in zip(missing, errors, strict=True) if error is not None}
    adopt, apart = runtime.model_copy(update={"force": False}), Apart(runtime.store)
    for job in jobs:  # finds the SAEs that `train_together` trained, and makes imported SAEs
        if job.key in failed:
            yield apart.failed(job, failed[job.key])
        else:
            options = adopt if job.stage is sae else runtime
            yield outcome_of(job, apart, partial(run_job, job, options, refresh=runtime.force))


def _record(
    stage: str, course: Course, outcomes: Outcomes, entries: list[Entry], ended: Callable[[Outcome], None]
) -> None:
    """Add each outcome, as it comes, to the record of the run: entries also to the state and to `entries`.

    `ended` is called with each outcome.

    Raises JobsFailed after the last outcome if one of them was a failure.
    """
    failed = 0
    with contextlib.closing(outcomes):  # if an outcome cannot be recorded, processes that wait for passes end
        for outcome in outcomes:
            ended(outcome)
            if isinstance(outcome, Failed):
                failed += 1
                course.errors.append(outcome)
                sentence = sentence_of(outcome.error, course.runtime.store)
                failure = course.record.fail(stage, outcome.key, sentence, outcome.error)
                release(outcome.error)
                log.error("failed: %s: %s (%s)", failure.key, failure.cause, failure.traceback)
                continue
            course.given.state.add(outcome)
            course.record.add(outcome)
            entries.append(outcome)
    if failed:
        raise JobsFailed(f"{failed} jobs of {stage} failed")


def run_stage(stage: str, course: Course, ended: Callable[[Outcome], None] = lambda outcome: None) -> list[Entry]:
    """Run one stage as a Prefect sub-flow of the same name. Returns its entries, and adds them to state and record.

    `ended` is called with the outcome of each job.

    The tasks run on the cluster if three things hold: there is a cluster, the stage is marked as `spread`, and a
    dataset must be made. A job that fails is added to `course.errors` and to the record.
    """
    given, runtime, cluster = course.given, course.runtime, course.cluster
    if cluster is not None and not (
        STAGES[stage].spread and any(is_due(job, runtime) for step in STEPS[stage] for job in course.jobs(step))
    ):
        cluster = None

    def steps() -> Outcomes:
        for step in STEPS[stage]:
            yield from run_jobs(stage, course.jobs(step), runtime, cluster)

    runners: dict[str, Callable[[], Outcomes]] = {
        "acquire": lambda: _acquire(course),
        "embed": lambda: embed_shards(course, cluster),
        "train": lambda: _train(course, cluster),
    }
    entries: list[Entry] = []
    here = Here(lambda: _record(stage, course, runners.get(stage, steps)(), entries, ended))

    # Prefect pickles the flow with every task that it submits to a cluster. So the flow refers only to `here`, which
    # is empty when pickled.
    @flow(
        name=stage,
        flow_run_name=f"{given.study.name}: {stage}",
        persist_result=False,
        task_runner=cluster.task_runner(stage) if cluster is not None else None,
    )
    def stage_flow() -> None:
        # Tasks do not inherit the flow's tags. For each tagged task Prefect would ask the server for concurrency
        # limits, which takes 60 ms.
        with TagsContext(current_tags=set()):
            here.body()

    try:
        keeping_records(stage_flow, runtime.store)()
    except JobsFailed as error:
        log.debug("%s", error)  # the failures are in the record, and are raised when the run ends
    for model in dict.fromkeys(e.model for e in entries if e.kind == "checks"):
        tell_checks(str(model), [e.dataset for e in entries if e.kind == "checks" and e.model == model], runtime)
    return entries
