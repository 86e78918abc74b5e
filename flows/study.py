"""The flow of a whole study, or of one of its stages: runs the stages in order, then writes the run."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from prefect import flow, tags
from prefect.context import FlowRunContext
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_LOGGING_LEVEL,
    PREFECT_LOGGING_TO_API_ENABLED,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE,
    PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE,
    get_current_settings,
    temporary_settings,
)

from flows.artifacts import progress, report_page, stage_table
from flows.cluster import Cluster
from flows.config import Study
from flows.failures import check_database
from flows.jobs import Given, jobs_of
from flows.running import run_stage
from flows.stages import STAGES
from flows.upstream import upstream_of
from storage.catalog import write_catalog_file
from storage.dataset import locked
from storage.errors import BadInput
from storage.lease import leases, running
from storage.provenance import library_versions
from storage.runs import Entry, Run, State, last_run, write_run
from storage.site import SITE
from tasks.stage import Runtime

log = logging.getLogger("bridgescope")


class StageDone(NamedTuple):
    """Summary of a finished stage."""

    stage: str
    tasks: int
    cached: int
    seconds: float
    slowest_cached: float  #: seconds of the slowest cached task

    def __str__(self) -> str:
        cached = f", {self.cached} cached" if self.cached else ""
        slowest = f" (slowest cached task {self.slowest_cached * 1000:.0f} ms)" if self.cached else ""
        return f"{self.stage:8} {self.tasks:3} tasks{cached:12} {self.seconds:7.1f} s{slowest}"


class Finished(NamedTuple):
    """Summary of a finished run."""

    run: Run
    stages: list[StageDone]
    prefect_seconds: float  #: from the call to the first line of the flow: the time Prefect needs to start


@contextlib.contextmanager
def prefect_settings() -> Iterator[None]:
    """Prefect's settings for a study: no telemetry, no heartbeat thread, and no log lines unless deployed.

    The heartbeat thread would cost 1 s.
    """
    settings: dict[Any, Any] = {
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 120,
        # By default Prefect commits once per task-run event, and once per 20 events. Each commit locks SQLite, and a
        # sub-flow that meets the lock waits 2 s.
        PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE: 200,
        PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE: 1000,
    }
    if not deployed():
        settings[PREFECT_LOGGING_LEVEL] = os.environ.get("PREFECT_LOGGING_LEVEL", "CRITICAL")
        settings[PREFECT_LOGGING_TO_API_ENABLED] = False
    with temporary_settings(settings):
        yield


def deployed() -> bool:
    """Return True inside a flow of `flows.deployed`, whose operator reads Prefect's UI and not a terminal."""
    return FlowRunContext.get() is not None


def run_study(
    study: Study,
    store: Path,
    *,
    only: str | None = None,
    force: bool = False,
    upstream: str | None = None,
    progress: bool = True,
    on_stage_done: Callable[[StageDone], None] = lambda done: None,
) -> Finished:
    """Run a study, or one stage of it on the outputs of the stages before it.

    `force` makes the outputs of the stage (or of every stage) again. `upstream`, with `only`, is the recipe of a
    dataset of an earlier stage to use in place of the newest. `on_stage_done` is called as each stage ends.
    Raises BadInput for an unknown stage, a store that cannot be written, or a stage whose inputs are missing. An
    exception of a task is raised unchanged.
    """
    if only is not None and only not in STAGES:
        raise BadInput(f"--only {only}: no such stage; stages are {', '.join(STAGES)}")
    if upstream is not None and only is None:
        raise BadInput(f"--upstream {upstream}: goes with --only STAGE")
    if not os.access(store, os.W_OK):
        raise BadInput(f"the store {store} is not writable")
    if not deployed() and PREFECT_API_URL.value() is None:
        url = get_current_settings().server.database.connection_url
        check_database(url.get_secret_value() if url else "")
    settings = study.runtime.model_dump(include={"device", "embed_batch_size"})
    runtime = Runtime(store=store, **settings, force=force, progress=progress)
    runner = Cluster(study.runtime) if study.runtime.runner == "ray" else contextlib.nullcontext()
    with running(store, study.name) as own, runner as cluster:
        for other in leases(store, study.name):
            if other.live and other.path != own:
                log.warning("%s runs this study too: a dataset that both need is made once, by the first", other.holder)
        last = last_run(store, study.name)
        state = upstream_of(study, store, last, only, upstream) if only else State()
        return _run_study(Given(study, state, last, store), only, runtime, cluster, on_stage_done)


