"""The manifest of a dataset, `dataset.json`. It describes the dataset, its inputs, and what code and machine made it.

The manifest is written last, so a folder with a manifest is complete. If the manifest is damaged, `read_manifest` says
how.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from storage.errors import BadInput

MANIFEST = "dataset.json"
RECORD = "cached.json"  # Prefect's cache record of the task; kept in the folder, so that it is deleted with it
#: Errors of the process, such as too many open files. They do not mean that a file of the store is damaged.
NOT_OF_THE_FILE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR)


class Damaged(BadInput):
    """A file of the store is missing or differs from what was written. The message names the file."""


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise ValueError(f"{name!r} is not the name of a file of the dataset")
    return name


class Manifest(BaseModel):
    """The contents of `dataset.json`."""

    model_config = ConfigDict(extra="allow", strict=True)  # later versions may add keys

    stage: str  #: the folder that holds all outputs of the stage
    version: str
    recipe: str
    arguments: dict[str, Any]
    inputs: list[dict[str, Any]]  #: handles of the datasets that this dataset was made from
    digest: str
    rows: Annotated[int, Field(ge=0)]
    files: dict[Annotated[str, AfterValidator(_inside)], int]  #: {name of a file: its size in bytes}
    volatile: list[str]  #: files that hold durations and are not part of the digest
    #: {name of a volatile file: its sha256}; empty in manifests that lack it
    hashes: dict[Annotated[str, AfterValidator(_inside)], str] = Field(default_factory=dict)
    seconds: float
    libraries: dict[str, str]
    code: dict[str, Any] | None = None  #: `storage.provenance.code`; None in version 0.1
    machine: dict[str, Any] | None = None  #: `storage.provenance.machine`; None in version 0.1


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest in the folder of a dataset. Raises Damaged when `dataset.json` is missing or not a manifest."""
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        where = "".join(f"{part}: " for part in problem["loc"])
        raise Damaged(f"{path} is damaged: {where}{problem['msg']}") from error
    except OSError as error:
        if error.errno in NOT_OF_THE_FILE:
            raise
        raise Damaged(f"{path}: {error.strerror}") from error


def changed_file(folder: Path, manifest: Manifest) -> str | None:
    """Compare the sizes of a dataset's files with the manifest. Returns the first difference in words, or None."""
    for name, size in manifest.files.items():
        try:
            found = (folder / name).stat().st_size
        except OSError as error:
            if error.errno in NOT_OF_THE_FILE:
                raise
            return f"{name}: {error.strerror}"
        if found != size:
            return f"{name} holds {found:,} bytes, and {size:,} were written"
    return None


def files_in(folder: Path) -> list[str]:
    """Names of all data files below a folder, sorted, without the manifest and Prefect's record."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name not in (MANIFEST, RECORD))


def digest_of(folder: Path, volatile: Iterable[str] = ()) -> str:
    """Sha256 over the names and bytes of a folder's files. Volatile files, which record durations, are left out."""
    total, left_out = hashlib.sha256(), set(volatile)
    for name in files_in(folder):
        if name not in left_out:
            total.update(f"{name} {hash_of(folder / name)}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def hash_of(path: Path) -> str:
    """Sha256 of the bytes of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
