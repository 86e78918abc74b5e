"""The flow of a study: it runs all stages in order, or a single stage, and records the run."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flows.config import Study
from flows.fresh import Ahead, look_ahead
from flows.jobs.job import STEPS, Given, Job, jobs_of
from flows.narrow import WHOLE, Narrow
from flows.preflight import look
from flows.published import publish_report
from flows.server import begin, deployed, prefect_ready
from flows.stages import STAGES
from flows.upstream import upstream_of
from flows.variants import known_run, name_variant, told
from storage.catalog import refresh_catalog_file, write_catalog_file
from storage.errors import BadInput
from storage.lease import leases, running
from storage.provenance import library_versions
from storage.record import Record
from storage.runs import ENDED, Entry, Run, State, newest_complete
from tasks.stage import Runtime

if TYPE_CHECKING:
    from flows.cluster import Cluster
    from flows.course import Course, Failed

log = logging.getLogger("bridgescope")


class StageDone(NamedTuple):
    """Summary of a finished stage."""

    stage: str
    tasks: int
    cached: int
    seconds: float
    slowest_cached: float  #: seconds of the slowest cached task
    failed: int = 0

    def __str__(self) -> str:
        cached = f", {self.cached} cached" if self.cached else ""
        slowest = f" (slowest cached task {self.slowest_cached * 1000:.0f} ms)" if self.cached else ""
        failed = f", {self.failed} failed" if self.failed else ""
        tasks = f"{self.tasks:3} {'task ' if self.tasks == 1 else 'tasks'}"
        return f"{self.stage:8} {tasks}{cached:12} {self.seconds:7.1f} s{slowest}{failed}"


class Finished(NamedTuple):
    """Summary of a finished run."""

    run: Run
    stages: list[StageDone]
    prefect_seconds: float  #: seconds from the call to the first line of the flow, which Prefect needs to start


class RunFailed(RuntimeError):
    """Jobs of a run failed, and the other jobs have ended. The message has one line per failure."""

    def __init__(self, run: Run, exit_code: int = 1) -> None:
        lines = [f"{failure.key}: {failure.cause} (traceback: {failure.traceback})" for failure in run.failures]
        count = "1 job" if len(lines) == 1 else f"{len(lines)} jobs"
        super().__init__("\n".join([f"{count} failed, the others ended:", *lines]))
        self.run, self.exit_code = run, exit_code


def run_study(
    study: Study,
    store: Path,
    *,
    only: str | None = None,
    force: bool = False,
    upstream: str | None = None,
    narrow: Narrow = WHOLE,
    variant: str | None = None,
    changes: Sequence[str] = (),
    progress: bool = True,
    on_begin: Callable[[], None] = lambda: None,
    on_stage_done: Callable[[StageDone], None] = lambda done: None,
) -> Finished:
    """Run a study, or one stage of it on the outputs of the stages before it.

    `force` makes the outputs of the stage (or of every stage) again. `upstream`, with `only`, is the recipe of a
    dataset of an earlier stage to use in place of the newest. `narrow`, with `only`, keeps to one model, SAE or seed.
    `variant` names the configuration, which otherwise gets a name from `changes`, the changes made by --set.
    `on_begin` is called as the first stage begins, and `on_stage_done` as each stage ends.

    A job that fails does not stop the others. When all have ended, the exception of a single failure is raised
    unchanged, with a note that names the job. Several failures raise RunFailed. Raises BadInput for an unknown stage, a
    store that cannot be written, a stage whose inputs are missing, or a model or checkpoint that cannot be read.
    """
    if only is not None and only not in STAGES:
        raise BadInput(f"--only {only}: no such stage; stages are {', '.join(STAGES)}")
    if only is None:
        for option, value in (("upstream", upstream), *narrow._asdict().items()):
            if value is not None:
                raise BadInput(f"--{option} {value}: is allowed only with --only STAGE")
    narrow.check(study)
    if not os.access(store, os.W_OK):
        raise BadInput(f"the store {store} is not writable")
    if only in (None, "embed", "train"):
        look(study, store, narrow)
    named = name_variant(store, study, variant, list(changes))
    if (sentence := told(store, study, named)) is not None:
        log.warning("%s", sentence)
    settings = study.runtime.model_dump(include={"device", "embed_batch_size", "decoders", "saes_at_once"})
    runtime = Runtime(store=store, **settings, force=force, progress=progress)
    runner = _runner(study)
    with running(store, study.name) as own, runner as cluster:
        for other in leases(store, study.name):
            if other.live and other.path != own:
                log.warning("%s runs this study too: a dataset that both need is made once, by the first", other.holder)
        last = known_run(store, study, named)
        state = upstream_of(study, store, last, only, upstream, narrow) if only else State()
        run = Run(
            study=study.name,
            variant=named,
            config=study.model_dump(mode="json"),
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            versions=library_versions(),
            options={"only": only, "force": force, "upstream": upstream, "set": list(changes), **narrow._asdict()},
        )
        given, record = Given(study, state, last, store), Record(store, run)
        ahead = _look_ahead(given, force) if only is None and not deployed() else None
        if ahead is not None and ahead.state is not None:
            return _nothing_new(given, record, ahead.state)
        begin()
        from flows.course import Course

        course = Course(given, runtime, record, cluster, narrow, [], ahead.scanned if ahead is not None else None)
        return _run_study(course, only, on_begin, on_stage_done)


def _look_ahead(given: Given, force: bool) -> Ahead:
    """Look at the source and the store. If there is work in any case, Prefect's server starts meanwhile."""
    if force or given.last is None:
        begin()
    return look_ahead(given.study, given.store, None if force else given.last)


