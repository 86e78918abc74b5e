"""`make stop` ends the local server and worker and no other process, whatever process id a .pid file holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LOCAL = Path(__file__).parents[1] / "deploy" / "local.sh"


def local(what: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PREFECT_HOME": str(home), "BIN": str(Path(sys.executable).parent)}
    return subprocess.run([str(LOCAL), what], env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_stop_leaves_a_stranger_alone_that_got_the_process_id_of_an_earlier_server(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        for name in ("server", "worker"):
            (tmp_path / f"{name}.pid").write_text(f"{stranger.pid}\n")
        stopped = local("stop", tmp_path)
        assert (stopped.returncode, stopped.stdout) == (0, ""), stopped.stderr
        assert stranger.poll() is None
        stranger.kill()
    assert list(tmp_path.glob("*.pid")) == []


def test_stop_ends_the_process_that_holds_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "worker.lock"
    with subprocess.Popen(["flock", "--no-fork", str(lock), "sleep", "60"], start_new_session=True) as ours:
        (tmp_path / "worker.pid").write_text(f"{ours.pid}\n")
        while subprocess.run(["flock", "--nonblock", str(lock), "true"], check=False).returncode == 0:
            assert ours.poll() is None
        stopped = local("stop", tmp_path)
        assert stopped.stdout == "stopped the worker\n", stopped.stderr
        assert ours.wait(20) != 0
