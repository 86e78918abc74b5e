"""Tar shards in WebDataset's format, local or at URLs. Members with the same name up to the first dot are one sample.

Shards are downloaded once and kept. Members are read without unpacking; links and unsafe names are refused.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from storage.dataset import locked
from storage.errors import BadInput
from storage.sources import Arrived, Dropped, Item, Listing, Source, SourceError, is_transient
from storage.sources.captions import EMPTY, Texts, captions_of, left_out, texts_of
from storage.sources.download import Policy, Wanted, download
from storage.sources.files import indexed, is_picture
from storage.sources.section import DownloadsSection, is_url, resolved
from storage.sources.tables import stamp

if TYPE_CHECKING:  # polars takes a fifth of a second to import
    import polars as pl

MAX_SHARDS = 1_000_000
MAX_TEXT_BYTES = 1 << 20
SHARDS_AT_ONCE = 4
INDEX: dict[str, Any] = {
    "key": str,
    "image": str,
    "offset": int,
    "size": int,
    "sha256": str,
    "texts": list[str],
    "left_out": list[list[str]],
    "cause": str,
}
Drops = list[Dropped]
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def expand(pattern: str) -> list[str]:
    """Expand the braces in a pattern to names. "{000..002}" is a range; "{a,b}" is a list.

    Raises BadInput for more than MAX_SHARDS names.
    """
    start, end = pattern.find("{"), pattern.find("}")
    if start < 0 or end < start:
        return [pattern]
    inner = pattern[start + 1 : end]
    if counted := _RANGE.fullmatch(inner):
        first, last = int(counted[1]), int(counted[2])
        if last - first >= MAX_SHARDS:
            raise BadInput(f"pairs.shards: {pattern} names more than {MAX_SHARDS:,} shards")
        choices = [f"{number:0{len(counted[1])}d}" for number in range(first, last + 1)]
    else:
        choices = inner.split(",")
    rest = expand(pattern[end + 1 :])
    if len(choices) * len(rest) > MAX_SHARDS:
        raise BadInput(f"pairs.shards: {pattern} names more than {MAX_SHARDS:,} shards")
    return [pattern[:start] + choice + tail for choice in choices for tail in rest]


class WebDatasetSection(DownloadsSection):
    """The section of a study file for tar shards in WebDataset's format."""

    paths: ClassVar[tuple[str, ...]] = ("shards",)

    source: Literal["webdataset"]
    shards: list[str] = Field(min_length=1, description="paths or URLs; {000..123} is a range, * a wildcard in paths")
    caption: str = Field("txt", pattern=r"^[A-Za-z0-9._-]+(:.+)?$", description='an extension, or "json:KEY"')

    @field_validator("shards", mode="before")
    @classmethod
    def _one(cls, shards: Any) -> Any:
        return [shards] if isinstance(shards, str) else shards

    def place(self) -> dict[str, Any]:
        """The folder of the first shard. The folder stays the same when shards are added."""
        return {"below": resolved(self.shards[0].partition("{")[0].rpartition("/")[0])}

    def remote(self) -> str | None:
        """The first of the shards that is a URL; None if all are paths."""
        return next(filter(is_url, self.shards), None)

    def reader(self, own: Path, identity: dict[str, Any]) -> Source:
        """Open the source without the limit."""
        return WebDataset(
            self.shards,
            own,
            identity=identity,
            caption=self.caption,
            policy=self.policy(),
            max_image_bytes=self.max_image_bytes,
        )


