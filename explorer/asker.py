"""Questions in SQL, answered in a process of their own.

One that does not stop in time, or wants all memory, is ended with its process, and the explorer goes on.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path

from explorer.ask import READY, ROWS, SECONDS, Answered, TooLong
from storage.errors import BadInput

GRACE = 1.0  # seconds that an interrupted question is given to end by itself


class Asker:
    """One process over one run of a study, started anew when it was ended. Questions are answered one by one."""

    def __init__(self, store: Path, study: str, number: int, seconds: float = SECONDS, rows: int = ROWS) -> None:
        self.command = [sys.executable, "-m", "explorer.asking", str(store), study, str(number)]
        self.seconds, self.rows = seconds, rows
        self.lock = threading.Lock()
        self.process, self.ready = self._start(), False

    def ask(self, query: str) -> Answered:
        """Answer one question. Raises BadInput and TooLong as `explorer.ask.answered`."""
        with self.lock:
            if self.process.poll() is not None:
                self.process, self.ready = self._start(), False
            if not self.ready:  # the time of a question does not count the start of the process
                self.ready = self._line() == READY
            return self._asked(query)

    def _asked(self, query: str) -> Answered:
        late = threading.Event()

        def end() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(self.seconds + GRACE, end)
        timer.daemon = True
        timer.start()
        question = {"query": query, "seconds": self.seconds, "rows": self.rows}
        try:
            said = self._said(json.dumps(question))
        finally:
            timer.cancel()
        if not said:
            self.process.wait()
            self.process, self.ready = self._start(), False
            if late.is_set():
                raise TooLong(f"stopped after {self.seconds:g} s: ask for less, or use bridgescope sql")
            raise BadInput("the question ended the process that answers: it may need more memory than is given to it")
        answer = json.loads(said)
        if "error" in answer:
            raise TooLong(answer["error"]) if answer["late"] else BadInput(answer["error"])
        return Answered(**answer)

    def _said(self, line: str) -> str:
        """The next line of the process; empty when it ended."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def _start(self) -> subprocess.Popen[str]:
        # a session of its own: the Ctrl-C that ends the explorer is not for it; it ends with its input
        return subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def close(self) -> None:
        """End the process, once it has answered what it was asked."""
        with self.lock:
            self.process.kill()
            self.process.wait()
