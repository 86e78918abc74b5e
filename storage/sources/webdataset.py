"""Tar shards in WebDataset's format, local or at URLs. Members with the same name up to the first dot are one sample.

Shards are downloaded once and kept; compressed shards are unpacked once. `storage.sources.tar` reads the samples.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, TypeAdapter, field_validator

from storage.dataset import locked
from storage.errors import BadInput
from storage.memo import read_memo, update_memo
from storage.places import exists
from storage.sources import Arrived, Dropped, Item, Label, Listing, Source, SourceError, is_transient
from storage.sources.captions import captions_of, left_out
from storage.sources.compressed import stem_of, unpacked
from storage.sources.download import Policy, Wanted, download
from storage.sources.files import indexed, key_of, locator_of
from storage.sources.parquet_layout import STARS, has_stars_inside
from storage.sources.section import Columns, DownloadsSection, is_url, resolved
from storage.sources.tables import stamp
from storage.sources.tar import COPIES, VERSION, KeyEnds, Options, index_of

if TYPE_CHECKING:  # polars takes a fifth of a second to import
    import polars as pl

MAX_SHARDS = 1_000_000
SHARDS_AT_ONCE = 4
NAMES = TypeAdapter(dict[str, str])  # {path or URL of a shard: its name}
#: What reading a damaged tar raises. Headers may claim any size, and any number of headers for one member.
UNREADABLE = (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError, MemoryError)
_MEMBER = r"^[A-Za-z0-9._-]+(:.+)?$"
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
    shards: list[str] = Field(
        min_length=1,
        description="paths or URLs; {000..123} is a range; in paths, * stays in a folder and ** is any folders",
    )
    caption: str = Field("txt", pattern=_MEMBER, description='an extension, or "json:KEY"')
    image_member: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$",
        description='extension of the image in a sample, as "jpg" or "depth.png"; default: that of a picture, without '
        "a dot if a sample has several",
    )
    labels: Columns = Field([], description='extensions of members that label images, or "json:KEY"; .cls always does')
    key_ends: KeyEnds | None = Field(
        None,
        description="where the key in a member's name ends; default: at the first dot, and at the last dot for names "
        "with more dots that have captions of their own",
    )

    @field_validator("shards", mode="before")
    @classmethod
    def _one(cls, shards: Any) -> Any:
        return [shards] if isinstance(shards, str) else shards

    @field_validator("labels")
    @classmethod
    def _members(cls, labels: list[str]) -> list[str]:
        for label in labels:
            if not re.match(_MEMBER, label):
                raise ValueError(f'{label!r} is neither an extension nor "json:KEY"')
        return labels

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
            options=Options(self.caption, self.max_image_bytes, self.image_member, tuple(self.labels), self.key_ends),
            policy=self.policy(),
        )


class WebDataset(Source):
    """Source of the samples in tar shards. The key of an image is SHARD/KEY, with the key of its sample.

    Args:
        shards: paths or URLs. Both may contain braces; paths may also contain wildcards.
        downloads: folder of the downloaded shards, of unpacked shards, and of the indices of all shards.
        options: where a sample holds its image, its captions and its labels, and the limit for images.
        policy: limits of the downloads.
        identity: identity of the source in the store.
    """

    name = "webdataset"

    def __init__(
        self,
        shards: Sequence[str],
        downloads: Path,
        *,
        identity: dict[str, Any],
        options: Options | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.shards, self.downloads, self.identity = shards, downloads, identity
        self.options, self.policy = options or Options(), policy or Policy()

    def list(self) -> Listing:
        """List the samples, shard by shard. Raises BadInput for a shard that is unreadable or unavailable for now."""
        items: dict[str, Item] = {}
        dropped: Drops = []
        labels: list[Label] = []
        for name, path in self._files(dropped).items():
            index = self._index(path)
            if index.is_empty():
                dropped.append(Dropped(name, "empty shard", key_of(path.name)))
            for row in index.iter_rows(named=True):
                key = name if row["key"] is None else f"{name}/{row['key']}"
                captions = captions_of(key, row["texts"])
                dropped += left_out(key, row["left_out"])
                labels += [Label(key, of, label) for of, label in row["labels"]]
                if row["cause"] is not None:
                    dropped.append(Dropped(key, row["cause"], row["detail"]))
                elif not captions:
                    dropped.append(Dropped(key, "no caption"))
                elif key in items:
                    dropped.append(Dropped(key, COPIES))
                else:
                    locator = json.dumps([name, row["image"]], ensure_ascii=False)
                    items[key] = Item(key, "", locator, captions, stamp(row["sha256"], captions))
        return Listing([*items.values()], dropped, labels)

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
            yield self._read(unpacked(files[shard], self.downloads / "unpacked"), image, offset, size)

    def _read(self, path: Path, image: str, offset: int, size: int) -> bytes | SourceError:
        if size < 0:
            return SourceError("not in the archive", image)
        if size > self.options.max_image_bytes:
            return SourceError("too large", f"{size:,} bytes, allowed are {self.options.max_image_bytes:,}")
        try:
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            return SourceError("cannot be read", f"{image}: {error.strerror}")
        return data if len(data) == size else SourceError("corrupt archive member", f"{image}: the shard ends early")

    def _files(self, dropped: Drops) -> dict[str, Path]:
        """Return {name: path} of all shards. Shards at URLs are downloaded first, or added to `dropped`."""
        places = [place for pattern in self.shards for place in expand(pattern)]
        local = [place for place in places if not is_url(place)]
        paths = [(os.path.abspath(path), path) for place in local for path in _matching(Path(place))]
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
                paths.append((one.url, one.path))
            elif is_transient(error.cause):
                # Without this error, the samples of a shard that is only temporarily unavailable would count as
                # removed.
                raise BadInput(f"pairs.shards: {one.url} cannot be downloaded at the moment: {error}")
            else:
                dropped.append(Dropped(one.url, error.cause, error.detail))
        files = named(paths, self.downloads / "names.json")
        if not files:
            why = f": {dropped[0].cause} {dropped[0].detail}" if dropped else ""
            raise BadInput(f"pairs.shards: {', '.join(self.shards)}: no shard is there{why}")
        return files

    def _index(self, path: Path) -> pl.DataFrame:
        def build(tar: Path) -> pl.DataFrame:
            try:
                return index_of(tar, self.options)
            except UNREADABLE as error:
                raise BadInput(f"{path} is no readable tar ({error}): it may be cut short; write it again") from error

        key = repr((VERSION, *self.options))
        return indexed(unpacked(path, self.downloads / "unpacked"), self.downloads / "index", key, build)


def named(shards: Sequence[tuple[str, Path]], memo: Path) -> dict[str, Path]:
    """Return {name: path} of shards, in their order. Each shard is given as its path or URL, and the path of its file.

    The name of a shard is that of its file, without extensions. If another shard has this name, the folder stands
    before it (b/00000). A shard keeps the name that it once got: the names are in the file `memo`, so that a folder
    that is added later changes no keys. Raises BadInput for a shard that is named twice.
    """
    places = dict.fromkeys(locator_of(place) for place, _ in shards)
    known = read_memo(memo, NAMES)
    names: dict[str, str] = {}  # {name: place}
    for place in places:
        if place in known:
            names.setdefault(known[place], place)
    settled = {place: name for name, place in names.items()}
    files: dict[str, Path] = {}
    for given, path in shards:
        place = locator_of(given)
        name = settled.get(place) or next((one for one in _candidates(given, path) if one not in names), None)
        if name is None or name in files:
            name = name or key_of(stem_of(path))
            raise BadInput(f"pairs.shards: two shards are named {name}: {files.get(name)} and {path}")
        files[name] = path
        names[name], settled[place] = place, name
    update_memo(memo, NAMES, {place: name for name, place in names.items()})
    return files


def _candidates(place: str, path: Path) -> Iterator[str]:
    """Yield the names that a shard may have: NAME, FOLDER/NAME, FOLDER/FOLDER/NAME and so on."""
    stem = key_of(stem_of(path))
    yield stem
    split = urlsplit(place)
    folders = [split.netloc, *split.path.split("/")[:-1]] if is_url(place) else place.split("/")[:-1]
    folders = [key_of(folder) for folder in folders if folder]
    for depth in range(1, len(folders) + 1):
        yield "/".join([*folders[-depth:], stem])


def _matching(place: Path) -> list[Path]:
    """Return the files that a path with wildcards names, sorted. ** is any number of folders.

    A part of the path that exists as a file or folder is not read as a wildcard, even if it contains * ? or [. Raises
    BadInput for ** beside other characters.
    """
    root = Path(place.anchor)
    for number, part in enumerate(parts := place.parts[1 if place.anchor else 0 :]):
        if exists(root / part):
            root /= part
        elif any(sign in part for sign in "*?["):
            if has_stars_inside(parts[number:]):
                raise BadInput(f"pairs.shards: {place}: {STARS}")
            return sorted(root / hit for hit in glob("/".join(parts[number:]), root_dir=root, recursive=True))
        else:
            return [place]
    return [root]
