"""The section [pairs] of a study file: the keys that all sources share, and how a source is opened from its section.

The module of each source declares the section of that source; `storage.sources.registry` collects the sections.
"""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, TypeGuard

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from storage.first_edition import first_edition
from storage.sources import Arrived, Listing, Source, SourceError
from storage.sources.download import Policy

MAX_PIXELS = 89_478_485  # the default of `vlm.decode`, repeated since reading a study file must not import `vlm`
#: Keys that decide which images are acquired. So they decide the content of a shard.
RULES = ("duplicates", "max_pixels", "max_image_bytes", "allow_private_addresses", "respect_noai")
#: Keys that change how images are acquired, but not the content of a shard.
HOW = ("concurrency", "timeout", "tries", "min_success", "retry_after")


#: Type of a key that names one column or several.
Columns = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


class Size(NamedTuple):
    """What a source is known to hold."""

    images: int
    captions: int
    bytes: int  #: total size of the images
    downloads: int = 0  #: bytes of the downloaded files that stay in the store beside the datasets


class Section(BaseModel):
    """A part of a study file. It is immutable and refuses unknown keys.

    `model_dump` leaves out a key that was added after the first edition, while the key has its default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        first, fields = first_edition(type(self)), type(self).model_fields
        return {
            name: value
            for name, value in dump(self).items()
            if name in first or getattr(self, name) != fields[name].get_default(call_default_factory=True)
        }


class PairsSection(Section):
    """The keys that every source has."""

    #: Keys that may hold a local path. A path in a study file is relative to the folder of the study file.
    paths: ClassVar[tuple[str, ...]] = ()
    if TYPE_CHECKING:
        source: str  # the section of each source declares this key as a Literal: the name of the source

    heldout: float = Field(0.2, ge=0, lt=1, description="share of images never trained on")
    shard_size: int = Field(
        8192,
        ge=1,
        le=2**20,
        description="images per shard; an image is assigned to a shard once, when it is first listed",
    )
    duplicates: Literal["keep", "drop"] = Field("keep", description="whether images of equal bytes are kept")
    min_success: float = Field(0.5, ge=0, le=1, description="share of images that must be acquired, else the run stops")
    max_pixels: int = Field(
        MAX_PIXELS,
        ge=1,
        le=2 * MAX_PIXELS,
        description="images with more pixels fail; Pillow opens none above the upper limit",
    )
    retry_after: float = Field(
        600, ge=0, description="seconds until a later run retries a transient failure; doubled for each further retry"
    )
    licence: str | None = Field(
        None, max_length=200, description="of the images and captions, shown in the report and in a published study"
    )

    @classmethod
    def is_path(cls, value: Any) -> TypeGuard[str]:
        """Whether the value of a key in `paths` is a path: a string that is not a URL."""
        return isinstance(value, str) and "://" not in value

    def remote(self) -> str | None:
        """The place from which listing the source downloads large files; None if listing it downloads none."""
        return None

    def known_size(self) -> Size | None:
        """The content of a source whose `remote` is not None; None if it is unknown before the download."""
        return None

    @abstractmethod
    def open(self, store: Path) -> Source:
        """Open the source that the section names, without listing or downloading."""


class FilesSection(PairsSection):
    """The keys that every source of the user's own images has."""

    id: str | None = Field(
        None, min_length=1, max_length=200, description="name of the source in the store; default: its path or URL"
    )
    limit: int | None = Field(None, ge=2, description="take at most this many items, from the first")
    max_image_bytes: int = Field(32 << 20, ge=1, description="larger image files fail")

    def open(self, store: Path) -> Source:
        """Open the source, cut at the limit. Downloads and caches are in a folder named by a hash of the identity."""
        identity = self.identity()
        digest = hashlib.sha256(repr(sorted(identity.items())).encode()).hexdigest()[:12]
        source = self.reader(store / "downloads" / self.source / digest, identity)
        return source if self.limit is None else First(source, self.limit)

    def identity(self) -> dict[str, Any]:
        """The identity of the source in the store: the key `id`, else the place. Growth does not change it.

        Items get their ids within one identity. Datasets do not depend on the identity, since the address of a listing
        depends only on its content.
        """
        return {"id": self.id} if self.id else self.place()

    @abstractmethod
    def place(self) -> dict[str, Any]:
        """The location of the source, ready for JSON. It stays the same when the source grows."""

    @abstractmethod
    def reader(self, own: Path, identity: dict[str, Any]) -> Source:
        """Open the source without the limit. `own` is the folder for its downloads and caches."""


class DownloadsSection(FilesSection):
    """The keys that every source whose files may be at URLs has."""

    concurrency: int = Field(64, ge=1, le=1024, description="downloads at once")
    timeout: float = Field(15, gt=0, le=86400, description="seconds for one image")
    tries: int = Field(3, ge=1, le=10, description="tries per download in one run, when the failure is transient")
    allow_private_addresses: bool = Field(False, description="also download from private networks and this machine")
    respect_noai: bool = Field(True, description="leave out images that X-Robots-Tag marks as noai or noimageai")

    def policy(self) -> Policy:
        """The limits and permissions of the source's downloads."""
        return Policy(
            concurrency=self.concurrency,
            timeout=self.timeout,
            tries=self.tries,
            max_bytes=self.max_image_bytes,
            allow_private_addresses=self.allow_private_addresses,
            respect_noai=self.respect_noai,
        )


class First(Source):
    """The first `limit` items of a source. The limit is no part of the identity, so a higher limit counts as growth."""

    def __init__(self, source: Source, limit: int) -> None:
        self.source, self.limit = source, limit
        self.name, self.identity = source.name, source.identity

    def list(self) -> Listing:
        """List the source, cut at the limit."""
        listing = self.source.list()
        return listing._replace(items=listing.items[: self.limit])

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """Call `read` of the source without the limit."""
        return self.source.read(locators, arrived)

    def release(self, locators: Sequence[str]) -> None:
        """Call `release` of the source without the limit."""
        self.source.release(locators)

    def commit(self) -> str | None:
        """Call `commit` of the source without the limit."""
        return self.source.commit()

    def pin(self, commit: str) -> None:
        """Call `pin` of the source without the limit."""
        self.source.pin(commit)

    def digest_of(self, source_key: str) -> str:
        """Call `digest_of` of the source without the limit."""
        return self.source.digest_of(source_key)


def source_of(pairs: PairsSection) -> dict[str, Any]:
    """Return the keys of a section that `PairsSection` does not have, in the form that tasks receive."""
    return pairs.model_dump(exclude=set(PairsSection.model_fields))


def rules_of(pairs: PairsSection) -> dict[str, Any]:
    """Return the keys that decide which images are acquired. They are part of the recipe of a shard.

    `duplicates` is always "keep" in the result, since duplicates are dropped only after a shard was fetched.
    """
    return {**pairs.model_dump(include=set(RULES)), "duplicates": "keep"}


def is_url(text: str) -> bool:
    """Whether a text is an http or https URL."""
    return text.startswith(("http://", "https://"))


def resolved(place: str) -> str:
    """Return a URL unchanged. Return a path as an absolute path, with its links resolved."""
    return place if is_url(place) else os.path.realpath(place)