class WebDataset(Source):
    """Source of the samples in tar shards. The key of an image is SHARD/KEY, with the key of its sample.

    Args:
        shards: paths or URLs. Both may contain braces; paths may also contain wildcards.
        downloads: folder of the downloaded shards, and of the indices of all shards.
        caption: where a sample holds its caption: extension of a member ("txt"), or a key in its JSON ("json:KEY").
        policy: limits of the downloads.
        max_image_bytes: larger images fail.
        identity: identity of the source in the store.
    """

    name = "webdataset"

    def __init__(
        self,
        shards: Sequence[str],
        downloads: Path,
        *,
        identity: dict[str, Any],
        caption: str = "txt",
        policy: Policy | None = None,
        max_image_bytes: int = 32 << 20,
    ) -> None:
        self.shards, self.downloads, self.identity, self.caption = shards, downloads, identity, caption
        self.policy, self.max_image_bytes = policy or Policy(), max_image_bytes

    def list(self) -> Listing:
        """List the samples, shard by shard. Raises BadInput for a shard that is unreadable or unavailable for now."""
        items: dict[str, Item] = {}
        dropped: list[Dropped] = []
        for name, path in self._files(dropped).items():
            for row in self._index(path).iter_rows(named=True):
                key = f"{name}/{row['key']}"
                captions = captions_of(key, row["texts"])
                dropped += left_out(key, row["left_out"])
                if row["cause"] is not None:
                    dropped.append(Dropped(key, row["cause"]))
                elif not captions:
                    dropped.append(Dropped(key, "no caption"))
                elif key in items:
                    dropped.append(Dropped(key, "second sample of that key"))
                else:
                    locator = json.dumps([name, row["image"]], ensure_ascii=False)
                    items[key] = Item(key, "", locator, captions, stamp(row["sha256"], captions))
        return Listing([*items.values()], dropped)

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """Yield each image. The index of its shard gives the offset at which the image is read."""
        import polars as pl

        files = self._files([])
        places: dict[str, dict[str, tuple[int, int]]] = {}
        for locator in locators:
            shard, image = json.loads(locator)
            if shard not in files:
                yield SourceError("no such shard", shard)
                continue
            if shard not in places:
                index = self._index(files[shard]).filter(pl.col("cause").is_null())
                rows = index.select("image", "offset", "size").iter_rows()
                places = {shard: {name: (offset, size) for name, offset, size in rows}}  # of one shard only
            offset, size = places[shard].get(image, (0, -1))
            yield self._read(files[shard], image, offset, size)

    def _read(self, path: Path, image: str, offset: int, size: int) -> bytes | SourceError:
        if size < 0:
            return SourceError("not in the archive", image)
        if size > self.max_image_bytes:
            return SourceError("too large", f"{size:,} bytes, allowed are {self.max_image_bytes:,}")
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        return data if len(data) == size else SourceError("corrupt archive member", f"{image}: the shard ends early")

    def _files(self, dropped: Drops) -> dict[str, Path]:
        """Return {name: path} of all shards. Shards at URLs are downloaded first, or added to `dropped`."""
        places = [place for pattern in self.shards for place in expand(pattern)]
        local = [place for place in places if not is_url(place)]
        paths = [path for place in local for path in _matching(Path(place))]
        remote = [place for place in places if is_url(place)]
        wanted = []
        for url in remote:
            name = url.rstrip("/").rpartition("/")[2].partition("?")[0] or "shard.tar"
            folder = hashlib.sha256(url.encode()).hexdigest()[:12]
            wanted.append(Wanted(url, self.downloads / folder / name))
        slow = self.policy._replace(timeout=0.0, max_bytes=1 << 40, concurrency=SHARDS_AT_ONCE)
        with locked(self.downloads):
            errors = list(download(wanted, slow))
        for one, error in zip(wanted, errors, strict=True):
            if error is None:
                paths.append(one.path)
            elif is_transient(error.cause):
                # Without this error, the samples of a shard that is only temporarily unavailable would count as
                # removed.
                raise BadInput(f"pairs.shards: {one.url} cannot be had for now: {error}")
            else:
                dropped.append(Dropped(one.url, error.cause, error.detail))
        files: dict[str, Path] = {}
        for path in paths:
            if path.stem in files:
                raise BadInput(f"pairs.shards: two shards are named {path.stem}: {files[path.stem]} and {path}")
            files[path.stem] = path
        if not files:
            why = f": {dropped[0].cause} {dropped[0].detail}" if dropped else ""
            raise BadInput(f"pairs.shards: {', '.join(self.shards)}: no shard is there{why}")
        return files

    def _index(self, path: Path) -> pl.DataFrame:
        options = f"{self.caption} {self.max_image_bytes}"
        try:
            return indexed(path, self.downloads / "index", options, self._indexing)
        except FileNotFoundError:
            raise BadInput(f"pairs.shards: {path}: no such file") from None
        except (tarfile.TarError, OSError) as error:
            raise BadInput(f"{path} is no readable tar without compression ({error})") from error

    def _indexing(self, path: Path) -> pl.DataFrame:
        """Make the index of a shard in one pass: offset, size and digest of each sample's image, and its captions."""
        import polars as pl

        rows = []
        with tarfile.open(path, "r:") as archive:
            row: dict[str, Any] = {}
            for info in archive:
                if info.isdir():
                    continue
                folder, _, base = info.name.rpartition("/")
                stem, _, extension = base.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if row.get("key") != key:
                    row = dict.fromkeys(INDEX) | {"key": key, "texts": [], "left_out": []}
                    rows.append(row)
                self._member(archive, info, extension, row)
        for row in rows:
            if row["cause"] is None and row["image"] is None:
                row["cause"] = "no image in the sample"
        return pl.DataFrame(rows, schema=INDEX)

    def _member(self, archive: tarfile.TarFile, info: tarfile.TarInfo, extension: str, row: dict[str, Any]) -> None:
        """Add the content of one member to the row of its sample."""
        wanted, _, inside = self.caption.partition(":")
        is_image = is_picture(extension)
        if not is_image and extension.lower() != wanted:
            return
        if refusal := refused(info):
            row["cause"] = refusal
        elif is_image and row["image"] is None:
            row |= {"image": info.name, "offset": info.offset_data, "size": info.size}
            row["sha256"] = _sum(archive, info) if info.size <= self.max_image_bytes else f"{info.size} bytes"
        elif not is_image:
            found = _texts(archive, info, inside)
            row["texts"] += found.texts
            row["left_out"] += map(list, found.left_out)


