"""The process of Prefect's embedded server, for a study that is run without `PREFECT_API_URL`.

`flows.server` starts this process and holds its standard input open. The input ends when the study has ended or was
killed; then this process ends too. It writes one JSON object per line to standard output: `note`, then `url` or
`error`.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import re
import signal
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

SECONDS_TO_END = 3.0  # the server gets this long to write its last events, then the process ends
PATIENCE = 8.0  # seconds to wait while another process holds the database's lock
REVISION = re.compile(r"""^revision\b.*=\s*["'](\w+)["']""", re.MULTILINE)  # a line of a migration's file
OTHER_FOLDER = "set the variable PREFECT_HOME to another folder"


class Unusable(Exception):
    """Prefect's embedded server cannot run here. `exit_code` is 2 when the user must change something."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def main() -> None:
    """Run the server until the parent process is gone. The parent reads the answers from standard output."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries then print to standard error, and only the answers go to standard output
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        from prefect.settings import PREFECT_API_URL, get_current_settings

        if PREFECT_API_URL.value() is not None:
            tell(answers, url=None)  # the active profile of Prefect names another server
            return
        settings = get_current_settings()
        url = settings.server.database.connection_url
        database = sqlite_file(url.get_secret_value() if url else "")
        check_home(settings.home)
        with one_migration(database, answers) as started:
            check_database(database)
            serve(answers, started)
    except Unusable as error:
        tell(answers, error=str(error), exit_code=error.exit_code)
    except Exception as error:
        tell(answers, error=f"Prefect's embedded server does not start: {type(error).__name__}: {error}", exit_code=1)
        raise


def tell(answers: TextIO, **message: Any) -> None:
    """Write one answer. Does nothing when the parent process is gone."""
    with contextlib.suppress(BrokenPipeError):
        answers.write(json.dumps(message) + "\n")


def _end_with_the_parent() -> None:
    """Wait until standard input ends, then end this process: first by SIGTERM, so that events are written."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SECONDS_TO_END)
    os._exit(1)


def sqlite_file(url: str) -> Path | None:
    """Path of the SQLite file of a connection URL; None for a database of another kind or in memory."""
    kind, _, path = url.partition(":///")
    path = path.partition("?")[0]
    return Path(path).absolute() if kind.startswith("sqlite") and path and ":memory:" not in path else None


def check_home(home: Path) -> None:
    """Raise Unusable when nothing can be written to the folder PREFECT_HOME."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=home).close()
    except OSError as error:
        raise Unusable(
            f"Prefect's folder {home} cannot be written ({error.strerror}): {OTHER_FOLDER}, which this user may write"
        ) from error


def check_database(database: Path | None, patience: float = PATIENCE) -> None:
    """Raise Unusable when Prefect's SQLite file is locked, damaged, read-only or of another version of Prefect.

    Without this check the server retries for minutes and prints a traceback each time. A file that is locked for less
    than `patience` seconds passes.
    """
    if database is None or not database.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=patience)) as con:
            con.execute("BEGIN IMMEDIATE")
            revision = _revision(con)
            con.rollback()
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise Unusable(
                f"Prefect's database {database} is locked by another process: wait for it, or {OTHER_FOLDER}", 1
            ) from error
        raise Unusable(f"Prefect's database {database} cannot be used ({error}): {OTHER_FOLDER}") from error
    if revision is not None and revision not in migrations():
        import prefect

        raise Unusable(
            f"Prefect's database {database} is of another version of Prefect (its revision {revision} is unknown to "
            f"Prefect {prefect.__version__}): {OTHER_FOLDER}"
        )


def _revision(con: sqlite3.Connection) -> str | None:
    """Revision of the database's tables, or None for a database without them."""
    if con.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone() is None:
        return None
    row = con.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None


def migrations() -> list[str]:
    """The revisions that this version of Prefect knows for SQLite, in the order of their files: the oldest first."""
    found = importlib.util.find_spec("prefect")
    assert found is not None
    assert found.submodule_search_locations is not None
    folder = Path(found.submodule_search_locations[0]) / "server" / "database" / "_migrations" / "versions" / "sqlite"
    texts = (path.read_text(encoding="utf-8") for path in sorted(folder.glob("[0-9]*.py")))
    return [match[1] for text in texts if (match := REVISION.search(text))]


@contextlib.contextmanager
def one_migration(database: Path | None, answers: TextIO) -> Iterator[Callable[[], None]]:
    """Hold a lock while the tables of the database are made or migrated. Yields a function that releases the lock.

    Without the lock, two processes could migrate the database at the same time, and fail since both make the same
    tables. No lock is held when the tables are up to date.
    """
    with contextlib.ExitStack() as held:
        if database is not None and not _is_current(database):
            lock = held.enter_context(open(database.with_name(f"{database.name}.bridgescope.lock"), "w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(answers, note=f"waiting for another process, which is making Prefect's database {database}")
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield held.close


def _is_current(database: Path) -> bool:
    """Whether the tables are those of the newest migration. False when the database cannot be read."""
    try:
        with contextlib.closing(sqlite3.connect(database.as_uri() + "?mode=ro", uri=True, timeout=1)) as con:
            revision = _revision(con)
    except sqlite3.Error:
        return False
    return revision is not None and revision == migrations()[-1]


def serve(answers: TextIO, started: Callable[[], None]) -> None:
    """Run Prefect's server on a free port of loopback. Once it answers, write its address and call `started`."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started()
            host, port = listener.getsockname()
            tell(answers, url=f"http://{host}:{port}/api")

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config("prefect.server.api.server:create_app", factory=True, log_level="error", lifespan="on")
        Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
