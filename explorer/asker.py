"""Run SQL in a separate process.

A query that does not stop in time, or takes all memory, is ended together with its process. The explorer goes on.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from explorer.ask import READY, ROWS, SECONDS, Answered, Packed, TooLong
from storage.errors import BadInput

GRACE = 1.0  # seconds between the interruption of a query and the end of its process


class Asker:
    """A process that answers SQL over one run of a study, one query at a time. If it ends, it is started again."""

    def __init__(self, store: Path, study: str, number: int, seconds: float = SECONDS, rows: int = ROWS) -> None:
        self.command = [sys.executable, "-m", "explorer.asking", str(store), study, str(number)]
        self.seconds, self.rows = seconds, rows
        self.lock = threading.Lock()
        self.process, self.ready = self._start(), False

    def ask(self, query: str, rows: int | None = None) -> Answered:
        """Answer one query with up to `rows` rows (None: as many as the asker was made for).

        Raises BadInput and TooLong as `explorer.ask.answered` does.
        """
        return Answered(**self._answer(query, "rows", rows))

    def parquet(self, query: str) -> Packed:
        """Answer one query with a Parquet file. Raises as `ask` does."""
        return Packed(**self._answer(query, "parquet", None))

    def _answer(self, query: str, form: str, rows: int | None) -> dict[str, Any]:
        with self.lock:
            if self.process.poll() is not None:
                self.process, self.ready = self._start(), False
            if not self.ready:  # the time limit of a query does not include the start of the process
                self.ready = self._line() == READY
            return self._asked(query, form, self.rows if rows is None else rows)

    def _asked(self, query: str, form: str, rows: int) -> dict[str, Any]:
        late = threading.Event()

        def end() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(self.seconds + GRACE, end)
        timer.daemon = True
        timer.start()
        request = {"query": query, "form": form, "seconds": self.seconds, "rows": rows}
        try:
            reply = self._exchange(json.dumps(request))
        finally:
            timer.cancel()
        if not reply:
            self._end()
            self.process, self.ready = self._start(), False
            if late.is_set():
                raise TooLong(f"stopped after {self.seconds:g} s: ask for less, or use bridgescope sql")
            raise BadInput(
                "the query ended the process that answers queries: it may need more memory than is available"
            )
        answer: dict[str, Any] = json.loads(reply)
        if "error" in answer:
            raise TooLong(answer["error"]) if answer["late"] else BadInput(answer["error"])
        return answer

    def _exchange(self, line: str) -> str:
        """Send a line to the process and return its next line; empty when the process ended."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def _start(self) -> subprocess.Popen[str]:
        # Ctrl-C does not reach the process, which has a separate session. It ends when the explorer closes its input.
        return subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def close(self) -> None:
        """End the process, after the answer to the current query."""
        with self.lock:
            self.process.kill()
            self._end()

    def _end(self) -> None:
        """Wait for the process, which is about to end, and close the files through which it was asked."""
        with contextlib.suppress(BrokenPipeError), self.process:
            pass  # leaving the context closes both files and waits
