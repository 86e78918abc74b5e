"""COCO's official layout: captions_<subset>.json with a folder or a zip of images, local or at a URL.

Archives are downloaded once, checked if their digest is known, and read without unpacking.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from storage.errors import BadInput
from storage.sources import Arrived, Caption, Dropped, Item, Listing, Source, SourceError
from storage.sources.download import Policy, download_file
from storage.sources.files import confined, digests, is_picture, read_bounded
from storage.sources.section import DownloadsSection, Size, is_url, resolved
from storage.sources.tables import stamp

SITE = "http://images.cocodataset.org"
#: digests of the archives at SITE; mirrors of COCO publish them
DIGESTS = {
    "train2017.zip": "md5:cced6f7f71b7629ddf16f17bbcfab6b2",
    "val2017.zip": "md5:442b8da7639aecaf257c1dceb8ba8c80",
    "annotations_trainval2017.zip": "md5:f4bbac642086de4f52a3fdda2de5fa2c",
}
#: {subset at SITE: number of images, number of captions, bytes of the images, bytes of the downloads}
SIZES = {
    "val2017": Size(5_000, 25_014, 816_000_000, 1_070_000_000),
    "train2017": Size(118_287, 591_753, 19_300_000_000, 19_600_000_000),
}
MAX_CAPTIONS_BYTES = 2 << 30
MAX_MEMBERS = 20_000_000


class CocoSection(DownloadsSection):
    """COCO's official layout: captions_<subset>.json with a folder or a zip of images."""

    paths: ClassVar[tuple[str, ...]] = ("path", "annotations", "images")

    source: Literal["coco"]
    path: str = Field(SITE, description="the folder of annotations and images, or the site")
    subset: str = Field("val2017", pattern=r"^[A-Za-z0-9._-]+$", description="train2017, val2017, ...")
    annotations: str | None = Field(None, description="captions_<subset>.json or a zip with it: a path or a URL")
    images: str | None = Field(None, description="folder or zip of the images: a path or a URL")
    annotations_digest: str = Field("", pattern=r"^$|^(sha256:[0-9a-fA-F]{64}|md5:[0-9a-fA-F]{32})$")
    images_digest: str = Field("", pattern=r"^$|^(sha256:[0-9a-fA-F]{64}|md5:[0-9a-fA-F]{32})$")

    def place(self) -> dict[str, Any]:
        """The subset, and all paths and URLs that the study names."""
        places = [self.path, self.annotations, self.images]
        return {"subset": self.subset, "at": [resolved(place) for place in places if place is not None]}

    def remote(self) -> str | None:
        """The URL of the site or of an archive; None if all files are local."""
        places = (self.path if None in (self.annotations, self.images) else "", self.annotations, self.images)
        return next((place for place in places if place and is_url(place)), None)

    def known_size(self) -> Size | None:
        """The size of the subset, if the files come from COCO's own site."""
        return SIZES.get(self.subset) if self.path == SITE and not (self.annotations or self.images) else None

    def reader(self, own: Path, identity: dict[str, Any]) -> Source:
        """Open the source without the limit."""
        return Coco(
            self.path,
            own,
            identity=identity,
            subset=self.subset,
            annotations=self.annotations,
            images=self.images,
            annotations_digest=self.annotations_digest,
            images_digest=self.images_digest,
            policy=self.policy(),
            max_image_bytes=self.max_image_bytes,
        )


