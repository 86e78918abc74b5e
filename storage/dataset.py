"""Immutable datasets: handles, addresses, digests, locks and atomic writes.

A dataset is a folder. Its name is its recipe: a hash of the stage that made it, the stage's version and its arguments.
The folder gets this name by one rename, once it is complete.
This module does not depend on the contents of a dataset.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from storage import provenance, uses
from storage.errors import BadInput
from storage.manifest import MANIFEST, Damaged, changed_file, digest_of, files_in, hash_of, read_manifest

PLANNED = "planned:"  # begins the digest of a dataset that a plan lists before any run has made it

log = logging.getLogger("bridgescope")


class Dataset(BaseModel):
    """A handle, which tasks pass to each other in place of the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str  #: folder, relative to the store
    recipe: str  #: hash of the stage, the stage's version and its arguments
    digest: str  #: sha256 over the dataset's files; part of the recipes of datasets made from this one
    rows: int

    @property
    def is_planned(self) -> bool:
        """Whether the function `planned` made the handle, for a dataset that does not exist yet."""
        return self.digest.startswith(PLANNED)


class Address(NamedTuple):
    """The address of a stage's output, known before the output exists."""

    stage: str  #: the folder that holds all outputs of this stage
    version: str  #: version of the stage, raised by hand when new code gives another result
    arguments: dict[str, Any]  #: ready for JSON: every handle is replaced by its digest
    inputs: tuple[Dataset, ...]  #: the handles among the arguments; the manifest records them

    @property
    def recipe(self) -> str:
        """First 20 hexadecimal digits of the sha256 of stage, version and arguments."""
        text = json.dumps([self.stage, self.version, self.arguments], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @property
    def path(self) -> str:
        """Folder of the dataset, relative to the store."""
        return f"{self.stage}/{self.recipe}"


def address(stage: str, version: str, arguments: dict[str, Any]) -> Address:
    """Return the address of the output of `stage` for `arguments`.

    A handle among the arguments is hashed by its digest, not by its path. Raises TypeError when an argument is neither
    a handle nor a JSON value.
    """
    inputs: list[Dataset] = []

    def by_digest(value: Any) -> Any:
        if isinstance(value, Dataset):
            inputs.append(value)
            return {"digest": value.digest}
        if isinstance(value, dict):
            return {str(key): by_digest(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [by_digest(item) for item in value]
        if value is None or isinstance(value, (str, int, float, bool)):
            return value
        raise TypeError(f"{stage}: a {type(value).__name__} cannot be part of a recipe")

    return Address(stage, version, by_digest(arguments), tuple(inputs))


def planned(path: str, rows: int) -> Dataset:
    """Return a handle of a dataset that does not exist yet. A plan needs it to list the datasets made from this one."""
    return Dataset(path=path, recipe=Path(path).name, digest=f"{PLANNED}{path}", rows=rows)


def complete(store: Path, at: Address) -> Dataset | None:
    """Return the handle of the dataset at an address, or None.

    None means that the manifest is missing, is damaged or belongs to another dataset, or that the size of a file
    differs from the size in the manifest.
    """
    try:
        manifest = read_manifest(store / at.path)
    except Damaged:
        return None
    if (manifest.stage, manifest.recipe) != (at.stage, at.recipe) or changed_file(store / at.path, manifest):
        return None
    return Dataset(path=at.path, recipe=at.recipe, digest=manifest.digest, rows=manifest.rows)


def manifest_of(store: Path, dataset: Dataset) -> dict[str, Any]:
    """Read a dataset's manifest as a dict. Raises BadInput, which names the file, when it is missing or damaged."""
    if not (store / dataset.path).is_dir():
        raise BadInput(f"{store / dataset.path} is missing from the store: run the study again to make it")
    return dict(read_manifest(store / dataset.path))


def verify(store: Path, dataset: Dataset) -> str | None:
    """Compare a dataset's bytes with its digest and hashes. Returns a description of the difference, or None."""
    folder = store / dataset.path
    try:
        manifest = read_manifest(folder)
        if (changed := changed_file(folder, manifest)) is not None:
            return f"{dataset.path}: {changed}"
        for name, written in manifest.hashes.items():
            if hash_of(folder / name) != written:
                return f"{dataset.path}: {name}: its bytes are not those that were written"
        if digest_of(folder, manifest.volatile) == dataset.digest:
            return None
        strange = ", ".join(name for name in files_in(folder) if name not in manifest.files)
    except Damaged as error:
        return f"{dataset.path}: {error}"
    except OSError as error:
        return f"{dataset.path}: {error.filename}: {error.strerror}"
    return f"{dataset.path}: " + (
        f"holds files that were not written with it: {strange}"
        if strange
        else "its bytes are not those that were written"
    )


@contextlib.contextmanager
def locked(path: Path, *, used: bool = True) -> Iterator[None]:
    """Hold the lock `<path>.lock` until the block ends. The kernel releases the lock even after SIGKILL.

    With `used`, the time of the lock file changes too, by which garbage collection sees that a dataset was used.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise BadInput(f"the store cannot be written: {error.strerror}: {lock.parent}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
            log.warning("waiting for %s, which is writing %s", holder, path.name)
            fcntl.flock(handle, fcntl.LOCK_EX)
        sign(handle)
        if used:
            touch(handle)
        yield
    finally:
        os.close(handle)


def sign(handle: int) -> None:
    """Write the name of this process into the file of a lock that it holds, for those who wait.

    A full disk leaves the file without a name: the lock holds all the same, and `gc` needs one to free space.
    """
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def touch(handle: int) -> None:
    """Give a file a later modification time than it has now, even if the clock was set back."""
    later = max(time.time_ns(), os.fstat(handle).st_mtime_ns + 1)
    os.utime(handle, ns=(later, later))


def sync(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, to disk, so that they survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, text: str) -> None:
    """Replace a small text file atomically: a reader sees the whole old text or the whole new text."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    sync(partial)
    os.replace(partial, path)
    sync(path.parent)


def materialize(
    store: Path,
    at: Address,
    body: Callable[[Path], int],
    *,
    volatile: tuple[str, ...] = (),
    resumes: bool = False,
    force: bool = False,
    machine: dict[str, Any] | None = None,
    share: Callable[[], float] = lambda: 1.0,
) -> Dataset:
    """Return the dataset at an address. Make it with `body` if it is not complete yet, or if `force` is set.

    `body` fills an empty folder and returns the number of rows. With `resumes`, the folder still holds the files of an
    interrupted call. The folder gets its final name by one rename, after every byte is synced. Files named in
    `volatile` hold durations and are left out of the digest. If another process is making the same dataset, the call
    waits until that process has finished, then returns the dataset. `machine` is the description in the manifest of
    the machine that `body` computes on; the default is this machine's CPU. `share` returns the part of the time of
    `body` that this dataset took, when `body` makes several. Raises BadInput when the store cannot be written.
    """
    final = store / at.path
    uses.note(store, at.path)
    partial = final.with_name(final.name + ".partial")
    with locked(final):
        if not force and (found := complete(store, at)):
            return found
        if not resumes or force:
            shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(exist_ok=True)
        began = time.perf_counter()
        rows = body(partial)
        names = files_in(partial)
        for name in names:
            sync(partial / name)
        digest = digest_of(partial, volatile)
        manifest = {
            "stage": at.stage,
            "version": at.version,
            "recipe": at.recipe,
            "arguments": at.arguments,
            "inputs": [handle.model_dump() for handle in at.inputs],
            "digest": digest,
            "rows": rows,
            "files": {name: (partial / name).stat().st_size for name in names},
            "volatile": list(volatile),
            "hashes": {name: hash_of(partial / name) for name in volatile if name in names},
            "seconds": round((time.perf_counter() - began) * share(), 3),
            "libraries": provenance.library_versions(),
            "code": provenance.code(),
            "machine": machine or provenance.machine(),
        }
        write_atomically(partial / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True))
        _install(partial, final)
    return Dataset(path=at.path, recipe=at.recipe, digest=digest, rows=rows)


def _install(partial: Path, final: Path) -> None:
    """Rename a finished folder to its final name. A folder that already has this name is moved aside, then removed."""
    aside = final.with_name(final.name + ".old")
    shutil.rmtree(aside, ignore_errors=True)
    if final.exists():
        os.rename(final, aside)
    os.rename(partial, final)
    sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def find_store(option: str | os.PathLike[str] | None = None, *, create: bool = False, missing_ok: bool = False) -> Path:
    """Return the folder of the store: `option`, else the environment variable BRIDGESCOPE_STORE, else a folder `store`.

    The folder `store` is searched for in the current folder, then in its parents; the first one found is returned.
    With `create`, a missing store is created; without `option` and the variable, it is created as `./store`. With
    `missing_ok`, this path is returned, and nothing is created. Raises BadInput when there is no store, or when it
    cannot be created.
    """
    named = option or os.environ.get("BRIDGESCOPE_STORE")
    if named:
        root = Path(named).expanduser().resolve()
    else:
        here = Path.cwd()
        held = [folder / "store" for folder in (here, *here.parents) if (folder / "store").is_dir()]
        root = held[0] if held else here / "store"
    if root.is_dir():
        return root
    if root.exists():
        raise BadInput(f"{root} is a file: the store is a folder (--store DIR, or the variable BRIDGESCOPE_STORE)")
    if missing_ok:
        return root
    if not create:
        raise BadInput(f"there is no store at {root}: name one with --store DIR or the variable BRIDGESCOPE_STORE")
    try:
        root.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"the store {root} cannot be made: {error.strerror}") from error
    return root
