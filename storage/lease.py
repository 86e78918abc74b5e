"""Leases protect the datasets of unfinished runs from garbage collection: `studies/<name>/running/*.lease`.

Each unfinished run has one lease file and holds a lock on it. The kernel releases the lock when the process dies. The
file `*.uses` beside the lease lists the datasets that the run makes or adopts (takes from an earlier run). The lease
protects these datasets; their times do not matter, since clocks can be wrong.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from storage import uses
from storage.dataset import Address, Dataset, complete, sign, touch
from storage.errors import BadInput


class Lease(NamedTuple):
    """The lease of a run that has begun and not finished."""

    path: Path
    study: str
    holder: str  #: process and host of the run
    uses: frozenset[str]  #: paths of the datasets that the run has made, adopted or begun to make
    live: bool  #: whether the process of the run is alive; if not, the run was interrupted


def leases(store: Path, study: str = "*") -> list[Lease]:
    """Return the leases of all unfinished runs, sorted by path. Changes nothing."""
    held = []
    for path in sorted(store.glob(f"studies/{study}/running/*.lease")):
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # the run ended after the search for leases
            continue
        try:
            live = not _try_lock(handle, fcntl.LOCK_SH)
            holder = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
            held.append(Lease(path, path.parent.parent.name, holder, uses.read(_uses_of(path)), live))
        finally:
            os.close(handle)
    return held


@contextlib.contextmanager
def running(store: Path, study: str) -> Iterator[Path]:
    """Hold a lease on the datasets that a run of `study` makes or adopts inside the block. Yields the lease's file.

    The lease also takes over the datasets of interrupted runs of the study. It is removed when the block ends without
    an error. After an error the lease file stays, without its lock. Garbage collection then keeps the run's datasets
    until the study runs again.
    """
    folder = store / "studies" / study / "running"
    path = folder / f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}.lease"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _new_lease(path)
    except OSError as error:
        raise BadInput(f"the store cannot be written: {error.strerror}: {folder}") from error
    try:
        own = uses.Uses(store, _uses_of(path))
        for lease in leases(store, study):
            if not lease.live and lease.path != path:
                own.add(sorted(lease.uses))
                _remove(lease.path)
        for left in folder.glob("*.uses"):
            if not left.with_suffix(".lease").exists():
                left.unlink(missing_ok=True)
        with uses.noting(own):
            yield path
        _remove(path)
    finally:
        os.close(handle)


def _new_lease(path: Path) -> int:
    """Make a lease file and return its handle. It is locked before it gets its name, so its run never looks dead."""
    partial = path.with_suffix(".partial")
    handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        sign(handle)
        os.rename(partial, path)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _uses_of(lease: Path) -> Path:
    return lease.with_suffix(".uses")


def _remove(lease: Path) -> None:
    """Remove a lease file, then its `*.uses` file. In this order, a kill leaves no lease without its uses."""
    lease.unlink(missing_ok=True)
    _uses_of(lease).unlink(missing_ok=True)


def adopt(store: Path, at: Address) -> Dataset | None:
    """Return the dataset at an address and mark it as in use. Returns None when the dataset is not complete.

    Garbage collection keeps a marked dataset while the caller holds its lease.

    Also returns None while another process is making or deleting the dataset. The caller then calls `materialize`,
    which waits for the other process.
    """
    lock = lock_of(store / at.path)
    lock.parent.mkdir(parents=True, exist_ok=True)
    uses.note(store, at.path)
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _try_lock(handle, fcntl.LOCK_SH):
            return None
        dataset = complete(store, at)
        if dataset is not None:
            touch(handle)
        return dataset
    finally:
        os.close(handle)


def stamp(folder: Path) -> int | None:
    """Return a number that changes with each use of a dataset, whatever the clock shows; None without a lock file."""
    try:
        return lock_of(folder).stat().st_mtime_ns
    except FileNotFoundError:
        return None


def is_held(folder: Path) -> bool:
    """Whether a process holds the lock of the dataset, because it is making, adopting or deleting the dataset."""
    try:
        handle = os.open(lock_of(folder), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)


@contextlib.contextmanager
def unused(folder: Path, known: int | None) -> Iterator[bool]:
    """Hold the lock of a dataset. Yields False if another process holds it, or if the stamp is no longer `known`."""
    exclusive = os.O_EXCL if known is None else 0
    try:
        handle = os.open(lock_of(folder), os.O_RDWR | os.O_CREAT | exclusive, 0o644)
    except FileExistsError:  # `known` is None, and a process has made a lock file since
        yield False
        return
    try:
        yield _try_lock(handle, fcntl.LOCK_EX) and known in (None, os.fstat(handle).st_mtime_ns)
    finally:
        os.close(handle)


def lock_of(folder: Path) -> Path:
    """Return the path of a dataset's lock file, which `storage.dataset.locked` uses too."""
    return folder.with_name(f"{folder.name}.lock")


def _try_lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
