"""Transient failures: a file system that does not answer for a moment, a lost child process, or two parsing threads.

A call that fails for such a reason is tried again. A call that fails because of bad input, a full disk or a wrong
permission is not tried again.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from storage.errors import is_bad_input
from storage.syntax import came_between
from tasks.children import ChildLost

PAUSES = (1.0, 5.0)  # seconds before the second and the third try
ERRNOS = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN}

log = logging.getLogger("bridgescope")
T = TypeVar("T")


def may_pass(error: BaseException) -> bool:
    """Whether an error or one of its causes is a transient failure of the file system, or a lost child process.

    The error of Python that `storage.syntax` explains counts too: numpy reads the header of an array as source.
    """
    link: BaseException | None = error
    while link is not None:
        if (
            isinstance(link, ChildLost)
            or came_between(link)
            or (not is_bad_input(link) and getattr(link, "errno", 0) in ERRNOS)
        ):
            return True
        link = link.__cause__
    return False


def tried_again(call: Callable[[], T], what: str) -> T:
    """Return `call()`. After a transient error, wait and call it again, at most three times in all."""
    for number, pause in enumerate(PAUSES, start=1):
        try:
            return call()
        except Exception as error:
            if not may_pass(error):
                raise
            log.warning("%s: %s; try %d of %d in %g s", what, error, number + 1, len(PAUSES) + 1, pause)
        time.sleep(pause)
    return call()
