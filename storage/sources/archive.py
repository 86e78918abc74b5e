"""The members of a tar archive without compression, as places in its file. Members are refused, but nothing is lost."""

from __future__ import annotations

import tarfile
from typing import IO, NamedTuple

from storage.sources.files import key_of, of_macos

BLOCK = 512  # bytes; headers of members begin at its multiples
NO_END, AFTER_END = "archive without an end", "data after the end of the archive"  # causes


class Member(NamedTuple):
    """One file in an archive."""

    name: str  #: bytes that are not UTF-8 are lone surrogates
    offset: int
    size: int
    refusal: str  #: the reason to refuse the member, or ""
    number: int  #: its number among the members


def refused(info: tarfile.TarInfo) -> str:
    """Return the reason to refuse a member, or ""."""
    if not info.isreg() or info.issparse():
        return "not a regular file"
    if info.name.startswith("/") or "\\" in info.name or "\0" in info.name or ".." in info.name.split("/"):
        return "path out of the archive"
    return ""


def members_of(file: IO[bytes]) -> tuple[list[Member], list[tuple[str, str]]]:
    """Return the members in a file, and (cause, detail) of what is wrong with the file.

    Archives that were written one after the other, as by `cat a.tar b.tar`, count as one. What macOS adds to an archive
    is left out. Raises tarfile.ReadError where a header is damaged: after that place, nothing could be found.
    """
    found: list[Member] = []
    start: int | None = 0
    while start is not None:
        file.seek(start)
        archive = tarfile.open(fileobj=file, mode="r:", encoding="utf-8")  # noqa: SIM115  # closed by the caller
        count = 0
        while (info := archive.next()) is not None:
            if info.size < 0 or archive.offset <= info.offset:  # else the next header would be read again, for ever
                raise tarfile.ReadError(f"the header at byte {info.offset:,} is damaged")
            archive.members.clear()  # type: ignore[attr-defined]
            count += 1
            if not info.isdir() and not of_macos(info.name):
                found.append(Member(info.name, info.offset_data, info.size, refused(info), len(found)))
        follows = _data_after(file, archive.offset)
        if follows is not None and follows == archive.offset:
            if count or start == 0:
                raise tarfile.ReadError(f"the header at byte {follows:,} is damaged")
            return found, [(AFTER_END, f"from byte {follows:,}")]
        start = follows
    if file.seek(0, 2) == archive.offset:  # an archive ends with blocks of zeros
        return found, [(NO_END, f"it may be cut short after byte {archive.offset:,}")]
    return found, []


def read_member(file: IO[bytes], member: Member) -> bytes:
    """Return the bytes of a member. Raises tarfile.ReadError when the archive ends within them."""
    file.seek(member.offset)
    data = file.read(member.size)
    if len(data) < member.size:
        raise tarfile.ReadError(f"the archive ends within {key_of(member.name)}")
    return data


def _data_after(file: IO[bytes], offset: int) -> int | None:
    """Return the first block from `offset` on that is not all zeros. None if there is none."""
    file.seek(offset)
    while data := file.read(1 << 20):
        zeros = len(data) - len(data.lstrip(b"\0"))
        if zeros < len(data):
            return offset + zeros - zeros % BLOCK
        offset += len(data)
    return None
