"""What an operator sees of a run in Prefect's UI: a table a stage, a bar while something is made, the report's figures.

Nothing here decides anything: a study is the same without it.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
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
from storage.runs import Entry, Run

log = logging.getLogger("bridgescope")

ROWS = 200  # of a table: an operator reads no more, and an artifact is one row of the server's database
EVERY = 2.0  # seconds between two looks at how far a stage is


def stage_table(store: Path, study: str, stage: str, made: list[Entry], seconds: float) -> None:
    """The datasets of a stage, their rows and rates; for acquire also why items were left out."""
    tasks = _tasks(made)
    fresh = [entry for entry in tasks if not entry.cached]
    table = [_row(entry) for entry in (*fresh, *(entry for entry in tasks if entry.cached))][:ROWS]
    table += [_cause(cause, count) for cause, count in _causes(store, made).items()]
    more = f"; the first {ROWS} are shown" if len(tasks) > ROWS else ""
    create_table_artifact(
        table, key=_key(study, stage), description=f"**{study}: {stage}**: {news(made)}, {seconds:.1f} s{more}"
    )


def news(entries: list[Entry]) -> str:
    """How many datasets were made and how many found: what a night with nothing new says."""
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


def _causes(store: Path, made: list[Entry]) -> dict[str, int]:
    """How many items a study does not get, by cause, the most frequent first."""
    ledgers = [store / entry.dataset.path / "ledger.parquet" for entry in made if entry.kind == "ledger"]
    if not ledgers:
        return {}
    counts = pl.read_parquet(ledgers[0])["cause"].value_counts(sort=True)
    return dict(counts.iter_rows())


def _cause(cause: str, count: int) -> dict[str, Any]:
    empty = {"seconds": None, "rows per second": None, "fingerprint": None}
    return {"what": f"left out: {cause}", "state": "ledger", "rows": count, **empty}


def report_page(store: Path, run: Run, entries: list[Entry]) -> None:
    """What a run did, `entries`, its headline figures, and where its page lies."""
    if not run.of("report"):
        return
    page = store / "report" / run.study / "index.html"
    text = f"# {run.study}, run {run.number}\n\n{news(entries)}\n\nThe page: `{page}`\n"
    if run.of("analyze"):
        text += f"\n```\n{results(store, run)}\n```\n"
    create_markdown_artifact(text, key=_key(run.study, "results"), description=f"{run.study}: {news(entries)}")


@contextlib.contextmanager
def progress(study: str, stage: str, done: Callable[[], int], total: int) -> Iterator[None]:
    """A bar for a stage that has something to make: `done` of `total` datasets, looked at every two seconds."""
    at = done()
    if at == total:
        yield
        return
    artifact = cast(
        UUID,  # in a synchronous flow; its type leaves room for asynchronous ones
        create_progress_artifact(
            100 * at / total, key=_key(study, f"{stage}-progress"), description=f"{study}: datasets of {stage}"
        ),
    )
    stop = threading.Event()

    def watch() -> None:
        shown = at
        while not stop.wait(EVERY):
            if (now := done()) == shown:
                continue
            try:
                update_progress_artifact(artifact, 100 * now / total)
            except (HTTPError, PrefectException) as error:  # the stage goes on, and says itself if the server is gone
                log.warning("the progress of %s is not shown any more: %s", stage, error)
                return
            shown = now

    watcher = threading.Thread(target=contextvars.copy_context().run, args=(watch,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
    update_progress_artifact(artifact, 100.0)


def _key(study: str, what: str) -> str:
    """Prefect's keys hold lower-case letters, digits and dashes only."""
    return "".join(letter if letter.isalnum() else "-" for letter in f"{study}-{what}")
