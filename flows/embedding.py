"""Run the stage embed: a shard is embedded with all models that miss it in one pass. Then the embeddings are checked.

On one device the passes follow one another. On several GPUs and on a cluster they run side by side.
"""

from __future__ import annotations

import concurrent.futures
import logging
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, NamedTuple

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.cluster import Cluster
from flows.course import Apart, Course, Outcome, Outcomes, is_due, on_cluster, outcome_of, run_job, run_jobs
from flows.failures import is_of_surroundings
from flows.jobs.job import STEPS, Job
from storage import uses
from storage.runs import Key
from tasks import together
from tasks.devices import devices
from tasks.embed import embed
from tasks.stage import Runtime

log = logging.getLogger("bridgescope")

embed_together = task(persist_result=False, cache_policy=NO_CACHE)(together.embed_together)


class Places(NamedTuple):
    """Where passes run side by side."""

    slots: int  #: passes that run at once
    ahead: int  #: passes that are submitted at most before one of them has ended
    fewest: int  #: models of a pass: with fewer, the models' own jobs embed the shard
    submit: Callable[[list[dict[str, Any]]], Any]  #: starts a pass, given the arguments of its jobs; returns a future
    ended: Callable[[Sequence[Any]], int]  #: waits for one of the futures, and returns its number


def embed_shards(course: Course, cluster: Cluster | None) -> Outcomes:
    """Embed each shard with all models that miss it in one pass, then run every job; and check the embeddings."""
    runtime, (listed, *others) = course.runtime, STEPS["embed"]
    jobs, at_once = course.jobs(listed), course.given.study.runtime.models_at_once
    if cluster is not None:
        yield from _on_cluster(cluster, jobs, runtime, at_once)
    elif len(gpus := devices(runtime.device)) > 1:
        yield from _on_gpus(gpus, jobs, runtime, at_once)
    else:
        yield from _in_turn(jobs, runtime, at_once)
    for step in others:
        yield from run_jobs("embed", course.jobs(step), runtime, cluster)


def _on_cluster(cluster: Cluster, jobs: list[Job], runtime: Runtime, at_once: int | None) -> Outcomes:
    """Embed on a cluster, with a task for each pass of several models. Then run every job that no pass has made."""

    def submit(arguments: list[dict[str, Any]]) -> Any:
        return cluster.submit("embed", embed_together, {"jobs": arguments, "runtime": on_cluster(runtime)})

    places = Places(cluster.slots("embed"), cluster.ahead("embed"), 2, submit, lambda futures: 0)
    made = yield from _in_passes(places, jobs, runtime, at_once)
    yield from run_jobs("embed", [job for job in jobs if job.key not in made], runtime, cluster)


def _on_gpus(gpus: list[str], jobs: list[Job], runtime: Runtime, at_once: int | None) -> Outcomes:
    """Embed on several GPUs, with one process for each. Then run every job that no pass has made.

    The processes have ended by then, so that a job finds the memory of its GPU free.
    """
    with together.on_devices(gpus, runtime) as submit:
        made = yield from _in_passes(Places(len(gpus), 2 * len(gpus), 1, submit, _first), jobs, runtime, at_once)
    yield from run_jobs("embed", [job for job in jobs if job.key not in made], runtime)


def _first(futures: Sequence[concurrent.futures.Future[None]]) -> int:
    """Wait until a future has ended, and return its number."""
    ended, _ = concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_COMPLETED)
    return next(number for number, future in enumerate(futures) if future in ended)


def _in_passes(
    places: Places, jobs: list[Job], runtime: Runtime, at_once: int | None
) -> Generator[Outcome, None, set[Key]]:
    """Run the passes side by side, and yield the outcomes of each as it ends. Returns the keys of the datasets made.

    Where there is more room than there are shards, the models of a shard are divided. A model that two passes did not
    make is left out of the passes that are not submitted yet: its own jobs report why.
    """
    due = [job for job in jobs if job.stage is embed and job.inputs and is_due(job, runtime)]
    by_inputs = {id(job.inputs): job for job in due}
    planned = together.passes([job.arguments() for job in due], at_once, places.slots)
    passes = deque(
        sorted(([by_inputs[id(each)] for each in same] for same in planned), key=lambda same: same[0].key.shard or 0)
    )
    waiting: list[tuple[list[Job], Any]] = []
    before = {job.key: _complete(job, runtime) for job in due}
    missed: Counter[str | None] = Counter()
    made: set[Key] = set()
    adopt, apart = runtime.model_copy(update={"force": False}), Apart(runtime.store)
    while passes or waiting:
        while passes and len(waiting) < places.ahead:
            same = [job for job in passes.popleft() if missed[job.key.model] < 2]
            if len(same) >= places.fewest:
                waiting.append((same, _submitted(places, same, runtime)))
        if not waiting:
            break
        same, future = waiting.pop(places.ended([future for _, future in waiting]))
        try:
            future.result()
        except Exception as error:
            if is_of_surroundings(error, runtime.store):
                raise
            log.debug("%s: a pass failed: %s", same[0].key, error)
        for job in same:
            if _complete(job, runtime) in (None, before[job.key]):
                missed[job.key.model] += 1
                continue
            made.add(job.key)
            yield outcome_of(job, apart, partial(run_job, job, adopt, refresh=runtime.force))
    return made


def _submitted(places: Places, jobs: list[Job], runtime: Runtime) -> Any:
    """Submit a pass, whose datasets are marked as in use by this process."""
    for job in jobs:
        uses.note(runtime.store, job.stage.address(**job.arguments()).path)
    return places.submit([job.arguments() for job in jobs])


def _in_turn(jobs: list[Job], runtime: Runtime, at_once: int | None) -> Outcomes:
    """Embed shard by shard. A pass leaves out a model that failed in it, whose own job then reports why."""
    apart, adopt = Apart(runtime.store), runtime.model_copy(update={"force": False})
    shards: dict[int | None, list[Job]] = {}
    for job in jobs:
        shards.setdefault(job.key.shard, []).append(job)
    for of_shard in shards.values():
        tried = [job for job in of_shard if not apart.gave_up(job)]
        due = [job for job in tried if job.stage is embed and job.inputs and is_due(job, runtime)]
        before = {job.key: _complete(job, runtime) for job in due}
        for same in together.passes([job.arguments() for job in due], at_once, 1):
            if len(same) > 1:
                embed_together(same, runtime)
        for job in tried:  # finds what the passes made, and makes the rest
            passed = job.key in before and _complete(job, runtime) not in (None, before[job.key])
            yield outcome_of(job, apart, partial(run_job, job, adopt if passed else runtime, refresh=runtime.force))


def _complete(job: Job, runtime: Runtime) -> Any:
    """None while the dataset of a job is not complete; with `runtime.force`, what changes when it is made again.

    With `force` a dataset is there before it is made again, and still there where that failed.
    """
    dataset = job.lookup(runtime.store)
    if dataset is None or not runtime.force:
        return dataset
    return (runtime.store / dataset.path / "dataset.json").stat().st_mtime_ns
