"""The second wall around ad-hoc SQL: the kernel stops a process from writing. The tests write without the guard.

The attempts run in a separate process, since the restriction cannot be undone.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ATTEMPTS = """
import os, sys, threading
from pathlib import Path
from storage import wall

folder = Path(sys.argv[1])
kept = folder / "kept.txt"
opened = (folder / "opened.txt").open("w")


def attempts():
    yield "write", lambda: kept.open("r+")
    yield "append", lambda: kept.open("a")
    yield "empty", lambda: kept.open("w")
    yield "make", lambda: (folder / "new.txt").open("x")
    yield "truncate", lambda: os.truncate(kept, 0)
    yield "remove", lambda: kept.unlink()
    yield "rename", lambda: kept.rename(folder / "other.txt")
    yield "link", lambda: os.link(kept, folder / "link.txt")
    yield "symlink", lambda: os.symlink(kept, folder / "symlink.txt")
    yield "mkdir", lambda: (folder / "made").mkdir()
    yield "rmdir", lambda: (folder / "empty").rmdir()
    yield "mkfifo", lambda: os.mkfifo(folder / "fifo")
    yield "process", lambda: check_process()


def check_process():
    if os.system(f"exec 2>&-; echo changed > '{kept}'") != 0:
        raise PermissionError


def attempt():
    for name, call in attempts():
        try:
            call()
        except PermissionError:
            continue
        print("possible:", name)
    print(kept.read_text())


getattr(wall, sys.argv[2])()
attempt()
thread = threading.Thread(target=attempt)  # as DuckDB starts its workers
thread.start()
thread.join()
opened.write("open before")
opened.close()
"""


@pytest.mark.parametrize("restrict", ["with_landlock", "with_seccomp", "forbid_writing"])
def test_files_are_read_but_neither_written_made_nor_removed(tmp_path: Path, restrict: str) -> None:
    (tmp_path / "kept.txt").write_text("kept")
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-c", ATTEMPTS, str(tmp_path), restrict]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if restrict != "forbid_writing" and ("Function not implemented" in done.stderr or "not supported" in done.stderr):
        pytest.skip(f"this system has no {restrict.removeprefix('with_')}")
    assert (done.stdout, done.stderr) == ("kept\nkept\n", "")
    assert {path.name for path in tmp_path.iterdir()} == {"kept.txt", "empty", "opened.txt"}
    assert (tmp_path / "kept.txt").read_text() == "kept"
    assert (tmp_path / "opened.txt").read_text() == "open before"


def test_only_the_reading_thread_is_restricted(tmp_path: Path) -> None:
    from storage.wall import ReadingThread

    with ReadingThread() as reader:
        assert reader.wall in ("landlock", "seccomp")
        with pytest.raises(PermissionError):
            reader.call((tmp_path / "x.txt").write_text, "x")
        (tmp_path / "x.txt").write_text("x")
        assert reader.call((tmp_path / "x.txt").read_text) == "x"


def test_without_either_wall_it_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from storage import wall

    monkeypatch.setattr(wall.platform, "system", lambda: "Darwin")
    assert wall.forbid_writing() == "none"
    assert "only the guard restricts SQL" in caplog.text
