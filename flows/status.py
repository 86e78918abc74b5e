"""Whether each dataset of a study is fresh, stale or missing, and why. Only manifests are read; no task is run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from flows.config import Study
from flows.differences import differences
from flows.jobs.acquire import current_ledger
from flows.jobs.job import STEPS, Given, Job
from flows.stages import STAGES
from flows.variants import known_run, variant_of
from storage.dataset import manifest_of
from storage.errors import BadInput
from storage.runs import Entry, Key, Run, State, last_run, newest_complete, variants


class Status(NamedTuple):
    """State of one dataset of a study."""

    key: Key
    state: str  #: fresh, stale or missing
    why: str


def status(study: Study, store: Path) -> list[Status]:
    """State of every dataset of a study, in the order of the stages.

    The source is not listed again: the items that the last scan found are used.
    """
    own, last = runs_of(study, store)
    if last is None or not last.of("scan"):
        why = "the study has not run in this store" if last is None else "no run has listed the source to its end"
        return [Status(Key(stage), "missing", why) for stage in STAGES]
    before = {entry.key: entry for entry in last.entries}
    failed = {failure.key: failure for failure in own.failures} if own else {}
    given = Given(study, State(), last, store)
    given.state.add(*last.of("scan"))
    rows = []
    for stage in STAGES:
        for job in (job for step in STEPS[stage] for job in step(given)):
            dataset = job.lookup(store)
            if dataset is not None:
                given.state.add(job.entry(dataset))
                rows.append(Status(job.key, "fresh", ""))
            elif job.problem is not None:
                rows.append(Status(job.key, "missing", str(job.problem)))
            elif own is not None and job.key in failed:
                rows.append(Status(job.key, "missing", f"failed in run {own.number}: {failed[job.key].cause}"))
            else:
                rows.append(_unfinished(job, before.get(job.key), store))
        if stage == "acquire":
            given.state.add(*current_ledger(last, given.state))
    return rows


def _unfinished(job: Job, known: Entry | None, store: Path) -> Status:
    """State of a dataset that is not fresh: its folder is gone, its arguments changed, or an input is not fresh.

    `known` is the entry of the same key in the last run.
    """
    if known is None:
        return Status(job.key, "missing", "never made" if job.inputs is not None else "waits for the stages before it")
    if job.inputs is None:
        return Status(job.key, "stale", "its inputs are missing or stale")
    at = job.stage.address(**job.inputs)
    if at.path == known.dataset.path:
        return Status(job.key, "missing", f"{at.path} is gone or has lost a file")
    try:
        manifest = manifest_of(store, known.dataset)
    except BadInput:
        return Status(job.key, "stale", "made from other inputs before, and that dataset is gone")
    if manifest["version"] != at.version:
        return Status(job.key, "stale", f"version of the stage {manifest['version']} -> {at.version}")
    return Status(job.key, "stale", "changed: " + ", ".join(differences(manifest["arguments"], at.arguments)))


def runs_of(study: Study, store: Path) -> tuple[Run | None, Run | None]:
    """(newest run of the variant with the study file's configuration, the same run with entries of earlier runs added).

    If this configuration has not run, the first is None, and the second comes from the study's other variants.
    """
    variant = variant_of(store, study)
    if variant is None:
        return None, known_run(store, study)
    return last_run(store, study.name, variant), known_run(store, study, variant)


def summary(store: Path, study: Study, own: Run | None) -> list[str]:
    """Lines on the newest run of the study, its newest complete run, the run's failures, and other variants."""
    others = [name for name in variants(store, study.name) if own is None or name != own.variant]
    if own is None:
        first = "no run of this configuration" if others else "no run"
        return [first + (f"; other variants: {', '.join(others)}" if others else "")]
    lines = [str(own)]
    if not own.is_complete:
        complete = newest_complete(store, study.name, own.variant)
        lines.append(f"newest complete: {complete}" if complete else "no run is complete")
    lines += [f"failed in run {own.number}: {f.key}: {f.cause} (traceback: {f.traceback})" for f in own.failures]
    return lines + ([f"other variants: {', '.join(others)}"] if others else [])
