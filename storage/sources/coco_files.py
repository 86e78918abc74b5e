"""The files of COCO's layout: JSON files in a folder or a zip, images in a folder or a zip. Nothing is unpacked."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from storage.errors import BadInput
from storage.places import is_file
from storage.sources import SourceError
from storage.sources.files import confined, digests, is_picture, key_of, read_bounded

MAX_JSON_BYTES = 2 << 30
MAX_MEMBERS = 20_000_000
SHOWN = 3  # number of names that a message shows
Prints = tuple[dict[str, str], dict[str, str]]  # {name: digest of the image}, {name: the several images of that name}


class Json(NamedTuple):
    """A JSON file, or a member of a zip."""

    path: Path
    member: str = ""  #: name of the member; "" for a file

    @property
    def where(self) -> str:
        """The place of the file, for errors."""
        return f"{self.path}: {self.member}" if self.member else f"{self.path}"

    def read(self) -> bytes:
        """Read the file. Raises BadInput when it cannot be read, and for a member larger than MAX_JSON_BYTES."""
        if not self.member:
            try:
                return self.path.read_bytes()
            except OSError as error:
                raise BadInput(f"{self.path}: cannot be read: {error.strerror}") from error
        with _opened(self.path) as archive:
            data = _read_member(archive, archive.getinfo(self.member), MAX_JSON_BYTES)
        if isinstance(data, SourceError):
            raise BadInput(f"{self.where}: {data}")
        return data

    def beside(self, prefix: str, other: str) -> Json | None:
        """Return the file in the same folder whose name begins with `other` in place of `prefix`, if there is one."""
        folder, slash, name = (self.member or self.path.name).rpartition("/")
        if not name.startswith(prefix):
            return None
        wanted = other + name.removeprefix(prefix)
        if not self.member:
            file = self.path.with_name(wanted)
            return Json(file) if file.is_file() else None
        with _opened(self.path) as archive:
            member = folder + slash + wanted
            return Json(self.path, member) if member in archive.NameToInfo else None


def find_captions(path: Path, subset: str) -> Json:
    """Return captions_<subset>.json; `path` is this file, or a folder or zip that contains it."""
    name = f"captions_{subset}.json"
    if path.is_dir():
        if not is_file(path / name):
            raise BadInput(f"pairs.annotations: the folder {path} holds no {name}: is pairs.subset = {subset!r} right?")
        return Json(path / name)
    if not zipfile.is_zipfile(path):
        return Json(path)
    with _opened(path) as archive:
        found = [info for info in archive.infolist() if info.filename.rpartition("/")[2] == name]
    if not found:
        raise BadInput(f"{path} holds no {name}: is pairs.subset = {subset!r} right?")
    if len({(info.CRC, info.file_size) for info in found}) > 1:
        raise BadInput(f"{path} holds several {name} ({_names(found)}): unpack one and set pairs.annotations to it")
    return Json(path, found[0].filename)


class Folder:
    """Images in a folder."""

    def __init__(self, root: Path, memo: Path, max_bytes: int) -> None:
        self.root, self.memo, self.max_bytes = root, memo, max_bytes

    def prints(self, names: Sequence[str]) -> Prints:
        """Return {name: sha256} of the named files that exist. A folder holds at most one file of each name."""
        paths = {name: confined(self.root, name) for name in names}
        files = {name: file for name, file in paths.items() if file and os.path.isfile(file)}
        return dict(zip(files, digests([*files.values()], self.memo), strict=True)), {}

    def read(self, names: Sequence[str]) -> Iterator[bytes | SourceError]:
        """Read the named files one by one."""
        for name in names:
            file = confined(self.root, name)
            yield SourceError("path out of the folder") if file is None else read_bounded(file, self.max_bytes)


class Zip:
    """Images in any folders of a zip. Members are read one by one, each up to the size limit.

    If several folders hold an image of a name, the one in the folder of the subset is meant.
    """

    def __init__(self, path: Path, subset: str, max_bytes: int) -> None:
        self.path, self.subset, self.max_bytes = path, subset, max_bytes

    def prints(self, names: Sequence[str]) -> Prints:
        """Return {name: CRC and size} of the named members that exist, as the zip's table of contents gives them.

        Names of several different images are apart, each with the names of the images.
        """
        with _opened(self.path) as archive:
            members = _members(archive, self.path)
        found = {name: self._of_name(members, name) for name in names}
        prints = {name: f"{one[0].CRC:08x}-{one[0].file_size}" for name, one in found.items() if len(one) == 1}
        return prints, {name: _names(several) for name, several in found.items() if len(several) > 1}

    def read(self, names: Sequence[str]) -> Iterator[bytes | SourceError]:
        """Read the named members one by one."""
        with _opened(self.path) as archive:
            members = _members(archive, self.path)
            for name in names:
                found = self._of_name(members, name)
                if len(found) == 1:
                    yield _read_member(archive, found[0], self.max_bytes)
                else:
                    yield SourceError("not in the archive", key_of(name))

    def _of_name(self, members: dict[str, list[zipfile.ZipInfo]], name: str) -> list[zipfile.ZipInfo]:
        """Return the member of a name, several if it is not clear which is meant."""
        if ".." in name.split("/"):
            return []
        found = members.get(name.rpartition("/")[2], [])
        if "/" in name:
            found = _below(found, name)
        if len(found) < 2:
            return found
        exact = [info for info in found if info.filename == name] or _below(found, f"{self.subset}/{name}")
        if len(exact) == 1:
            return exact
        return found if len({(info.CRC, info.file_size) for info in found}) > 1 else found[-1:]


def _below(members: Sequence[zipfile.ZipInfo], name: str) -> list[zipfile.ZipInfo]:
    """Return the members with the path `name` at any depth."""
    return [info for info in members if f"/{info.filename}".endswith(f"/{name}")]


def _names(members: Sequence[zipfile.ZipInfo]) -> str:
    names = [info.filename for info in members]
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise BadInput(f"{path} is neither a folder nor a readable zip ({error})") from error


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, list[zipfile.ZipInfo]]:
    """Return {file name without its folder: members} of the pictures in a zip. Of equal paths, the last counts."""
    listed = archive.infolist()
    if len(listed) > MAX_MEMBERS:
        raise BadInput(f"{path} lists {len(listed):,} members, allowed are {MAX_MEMBERS:,}")
    members: dict[str, list[zipfile.ZipInfo]] = {}
    for info in {info.filename: info for info in listed if is_picture(info.filename)}.values():
        members.setdefault(info.filename.rpartition("/")[2], []).append(info)
    return members


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int) -> bytes | SourceError:
    """Read a member's bytes. Reading stops at `max_bytes`, even if the header states a smaller size."""
    if info.flag_bits & 1:
        return SourceError("encrypted", info.filename)
    try:
        with archive.open(info) as member:
            data = member.read(max_bytes + 1)
            if len(data) <= max_bytes:
                data += member.read(1)  # makes zipfile compare the checksum, which it does at the member's end
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        # All these errors count as one cause. A compression that zipfile cannot read is a NotImplementedError.
        return SourceError("corrupt archive member", f"{info.filename}: {error}")
    return SourceError("too large", f"more than the {max_bytes:,} bytes allowed") if len(data) > max_bytes else data
