"""Ctrl-C and SIGTERM while a study runs: the prompt is back within seconds, and no process is left behind.

Python calls the handler of a signal only between two steps of the main thread, which may be in a long computation. So
a thread reads each signal as it arrives, and ends the process when the main thread has not ended it in time.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from flows import server

SECONDS_TO_END = 2.0  # time to record the run as interrupted and to tell the server
ONE_PRESS = 0.3  # seconds after the first signal in which another SIGINT counts as the same press of Ctrl-C
INTERRUPTED = "interrupted: run the same command again to go on"
PREFECT_SERVICES = "prefect._internal.concurrency"  # the logger of the threads that send events and logs to the server
ENDING = (signal.SIGINT, signal.SIGTERM)


def _none(record: logging.LogRecord) -> bool:
    """A filter that no record passes."""
    return False


class Ended(KeyboardInterrupt):
    """Raised in the main thread when a signal ends the study, so that the run is recorded as interrupted."""


class _Arrivals:
    """The signals of one command, read by a thread from the socket into which Python writes them as they arrive."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.one = threading.Lock()  # only one thread ends the process; it never releases the lock
        self.reading, self.writing = socket.socketpair()
        self.writing.setblocking(False)

    def watch(self) -> None:
        """Wait for the first signal. Then end the process after SECONDS_TO_END, or sooner when Ctrl-C comes again."""
        if (first := self._next(None)) is None:
            return
        self._begin(first)
        arrived = time.monotonic()
        # A repeated signal need not come from the user: Prefect passes SIGTERM on to this process, and `timeout` sends
        # each signal twice at once. Neither ends the wait.
        while (again := self._next(arrived + SECONDS_TO_END)) is not None:
            if again == signal.SIGINT and time.monotonic() > arrived + ONE_PRESS:
                break
        self.end_now()

    def _next(self, end: float | None) -> int | None:
        """The next SIGINT or SIGTERM; None when the socket is closed, or when no signal arrives before `end`."""
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not select.select([self.reading], [], [], left)[0]:
                return None
            data = self.reading.recv(1)
            if not data or data[0] in ENDING:
                return data[0] if data else None

    def _begin(self, signum: int) -> None:
        """Record the first signal. Prefect's services, which the end of the run stops, then log no failure.

        Their logger is of a class of Prefect that asks neither for its level nor whether logging is disabled, only for
        filters.
        """
        self.first = self.first or signum
        logging.getLogger(PREFECT_SERVICES).addFilter(_none)

    def raise_(self, signum: int, frame: FrameType | None) -> None:
        """Handler of the signals, which Python calls in the main thread. Raises Ended."""
        self._begin(signum)
        raise Ended(signal.Signals(signum).name)

    @staticmethod
    def unraisable(found: sys.UnraisableHookArgs) -> None:
        """Hook for exceptions that Python cannot raise. It prints none that the handler of a signal raised.

        A signal may arrive while Python runs a finalizer, where Python prints and drops the exception of the handler.
        The thread that watches the signals then ends the process.
        """
        if found.exc_type.__name__ not in ("Ended", "TerminationSignal"):  # the second is that of Prefect's own handler
            sys.__unraisablehook__(found)

    def end_now(self) -> None:
        """End this process, its child processes and Prefect's embedded server at once. Finished datasets are kept."""
        with self.one:
            print(INTERRUPTED, file=sys.stderr, flush=True)
            sys.stdout.flush()
            logging.disable()  # threads that wait for the child processes would log that these ended
            for child in multiprocessing.active_children():
                child.kill()
            server.kill()
            os._exit(128 + (self.first or signal.SIGINT))


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """End the process on SIGINT and on SIGTERM.

    The signal raises Ended in the block. If that does not end the process within 2 s, or if Ctrl-C comes again, a
    thread ends it. The exit code is the one that shells report for a process ended by a signal, 130 or 143. After such
    a signal any exception ends the process as Ended does, since the signal may have caused it. Prefect, which would go
    on sending its events, is not waited for. Outside the main thread, where Python handles no signals, the context
    does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrivals = _Arrivals()
    before = [(signum, signal.signal(signum, arrivals.raise_)) for signum in ENDING]
    wakeup_before = signal.set_wakeup_fd(arrivals.writing.fileno(), warn_on_full_buffer=False)
    hook_before, sys.unraisablehook = sys.unraisablehook, arrivals.unraisable
    threading.Thread(target=arrivals.watch, daemon=True, name="signals").start()
    try:
        yield
    except BaseException:
        if arrivals.first is not None:
            for signum in ENDING:
                signal.signal(signum, signal.SIG_IGN)
            arrivals.end_now()
        raise
    finally:
        sys.unraisablehook = hook_before
        signal.set_wakeup_fd(wakeup_before)
        for signum, handler in before:
            signal.signal(signum, handler)
        arrivals.writing.close()
