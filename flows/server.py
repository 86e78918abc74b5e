"""Prefect's embedded server, which runs as long as this process, and Prefect's settings for a study.

Prefect itself is imported when a study is run, not before.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import re
import select
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

LOOPBACK = ("127.0.0.1", "localhost", "::1")
START_SECONDS = 120.0  # seconds to wait; on a busy machine the server's first start takes half a minute
STOP_SECONDS = 3.0
#: texts in errors of a database whose tables do not fit the revision that it states
OTHER_TABLES = ("already exists", "duplicate column", "no such table", "no such column", "locate revision")
SERVER_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    # By default Prefect commits once per task-run event, or once per 20 events. Such a commit locks SQLite, and a
    # sub-flow that meets the lock waits 2 s.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "1000",
}

log = logging.getLogger("bridgescope")


class ServerFailed(RuntimeError):
    """Prefect's embedded server cannot run. `exit_code` is 2 when the user must change something, else 1."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Server:
    """Prefect's embedded server in a session of its own, so that Ctrl-C in a terminal does not reach it.

    The server ends when its standard input ends: when `stop` closes it, or when this process ends for any reason.
    """

    def __init__(self) -> None:
        own = os.environ.get("PREFECT_LOGGING_LEVEL", "CRITICAL") == "CRITICAL"
        self.errors: IO[bytes] | None = tempfile.TemporaryFile() if own else None  # noqa: SIM115 (open as long as self)
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("embedded.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, **_settings_in_use(), **SERVER_SETTINGS},
            start_new_session=True,
        )
        self.url: str | None = None
        self.ready = False
        atexit.register(self.stop)

    @property
    def alive(self) -> bool:
        """Whether the process runs, or has said that the user's profile names another server."""
        return self.process.poll() is None or (self.ready and self.url is None)

    def wait(self) -> str | None:
        """Wait until the server answers, and return its address; None when the active profile names another server.

        Raises ServerFailed with the cause when it does not start.
        """
        end = time.monotonic() + START_SECONDS
        while not self.ready:
            answer = self._answer(end)
            if "note" in answer:
                log.info("%s", answer["note"])
            elif "error" in answer:
                self.stop()
                raise ServerFailed(answer["error"], answer["exit_code"])
            else:
                self.url, self.ready = answer["url"], True
        return self.url

    def _answer(self, end: float) -> dict[str, Any]:
        """The next line that the process writes. Raises ServerFailed when it ends or writes no line before `end`."""
        assert self.process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                self.stop()
                raise ServerFailed(f"Prefect's embedded server does not answer after {START_SECONDS:.0f} s")
            part = os.read(self.process.stdout.fileno(), 1)
            if not part:
                raise self._failed_as_it_started()
            line += part
        return dict(json.loads(line))

    def _failed_as_it_started(self) -> ServerFailed:
        words = self._last_words()
        if any(mark in words for mark in OTHER_TABLES):
            return ServerFailed(
                f"the tables of Prefect's database are of another version of Prefect ({words}): set the variable "
                "PREFECT_HOME to another folder",
                2,
            )
        return ServerFailed(f"Prefect's embedded server ended as it started: {words}")

    def _last_words(self) -> str:
        """The last error that the process printed. If it printed none, its exit code."""
        code = self.process.wait()
        if self.errors is not None:
            self.errors.seek(0)
            printed = self.errors.read().decode(errors="replace")
            errors = re.findall(r"^[\w.]*(?:Error|Exception)\b.*$", printed, re.MULTILINE)
            if errors:
                return str(errors[-1]).strip()
        return f"exit code {code}"

    def stop(self) -> None:
        """End the process by closing its standard input. If it takes too long to end, it gets SIGKILL."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.wait()


_server: Server | None = None  # studies that this process runs one after another share one server


def begin() -> None:
    """Start Prefect's embedded server in the background, unless it runs already or another server is named.

    Call this as soon as it is known that a study has work: the start takes seconds, and the caller need not wait.
    """
    global _server
    reach_loopback()
    os.environ.setdefault("DO_NOT_TRACK", "1")  # else Prefect reports usage, and prints a notice of it in a terminal
    # The server's process reports this failure in a sentence. In this process Prefect need not warn of it too.
    warnings.filterwarnings("ignore", message="Failed to create the Prefect home directory")
    if deployed() or _named() is not None or (_server is not None and _server.alive):
        return
    _server = Server()


def kill() -> None:
    """End Prefect's embedded server at once, if there is one."""
    if _server is not None:
        _server.kill()


def own_url() -> str | None:
    """Address of Prefect's embedded server, or None while a study uses another server or none."""
    return _server.url if _server is not None and _server.alive else None


def reach_loopback() -> None:
    """Exempt connections to this machine from any proxy that the environment names."""
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    known = [host.strip() for host in named.split(",") if host.strip()]
    if "*" not in known:
        hosts = ",".join(dict.fromkeys([*known, *LOOPBACK]))
        os.environ.update(no_proxy=hosts, NO_PROXY=hosts)


def deployed() -> bool:
    """Return True inside a flow of `flows.deployed`, whose operator reads Prefect's UI and not a terminal."""
    context = sys.modules.get("prefect.context")
    return context is not None and context.FlowRunContext.get() is not None


def _named() -> str | None:
    """Address of the server that the environment or Prefect's settings name, or None. Does not import Prefect."""
    if "prefect.settings" in sys.modules:
        return sys.modules["prefect.settings"].PREFECT_API_URL.value()
    return os.environ.get("PREFECT_API_URL") or None


def _settings_in_use() -> dict[str, str]:
    """Prefect's settings of this process as environment variables. Empty until Prefect is imported."""
    if "prefect.settings" not in sys.modules:
        return {}
    in_use = sys.modules["prefect.settings"].get_current_settings()
    return dict(in_use.to_environment_variables(exclude_unset=True))


@contextlib.contextmanager
def prefect_ready() -> Iterator[None]:
    """Wait for Prefect's server, and set Prefect up for a study: no telemetry, no heartbeat, no log lines.

    A flow of `flows.deployed` keeps its log lines. Raises ServerFailed when Prefect's embedded server does not start.
    """
    begin()
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_LOGGING_LEVEL,
        PREFECT_LOGGING_TO_API_ENABLED,
        PREFECT_SERVER_ANALYTICS_ENABLED,
        temporary_settings,
    )

    settings: dict[Any, Any] = {
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,  # off: the heartbeat's thread delays the end of each flow by up to 1 s
    }
    if not deployed():
        settings[PREFECT_LOGGING_LEVEL] = os.environ.get("PREFECT_LOGGING_LEVEL", "CRITICAL")
        settings[PREFECT_LOGGING_TO_API_ENABLED] = False
        if PREFECT_API_URL.value() is None and _server is not None and (url := _server.wait()) is not None:
            settings[PREFECT_API_URL] = url
    with temporary_settings(settings):
        yield
