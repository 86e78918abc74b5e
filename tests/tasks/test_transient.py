"""Work is tried again a few times after an error that may pass: a file-system error, or the death of a process."""

from __future__ import annotations

import ast
import errno
import logging
import os
import signal
from pathlib import Path

import pytest
from tests_support import another_tree_at_once

from storage.errors import BadInput
from tasks.children import ChildFailed, Watch, in_process
from tasks.stage import Runtime, stage
from tasks.transient import PAUSES, may_pass, tried_again


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.transient.PAUSES", tuple(0.0 for _ in PAUSES))


def lost_once(mark: Path, watch: Watch) -> int:
    """Kill the first process that runs this function, as the kernel does when memory runs out."""
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 7


def stale(mark: Path, watch: Watch) -> int:
    mark.write_text(mark.read_text() + "x" if mark.exists() else "x")
    raise OSError(errno.ESTALE, "Stale file handle", str(mark))


@stage("lost", version="1", unhashed=("mark",))
def lost(out: Path, mark: str, runtime: Runtime) -> int:
    (out / "rows").write_text("7")
    return int(in_process(lost_once, Path(mark), "seed 0"))


def test_a_lost_process_is_replaced_and_the_dataset_is_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "bridgescope"):
        made = lost.make(Runtime(store=tmp_path), mark=str(tmp_path / "mark"))
    assert made.rows == 7
    (line,) = caplog.messages
    assert line.startswith("lost/")
    assert "seed 0: its process died (exit code -9); try 2 of 3" in line


@pytest.mark.slow
def test_a_stale_file_is_tried_three_times_and_then_fails_with_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="Stale file handle") as failed:
        tried_again(lambda: in_process(stale, tmp_path / "mark", "seed 0"), "saes/x")
    assert failed.value.errno == errno.ESTALE
    assert (tmp_path / "mark").read_text() == "xxx"


def test_what_another_thread_did_to_the_parser_of_python_passes() -> None:
    source = str(list(range(500)))
    with another_tree_at_once() as collections:
        assert tried_again(lambda: ast.literal_eval(source), "embeddings/x") == list(range(500))
    assert len(collections) >= 10


def test_what_does_not_pass_is_not_tried_again(tmp_path: Path) -> None:
    for error in (BadInput("k is 0"), OSError(errno.ENOSPC, "No space left on device"), PermissionError(13, "denied")):
        assert not may_pass(error)
    assert may_pass(OSError(errno.EIO, "Input/output error"))
    wrapped = RuntimeError("the writer stopped")
    wrapped.__cause__ = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    assert may_pass(wrapped)