class Coco(Source):
    """Source of COCO's images, each with its captions (mostly five). The key of an image is its number in COCO.

    Args:
        path: the folder that holds annotations and images, or the site that serves them.
        downloads: folder of the downloaded archives and of cached digests.
        subset: "train2017", "val2017", or another subset in the names of the files.
        annotations: captions_<subset>.json, or a zip that holds it; found below `path` when not given.
        images: the folder or zip of the images; found below `path` when not given.
        annotations_digest, images_digest: "sha256:..." or "md5:..." of the downloaded files.
        policy: limits of the downloads.
        max_image_bytes: larger images fail.
        identity: identity of the source in the store.
    """

    name = "coco"

    def __init__(
        self,
        path: str,
        downloads: Path,
        *,
        identity: dict[str, Any],
        subset: str = "val2017",
        annotations: str | None = None,
        images: str | None = None,
        annotations_digest: str = "",
        images_digest: str = "",
        policy: Policy | None = None,
        max_image_bytes: int = 32 << 20,
    ) -> None:
        self.path, self.downloads, self.subset, self.identity = path.rstrip("/"), downloads, subset, identity
        self.annotations, self.images = annotations, images
        self.sums = (annotations_digest, images_digest)
        self.policy, self.max_image_bytes = policy or Policy(), max_image_bytes

    def list(self) -> Listing:
        """List the images that exist and have captions. Raises BadInput when a file is missing or cannot be read."""
        captions_at = self._at(self.annotations, self._annotation_places(), "annotations", self.sums[0])
        names, captions = _parse(_captions_json(captions_at, self.subset), captions_at)
        prints = self._pictures().prints(list(names.values()))
        items, dropped = [], []
        for image_id, name in sorted(names.items()):
            own = tuple(sorted(captions.pop(image_id, [])))
            key = f"{image_id:012d}"
            if name not in prints:
                dropped.append(Dropped(key, "no image of that name", name))
            elif not own:
                dropped.append(Dropped(key, "no caption", name))
            else:
                items.append(Item(key, "", name, own, stamp(prints[name], own)))
        for image_id, left in captions.items():
            dropped += [Dropped(caption.source_key, "caption of an unlisted image", str(image_id)) for caption in left]
        return Listing(items, dropped)

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """Read the images one by one, in the order of the locators."""
        return self._pictures().read(locators)

    def _annotation_places(self) -> Sequence[str]:
        year = self.subset[-4:]
        archive = f"annotations_trainval{year}.zip"
        if is_url(self.path):
            return [f"{self.path}/annotations/{archive}"]
        names = (f"annotations/captions_{self.subset}.json", f"captions_{self.subset}.json")
        return [f"{self.path}/{name}" for name in (*names, f"annotations/{archive}", archive)]

    def _image_places(self) -> Sequence[str]:
        if is_url(self.path):
            return [f"{self.path}/zips/{self.subset}.zip"]
        subset = self.subset
        return [f"{self.path}/{name}" for name in (subset, f"images/{subset}", f"{subset}.zip", f"zips/{subset}.zip")]

    def _at(self, stated: str | None, usual: Sequence[str], key: str, digest: str) -> Path:
        """Return the path of the annotations or images on disk. If they are at a URL, download them first."""
        places = [stated] if stated else usual
        for place in places:
            if is_url(place):
                name = place.rstrip("/").rpartition("/")[2]
                known = DIGESTS.get(name, "") if place.startswith(f"{SITE}/") else ""
                folder = hashlib.sha256(place.encode()).hexdigest()[:12]
                return download_file(place, self.downloads / folder / name, self.policy, digest=digest or known)
            if Path(place).exists():
                return Path(place)
        raise BadInput(f"pairs.{key}: none of these is there: {', '.join(places)}")

    def _pictures(self) -> _Folder | _Zip:
        at = self._at(self.images, self._image_places(), "images", self.sums[1])
        if at.is_dir():
            memo = self.downloads / f"digests-{hashlib.sha256(str(at.resolve()).encode()).hexdigest()[:12]}.parquet"
            return _Folder(at.resolve(), memo, self.max_image_bytes)
        return _Zip(at, self.max_image_bytes)


class _Folder:
    """Images in a folder."""

    def __init__(self, root: Path, memo: Path, max_bytes: int) -> None:
        self.root, self.memo, self.max_bytes = root, memo, max_bytes

    def prints(self, names: Sequence[str]) -> dict[str, str]:
        """Return {name: sha256} of the named files that exist."""
        files = {name: file for name in names if (file := confined(self.root, name)) and file.is_file()}
        return dict(zip(files, digests([*files.values()], self.memo), strict=True))

    def read(self, names: Sequence[str]) -> Iterator[bytes | SourceError]:
        for name in names:
            file = confined(self.root, name)
            yield SourceError("path out of the folder") if file is None else read_bounded(file, self.max_bytes)


class _Zip:
    """Images in any folder of a zip. Members are read one by one, each up to the size limit."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path, self.max_bytes = path, max_bytes

    def prints(self, names: Sequence[str]) -> dict[str, str]:
        """Return {name: CRC and size} of the named members that exist, as the zip's table of contents gives them."""
        with _opened(self.path) as archive:
            members = _members(archive, self.path)
        return {name: f"{members[name].CRC:08x}-{members[name].file_size}" for name in names if name in members}

    def read(self, names: Sequence[str]) -> Iterator[bytes | SourceError]:
        with _opened(self.path) as archive:
            members = _members(archive, self.path)
            for name in names:
                if name in members:
                    yield _read_member(archive, members[name], self.max_bytes)
                else:
                    yield SourceError("not in the archive", name)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise BadInput(f"{path} is neither a folder nor a readable zip ({error})") from error


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Return {file name without its folder: member} of the pictures in a zip."""
    listed = archive.infolist()
    if len(listed) > MAX_MEMBERS:
        raise BadInput(f"{path} lists {len(listed):,} members, allowed are {MAX_MEMBERS:,}")
    return {info.filename.rpartition("/")[2]: info for info in listed if is_picture(info.filename)}


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


def _captions_json(path: Path, subset: str) -> bytes:
    """Return the bytes of captions_<subset>.json; `path` is this file, or a zip that contains it."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    name = f"captions_{subset}.json"
    with _opened(path) as archive:
        for info in archive.infolist():
            if info.filename.rpartition("/")[2] == name:
                data = _read_member(archive, info, MAX_CAPTIONS_BYTES)
                if isinstance(data, SourceError):
                    raise BadInput(f"{path}: {name}: {data}")
                return data
    raise BadInput(f"{path} holds no {name}: is pairs.subset = {subset!r} right?")


def _parse(data: bytes, path: Path) -> tuple[dict[int, str], dict[int, list[Caption]]]:
    """Return {image id: file name} and {image id: captions}. The key of a caption is its id in COCO."""
    try:
        content = json.loads(data)
        names = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
        captions: dict[int, list[Caption]] = {}
        for row in content["annotations"]:
            if text := str(row["caption"]).strip():
                captions.setdefault(int(row["image_id"]), []).append(Caption(f"{int(row['id']):012d}", text))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(f"{path}: not COCO's captions ({type(error).__name__}: {error})") from error
    return names, captions
