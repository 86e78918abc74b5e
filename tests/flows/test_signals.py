"""Ctrl-C and SIGTERM in every stage of a real run end it in time, leave no process, and let it be resumed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import NamedTuple

import pytest
from tests_support import write_study

WITHIN = 10.0  # seconds until the process ends on a busy machine; on an idle machine 3
MARK = "BRIDGESCOPE_TEST_RUN"  # variable that every process of one run inherits
#: {stage: the files that appear in the store when the stage begins}
BEGUN = {
    "start": "studies/small/running/*.lease",
    "acquire": "pairs/*.partial",
    "embed": "embeddings/*.partial",
    "train": "saes/*.partial",
    "export": "activations/*.partial",
    "analyze": "tables/*.partial",
    "report": "reports/*.partial",
}


class Study(NamedTuple):
    """A real run in a process group of its own, as in a terminal."""

    process: subprocess.Popen[str]
    mark: str

    def left(self) -> list[str]:
        """Command lines of the processes of this run that are alive, whoever their parent is."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if f"{MARK}={self.mark}".encode() in environment and state != "Z":
                found.append(command)
        return found


def begin(file: Path, store: Path) -> Study:
    mark = uuid.uuid4().hex
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | {MARK: mark}
    command = [sys.executable, "-m", "flows.cli", "run", str(file), "--store", str(store)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    return Study(process, mark)


def interrupt(study: Study, store: Path, stage: str, signum: int, *, group: bool) -> tuple[float, str]:
    """Send a signal as the stage begins. Returns the seconds until the process has ended, and its standard error."""
    end = time.monotonic() + 240
    while not any(store.glob(BEGUN[stage])):
        assert study.process.poll() is None, study.process.communicate()
        assert time.monotonic() < end, f"{stage} never began"
        time.sleep(0.005)
    began = time.monotonic()
    (os.killpg if group else os.kill)(study.process.pid, signum)
    study.process.wait(60)
    seconds = time.monotonic() - began
    return seconds, study.process.communicate()[1]


def check_ended(study: Study, seconds: float, errors: str, signum: int) -> None:
    assert study.process.returncode == 128 + signum, errors
    assert "interrupted: run the same command again to go on" in errors
    assert not re.search(r"Traceback|ERROR|Error:", errors), errors
    assert seconds < WITHIN
    assert study.left() == []


@pytest.mark.slow
def test_ctrl_c_while_training_and_sigterm_while_prefect_starts_end_the_run_and_the_next_run_goes_on(
    tmp_path: Path,
) -> None:
    file, store = write_study(tmp_path, images=300), tmp_path / "store"
    for stage, signum, group in (("start", signal.SIGTERM, False), ("train", signal.SIGINT, True)):
        study = begin(file, store)
        seconds, errors = interrupt(study, store, stage, signum, group=group)
        check_ended(study, seconds, errors, signum)
    again = begin(file, store)
    output, errors = again.process.communicate(timeout=240)
    assert again.process.returncode == 0, errors
    assert "stability of pairs of seeds" in output
    assert again.left() == []


@pytest.mark.slow
def test_the_server_of_a_killed_study_ends_too(tmp_path: Path) -> None:
    file, store = write_study(tmp_path, images=300), tmp_path / "store"
    study = begin(file, store)
    interrupt(study, store, "train", signal.SIGKILL, group=False)
    end = time.monotonic() + 20
    while study.left():
        assert time.monotonic() < end, study.left()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_every_stage_ends_in_time_and_the_study_is_completed_at_last(tmp_path: Path, signum: int) -> None:
    file, store = write_study(tmp_path, images=300), tmp_path / "store"
    for stage in BEGUN:
        study = begin(file, store)
        seconds, errors = interrupt(study, store, stage, signum, group=signum == signal.SIGINT)
        check_ended(study, seconds, errors, signum)
    again = begin(file, store)
    _, errors = again.process.communicate(timeout=240)
    assert again.process.returncode == 0, errors


FINALIZER = """
import os, signal, time
from flows.signals import ending
class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)  # the handler raises here, where Python drops the exception
with ending():
    last = Last()
    del last
    time.sleep(60)
"""


def test_a_signal_that_arrives_in_a_finalizer_ends_the_process_and_prints_no_traceback() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", FINALIZER], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (143, "interrupted: run the same command again to go on\n")
    assert time.monotonic() - began < WITHIN


SERVICE = """
import os, signal, sys
from flows.signals import ending
from prefect._internal.concurrency import logger
with ending():
    if sys.argv[1] == "signal":
        try:
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        finally:
            logger.error("Service failed")
    logger.error("Service failed")
"""


@pytest.mark.parametrize("ended", ["signal", "no signal"])
def test_prefects_services_log_a_failure_unless_a_signal_ended_the_run(ended: str) -> None:
    done = subprocess.run([sys.executable, "-c", SERVICE, ended], capture_output=True, text=True, timeout=60)
    assert ("Service failed" in done.stderr) == (ended == "no signal"), done.stderr
    assert done.returncode == (130 if ended == "signal" else 0), done.stderr
