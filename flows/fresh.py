"""Find out without Prefect whether a study has nothing to do: scan its source and look up its datasets."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from flows.config import Study
from flows.jobs.job import STEPS, Given, Job
from flows.stages import STAGES
from storage import failures
from storage.listing import Scan, write_labels, write_ledger
from storage.pairs import read_failures
from storage.runs import Entry, Run, State
from storage.sources.section import source_of
from tasks.acquire import scan
from tasks.stage import Runtime


class Ahead(NamedTuple):
    """What is known before a study is run: the scan of its source, and its datasets when all are complete."""

    scanned: Scan
    state: State | None  #: every dataset of the study, when all are complete; else None


def nothing_to_do(study: Study, store: Path, last: Run | None) -> State | None:
    """Return the entries of a study when every dataset is complete and the source is unchanged, else None.

    Each dataset is marked as in use, so call this while a lease is held. `last` is the newest run of the study. Raises
    BadInput or SourceError for a source that cannot be listed, and TooFewPairs when too few of its items were acquired.
    """
    return look_ahead(study, store, last).state


def look_ahead(study: Study, store: Path, last: Run | None) -> Ahead:
    """Like `nothing_to_do`, and also return the scan of the source, which the stage acquire can then use."""
    scanned = scan(source_of(study.pairs), study.pairs.shard_size, Runtime(store=store, progress=False))
    given = Given(study, State(), last, store)
    for shard, listing in enumerate(scanned.listings):
        given.state.add(Entry(kind="scan", shard=shard, dataset=listing))
    fresh = last is not None and _acquired(given, scanned) and _all_complete(given)
    return Ahead(scanned, given.state if fresh else None)


def _acquired(given: Given, scanned: Scan) -> bool:
    """Add the shards of pairs and the ledger to the state. Returns False when one is missing or a retry is due."""
    pairs, store = given.study.pairs, given.store
    if not _complete(given, [job for step in STEPS["acquire"] for job in step(given)]):
        return False
    shards = [entry.dataset for entry in given.state.of("acquire")]
    if failures.is_retry_due(store, scanned.source, shards, pairs.retry_after):
        return False
    ledger = write_ledger(store, scanned.dropped, read_failures(store, shards))
    if given.last is None or [entry.dataset for entry in given.last.of("ledger")] != [ledger]:
        return False
    labels = write_labels(store, scanned.labels)
    if [entry.dataset for entry in given.last.of("labels")] != ([] if labels is None else [labels]):
        return False
    given.state.add(Entry(kind="ledger", dataset=ledger, inputs=shards))
    given.state.add(*given.last.of("labels"))
    failures.tally(store, shards).check(pairs.min_success)
    return True


def _all_complete(given: Given) -> bool:
    """Add the datasets of all stages after acquire to the state. Returns False at the first one that is missing."""
    stages = [stage for stage in STAGES if stage != "acquire"]
    return all(_complete(given, step(given)) for stage in stages for step in STEPS[stage])


def _complete(given: Given, jobs: list[Job]) -> bool:
    """Add the datasets of these jobs to the state. Returns False at the first one that is missing."""
    for job in jobs:
        dataset = job.stage.adopt(given.store, **job.inputs) if job.inputs is not None else None
        if dataset is None:
            return False
        given.state.add(job.entry(dataset, cached=True))
    return True
