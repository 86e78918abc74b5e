"""Sentences for failures of the file system and the Prefect server: what happened, where, and what to do."""

from __future__ import annotations

import errno
import os
import re
import tomllib
import traceback
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

#: {error number of the operating system: (what it means, what to do)}
SYSTEM = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the quota of the disk is used up", "free some space"),
    errno.EFBIG: ("a file may not grow any more (a limit of this process, or of its disk)", "raise it (ulimit -f)"),
    errno.EROFS: ("the file system is read-only", "mount it for writing"),
    errno.EACCES: ("this user may not read or write it", "change its permissions"),
    errno.EPERM: ("this user has no permission for this", "change its permissions, or its owner"),
    errno.EMFILE: ("this process has too many open files", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("this machine has too many open files", "end other programs, or raise the limit (fs.file-max)"),
}
FREES_SPACE = (errno.ENOSPC, errno.EDQUOT)  # `bridgescope gc` helps too if the failed path lies in the store
EVERYWHERE = {*SYSTEM} - {errno.EACCES, errno.EPERM}  # any later write would fail too, whatever its path
ERROR = re.compile(r"\[Errno (\d+)\][^:\n]*(?:: ['\"]([^'\"\n]+)['\"])?")  # an OSError quoted in another error's text

#: (part of an error's text, sentence to print), for errors of the Prefect server
SERVER = (
    ("database is locked", "Prefect's database is locked by another process: wait for it, or use another server"),
    (
        "Failed to reach API",
        "{server} does not answer: start it (make server), or unset PREFECT_API_URL to run without a server",
    ),
    ("All connection attempts failed", "{server} does not answer any more: start it again (make server)"),
)


def explained(error: BaseException, store: Path | None = None) -> str | None:
    """Return a sentence for an error or one of its causes: the path that failed, what happened and what to do.

    Returns None for errors that are neither of the file system nor of the Prefect server. With `store`, the sentence
    says whether the failed path lies in the store.
    """
    for link in chain(error):
        if (failed := _of_system(link)) is not None:
            return _told(*failed, store, link)
    for mark, sentence in SERVER:
        for link in chain(error):
            if mark.lower() in str(link).lower():
                server = f"the Prefect server {os.environ.get('PREFECT_API_URL', '')}".rstrip()
                return f"{sentence.format(server=server)} ({str(link).splitlines()[0]})"
    return None


def is_of_surroundings(error: BaseException, store: Path | None = None) -> bool:
    """Whether the next job would fail too: the disk is full, or a path in the store or the Prefect server fails."""
    for link in chain(error):
        if (failed := _of_system(link)) is not None:
            number, path = failed
            return number in EVERYWHERE or (path is not None and _is_in(path, store))
    return explained(error) is not None


def _of_system(error: BaseException) -> tuple[int, str | None] | None:
    """(error number, path) of an error of the file system, or None for another error.

    An error whose text quotes an error of the file system counts too.
    """
    if isinstance(error, OSError) and error.errno in SYSTEM:
        path = error.filename
        return error.errno, os.fsdecode(path) if isinstance(path, (str, bytes)) else None
    quoted = ERROR.search(str(error))
    if quoted is not None and int(quoted[1]) in SYSTEM:
        return int(quoted[1]), quoted[2]
    for number in SYSTEM:  # libraries in C or Rust give the system's text without the number
        if os.strerror(number).lower() in str(error).lower():
            return number, None
    return None


def _told(number: int, path: str | None, store: Path | None, error: BaseException) -> str:
    what, remedy = SYSTEM[number]
    inside = ", in the store" if path is not None and _is_in(path, store) else ""
    place = f"{path}{inside}: " if path is not None else ""
    if number in FREES_SPACE and (inside or path is None or store is None):
        remedy += " (in the store: bridgescope gc)"
    return f"{place}{what}: {remedy} ({str(error).splitlines()[0]})"


def _is_in(path: str, store: Path | None) -> bool:
    return store is not None and Path(path).is_relative_to(store)


def refused_setting(error: BaseException) -> str | None:
    """Return a sentence for a setting that Prefect refused as it was loaded, or None for another error.

    Settings are variables PREFECT_* and lines of the profile in Prefect's folder.
    """
    if not isinstance(error, (ValidationError, tomllib.TOMLDecodeError)):
        return None
    if not any("prefect/settings/" in frame.filename for frame in traceback.extract_tb(error.__traceback__)):
        return None
    what = str(error).splitlines()[0]
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        what = f"{error.title}.{'.'.join(map(str, first['loc']))}: {first['msg']}, and not {first['input']!r}"
    return f"a setting of Prefect is not valid: {what}: change the variable PREFECT_* or the profile that sets it"


def sentence_of(error: BaseException, store: Path | None = None) -> str:
    """One sentence for an error.

    An error with an `exit_code` has a text written for users, which is returned as it is. For other errors it is the
    sentence of `explained`, or else the class and the text of the error.
    """
    if hasattr(error, "exit_code"):
        return str(error)
    return explained(error, store) or f"{type(error).__name__}: {error}"


def release(error: BaseException) -> None:
    """Clear the variables of the frames in which an error and its causes were raised; the lines stay known.

    Whoever keeps the error would keep the DuckDB connections of these frames, which are reported as leaks at exit.
    """
    for link in chain(error):
        traceback.clear_frames(link.__traceback__)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the chain of its causes."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
