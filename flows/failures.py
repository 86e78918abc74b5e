"""Sentences for failures of the disk, the Prefect server and its database: what happened, where, and what to do."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

# (part of an error's text, sentence to print). The text is the same whichever library raises the error.
SURROUNDINGS = (
    ("No space left on device", "the disk of the store is full: free some space (bridgescope gc)"),
    ("Disk quota exceeded", "the quota of the store's disk is used up: free some space (bridgescope gc)"),
    ("File too large", "a file of the store may not grow any more (a limit of this process, or of its disk)"),
    ("Read-only file system", "the store is read-only: mount it for writing"),
    ("Permission denied", "this user may not write to the store"),
    ("database is locked", "Prefect's database is locked by another process: wait for it, or use another server"),
    ("Failed to reach API", "{server} does not answer: start it (make server), or unset PREFECT_API_URL to go without"),
    ("All connection attempts failed", "{server} does not answer any more: start it again (make server)"),
    (
        "Timed out while attempting to connect",
        "Prefect's own server did not start in time: run it again",
    ),
)


class DatabaseLocked(RuntimeError):
    """Another process has locked the database of Prefect's own server."""


def check_database(url: str, patience: float = 15.0) -> None:
    """Raise DatabaseLocked when the SQLite file of a connection URL stays locked for `patience` seconds.

    Without this check Prefect's own server retries for minutes and prints a traceback each time. URLs of other
    databases are not checked.
    """
    kind, _, path = url.partition(":///")
    if not kind.startswith("sqlite") or not Path(path).is_file():
        return
    with contextlib.closing(sqlite3.connect(path, timeout=patience)) as con:
        try:
            con.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise DatabaseLocked(f"{error}: {path}") from error
        con.rollback()


def explained(error: BaseException) -> str | None:
    """Return the sentence of `SURROUNDINGS` for an error or one of its causes, or None when no sentence fits."""
    texts = [f"{link}" for link in chain(error)]
    for mark, sentence in SURROUNDINGS:
        for text in texts:
            if mark.lower() in text.lower():
                server = f"the Prefect server {os.environ.get('PREFECT_API_URL', '')}".rstrip()
                return f"{sentence.format(server=server)} ({text.splitlines()[0]})"
    return None


def sentence_of(error: BaseException) -> str:
    """One sentence for an error: that of `explained`, else its text, after its class unless it is bad input."""
    if getattr(error, "exit_code", 1) == 2:
        return str(error)
    return explained(error) or f"{type(error).__name__}: {error}"


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the chain of its causes."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
