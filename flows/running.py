"""Run the jobs of a stage in a Prefect sub-flow, one after another or in parallel on a Ray cluster.

A job that fails does not stop the others. Jobs that need its dataset are left out, and the run ends with a list of
failures.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.context import TagsContext
from prefect.futures import PrefectFuture

from flows.cluster import Cluster, ClusterError, Here
from flows.failures import is_of_surroundings, sentence_of
from flows.jobs.acquire import fetches
from flows.jobs.job import STEPS, Given, Job, jobs_of
from flows.jobs.train import saes
from flows.narrow import WHOLE, Narrow
from flows.records import keeping_records
from flows.stages import STAGES
from storage import failures, uses
from storage.dataset import Dataset, manifest_of
from storage.listing import Scan, write_labels
from storage.record import Record
from storage.runs import Entry, Key
from storage.sources.section import rules_of, source_of
from tasks import acquire, together, train
from tasks.checks import tell_checks
from tasks.embed import embed
from tasks.stage import Runtime
from tasks.train import sae

log = logging.getLogger("bridgescope")

_uncached = task(persist_result=False, cache_policy=NO_CACHE)
scan, retry, ledger = _uncached(acquire.scan), _uncached(acquire.retry), _uncached(acquire.ledger)
train_together, embed_passes = _uncached(train.train_together), _uncached(together.embed_passes)
embed_together = _uncached(together.embed_together)


class Failed(NamedTuple):
    """A job that failed, and its exception."""

    key: Key
    error: Exception
    known: bool = False  #: whether the error is bad input that was met before any work of the job


class JobsFailed(RuntimeError):
    """Raised when jobs of a stage failed. Prefect shows the stage as failed; the run goes on with the other jobs."""


class Course(NamedTuple):
    """What the stages of one run share."""

    given: Given
    runtime: Runtime
    record: Record
    cluster: Cluster | None
    narrow: Narrow
    errors: list[Failed]  #: the failures so far, in all stages
    scanned: Scan | None = None  #: the scan of the source, if one was made before Prefect was started

    def step(self, jobs: list[Job]) -> list[Job]:
        """The jobs of a step that this run has to do. Jobs outside `narrow` are left out.

        After a failure and in a narrowed run, jobs with missing inputs are left out too.
        """
        wanted = [job for job in jobs if self.narrow.includes(job.key)]
        if not self.errors and self.narrow == WHOLE:
            return wanted
        return [job for job in wanted if job.inputs is not None or job.problem is not None]


Outcome = Entry | Failed


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


def run_jobs(stage: str, jobs: list[Job], runtime: Runtime, cluster: Cluster | None = None) -> Iterator[Outcome]:
    """Run jobs of a stage in parallel on a cluster. Without a cluster they run in turn: each job uses every core."""
    apart = Apart(runtime.store)
    if cluster is not None:
        yield from _side_by_side(stage, jobs, runtime, cluster, apart)
        return
    for job in jobs:
        if not apart.gave_up(job):
            yield _outcome(job, apart, partial(run_job, job, runtime))


def _outcome(job: Job, apart: Apart, run: Callable[[], Entry]) -> Outcome:
    try:
        return run()
    except Exception as error:
        return apart.failed(job, error)


def _side_by_side(stage: str, jobs: list[Job], runtime: Runtime, cluster: Cluster, apart: Apart) -> Iterator[Outcome]:
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
            return [_outcome(job, apart, run)]
        except Exception as error:
            stopped.append(error)
            return []

    for job in jobs:
        if apart.gave_up(job):
            continue
        if job.problem is not None:
            yield apart.failed(job, job.problem)
            continue
        waiting.append((job, cluster.submit(stage, *_task(job, runtime)) if _is_due(job, runtime) else None))
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
    return task, {**job.arguments(), "runtime": _on_cluster(runtime)}


def _on_cluster(runtime: Runtime) -> Runtime:
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


def _acquire(course: Course) -> Iterator[Outcome]:
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


def _train(course: Course, cluster: Cluster | None) -> Iterator[Outcome]:
    """Train the missing seeds in parallel, then run every job. On a cluster each seed is a task of its own."""
    runtime = course.runtime
    jobs = course.step(saes(course.given))
    missing = [job for job in jobs if job.stage is sae and job.inputs and _is_due(job, runtime)]
    if cluster is not None or len(missing) < 2:
        yield from run_jobs("train", jobs, runtime, cluster)
    else:
        yield from _trained_together(jobs, missing, runtime)
    for step in STEPS["train"][1:]:  # the steps that read the SAEs of all seeds
        yield from run_jobs("train", course.step(step(course.given)), runtime, cluster)


def _trained_together(jobs: list[Job], missing: list[Job], runtime: Runtime) -> Iterator[Outcome]:
    """Train the missing SAEs in parallel, then run every job."""
    errors = train_together([job.arguments() for job in missing], runtime)
    failed = {job.key: error for job, error in zip(missing, errors, strict=True) if error is not None}
    adopt, apart = runtime.model_copy(update={"force": False}), Apart(runtime.store)
    for job in jobs:  # finds the SAEs that `train_together` trained, and makes imported SAEs
        if job.key in failed:
            yield apart.failed(job, failed[job.key])
        else:
            options = adopt if job.stage is sae else runtime
            yield _outcome(job, apart, partial(run_job, job, options, refresh=runtime.force))


def _embed(course: Course, cluster: Cluster | None) -> Iterator[Outcome]:
    """Embed each shard with all models that miss it in one pass, then run every job; and check the embeddings.

    On a cluster each pass is a task.
    """
    given, runtime, (listed, *others) = course.given, course.runtime, STEPS["embed"]
    jobs, at_once = course.step(listed(given)), given.study.runtime.models_at_once
    if cluster is not None:
        yield from _in_passes_on(cluster, jobs, runtime, at_once)
    else:
        yield from _in_passes(jobs, runtime, at_once)
    for step in others:
        yield from run_jobs("embed", course.step(step(given)), runtime, cluster)


def _in_passes_on(cluster: Cluster, jobs: list[Job], runtime: Runtime, at_once: int | None) -> Iterator[Outcome]:
    """Embed on a cluster, with a task for each pass of several models. Then run every job that no pass has made.

    Where the cluster has more room than there are shards, the models of a shard are divided. A model that two passes
    did not make is left out of the passes that are not submitted yet: its own jobs report why.
    """
    due = [job for job in jobs if job.stage is embed and job.inputs and _is_due(job, runtime)]
    by_inputs = {id(job.inputs): job for job in due}
    planned = together.passes([job.arguments() for job in due], at_once, cluster.slots("embed"))
    passes = deque(
        sorted(([by_inputs[id(each)] for each in same] for same in planned), key=lambda same: same[0].key.shard or 0)
    )
    waiting: deque[tuple[list[Job], PrefectFuture[None]]] = deque()
    missed: Counter[str | None] = Counter()
    made: set[Key] = set()
    adopt, apart = runtime.model_copy(update={"force": False}), Apart(runtime.store)
    while passes or waiting:
        while passes and len(waiting) < cluster.ahead("embed"):
            same = [job for job in passes.popleft() if missed[job.key.model] < 2]
            if len(same) > 1:
                waiting.append((same, _submitted(cluster, same, runtime)))
        if not waiting:
            break
        same, future = waiting.popleft()
        try:
            future.result()
        except Exception as error:
            if is_of_surroundings(error, runtime.store):
                raise
            log.debug("%s: a pass failed: %s", same[0].key, error)
        for job in same:
            if job.lookup(runtime.store) is None:
                missed[job.key.model] += 1
                continue
            made.add(job.key)
            yield _outcome(job, apart, partial(run_job, job, adopt, refresh=runtime.force))
    yield from run_jobs("embed", [job for job in jobs if job.key not in made], runtime, cluster)


def _submitted(cluster: Cluster, jobs: list[Job], runtime: Runtime) -> PrefectFuture[None]:
    """Submit a pass of several models, whose datasets are marked as in use by this process."""
    for job in jobs:
        uses.note(runtime.store, job.stage.address(**job.arguments()).path)
    arguments = [job.arguments() for job in jobs]
    return cluster.submit("embed", embed_together, {"jobs": arguments, "runtime": _on_cluster(runtime)})


def _in_passes(jobs: list[Job], runtime: Runtime, at_once: int | None) -> Iterator[Outcome]:
    """Embed shard by shard. A pass leaves out a model that failed in it, whose own job then reports why.

    Where there are several GPUs, as many shards as there are GPUs are embedded in parallel.
    """
    apart, adopt = Apart(runtime.store), runtime.model_copy(update={"force": False})
    shards = list(dict.fromkeys(job.key.shard for job in jobs))
    side_by_side = together.devices(runtime.device)
    for start in range(0, len(shards), len(side_by_side)):
        some = [job for job in jobs if job.key.shard in shards[start : start + len(side_by_side)]]
        tried = [job for job in some if not apart.gave_up(job)]
        due = [job for job in tried if job.stage is embed and job.inputs and _is_due(job, runtime)]
        passes = together.passes([job.arguments() for job in due], at_once, len(side_by_side))
        if several := [each for each in passes if len(each) > 1 or len(side_by_side) > 1]:
            embed_passes(several, runtime)
        for job in tried:  # finds what the passes made, and makes the rest
            if not apart.gave_up(job):
                passed = job in due and job.lookup(runtime.store) is not None
                options = adopt if passed else runtime
                yield _outcome(job, apart, partial(run_job, job, options, refresh=runtime.force))


def _record(
    stage: str, course: Course, outcomes: Iterator[Outcome], entries: list[Entry], ended: Callable[[Outcome], None]
) -> None:
    """Add each outcome, as it comes, to the record of the run: entries also to the state and to `entries`.

    `ended` is called with each outcome.

    Raises JobsFailed after the last outcome if one of them was a failure.
    """
    failed = 0
    for outcome in outcomes:
        ended(outcome)
        if isinstance(outcome, Failed):
            failed += 1
            course.errors.append(outcome)
            sentence = sentence_of(outcome.error, course.runtime.store)
            failure = course.record.fail(stage, outcome.key, sentence, outcome.error)
            log.error("failed: %s: %s (%s)", failure.key, failure.cause, failure.traceback)
            continue
        course.given.state.add(outcome)
        course.record.add(outcome)
        entries.append(outcome)
    if failed:
        raise JobsFailed(f"{failed} jobs of {stage} failed")


def _is_due(job: Job, runtime: Runtime) -> bool:
    """Return True when the dataset of this job must be made: it is incomplete, or `runtime.force` is set."""
    return runtime.force or job.lookup(runtime.store) is None


def run_stage(stage: str, course: Course, ended: Callable[[Outcome], None] = lambda outcome: None) -> list[Entry]:
    """Run one stage as a Prefect sub-flow of the same name. Returns its entries, and adds them to state and record.

    `ended` is called with the outcome of each job.

    The tasks run on the cluster if three things hold: there is a cluster, the stage is marked as `spread`, and a
    dataset must be made. A job that fails is added to `course.errors` and to the record.
    """
    given, runtime, cluster = course.given, course.runtime, course.cluster
    if cluster is not None and not (
        STAGES[stage].spread and any(_is_due(job, runtime) for job in course.step(list(jobs_of(stage, given))))
    ):
        cluster = None

    def steps() -> Iterator[Outcome]:
        for step in STEPS[stage]:
            yield from run_jobs(stage, course.step(step(given)), runtime, cluster)

    runners: dict[str, Callable[[], Iterator[Outcome]]] = {
        "acquire": lambda: _acquire(course),
        "embed": lambda: _embed(course, cluster),
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
