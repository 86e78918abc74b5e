"""The second protection against ad-hoc SQL that writes: a thread that the kernel lets read files but not write.

The first protection, `storage.guard`, judges statements before they run and may overlook one that writes. Here the
kernel refuses the write, whatever the statement is. Landlock is used if the kernel has it (Linux 5.13). Otherwise a
seccomp filter is used, which refuses to open a file for writing (Linux 3.5). A limit RLIMIT_FSIZE of 0 was tried and
rejected. With this limit, writes fail, but opening a file for output still empties the file. An answer can then not be
redirected to a file either.

Either restriction applies to the calling thread and to all threads and processes that this thread starts later. The
restriction cannot be undone. So a DuckDB connection must be opened after the call of `forbid_writing`, in the same
thread. The workers of the connection then inherit the restriction. Files that are already open, such as standard
output, stay writable.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import platform
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from types import TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
CREATE_RULESET, RESTRICT_SELF = 444, 446  # the same numbers on all architectures
RULESET_VERSION = 1
# Bits of linux/landlock.h for access to files, by the Landlock version that added them. Reading (bits 2 and 3) and
# executing (bit 0) remain allowed, so their bits are not listed.
WRITE, REMOVE, MAKE = 1 << 1, 1 << 4 | 1 << 5, sum(1 << bit for bit in range(6, 13))
REFER, TRUNCATE, DEVICE = 1 << 13, 1 << 14, 1 << 15  # added in Landlock versions 2, 3 and 5
NETWORK = 1 << 0 | 1 << 1  # bind and connect with TCP, added in version 4

# For each machine: its audit number (linux/audit.h), and {system call that opens files: index of the argument that
# holds the flags} (asm/unistd.h). The index is 1 for open and 2 for openat.
MACHINES = {
    "x86_64": (0xC000003E, {2: 1, 257: 2}),
    "aarch64": (0xC00000B7, {56: 2}),
}
WRITERS = {
    # creat, truncate, ftruncate, rename*, mkdir*, rmdir, link*, symlink*, unlink*, mknod*, chmod*, io_uring_setup
    "x86_64": (85, 76, 77, 82, 264, 316, 83, 258, 84, 86, 265, 88, 266, 87, 263, 133, 259, 90, 91, 268, 452, 425),
    "aarch64": (45, 46, 38, 276, 34, 37, 36, 35, 33, 52, 53, 452, 425),
}
OPENAT2 = 437  # made to fail as on a kernel without it, since a filter cannot read its flags in memory

_libc = ctypes.CDLL(None, use_errno=True)


def forbid_writing() -> str:
    """Forbid this thread, and the threads and processes that it starts, to write files.

    Returns the mechanism: 'landlock', 'seccomp', or 'none' on a system that has neither. In the last case a warning in
    the log says that only the guard protects the store.
    """
    for name, restrict in (("landlock", with_landlock), ("seccomp", with_seccomp)):
        try:
            restrict()
            return name
        except OSError:
            logging.getLogger("bridgescope").debug("%s is not available", name, exc_info=True)
    logging.getLogger("bridgescope").warning("this system cannot forbid writing: only the guard restricts SQL")
    return "none"


def with_landlock() -> None:
    """Forbid writing by a Landlock ruleset with no exceptions. Raises OSError if the kernel has no Landlock."""
    version = _syscall(CREATE_RULESET, None, 0, RULESET_VERSION)
    files = WRITE | REMOVE | MAKE
    files |= (REFER if version >= 2 else 0) | (TRUNCATE if version >= 3 else 0) | (DEVICE if version >= 5 else 0)
    attributes = struct.pack("QQ", files, NETWORK) if version >= 4 else struct.pack("Q", files)
    ruleset = _syscall(CREATE_RULESET, attributes, len(attributes), 0)
    try:
        _no_new_privileges()
        _syscall(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def with_seccomp() -> None:
    """Forbid writing by a filter of system calls. Raises OSError if the kernel or the machine does not support it."""
    if platform.system() != "Linux" or platform.machine() not in MACHINES:
        raise OSError(errno.ENOSYS, "no filter is known for this machine")
    code = seccomp_filter(platform.machine())
    instructions = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(instructions))
    _no_new_privileges()
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(program))


def seccomp_filter(machine: str) -> bytes:
    """Return a classic BPF program that checks system calls.

    Calls that write fail with EACCES. The call openat2 fails with ENOSYS. All other calls are allowed.
    """
    audit, openers = MACHINES[machine]
    flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    fail, absent, allow = 0x00050000 | errno.EACCES, 0x00050000 | errno.ENOSYS, 0x7FFF0000

    def load(offset: int) -> bytes:
        return struct.pack("HBBI", 0x20, 0, 0, offset)

    def answer(value: int) -> bytes:
        return struct.pack("HBBI", 0x06, 0, 0, value)

    def skip_unless_equal(value: int, count: int) -> bytes:
        return struct.pack("HBBI", 0x15, 0, count, value)

    program = [load(4), skip_unless_equal(audit, 1), struct.pack("HBBI", 0x05, 0, 0, 1), answer(fail), load(0)]
    program += [skip_unless_equal(OPENAT2, 1), answer(absent)]
    for call in WRITERS[machine]:
        program += [skip_unless_equal(call, 1), answer(fail)]
    for call, argument in openers.items():  # loads the low half of the argument: both machines are little-endian
        any_flag = struct.pack("HBBI", 0x45, 0, 1, flags)
        program += [skip_unless_equal(call, 4), load(16 + 8 * argument), any_flag, answer(fail), answer(allow)]
    return b"".join([*program, answer(allow)])


def _no_new_privileges() -> None:
    _prctl(PR_SET_NO_NEW_PRIVS, 1, 0)


def _prctl(option: int, first: int, second: ctypes.c_char_p | int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(first), second, ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _syscall(number: int, *arguments: bytes | int | None) -> int:
    if platform.system() != "Linux":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


class ReadingThread:
    """One thread that cannot write. The rest of the process is not restricted.

    A command opens the catalog and runs queries in this thread. Its main thread reads the prompt, waits for the answer
    and handles Ctrl-C.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "reading")
        self.interrupt: Callable[[], None] = lambda: None  #: stops a running call, e.g. a connection's `interrupt`
        self.wall = self.call(forbid_writing)

    def call(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Run a function in the thread and return its result, or raise its error. Ctrl-C stops the function."""
        future = self._pool.submit(function, *arguments, **named)
        try:
            return future.result()
        except KeyboardInterrupt:
            while not future.done():  # repeated, since an interrupt between two statements has no effect
                self.interrupt()
                wait([future], timeout=0.1)
            raise

    def __enter__(self) -> ReadingThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
