"""Leases, with real processes: gc keeps the datasets that a run uses, whatever the clock says, and no others."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.dataset import Address, Dataset, address, locked, materialize
from storage.garbage import collect, find_garbage
from storage.lease import adopt, is_held, leases, lock_of, running

HOUR, DAY = 3600.0, 86400.0

# A run that makes the lease's file, waits for a line on stdin before it locks the file, and then holds the lease.
SLOW_START = """
import fcntl, sys
from pathlib import Path
from storage.lease import running
flock = fcntl.flock
def slowly(handle, kind):
    if kind == fcntl.LOCK_EX:
        fcntl.flock = flock
        print("opened", flush=True)
        sys.stdin.readline()
    flock(handle, kind)
fcntl.flock = slowly
with running(Path(sys.argv[1]), "shared"):
    print("running", flush=True)
    sys.stdin.readline()
"""
# A run that adopts the dataset of seed 1, starts to make the dataset of seed 2, and then waits.
HALF = """
import sys
from pathlib import Path
from storage.dataset import address, materialize
from storage.lease import adopt, running
store = Path(sys.argv[1])
def half(out):
    (out / "begun").write_text("x")
    print("half", flush=True)
    sys.stdin.readline()
with running(store, "abandoned"):
    assert adopt(store, address("saes", "1", {"seed": 1}))
    materialize(store, address("saes", "1", {"seed": 2}), half, resumes=True)
"""
# Fill the disk of a store, then collect its garbage. The disk is a file system of its own, so that it is really full.
FULL = """
import errno, pathlib, sys
from flows.cli import main
from storage.dataset import materialize
from test_lease import at, write
store = pathlib.Path(sys.argv[1])
gc = ["gc", "--yes", "--store", str(store)]
materialize(store, at(1), lambda out: (out / "weights").write_bytes(bytes(20_000)))
for again in (False, True):  # the lock of the collection is a new file, then an old one
    materialize(store, at(2), write)
    with open(store / "filling", "ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC
    try:
        (store / "more").write_text("x")
        raise SystemExit("the disk is not full")
    except OSError as error:
        assert error.errno == errno.ENOSPC
    assert main(gc) == 0
    assert not list(store.glob("saes/*/weights"))
    (store / "filling").unlink()
"""


def at(seed: int) -> Address:
    return address("saes", "1", {"seed": seed})


def write(out: Path) -> int:
    return (out / "weights").write_bytes(b"weights")


@pytest.fixture
def begin() -> Iterator[object]:
    """A function that starts a program on a store. The programs are killed when the test ends."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, store: Path) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, "-c", code, str(store)], **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def says(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{word}\n"


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_run_that_begins_while_another_opens_its_lease_takes_nothing_from_it(tmp_path: Path, begin) -> None:
    first = begin(SLOW_START, tmp_path)
    says(first, "opened")
    with running(tmp_path, "shared"):
        tell(first)
        says(first, "running")
        assert [lease.live for lease in leases(tmp_path, "shared")] == [True, True]
    assert [f"process {first.pid} " in lease.holder for lease in leases(tmp_path, "shared")] == [True]


def test_what_a_live_run_adopts_after_the_clock_was_set_back_stays(tmp_path: Path) -> None:
    materialize(tmp_path, at(7), write)
    with running(tmp_path, "mine") as lease:
        later = time.time() + HOUR  # as if the clock was set back by an hour after the run began
        os.utime(lease, (later, later))
        assert adopt(tmp_path, at(7))
        found = find_garbage(tmp_path)
        assert found.items == []
        assert [item.path for item in found.in_use] == [at(7).path]
        assert collect(tmp_path, found) == []
    assert (tmp_path / at(7).path).is_dir()


def test_a_use_after_the_search_is_seen_whatever_the_clock_says(tmp_path: Path) -> None:
    materialize(tmp_path, at(1), write)
    ahead = time.time() + HOUR
    os.utime(lock_of(tmp_path / at(1).path), (ahead, ahead))
    found = find_garbage(tmp_path)
    with running(tmp_path, "short"):
        assert isinstance(adopt(tmp_path, at(1)), Dataset)
    assert collect(tmp_path, found) == []  # a run used the dataset after the search and may have recorded it
    assert len(collect(tmp_path, find_garbage(tmp_path))) == 1


def test_a_dead_lease_keeps_what_its_own_run_used_and_nothing_else(tmp_path: Path, begin) -> None:
    materialize(tmp_path, at(1), write)
    killed = begin(HALF, tmp_path)
    says(killed, "half")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (dead,) = leases(tmp_path)
    assert not dead.live
    ago = time.time() - 30 * DAY
    os.utime(dead.path, (ago, ago))
    materialize(tmp_path, at(3), write)  # made after the kill; no lease or record names it
    (tmp_path / f"{at(4).path}.partial").mkdir()
    found = find_garbage(tmp_path)
    assert sorted(item.path for item in found.items) == sorted([at(3).path, f"{at(4).path}.partial"])
    assert sorted(item.path for item in found.in_use) == sorted([at(1).path, f"{at(2).path}.partial"])
    assert found.kept_for(dead) == 2
    collect(tmp_path, found)
    assert (tmp_path / f"{at(2).path}.partial" / "begun").exists()
    assert sorted(item.path for item in find_garbage(tmp_path, interrupted=True).items) == sorted(
        [at(1).path, f"{at(2).path}.partial"]
    )


def test_a_new_run_takes_over_what_a_dead_one_used_and_frees_it_in_the_end(tmp_path: Path, begin) -> None:
    materialize(tmp_path, at(1), write)
    killed = begin(HALF, tmp_path)
    says(killed, "half")
    killed.kill()
    killed.wait()
    with running(tmp_path, "abandoned"):
        (own,) = leases(tmp_path)
        assert own.live
        assert own.uses == {at(1).path, at(2).path}
    assert list((tmp_path / "studies" / "abandoned" / "running").iterdir()) == []
    assert len(find_garbage(tmp_path).items) == 2


def test_a_dataset_that_is_being_made_is_in_use_without_any_lease(tmp_path: Path) -> None:
    def body(out: Path) -> int:
        assert [item.path for item in find_garbage(tmp_path).in_use] == [f"{at(1).path}.partial"]
        return write(out)

    materialize(tmp_path, at(1), body)


def test_gc_frees_a_disk_that_is_full(tmp_path: Path) -> None:
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    disk = f"mount -t tmpfs -o size=256k full {tmp_path}"
    if shutil.which("unshare") is None or subprocess.run([*mount, disk], capture_output=True).returncode != 0:
        pytest.skip("this system lets no user mount a file system of its own")
    code = [sys.executable, "-c", FULL, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    ended = subprocess.run(
        [*mount, f'{disk} && exec "$@"', "sh", *code], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("deleted ") == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_lock_and_a_lease_hold_without_a_name_where_no_space_is_left(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, data: bytes, offset: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", full)
    with running(tmp_path, "small"), locked(tmp_path / "saes" / "x"):
        assert is_held(tmp_path / "saes" / "x")
        assert [(lease.holder, lease.live) for lease in leases(tmp_path)] == [("another process", True)]
    number = errno.EIO
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / "saes" / "x"):
        pass
