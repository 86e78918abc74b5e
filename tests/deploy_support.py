"""Operate a real Prefect server on loopback, with a process worker and every deployment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
WAIT = 900.0  # seconds that a test waits for anything on a busy machine


class Operator:
    """Calls the commands of deploy/local.sh and the API of the server."""

    def __init__(self, folder: Path) -> None:
        self.home, self.store = folder / "prefect", folder / "store"
        self.store.mkdir(parents=True)
        self.environment = os.environ | {
            "BIN": str(Path(sys.executable).parent),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "PREFECT_HOME": str(self.home),
            "PREFECT_PORT": "4310",
            "BRIDGESCOPE_STORE": str(self.store),
            "OMP_NUM_THREADS": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
        }

    def client(self) -> dict[str, str]:
        """The environment variables of a process that uses the server."""
        return self.environment | {"PREFECT_API_URL": (self.home / "api").read_text().strip()}

    def make(self, what: str) -> None:
        """Run `make server`, `make worker`, `make deploy` or `make stop`, without the step that installs packages."""
        command = [str(ROOT / "deploy" / "local.sh"), what]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=WAIT)
        assert done.returncode == 0, done.stdout + done.stderr

    def kill(self, what: str) -> None:
        """SIGKILL the server or the worker, and all their child processes."""
        leader = int((self.home / f"{what}.pid").read_text())
        for pid in (*descendants(leader), leader):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def post(self, path: str, **body: Any) -> Any:
        """Call the server's API. Raises httpx.HTTPStatusError for an error status.

        A 503 is retried, as in Prefect's own client: the server sends it while another transaction holds SQLite.
        """
        api, end = (self.home / "api").read_text().strip(), time.monotonic() + WAIT
        while (answer := httpx.post(f"{api}{path}", json=body, timeout=60)).status_code == 503:
            assert time.monotonic() < end, f"{path}: the server is not available"
            time.sleep(1)
        answer.raise_for_status()
        return answer.json()

    def run(self, deployment: str, **parameters: Any) -> str:
        """Create a run of a deployment. Returns the run's id."""
        api = (self.home / "api").read_text().strip()
        flow, name = deployment.split("/")
        record = httpx.get(f"{api}/deployments/name/{flow}/{name}", timeout=60).raise_for_status().json()
        return str(self.post(f"/deployments/{record['id']}/create_flow_run", parameters=parameters)["id"])

    def runs(self, flow: str | None = None, **where: Any) -> list[dict[str, Any]]:
        """Runs of deployments, the oldest first, without the runs that the schedule planned."""
        records = self.post("/flow_runs/filter", sort="START_TIME_ASC", limit=200, **where)
        records = [run for run in records if run["deployment_id"] and not run["auto_scheduled"]]
        return [run for run in records if flow in (None, run["name"].rpartition(": ")[2])]

    def ended(self, run: str) -> dict[str, Any]:
        """Wait until a run has ended, and return it."""
        return until(lambda: next((r for r in self.runs() if r["id"] == run and r["end_time"]), None), run)


def until(look: Callable[[], Any], what: str) -> Any:
    """Call `look` until it returns a true value, and return this value."""
    end = time.monotonic() + WAIT
    while not (result := look()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.5)
    return result


def descendants(pid: int) -> list[int]:
    """All descendants of a process, from /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = stat.read_text()
            parent = int(text.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    pids = list(children.get(pid, []))
    for child in pids:
        pids.extend(children.get(child, []))
    return pids
