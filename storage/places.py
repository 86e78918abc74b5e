"""What lies at a path that a user names, and whether it has changed. A path that is too long names nothing.

`Path.is_dir` and its relatives raise an error for such a path.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path


def is_file(path: Path) -> bool:
    """Whether a path is a file that can be looked at."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether a path is a folder. Raises PermissionError if it is in a folder that must not be searched."""
    return _unless_too_long(path.is_dir)


def exists(path: Path) -> bool:
    """Whether anything is at a path. Raises PermissionError if it is in a folder that must not be searched."""
    return _unless_too_long(path.exists)


def changed(stat: os.stat_result) -> int:
    """Return a number that differs after a file was written or replaced.

    tar, unzip, rsync and `cp -p` set the time of the last write back, so it may be that of the file before. The time at
    which the kernel last changed the file's entry cannot be set.
    """
    return stat.st_mtime_ns + stat.st_ctime_ns


def _unless_too_long(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False
