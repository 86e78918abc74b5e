"""Leases: `studies/<name>/running/*.lease`, one a run under way, locked so that the kernel frees it when the run dies.

A dataset's `.lock` file is touched whenever a run makes or adopts it: touched since the oldest lease, it is in use.
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
    """A run that was begun and not finished."""

    path: Path
    study: str
    holder: str  #: process and host
    since: float  #: seconds since the epoch, by the store's own clock
    live: bool  #: its process lives; else it was interrupted


def leases(store: Path, study: str = "*") -> list[Lease]:
    """Every run that was begun and not finished, the oldest first. Changes nothing."""
    found = []
    for path in store.glob(f"studies/{study}/running/*.lease"):
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # it ended just now
            continue
        try:
            live = not _try_lock(handle, fcntl.LOCK_SH)
            holder = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
            found.append(Lease(path, path.parent.parent.name, holder, os.fstat(handle).st_mtime, live))
        finally:
            os.close(handle)
    return sorted(found, key=lambda lease: lease.since)


@contextlib.contextmanager
def running(store: Path, study: str) -> Iterator[Path]:
    """Hold a lease on what a run of `study` makes or adopts inside the block. Gives the lease's file.

    It takes over what interrupted runs of the study left. It goes when the block ends well; after an error it stays,
    without its lock, so that what the run had finished outlives a garbage collection until the study is run again.
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
        left = [lease for lease in leases(store, study) if not lease.live and lease.path != path]
        if left:
            os.utime(path, (left[0].since, left[0].since))
        for lease in left:
            lease.path.unlink(missing_ok=True)
        yield path
        path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def adopt(store: Path, at: Address) -> Dataset | None:
    """As `complete`, and mark the dataset as in use: no garbage collection takes it while the caller's lease lasts.

    Returns None also while another process is making it (or taking it away): whoever needs it then waits for the lock.
    """
    lock = lock_of(store / at.path)
    lock.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _try_lock(handle, fcntl.LOCK_SH):
            return None
        found = complete(store, at)
        if found is not None:
            os.utime(handle)
        return found
    finally:
        os.close(handle)


@contextlib.contextmanager
def unused(folder: Path, since: float) -> Iterator[bool]:
    """Hold a dataset's lock without touching it. Gives False when somebody holds it, or used it at or after `since`."""
    lock = lock_of(folder)
    known = lock.exists()  # one that is made here says nothing by its time
    handle = os.open(lock, os.O_RDONLY if known else os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        yield _try_lock(handle, fcntl.LOCK_EX) and (not known or os.fstat(handle).st_mtime < since)
    finally:
        os.close(handle)


def clock(store: Path) -> float:
    """Now, by the clock that stamps the store's files; infinity when the store cannot be written."""
    try:
        with tempfile.TemporaryFile(dir=store) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return math.inf


def lock_of(folder: Path) -> Path:
    """The lock file of a dataset's folder, as `storage.dataset.locked` names it."""
    return folder.with_name(f"{folder.name}.lock")


def _try_lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