def _run_study(
    given: Given,
    only: str | None,
    runtime: Runtime,
    cluster: Cluster | None,
    on_stage_done: Callable[[StageDone], None],
) -> Finished:
    study, store = given.study, runtime.store
    done: list[StageDone] = []
    entries: list[Entry] = []
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    began = time.perf_counter()
    written: list[Run] = []
    prefect_seconds: list[float] = []

    @flow(name="study", flow_run_name=study.name, persist_result=False, result_storage=store)
    def whole_study() -> None:
        prefect_seconds.append(time.perf_counter() - began)
        for stage in STAGES if only is None else (only,):
            if stage != "acquire" and next(jobs_of(stage, given), None) is None:
                continue  # a study without demo models has no stage `model`
            stage_began = time.perf_counter()
            with tags(f"study:{study.name}", f"stage:{stage}"), _progress_bar(stage, given):
                stage_entries = run_stage(stage, given, runtime, cluster)
            entries.extend(stage_entries)
            done.append(_summary(stage, stage_entries, time.perf_counter() - stage_began))
            stage_table(store, study.name, stage, stage_entries, done[-1].seconds)
            on_stage_done(done[-1])
        run = Run(
            study=study.name,
            config=study.model_dump(mode="json"),
            entries=entries if only is None else _complete_run(entries, given),
            started=started,
            seconds=round(time.perf_counter() - began, 3),
            versions=library_versions(),
        )
        written.append(write_run(store, run))
        write_catalog_file(store, written[0])
        publish_report(store, written[0])
        report_page(store, written[0], entries)

    with prefect_settings(), tags(f"study:{study.name}"):
        whole_study.fn() if deployed() else whole_study()
    return Finished(written[0], done, prefect_seconds[0])


def _progress_bar(stage: str, given: Given) -> AbstractContextManager[None]:
    """Progress bar in Prefect's UI for a stage marked with `bar`; for other stages a context that does nothing."""
    if not STAGES[stage].bar:
        return contextlib.nullcontext()
    jobs = list(jobs_of(stage, given))
    return progress(
        given.study.name, stage, lambda: sum(job.lookup(given.store) is not None for job in jobs), len(jobs)
    )


def _summary(stage: str, entries: list[Entry], seconds: float) -> StageDone:
    tasks = [entry for entry in entries if entry.is_task]
    cached = [entry.seconds for entry in tasks if entry.cached]
    return StageDone(stage, len(tasks), len(cached), seconds, max(cached, default=0.0))


def _complete_run(entries: list[Entry], given: Given) -> list[Entry]:
    """Complete the entries of a run of one stage, so that they cover all stages.

    Earlier stages get the entries whose datasets the stage used. All others are taken over from the last run.
    """
    before = {entry.key: entry for entry in given.last.entries} if given.last else {}
    now = {entry.key: entry for entry in entries}
    for key, entry in given.state.items():
        known = before.get(key)
        now.setdefault(key, known if known is not None and known.dataset == entry.dataset else entry)
    return list({**before, **now}.values())


def publish_report(store: Path, run: Run) -> Path | None:
    """Copy the run's page and the explorer's data to `report/<study>/`, which is replaced as a whole.

    Returns the path of the page, or None for a run without one.
    """
    reports = run.of("report")
    if not reports:
        return None
    final = store / "report" / run.study
    partial, aside = final.with_name(f"{run.study}.partial"), final.with_name(f"{run.study}.old")
    with locked(final):
        for leftover in (partial, aside):
            shutil.rmtree(leftover, ignore_errors=True)
        ignore = shutil.ignore_patterns("dataset.json", "cached.json")
        shutil.copytree(store / reports[0].dataset.path, partial, ignore=ignore)
        for explorer in run.of("explorer"):
            _link(store / explorer.dataset.path / SITE, partial / "explorer.zip")
        if final.exists():
            os.rename(final, aside)
        os.rename(partial, final)
        shutil.rmtree(aside, ignore_errors=True)
    return final / "index.html"


def _link(source: Path, target: Path) -> None:
    """Make a hard link, or a copy where the file system has no hard links. The file may hold gigabytes."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
