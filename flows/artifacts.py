"""Artifacts in Prefect's UI: one table per stage, progress bars, and the headline results of a run.

The artifacts are for the operator only and change no dataset.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import polars as pl
from httpx import HTTPError
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException

from flows.results import results
from storage.runs import Entry, Key, Run

log = logging.getLogger("bridgescope")

ROWS = 200  # maximum number of rows of a table; Prefect stores a whole table in one row of its database
EVERY = 2.0  # seconds between two updates of a progress bar


def stage_table(store: Path, study: str, stage: str, entries: list[Entry], seconds: float) -> None:
    """Publish a table of a stage's datasets, with their rows and rows per second.

    For the stage acquire, the table also lists why items were lost.
    """
    tasks = _tasks(entries)
    made_first = sorted(tasks, key=lambda entry: entry.cached)
    table = [_row(entry) for entry in made_first[:ROWS]]
    table += [_cause(cause, count) for cause, count in _causes(store, entries).items()]
    more = f"; the first {ROWS} are shown" if len(tasks) > ROWS else ""
    create_table_artifact(
        table, key=_key(study, stage), description=f"**{study}: {stage}**: {news(entries)}, {seconds:.1f} s{more}"
    )


def news(entries: list[Entry]) -> str:
    """How many datasets were made and how many were cached. Begins with "nothing new" when all were cached."""
    tasks = _tasks(entries)
    made = sum(not entry.cached for entry in tasks)
    return f"{made} made, {len(tasks) - made} cached" if made else f"nothing new: {len(tasks)} cached"


def _tasks(entries: list[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.is_task]


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "what": str(entry.key),
        "state": "cached" if entry.cached else "made",
        "rows": entry.dataset.rows,
        "seconds": round(entry.seconds, 2),
        "rows per second": round(entry.dataset.rows / entry.seconds) if entry.seconds and not entry.cached else None,
        "fingerprint": entry.dataset.recipe,
    }


def _causes(store: Path, entries: list[Entry]) -> dict[str, int]:
    """{cause of loss: number of items that the ledger lists with this cause}, the most frequent cause first."""
    ledgers = [store / entry.dataset.path / "ledger.parquet" for entry in entries if entry.kind == "ledger"]
    if not ledgers:
        return {}
    counts = pl.read_parquet(ledgers[0], glob=False)["cause"].value_counts(sort=True)
    return dict(counts.iter_rows())


def _cause(cause: str, count: int) -> dict[str, Any]:
    empty = {"seconds": None, "rows per second": None, "fingerprint": None}
    return {"what": f"left out: {cause}", "state": "ledger", "rows": count, **empty}


def report_page(store: Path, run: Run, entries: list[Entry]) -> None:
    """Publish a summary of a run: how many of `entries` it made, the path of its page, and its headline results.

    A run without a page gets no summary.
    """
    if not run.of("report"):
        return
    page = store / "report" / run.study / "index.html"
    text = f"# {run.study}, run {run.number}\n\n{news(entries)}\n\nThe page: `{page}`\n"
    if run.of("analyze"):
        text += f"\n```\n{results(store, run)}\n```\n"
    create_markdown_artifact(text, key=_key(run.study, "results"), description=f"{run.study}: {news(entries)}")


@contextlib.contextmanager
def progress(study: str, stage: str, due: Set[Key], total: int) -> Iterator[None]:
    """Show a progress bar in Prefect's UI while the block runs, unless nothing is due.

    due: the keys of the `total` jobs whose datasets are missing. The caller takes a key out when its dataset is
    complete, so that the bar of a stage whose jobs failed ends below 100 %. It is read every two seconds, in a thread.
    """
    if not due:
        yield
        return

    def share() -> float:
        return 100 * (total - len(due)) / total

    at = share()
    artifact = cast(
        UUID,  # the declared type also allows the awaitable that an asynchronous flow gets
        create_progress_artifact(at, key=_key(study, f"{stage}-progress"), description=f"{study}: datasets of {stage}"),
    )
    stop = threading.Event()

    def watch() -> None:
        shown = at
        while not stop.wait(EVERY):
            if (now := share()) == shown:
                continue
            try:
                update_progress_artifact(artifact, now)
            except (HTTPError, PrefectException) as error:  # not raised: without a server, the stage fails too
                log.warning("the progress bar of %s is no longer updated: %s", stage, error)
                return
            shown = now

    watcher = threading.Thread(target=contextvars.copy_context().run, args=(watch,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
    update_progress_artifact(artifact, share())


def _key(study: str, artifact: str) -> str:
    """Key of an artifact: lower-case letters, digits and dashes only, as Prefect requires."""
    return "".join(letter if letter.isalnum() else "-" for letter in f"{study}-{artifact}")
