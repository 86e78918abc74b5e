"""Leases protect the datasets of unfinished runs from garbage collection: `studies/<name>/running/*.lease`.

Each unfinished run has one such file and holds a lock on it, which the kernel releases when the process dies. The file
`*.uses` beside it lists the datasets that the run makes or adopts; a lease protects these, whatever any clock says.
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
from storage.dataset import Address, Dataset, complete, touch
from storage.errors import BadInput


class Lease(NamedTuple):
    """A run that has begun and not finished."""

    path: Path
    study: str
    holder: str  #: process and host
    uses: frozenset[str]  #: paths of the datasets that the run has made or adopted, and of those it was making
    live: bool  #: its process is alive; otherwise the run was interrupted


def leases(store: Path, study: str = "*") -> list[Lease]:
    """The leases of all runs that have begun and not finished, by path. Changes nothing."""
    held = []
    for path in sorted(store.glob(f"studies/{study}/running/*.lease")):
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # the run has ended since the glob
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

    The lease takes over the datasets of interrupted runs of the study. It is removed when the block ends without an
    error. After an error it stays, unlocked, so that garbage collection keeps the run's datasets until the study runs
    again.
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
    """Make a lease's file and return its handle. The file is locked before it has its name, so it never looks dead."""
    partial = path.with_suffix(".partial")
    handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        os.rename(partial, path)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _uses_of(lease: Path) -> Path:
    return lease.with_suffix(".uses")


def _remove(lease: Path) -> None:
    """Remove a lease, then its uses: a kill in between leaves no lease without its uses."""
    lease.unlink(missing_ok=True)
    _uses_of(lease).unlink(missing_ok=True)


def adopt(store: Path, at: Address) -> Dataset | None:
    """Return the dataset at an address if it is complete, and mark it as in use; else return None.

    Garbage collection keeps a marked dataset while the caller's lease is held.

    Also returns None while another process is making or deleting the dataset; `materialize` then waits for its lock.
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
    """A number that differs after each use of the dataset, whatever the clock does; None if it has no lock file."""
    try:
        return lock_of(folder).stat().st_mtime_ns
    except FileNotFoundError:
        return None


def is_held(folder: Path) -> bool:
    """Whether a process holds the dataset's lock: it is making the dataset, or taking it into use."""
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
    """Hold a dataset's lock. Yields False if another process holds it, or if its stamp is no longer `known`."""
    exclusive = os.O_EXCL if known is None else 0
    try:
        handle = os.open(lock_of(folder), os.O_RDWR | os.O_CREAT | exclusive, 0o644)
    except FileExistsError:  # it had no lock file: somebody has used it since
        yield False
        return
    try:
        yield _try_lock(handle, fcntl.LOCK_EX) and known in (None, os.fstat(handle).st_mtime_ns)
    finally:
        os.close(handle)


def lock_of(folder: Path) -> Path:
    """Path of the lock file of a dataset's folder, the same that `storage.dataset.locked` uses."""
    return folder.with_name(f"{folder.name}.lock")


def _try_lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