def _nothing_new(given: Given, record: Record, state: State) -> Finished:
    """Record a run whose datasets are all complete. Its `Finished` lists no stage."""
    began = time.perf_counter()
    record.add(*state.values())
    run = record.end("complete", time.perf_counter() - began, [])
    refresh_catalog_file(given.store, run)
    publish_report(given.store, run)
    return Finished(run, [], 0.0)


def _show(store: Path, run: Run) -> None:
    """Make a run the one that users see: write the study's catalog file from it, and publish its page."""
    if run.is_complete or newest_complete(store, run.study) is None:
        write_catalog_file(store, run)
        publish_report(store, run)


def _run_study(
    course: Course, only: str | None, on_begin: Callable[[], None], on_stage_done: Callable[[StageDone], None]
) -> Finished:
    began = time.perf_counter()
    from prefect import flow, tags

    from flows.artifacts import report_page, stage_table

    given, record = course.given, course.record
    study, store = given.study, given.store
    done: list[StageDone] = []
    ended: list[Run] = []
    prefect_seconds: list[float] = []

    @flow(name="study", flow_run_name=study.name, persist_result=False)
    def whole_study() -> None:
        prefect_seconds.append(time.perf_counter() - began)
        entries: list[Entry] = []
        record.add(*given.state.values())
        on_begin()
        for stage in STAGES if only is None else (only,):
            jobs = list(jobs_of(stage, given)) if stage != "acquire" else []  # it lists the source first
            if stage != "acquire" and not jobs:
                _tell_no_job(stage, course)
                continue  # the stage has no jobs, as `model` in a study without demo models
            stage_began, before = time.perf_counter(), len(course.errors)
            with tags(f"study:{study.name}", f"stage:{stage}"):
                stage_entries = _with_bars(stage, course, jobs)
            entries.extend(stage_entries)
            seconds, failed = time.perf_counter() - stage_began, len(course.errors) - before
            if not stage_entries and not failed:
                _tell_no_job(stage, course)
            done.append(_summary(stage, stage_entries, seconds, failed))
            stage_table(store, study.name, stage, stage_entries, done[-1].seconds)
            on_stage_done(done[-1])
        missing = _adopt_rest(course)
        # A dataset that --upstream chose is not what the configuration makes, so its run is not complete.
        whole = not missing and record.run.options["upstream"] is None
        how = "failed" if course.errors else "complete" if whole else "partial"
        ended.append(record.end(how, time.perf_counter() - began, missing))
        _show(store, ended[0])
        report_page(store, ended[0], entries)
        if course.errors:
            raise _failure(ended[0], course.errors)

    with prefect_ready(), tags(f"study:{study.name}"), _recorded(record, began):
        whole_study.fn() if deployed() else whole_study()
    return Finished(ended[0], done, prefect_seconds[0])


