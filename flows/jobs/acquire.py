"""The jobs of the stage acquire: the shards of pairs."""

from __future__ import annotations

from flows.jobs.job import Given, Job, step_of
from storage.duplicates import digest_of_duplicates, read_duplicates
from storage.runs import Entry, Key, Run, State
from storage.sources.section import rules_of, source_of
from tasks.acquire import distinct, duplicates, fetch


@step_of("acquire")
def fetches(given: Given) -> list[Job]:
    """One job per listing of the scan. It makes a shard of pairs.

    If the study drops duplicates, this shard still contains them. Its kind is then `fetch` instead of `acquire`.
    """
    pairs = given.study.pairs
    kind = "acquire" if pairs.duplicates == "keep" else "fetch"
    source, rules = source_of(pairs), rules_of(pairs)
    return [
        Job(Key(kind, shard=e.shard), fetch, {"listing": e.dataset, "source": source, "rules": rules})
        for e in given.state.of("scan")
    ]


@step_of("acquire")
def duplicate_tables(given: Given) -> list[Job]:
    """One job for the table of duplicates, if the study drops duplicates."""
    if given.study.pairs.duplicates == "keep":
        return []
    fetched = [e.dataset for e in given.state.of("fetch")]
    whole = 0 < len(fetched) == len(given.state.of("scan"))
    return [Job(Key("duplicates"), duplicates, {"pairs": fetched} if whole else None)]


@step_of("acquire")
def distinct_pairs(given: Given) -> list[Job]:
    """One job per shard, if the study drops duplicates. It makes the shard without its duplicates."""
    table = given.state.dataset("duplicates")
    found = read_duplicates(given.store, table) if table and not table.is_planned else {}
    jobs = []
    for e in given.state.of("fetch"):
        dropped = digest_of_duplicates(found.get(e.dataset.digest, {}))
        inputs = {"pairs": e.dataset, "dropped": dropped, "table": table} if table else None
        jobs.append(Job(Key("acquire", shard=e.shard), distinct, inputs))
    return jobs


def current_ledger(last: Run, state: State) -> list[Entry]:
    """The ledger of the last run, and its labels if it has any, if the ledger was written for the shards of `state`.

    Runs of version 0.1 do not record the shards of a ledger.
    """
    shards = {entry.dataset.path for entry in state.of("acquire")}
    ledger = [entry for entry in last.of("ledger") if {handle.path for handle in entry.inputs} in (set(), shards)]
    return [*ledger, *last.of("labels")] if ledger else []
