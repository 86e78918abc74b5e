"""Whether each dataset of a study is fresh, stale or missing, and why. Only manifests are read: no task, no server."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from flows.config import Study
from flows.jobs import STEPS, Given, Job
from flows.stages import STAGES
from storage.dataset import manifest_of
from storage.errors import BadInput
from storage.runs import Entry, Key, Run, State, last_run


class Status(NamedTuple):
    """State of one dataset of a study."""

    key: Key
    state: str  #: fresh, stale or missing
    why: str


def status(study: Study, store: Path) -> list[Status]:
    """State of every dataset of a study, in the order of the stages.

    The source is not listed again: its items are those that the last scan found.
    """
    last = last_run(store, study.name)
    if last is None:
        return [Status(Key(stage), "missing", "the study has not run in this store") for stage in STAGES]
    before = {entry.key: entry for entry in last.entries}
    given = Given(study, State(), last, store)
    given.state.add(*last.of("scan"), *last.of("ledger"))
    rows = []
    for job in (job for stage in STAGES for step in STEPS[stage] for job in step(given)):
        dataset = job.lookup(store)
        if dataset is not None:
            given.state.add(job.entry(dataset))
            rows.append(Status(job.key, "fresh", ""))
        else:
            rows.append(_unfinished(job, before.get(job.key), store))
    return rows


def _unfinished(job: Job, known: Entry | None, store: Path) -> Status:
    """State of a dataset that is not fresh: its folder is gone, its arguments changed, or an input is not fresh.

    `known` is the entry of the same key in the last run.
    """
    if known is None:
        return Status(job.key, "missing", "never made" if job.inputs is not None else "waits for the stages before it")
    if job.inputs is None:
        return Status(job.key, "stale", "what it is made from is missing or stale")
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


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    """List where two JSON values differ, as `key old -> new`. Items of a list are matched by name where they have one.

    For datasets and lists only the key is given, without the values.
    """
    old, new = _by_name(old), _by_name(new)
    if isinstance(old, dict) and isinstance(new, dict) and "digest" not in old:
        lines = []
        for key in sorted(old.keys() | new.keys()):
            lines += differences(old.get(key), new.get(key), f"{place}.{key}" if place else str(key))
        return lines
    if old == new:
        return []
    if isinstance(old, (dict, list)) or isinstance(new, (dict, list)):
        return [place]
    return [f"{place} {old} -> {new}"]


def _by_name(value: Any) -> Any:
    """Turn a list of dicts that all have a 'name' into {name: dict}. Any other value is returned unchanged."""
    named = isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value)
    return {item["name"]: item for item in value} if named else value


def summary(run: Run | None) -> str:
    """Number and start of the newest run."""
    return f"run {run.number} of {run.started}" if run else "no run"
