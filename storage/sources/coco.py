"""COCO's official layout: captions_<subset>.json with a folder or a zip of images, local or at a URL.

The categories of the objects in instances_<subset>.json beside the captions become labels of the images.

Archives are downloaded once, checked if their digest is known, and read without unpacking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from storage.errors import BadInput
from storage.places import exists
from storage.sources import Arrived, Dropped, Item, Label, Listing, Source, SourceError
from storage.sources.captions import clean
from storage.sources.coco_annotations import Id, key_of_id, parse_captions, parse_categories, sort_key
from storage.sources.coco_files import Folder, Json, Zip, find_captions
from storage.sources.download import Policy, download_file
from storage.sources.files import indexed, key_of, locator_of, name_of
from storage.sources.section import DownloadsSection, Size, is_url, resolved
from storage.sources.tables import stamp

if TYPE_CHECKING:  # polars takes a fifth of a second to import
    import polars as pl

DIGEST = r"^$|^(sha256:[0-9a-fA-F]{64}|md5:[0-9a-fA-F]{32})$"
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
NO_IMAGE, SEVERAL = "no image of that name", "several images of that name"  # causes
#: columns of the index of labels, which also holds what gives no label (source_key, cause, detail)
LABELS: dict[str, Any] = {"is_dropped": bool, "source_key": str, "name": str, "label": str}


class CocoSection(DownloadsSection):
    """COCO's official layout: captions_<subset>.json with a folder or a zip of images."""

    paths: ClassVar[tuple[str, ...]] = ("path", "annotations", "images")

    source: Literal["coco"]
    path: str = Field(SITE, description="the folder of annotations and images, or the site")
    subset: str = Field("val2017", pattern=r"^[A-Za-z0-9._-]+$", description="train2017, val2017, ...")
    annotations: str | None = Field(None, description="captions_<subset>.json or a zip with it: a path or a URL")
    images: str | None = Field(None, description="folder or zip of the images: a path or a URL")
    annotations_digest: str = Field(
        "",
        pattern=DIGEST,
        description="sha256:HEX or md5:HEX of the archive of annotations, which a download must have",
    )
    images_digest: str = Field(
        "",
        pattern=DIGEST,
        description="sha256:HEX or md5:HEX of the archive of images, which a download must have",
    )

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
        """List the images that exist and have captions, and the categories of instances_*.json beside the captions.

        Raises BadInput when a file is missing, cannot be read or gives one id to several images.
        """
        at = self._at(self.annotations, self._annotation_places(), "annotations", self.sums[0])
        found = find_captions(at, self.subset)
        names, captions, dropped = parse_captions(found.read(), found.where)
        prints, several = self._pictures().prints([*names.values()])
        items = []
        for number in sorted(names, key=sort_key):
            name, own, key = names[number], tuple(captions.get(number, ())), key_of_id(number)
            shown = key_of(name)
            if name in several:
                dropped.append(Dropped(key, SEVERAL, f"{shown}: {several[name]}"))
            elif name not in prints:
                dropped.append(Dropped(key, NO_IMAGE, shown))
            elif not own:
                dropped.append(Dropped(key, "no caption", shown))
            else:
                items.append(Item(key, "", locator_of(name), own, stamp(prints[name], own)))
        labels, unlabelled = self._labels(found, names)
        return Listing(items, [*dropped, *unlabelled], labels)

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """Read the images one by one, in the order of the locators."""
        return self._pictures().read([name_of(locator) for locator in locators])

    def _labels(self, captions: Json, names: dict[Id, str]) -> tuple[Sequence[Label], Sequence[Dropped]]:
        """Return the categories of the images, and what gives no label. None if there is no file of objects.

        An index caches them, since the file of COCO's training images takes ten seconds to read.
        """
        import polars as pl

        objects = captions.beside("captions_", "instances_")
        if objects is None:
            return [], []

        def build(path: Path) -> pl.DataFrame:
            labels, dropped = parse_categories(objects.read(), objects.where, names)
            rows = [(False, *label) for label in labels] + [(True, *one) for one in dropped]
            return pl.DataFrame([(flag, *map(clean, texts)) for flag, *texts in rows], schema=LABELS, orient="row")

        digest = hashlib.sha256(repr(sorted(names.items(), key=repr)).encode()).hexdigest()
        index = indexed(objects.path, self.downloads / "labels", f"{objects.member} {digest}", build)
        rows = index.rows()
        labels = [Label(*texts) for is_dropped, *texts in rows if not is_dropped]
        return labels, [Dropped(*texts) for is_dropped, *texts in rows if is_dropped]

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
            if exists(Path(place)):
                return Path(place)
        raise BadInput(f"pairs.{key}: none of these is there: {', '.join(places)}")

    def _pictures(self) -> Folder | Zip:
        at = self._at(self.images, self._image_places(), "images", self.sums[1])
        if at.is_dir():
            memo = self.downloads / f"digests-{hashlib.sha256(str(at.resolve()).encode()).hexdigest()[:12]}.parquet"
            return Folder(at.resolve(), memo, self.max_image_bytes)
        return Zip(at, self.subset, self.max_image_bytes)