@contextlib.contextmanager
def _recorded(record: Record, began: float) -> Iterator[None]:
    """Write into the record of a run that it failed or was interrupted, when an exception ends the block."""
    try:
        yield
    except BaseException as error:
        if record.folder is not None and not (record.folder / ENDED).exists():
            how = "failed" if isinstance(error, Exception) else "interrupted"
            record.end(how, time.perf_counter() - began, [])
        raise


def _failure(run: Run, errors: list[Failed]) -> Exception:
    """The exception for the failed jobs of a run: RunFailed, with exit code 1 when jobs beside them have ended well.

    The exit code is 2 when every failure is bad input, and either was met before the work of the job, or no job of the
    failed kinds ended well. In the latter case, a single failure is the job's own exception.
    """
    kinds = {failure.kind for failure in run.failures}
    if any(entry.kind in kinds for entry in run.entries):
        return RunFailed(run, 2 if all(failed.known for failed in errors) else 1)
    if len(errors) == 1:
        errors[0].error.add_note(f"failed: {errors[0].key} (traceback: {run.failures[0].traceback})")
        return errors[0].error
    return RunFailed(run, min(getattr(failed.error, "exit_code", 1) for failed in errors))


def _tell_no_job(stage: str, course: Course) -> None:
    """Print that a narrowed run has nothing to run, and the first dataset that was left out, if any was."""
    if course.narrow == WHOLE:
        return
    options = " ".join(f"--{name} {value}" for name, value in course.narrow._asdict().items() if value is not None)
    waiting = [job.key for job in jobs_of(stage, course.given) if course.narrow.includes(job.key) and not job.inputs]
    why = f"datasets that {waiting[0]} reads are missing" if waiting else "the stage has no such job"
    remedy = f": run --only {stage} without {options}, or the whole study" if waiting else ""
    log.warning("--only %s %s: no job was run: %s%s", stage, options, why, remedy)


def _adopt_rest(course: Course) -> list[str]:
    """Add the fresh datasets that this run did not make. Returns the stages that lack a dataset, in order.

    A dataset is fresh when its address is the one computed from this run's datasets. A dataset that an earlier run
    made from other inputs has another address, and is not added.
    """
    given = course.given
    missing: dict[str, None] = {}
    for stage, steps in STEPS.items():
        if stage == "acquire" and not given.state.of("scan"):
            missing[stage] = None
            continue
        for step in steps:
            if not course.adopt([job for job in step(given) if job.key not in given.state]):
                missing[stage] = None
    return list(missing)


def _runner(study: Study) -> AbstractContextManager[Cluster | None]:
    """The Ray cluster of a study whose runner is "ray", else a context without one."""
    if study.runtime.runner != "ray":
        return contextlib.nullcontext()
    from flows.cluster import Cluster

    return Cluster(study.runtime)


def _with_bars(stage: str, course: Course, jobs: list[Job]) -> list[Entry]:
    """Run a stage with a bar in the terminal, which counts its datasets and shows the time left.

    Stages marked with `bar` have one in Prefect's UI too, and show rows per second if their rows are images and
    captions. jobs: those of the stage, as far as they can be listed before it runs.
    """
    from flows.artifacts import progress
    from flows.course import Outcome, is_due
    from flows.running import run_stage
    from tasks.progress import Ticking, drawn

    show, has_bar, wanted = course.runtime.progress and drawn(), STAGES[stage].bar, course.wanted(jobs)
    shown = Ticking(f"{stage:8}", len(wanted) if show else None, show=show)
    due = {job.key for job in wanted if is_due(job, course.runtime)} if has_bar else set()

    def ended(outcome: Outcome) -> None:
        if isinstance(outcome, Entry):
            due.discard(outcome.key)
        shown.step(outcome.dataset.rows if has_bar and isinstance(outcome, Entry) and not outcome.cached else 0)

    with contextlib.closing(shown), progress(course.given.study.name, stage, due, len(wanted)):
        return run_stage(stage, course, ended)


def _summary(stage: str, entries: list[Entry], seconds: float, failed: int) -> StageDone:
    tasks = [entry for entry in entries if entry.is_task]
    cached = [entry.seconds for entry in tasks if entry.cached]
    return StageDone(stage, len(tasks), len(cached), seconds, max(cached, default=0.0), failed)
