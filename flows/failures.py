"""Failures of the surroundings (disk, server, database) as a sentence: what happened, where, and what to do."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

# What the text of an error says, whichever library raised it: (mark, sentence).
SURROUNDINGS = (
    ("No space left on device", "the disk of the store is full: free some space (bridgescope gc)"),
    ("Disk quota exceeded", "the quota of the store's disk is used up: free some space (bridgescope gc)"),
    ("File too large", "a file of the store may not grow any more (a limit of this process, or of its disk)"),
    ("Read-only file system", "the store can be read only: mount it for writing"),
    ("Permission denied", "the store may not be written by this user"),
    ("database is locked", "Prefect's database is locked by another process: wait for it, or use a server of its own"),
    ("Failed to reach API", "{server} does not answer: start it (make server), or unset PREFECT_API_URL to go without"),
    ("All connection attempts failed", "{server} does not answer any more: start it again (make server)"),
    (
        "Timed out while attempting to connect",
        "Prefect's own server did not start in time: run it again",
    ),
)


class DatabaseLocked(RuntimeError):
    """Another process holds the database of Prefect's own server."""


def check_database(url: str, patience: float = 15.0) -> None:
    """Raise DatabaseLocked when the SQLite file of a connection URL stays locked for so many seconds.

    Prefect's own server would try for minutes, with a traceback each time. Other databases are not looked at.
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
    """The sentence for an error that the surroundings caused, or None. Looks at its causes too."""
    texts = [f"{link}" for link in chain(error)]
    for mark, sentence in SURROUNDINGS:
        for text in texts:
            if mark.lower() in text.lower():
                server = f"the Prefect server {os.environ.get('PREFECT_API_URL', '')}".rstrip()
                return f"{sentence.format(server=server)} ({text.splitlines()[0]})"
    return None


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what caused it, and so on."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
