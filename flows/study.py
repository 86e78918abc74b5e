"""The whole study: a flow that runs every stage in order, then writes the run. Also one stage alone."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from prefect import flow
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_LOCAL_STORAGE_PATH,
    PREFECT_LOGGING_LEVEL,
    PREFECT_LOGGING_TO_API_ENABLED,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE,
    temporary_settings,
)

from flows.config import Study
from flows.stages import STAGES, Key, State, jobs_of, lookup, run_stage
from storage.catalog import write_catalog_file
from storage.dataset import library_versions
from storage.errors import BadInput
from storage.runs import Entry, Run, last_run, write_run
from tasks.stage import Runtime


class StageDone(NamedTuple):
    """How a stage went: what a person is told when it ends."""

    stage: str
    tasks: int
    cached: int
    seconds: float
    slowest_cached: float  #: seconds of the slowest cached task


class Finished(NamedTuple):
    """A study that ran."""

    run: Run
    stages: list[StageDone]
    prefect_seconds: float  #: from the call to the first line of the flow: Prefect's own start


@contextlib.contextmanager
def prefect_settings(store: Path) -> Iterator[None]:
    """Prefect as a study needs it: records beside the data, no telemetry, no second spent on a heartbeat thread."""
    with temporary_settings(
        {
            PREFECT_LOCAL_STORAGE_PATH: store,
            PREFECT_SERVER_ANALYTICS_ENABLED: False,
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
            PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 120,
            # One transaction a task-run event (the default) keeps SQLite locked: each next sub-flow waits 2 s for it.
            PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE: 200,
            PREFECT_LOGGING_LEVEL: os.environ.get("PREFECT_LOGGING_LEVEL", "CRITICAL"),
            PREFECT_LOGGING_TO_API_ENABLED: False,
        }
    ):
        yield


def run_study(
    study: Study,
    store: Path,
    *,
    only: str | None = None,
    force: bool = False,
    progress: bool = True,
    tell: Callable[[StageDone], None] = lambda done: None,
) -> Finished:
    """Run a study, or one stage of it on what the stages before it made.

    `force` makes the outputs of the stage (or of every stage) again. Raises BadInput for an unknown stage, a store that
    cannot be written, or a stage whose inputs are not there; what a task raised comes through as it was.
    """
    if only is not None and only not in STAGES:
        raise BadInput(f"--only {only}: no such stage; stages are {', '.join(STAGES)}")
    if not os.access(store, os.W_OK):
        raise BadInput(f"the store {store} is not writable")
    last = last_run(store, study.name)
    state = _upstream(study, store, last, only) if only else {}
    runtime = Runtime(store=store, **study.runtime.model_dump(), force=force, progress=progress)
    done: list[StageDone] = []
    entries: list[Entry] = []
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    began = time.perf_counter()
    prefect_seconds: list[float] = []

    @flow(name="study", flow_run_name=study.name, persist_result=False)
    def whole_study() -> None:
        prefect_seconds.append(time.perf_counter() - began)
        for stage in STAGES if only is None else (only,):
            if stage == "model" and not any(model.spec.startswith("demo:") for model in study.models):
                continue
            at = time.perf_counter()
            made = run_stage(stage, study, state, last, runtime)
            state.update({_key(entry): entry.dataset for entry in made})
            entries.extend(made)
            done.append(_summary(stage, made, time.perf_counter() - at))
            tell(done[-1])

    with prefect_settings(store):
        whole_study()
    if only is not None:
        entries = _complete_run(entries, state, last)
    run = Run(
        study=study.name,
        config=study.model_dump(mode="json"),
        entries=entries,
        started=started,
        seconds=round(time.perf_counter() - began, 3),
        versions=library_versions(),
    )
    run = write_run(store, run)
    write_catalog_file(store, run)
    publish_report(store, run)
    return Finished(run, done, prefect_seconds[0])


def _key(entry: Entry) -> Key:
    return Key(entry.stage, entry.model, entry.sae, entry.seed, entry.shard)


def _summary(stage: str, made: list[Entry], seconds: float) -> StageDone:
    tasks = [entry for entry in made if entry.stage not in ("scan", "ledger")]
    cached = [entry.seconds for entry in tasks if entry.cached]
    return StageDone(stage, len(tasks), len(cached), seconds, max(cached, default=0.0))


def _upstream(study: Study, store: Path, last: Run | None, only: str) -> State:
    """The datasets of all stages before `only`, for the study as it is now. Raises BadInput when one is missing."""
    state: State = {}
    if only == "acquire":
        return state
    if last is None or not last.of("scan"):
        raise BadInput(
            f"--only {only}: the study {study.name!r} has no pairs yet: run it with --only acquire, or whole"
        )
    state.update({_key(entry): entry.dataset for entry in last.entries if entry.stage in ("scan", "ledger")})
    for stage in STAGES[: STAGES.index(only)]:
        for place in range(len(jobs_of(stage, study, state, last, store))):
            job = jobs_of(stage, study, state, last, store)[place]
            dataset = lookup(job, store)
            if dataset is None:
                raise BadInput(
                    f"--only {only}: {job.key} is missing or stale: run --only {stage} first, or the whole study"
                )
            state[job.key] = dataset
    return state


def _complete_run(made: list[Entry], state: State, last: Run | None) -> list[Entry]:
    """The entries of a run of one stage: upstream as used, the stage as made, the rest from the last run."""
    before = {_key(entry): entry for entry in last.entries} if last else {}
    now = {_key(entry): entry for entry in made}
    for key, dataset in state.items():
        if key not in now:
            known = before.get(key)
            same = known is not None and known.dataset == dataset
            now[key] = known if same and known else Entry(**key._asdict(), dataset=dataset)
    return list({**before, **now}.values())


def publish_report(store: Path, run: Run) -> Path | None:
    """Put the run's page where people look for it: `report/<study>/`, replaced as a whole."""
    made = run.of("report")
    if not made:
        return None
    final = store / "report" / run.study
    partial, aside = final.with_name(f"{run.study}.partial"), final.with_name(f"{run.study}.old")
    for leftover in (partial, aside):
        shutil.rmtree(leftover, ignore_errors=True)
    ignore = shutil.ignore_patterns("dataset.json", "cached.json")
    shutil.copytree(store / made[0].dataset.path, partial, ignore=ignore)
    if final.exists():
        os.rename(final, aside)
    os.rename(partial, final)
    shutil.rmtree(aside, ignore_errors=True)
    return final / "index.html"
