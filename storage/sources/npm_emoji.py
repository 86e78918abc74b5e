"""Emoji pictures with their labels and tags: real image-text pairs from two npm packages.

The packages are fetched once with `npm pack` and checked against known sha512 digests; later runs need no network.
Members are read from the tarballs without unpacking, so a package cannot write to the file system.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, TypeAdapter

from storage.errors import BadInput
from storage.memo import read_memo, update_memo
from storage.sources import Arrived, Caption, Dropped, Item, Label, Listing, Source, SourceError
from storage.sources.labels import label_texts
from storage.sources.section import PairsSection

IMAGES = "@lobehub/fluent-emoji-3d@1.1.0"
METADATA = "emojibase-data@17.0.0"
#: sha512 of the tarballs of the default versions, in the format of package lock files
INTEGRITY = {
    IMAGES: "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
    METADATA: "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
}
IMAGE_MEMBER = re.compile(r"package/assets/([0-9A-Fa-f_-]+)\.webp")
METADATA_MEMBER = "package/en/data.json"
NAMES_MEMBER = "package/en/messages.json"  # the names of groups and subgroups
KEYS_MEMBER = "package/meta/groups.json"  # {number: key}; in messages.json of version 17.0.0, two subgroups share one
MAX_IMAGE_BYTES = 4 << 20  # the largest image of the default package is 29 kB
MAX_METADATA_BYTES = 64 << 20
MAX_UNPACKED_BYTES = 1 << 30  # stops a decompression bomb; the default packages hold 18 and 50 MB
NPM_SECONDS = 600

_EXACT = re.compile(r"(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*@[0-9]+\.[0-9]+\.[0-9]+[a-zA-Z0-9.+-]*")
_SKIN_TONES = frozenset({"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"})


class NpmEmojiSection(PairsSection):
    """The section of a study file for emoji pictures from two npm packages."""

    source: Literal["npm-emoji"]
    images: str = Field(IMAGES, description="npm package of the images, with its version")
    metadata: str = Field(METADATA, description="npm package of labels and tags, with its version")
    limit: int | None = Field(None, ge=2, description="take at most this many items, from the first")

    def open(self, store: Path) -> Source:
        """Open the source. All studies of a store share its downloads."""
        return NpmEmoji(store / "downloads", images=self.images, metadata=self.metadata, limit=self.limit)


class Member(NamedTuple):
    """The content of one file in a tarball."""

    name: str
    data: bytes | None  #: None when the member is refused
    refusal: str  #: the reason to refuse the member, or ""


class MemberDigest(NamedTuple):
    """The digest of one file in a tarball."""

    name: str
    sha256: str | None  #: None when the member is refused
    refusal: str  #: the reason to refuse the member, or ""


DIGESTS = TypeAdapter(dict[str, list[MemberDigest]])  # type of a memo: {digest of a tarball: its picture files}


def normalise(hexcode: str) -> str:
    """Normalise a hexcode: lower case, at least four digits per code point, no variation selector fe0f."""
    return "-".join(part.zfill(4) for part in hexcode.lower().split("-") if part != "fe0f")


def group_of(hexcode: str) -> str:
    """Return a hexcode without skin tones. Emoji that differ only in skin tone are one group.

    Source: docs/definitions.md, "Split".
    """
    return "-".join([p for p in hexcode.split("-") if p not in _SKIN_TONES] or [hexcode])


def captions_of(hexcode: str, label: str, tags: Sequence[str]) -> tuple[Caption, ...]:
    """Return two captions: the label, and the label with its tags in brackets, as "locked (closed, lock, private)".

    A tag equal to the label is left out. If no other tag is left, there is only the first caption.
    """
    label = " ".join(label.split())
    once = dict.fromkeys(" ".join(tag.split()) for tag in tags)
    new = [tag for tag in once if tag and tag.casefold() != label.casefold()]
    captions = [Caption(f"{hexcode}/label", label)]
    if new:
        captions.append(Caption(f"{hexcode}/tags", f"{label} ({', '.join(new)})"))
    return tuple(captions)


class NpmEmoji(Source):
    """Source of about 1,850 emoji pictures (256 x 256 RGBA) with one or two captions each.

    Args:
        downloads: folder of the two tarballs; created when missing.
        images, metadata: packages as NAME@VERSION, with exact versions.
        limit: number of items to keep, in the order of their keys; items beyond the limit do not count as dropped.

    Raises `BadInput` for a package that is not named as NAME@VERSION, or a limit below 1.
    """

    name = "npm-emoji"

    def __init__(
        self,
        downloads: Path,
        images: str = IMAGES,
        metadata: str = METADATA,
        limit: int | None = None,
    ) -> None:
        for key, package in (("images", images), ("metadata", metadata)):
            if not _EXACT.fullmatch(package):
                raise BadInput(f"npm-emoji: {key} = {package!r} is not NAME@VERSION with an exact version (1.2.3)")
        if limit is not None and limit < 1:
            raise BadInput(f"npm-emoji: limit = {limit}, allowed is 1 or more")
        self.downloads, self.images, self.metadata, self.limit = Path(downloads), images, metadata, limit
        self.identity: dict[str, Any] = {"images": images, "metadata": metadata}
        if limit is not None:
            self.identity["limit"] = limit
        self._verified: dict[str, Path] = {}

    def list(self) -> Listing:
        """Join pictures and labels on the hexcode.

        Each picture file and each row of the metadata becomes part of an item, or one `Dropped`.
        Raises `BadInput` when a package is neither in `downloads` nor available through npm.
        """
        pictures, dropped = _pictures(self._digests())
        wanted = {METADATA_MEMBER, NAMES_MEMBER, KEYS_MEMBER}
        members = {m.name: m for m in self._members(self.metadata, MAX_METADATA_BYTES, wanted.__contains__)}
        rows = _rows(members.get(METADATA_MEMBER), self.metadata)
        labels = {hexcode: (row["label"], [*row.get("tags", ())]) for hexcode, row in rows.items()}
        items = []
        for hexcode in sorted(pictures):
            locator, digest = pictures[hexcode]
            if hexcode not in labels:
                dropped.append(Dropped(Path(locator).stem, "no label in the metadata"))
                continue
            captions = captions_of(hexcode, *labels[hexcode])
            # The fingerprint leaves out the version of the package. So after a new version, only changed items are new.
            print_of = hashlib.sha256(json.dumps([digest, captions]).encode()).hexdigest()[:16]
            items.append(Item(hexcode, group_of(hexcode), locator, captions, print_of))
        dropped += [
            Dropped(hexcode, "no image in the package", label)
            for hexcode, (label, _) in sorted(labels.items())
            if hexcode not in pictures
        ]
        names = _group_names(members.get(NAMES_MEMBER), members.get(KEYS_MEMBER))
        offered = items[: self.limit]
        groups = [label for item in offered for label in _groups(item.source_key, rows[item.source_key], names)]
        return Listing(offered, dropped, groups)

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """Yield the bytes of each picture, in order, or its `SourceError`.

        The tarball is read once (0.3 s) for any number of pictures. The requested pictures stay in memory (5 kB each).
        """
        wanted = set(locators)
        members = {m.name: m for m in self._members(self.images, MAX_IMAGE_BYTES, wanted.__contains__)}
        for locator in locators:
            member = members.get(locator)
            if member is None:
                yield SourceError("not in the package", f"{locator} of {self.images}")
            elif member.data is None:
                yield SourceError(member.refusal, f"{locator} of {self.images}")
            else:
                yield member.data

    def _digests(self) -> Sequence[MemberDigest]:
        """Return the digest of every picture file. A memo beside the tarball caches them; they take 0.5 s."""
        memo = self._tarball(self.images).with_suffix(".members.json")
        integrity = _sha512(self._tarball(self.images))
        if (known := read_memo(memo, DIGESTS).get(integrity)) is not None:
            return known
        members = self._members(self.images, MAX_IMAGE_BYTES, lambda name: name.endswith(".webp"))
        found = [
            MemberDigest(m.name, None if m.data is None else hashlib.sha256(m.data).hexdigest(), m.refusal)
            for m in members
        ]
        update_memo(memo, DIGESTS, {integrity: found})
        return found

    def _members(self, package: str, max_bytes: int, wanted: Callable[[str], bool]) -> Iterator[Member]:
        """Read the members with `wanted(name)`. Refuses links, paths out of the package and oversized members."""
        tarball = self._tarball(package)
        unpacked = 0
        try:
            with tarfile.open(tarball, "r|gz") as archive:
                for info in archive:
                    unpacked += info.size
                    if unpacked > MAX_UNPACKED_BYTES:
                        raise BadInput(f"{package} unpacks to more than {MAX_UNPACKED_BYTES >> 20} MiB: not read")
                    if info.isdir() or not wanted(info.name):
                        continue
                    refusal = _refusal(info, max_bytes)
                    handle = None if refusal else archive.extractfile(info)
                    yield Member(info.name, None if handle is None else handle.read(), refusal)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise BadInput(
                f"{tarball.name} is not a readable tarball ({error}): delete it to fetch it again"
            ) from error

    def _tarball(self, package: str) -> Path:
        """Path of the verified tarball of `package`, fetched when it is missing or its digest differs."""
        if package not in self._verified:
            path = self.downloads / _file_name(package)
            if not _is_intact(path, package):
                _fetch(package, path)
            self._verified[package] = path
        return self._verified[package]


def _pictures(members: Iterable[MemberDigest]) -> tuple[dict[str, tuple[str, str]], list[Dropped]]:
    """Return {hexcode: (locator, sha256 of the bytes)} of emoji without skin tone, and all other files as dropped."""
    pictures: dict[str, tuple[str, str]] = {}
    dropped = []
    for member in sorted(members, key=lambda m: m.name):
        match = IMAGE_MEMBER.fullmatch(member.name)
        key = match[1] if match else member.name
        hexcode = normalise(key)
        parts = hexcode.split("-")
        if member.sha256 is None:
            dropped.append(Dropped(key, member.refusal))
        elif match is None:
            dropped.append(Dropped(key, "not named by a hexcode"))
        elif len(parts) > 1 and _SKIN_TONES.intersection(parts):
            dropped.append(Dropped(key, "skin-tone variant"))
        elif hexcode in pictures:  # a second file, as 23-20e3 after 0023-fe0f-20e3: the first by name stays
            dropped.append(Dropped(key, "second file of the same emoji", pictures[hexcode][0]))
        else:
            pictures[hexcode] = (member.name, member.sha256)
    return pictures, dropped


def _rows(member: Member | None, package: str) -> dict[str, dict[str, Any]]:
    """Return {hexcode: row} from the metadata file of the package, whose rows have a hexcode, a label and tags."""
    if member is None or member.data is None:
        raise BadInput(f"{package} holds no readable {METADATA_MEMBER}: name a version of emojibase-data")
    try:
        rows = {normalise(row["hexcode"]): row for row in json.loads(member.data)}
        if all(isinstance(text, str) for row in rows.values() for text in (row["label"], *row.get("tags", ()))):
            return rows
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise BadInput(f"{METADATA_MEMBER} of {package} is not a list of hexcode, label, tags")


def _group_names(messages: Member | None, meta: Member | None) -> dict[str, dict[Any, str]]:
    """Return {"group" or "subgroup": {number: name}} from the package's file of messages; {} without a readable one.

    Messages whose key is another than `meta` gives the number are left out.
    """
    try:
        named, keyed = (json.loads(member.data or b"{}") if member else {} for member in (messages, meta))
        names: dict[str, dict[Any, str]] = {}
        for kind in ("group", "subgroup"):
            keys = keyed.get(f"{kind}s", {})
            names[kind] = {
                row["order"]: row["message"]
                for row in named.get(f"{kind}s", ())
                if isinstance(row["message"], str) and keys.get(f"{row['order']}", row["key"]) == row["key"]
            }
        return names
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _groups(key: str, row: dict[str, Any], names: dict[str, dict[Any, str]]) -> list[Label]:
    """Return the group and the subgroup of an emoji. A number without a name is its own label."""
    labels = []
    for kind in ("group", "subgroup"):
        number = row.get(kind)
        name = names.get(kind, {}).get(number, number) if isinstance(number, int) else number
        labels += [Label(key, kind, label) for label, wrong in label_texts(name) if not wrong]
    return labels


def _file_name(package: str) -> str:
    name, version = package.rsplit("@", 1)
    return f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"


def _refusal(info: tarfile.TarInfo, max_bytes: int) -> str:
    """The reason to refuse a member, or "". Members are not unpacked, but unsafe names must not get into locators."""
    if not info.isreg():
        return "not a regular file"
    if info.name.startswith("/") or "\\" in info.name or ".." in info.name.split("/"):
        return "path out of the package"
    return "too large" if info.size > max_bytes else ""


def _sha512(path: Path) -> str:
    """Return the sha512 of a file in the format of package lock files: sha512-BASE64."""
    with path.open("rb") as file:
        return "sha512-" + base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()


def _recorded(path: Path) -> Path:
    """Return the path of the file with the digest that npm reported. INTEGRITY lacks the digest of such a package."""
    return path.with_name(path.name + ".integrity")


def _is_intact(path: Path, package: str) -> bool:
    """Whether the tarball exists and has the digest in INTEGRITY, or else the digest that npm reported."""
    try:
        expected = INTEGRITY.get(package) or _recorded(path).read_text().strip()
        return _sha512(path) == expected
    except FileNotFoundError:
        return False


def _fetch(package: str, path: Path) -> None:
    """Run `npm pack` in a temporary folder, verify the tarball, then rename it to `path`."""
    npm = shutil.which("npm")
    if npm is None:
        put = f"put {path.name} into {path.parent}, the folder of the store's downloads"
        if package not in INTEGRITY:
            put += f", and its digest (sha512-BASE64) into {_recorded(path).name} beside it"
        raise BadInput(f"npm-emoji needs npm to fetch {package}: install Node.js with npm, or {put}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".npm-", dir=path.parent) as folder:
        command = [npm, "pack", package, "--json", "--ignore-scripts", "--pack-destination", folder]
        try:
            process = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=NPM_SECONDS)
        except subprocess.TimeoutExpired:
            raise BadInput(f"npm pack {package}: no answer in {NPM_SECONDS} s; is the network up?") from None
        packed = next(iter(Path(folder).glob("*.tgz")), None)
        if process.returncode or packed is None:
            raise BadInput(f"npm pack {package} failed: {_last_lines(process.stderr)}")
        try:
            reported = str(json.loads(process.stdout)[0]["integrity"])
        except (ValueError, KeyError, IndexError, TypeError):
            raise BadInput(f"npm pack {package} reported no integrity: npm 7 or later is needed") from None
        expected = INTEGRITY.get(package, reported)
        if _sha512(packed) != expected:
            raise BadInput(f"npm pack {package} gave other bytes than published: sha512 differs from {expected}")
        os.replace(packed, path)
        if package not in INTEGRITY:
            note = Path(folder) / "integrity"
            note.write_text(expected + "\n")
            os.replace(note, _recorded(path))


def _last_lines(stderr: str) -> str:
    """The last lines of npm's errors, without warnings and references to log files."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and "log" not in line and "warn" not in line]
    return " | ".join(lines[-4:]) or "npm gave no reason"
