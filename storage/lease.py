"""Leases protect the datasets of unfinished runs from garbage collection: `studies/<name>/running/*.lease`.

Each unfinished run has one such file and holds a lock on it, which the kernel releases when the process dies.

A run touches a dataset's `.lock` file when it makes or adopts the dataset. A dataset is in use when its `.lock` file
was touched since the oldest lease.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from storage.dataset import Address, Dataset, complete
from storage.errors import BadInput


class Lease(NamedTuple):
    """A run that has begun and not finished."""

    path: Path
    study: str
    holder: str  #: process and host
    since: float  #: seconds since the epoch, by the store's own clock
    live: bool  #: its process is alive; otherwise the run was interrupted


def leases(store: Path, study: str = "*") -> list[Lease]:
    """The leases of all runs that have begun and not finished, the oldest first. Changes nothing."""
    held = []
    for path in store.glob(f"studies/{study}/running/*.lease"):
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # the run has ended since the glob
            continue
        try:
            live = not _try_lock(handle, fcntl.LOCK_SH)
            holder = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
            held.append(Lease(path, path.parent.parent.name, holder, os.fstat(handle).st_mtime, live))
        finally:
            os.close(handle)
    return sorted(held, key=lambda lease: lease.since)


@contextlib.contextmanager
def running(store: Path, study: str) -> Iterator[Path]:
    """Hold a lease on the datasets that a run of `study` makes or adopts inside the block. Yields the lease's file.

    The lease replaces those of interrupted runs of the study and begins when the oldest of them began. It is removed
    when the block ends without an error.
    After an error it stays, unlocked, so that garbage collection keeps the run's datasets until the study runs again.
    """
    folder = store / "studies" / study / "running"
    path = folder / f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}.lease"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    except OSError as error:
        raise BadInput(f"the store cannot be written: {error.strerror}: {folder}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        interrupted = [lease for lease in leases(store, study) if not lease.live and lease.path != path]
        if interrupted:
            os.utime(path, (interrupted[0].since, interrupted[0].since))
        for lease in interrupted:
            lease.path.unlink(missing_ok=True)
        yield path
        path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def adopt(store: Path, at: Address) -> Dataset | None:
    """Return the dataset at an address if it is complete, and mark it as in use; else return None.

    Garbage collection keeps a marked dataset while the caller's lease is held.

    Also returns None while another process is making or deleting the dataset; `materialize` then waits for its lock.
    """
    lock = lock_of(store / at.path)
    lock.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _try_lock(handle, fcntl.LOCK_SH):
            return None
        dataset = complete(store, at)
        if dataset is not None:
            os.utime(handle)
        return dataset
    finally:
        os.close(handle)


@contextlib.contextmanager
def unused(folder: Path, since: float) -> Iterator[bool]:
    """Hold a dataset's lock. Yields False if another process holds it, or has touched the lock file since `since`."""
    lock = lock_of(folder)
    existed = lock.exists()  # a lock file created below has the current time, although nobody used the dataset
    handle = os.open(lock, os.O_RDONLY if existed else os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        yield _try_lock(handle, fcntl.LOCK_EX) and (not existed or os.fstat(handle).st_mtime < since)
    finally:
        os.close(handle)


def clock(store: Path) -> float:
    """Current time by the clock of the store's file system; infinity when the store cannot be written."""
    try:
        with tempfile.TemporaryFile(dir=store) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return math.inf


def lock_of(folder: Path) -> Path:
    """Path of the lock file of a dataset's folder, the same that `storage.dataset.locked` uses."""
    return folder.with_name(f"{folder.name}.lock")


def _try_lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
