"""The second wall around ad-hoc SQL: threads that the kernel lets read files, but neither write, make nor remove them.

The guard reads statements and may overlook one; the kernel does not read them. Landlock is used where the kernel has it
(Linux 5.13), else a seccomp filter that refuses to open a file for writing (Linux 3.5). RLIMIT_FSIZE of 0 was tried and
left: it fails each write, but opening an output file still empties it, and an answer sent to a file fails as well.

Both hold for the thread that asks for them and for all threads and processes that it starts, and cannot be undone. So a
connection of DuckDB must be opened after the call, in the same thread: its workers then inherit the restriction. Files
that are open already, such as standard output, stay writable.
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
# Rights of linux/landlock.h by the version that brought them. Reading (2, 3) and executing (0) stay free.
WRITE, REMOVE, MAKE = 1 << 1, 1 << 4 | 1 << 5, sum(1 << bit for bit in range(6, 13))
REFER, TRUNCATE, DEVICE = 1 << 13, 1 << 14, 1 << 15  # versions 2, 3 and 5
NETWORK = 1 << 0 | 1 << 1  # bind and connect with TCP, version 4

# System calls by machine (linux/audit.h, asm/unistd.h): open with its flags in argument 1, openat in argument 2.
MACHINES = {
    "x86_64": (0xC000003E, {2: 1, 257: 2}),
    "aarch64": (0xC00000B7, {56: 2}),
}
WRITERS = {
    # creat, truncate, ftruncate, rename*, mkdir*, rmdir, link*, symlink*, unlink*, mknod*, chmod*, io_uring_setup
    "x86_64": (85, 76, 77, 82, 264, 316, 83, 258, 84, 86, 265, 88, 266, 87, 263, 133, 259, 90, 91, 268, 452, 425),
    "aarch64": (45, 46, 38, 276, 34, 37, 36, 35, 33, 52, 53, 452, 425),
}
OPENAT2 = 437  # its flags lie in memory, which a filter cannot read: it is answered as if the kernel had none

_libc = ctypes.CDLL(None, use_errno=True)


def forbid_writing() -> str:
    """Restrict this thread, and what it starts, to reading; return 'landlock', 'seccomp' or 'none'.

    'none' is a system that has neither: a line in the log says that only the guard protects the store.
    """
    for name, restrict in (("landlock", with_landlock), ("seccomp", with_seccomp)):
        try:
            restrict()
            return name
        except OSError:
            logging.getLogger("bridgescope").debug("%s is not available", name, exc_info=True)
    logging.getLogger("bridgescope").warning("this system cannot forbid writing: SQL is held by its guard alone")
    return "none"


def with_landlock() -> None:
    """Forbid writing by a Landlock ruleset without a rule. Raises OSError where the kernel has no Landlock."""
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
    """Forbid writing by a filter of system calls. Raises OSError where the system or the machine has none."""
    if platform.system() != "Linux" or platform.machine() not in MACHINES:
        raise OSError(errno.ENOSYS, "no filter is known for this machine")
    code = seccomp_filter(platform.machine())
    instructions = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(instructions))
    _no_new_privileges()
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(program))


def seccomp_filter(machine: str) -> bytes:
    """A classic BPF program that fails writing system calls with EACCES, and allows all others."""
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
    for call, argument in openers.items():  # low half of the argument; both machines are little-endian
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

    A command opens the catalog and answers in it, while its main thread waits, takes Ctrl-C and reads the prompt.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "reading")
        self.interrupt: Callable[[], None] = lambda: None  #: stops a running call, as `interrupt` of a connection does
        self.wall = self.call(forbid_writing)

    def call(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """The result of a function that runs in the thread; what it raises is raised here. Ctrl-C interrupts it."""
        future = self._pool.submit(function, *arguments, **named)
        try:
            return future.result()
        except KeyboardInterrupt:
            while not future.done():  # between two statements an interrupt is lost
                self.interrupt()
                wait([future], timeout=0.1)
            raise

    def __enter__(self) -> ReadingThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