def refused(info: tarfile.TarInfo) -> str:
    """Return the reason to refuse a member, or ""."""
    if not info.isreg() or info.issparse():
        return "not a regular file"
    if info.name.startswith("/") or "\\" in info.name or ".." in info.name.split("/"):
        return "path out of the archive"
    return ""


def _matching(place: Path) -> list[Path]:
    """Return the files that a path with wildcards names, sorted.

    A part of the path that exists as a file or folder is not read as a wildcard, even if it contains * ? or [.
    """
    root = Path(place.anchor)
    for number, part in enumerate(parts := place.parts[1 if place.anchor else 0 :]):
        if (root / part).exists():
            root /= part
        elif any(sign in part for sign in "*?["):
            return sorted(root / hit for hit in glob("/".join(parts[number:]), root_dir=root))
        else:
            return [place]
    return [root]


def _sum(archive: tarfile.TarFile, info: tarfile.TarInfo) -> str:
    member = archive.extractfile(info)
    return hashlib.sha256(member.read() if member else b"").hexdigest()


def _texts(archive: tarfile.TarFile, info: tarfile.TarInfo, inside: str) -> Texts:
    """Return the captions in a member: its whole text, or the values at the key `inside` of its JSON."""
    if info.size > MAX_TEXT_BYTES:
        return Texts([], [("caption file too large", f"{info.name}: {info.size:,} bytes")])
    member = archive.extractfile(info)
    data = member.read() if member else b""
    if not inside:
        return texts_of(data)
    try:
        return texts_of(json.loads(data)[inside])
    except (ValueError, RecursionError) as error:
        return Texts([], [("caption file is not JSON", f"{info.name}: {error}")])
    except (KeyError, TypeError):
        return Texts([], [(EMPTY, f"{info.name} has no key {inside!r}")])
