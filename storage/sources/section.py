"""Sections [pairs] of a study file: the keys that sources share, and the opening of a source from its section.

Each source declares its own section beside its reader; `storage.sources.registry` collects them.
"""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeGuard

from pydantic import BaseModel, ConfigDict, Field

from storage.sources import Arrived, Listing, Source, SourceError
from storage.sources.download import Policy

MAX_PIXELS = 89_478_485  # equals the default of `vlm.decode`; reading a study file must not import `vlm`
#: Keys that decide which images are acquired, and so the content of a shard.
RULES = ("duplicates", "max_pixels", "max_image_bytes", "allow_private_addresses", "respect_noai")
#: Keys that change the course of acquiring, not its result.
HOW = ("concurrency", "timeout", "tries", "min_success", "retry_after")


class Section(BaseModel):
    """A part of a study file. It is immutable and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PairsSection(Section):
    """Keys of every source."""

    #: Keys that may hold a local path. Paths in a study file are relative to the file.
    paths: ClassVar[tuple[str, ...]] = ()
    if TYPE_CHECKING:
        source: str  # each source's section declares it as a Literal of its name

    heldout: float = Field(0.2, ge=0, lt=1, description="share of images never trained on")
    shard_size: int = Field(
        8192, ge=1, le=2**20, description="images per shard; an image gets its shard once, when it is first listed"
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

    @abstractmethod
    def open(self, store: Path) -> Source:
        """Open the source that the section names, without listing or downloading."""


class FilesSection(PairsSection):
    """Keys of every source of the user's own images."""

    id: str | None = Field(
        None, min_length=1, max_length=200, description="name of the source in the store; default: its path or URL"
    )
    limit: int | None = Field(None, ge=2, description="take at most this many items, from the first")
    max_image_bytes: int = Field(32 << 20, ge=1, description="larger image files fail")

    def open(self, store: Path) -> Source:
        """Open the source, cut at the limit. Its downloads and caches are in a folder named by its identity."""
        identity = self.identity()
        digest = hashlib.sha256(repr(sorted(identity.items())).encode()).hexdigest()[:12]
        source = self.reader(store / "downloads" / self.source / digest, identity)
        return source if self.limit is None else First(source, self.limit)

    def identity(self) -> dict[str, Any]:
        """The identity of the source in the store: `id` from the study file, else its place. Growth does not change it.

        The ids of items are assigned per identity. The datasets do not depend on the identity, since a listing is
        addressed by its content.
        """
        return {"id": self.id} if self.id else self.place()

    @abstractmethod
    def place(self) -> dict[str, Any]:
        """Location of the source, JSON-ready, made of keys that stay the same when it grows."""

    @abstractmethod
    def reader(self, own: Path, identity: dict[str, Any]) -> Source:
        """Open the source without the limit. `own` is the folder for its downloads and caches."""


class DownloadsSection(FilesSection):
    """Keys of every source whose files may be at URLs."""

    concurrency: int = Field(64, ge=1, le=1024, description="downloads at once")
    timeout: float = Field(15, gt=0, description="seconds for one image")
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
    """The first `limit` items of a source. The limit is not part of the identity: a raised limit counts as growth."""

    def __init__(self, source: Source, limit: int) -> None:
        self.source, self.limit = source, limit
        self.name, self.identity = source.name, source.identity

    def list(self) -> Listing:
        """List the source, cut at the limit."""
        listing = self.source.list()
        return listing._replace(items=listing.items[: self.limit])

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """The source's own `read`."""
        return self.source.read(locators, arrived)

    def release(self, locators: Sequence[str]) -> None:
        """The source's own `release`."""
        self.source.release(locators)


def source_of(pairs: PairsSection) -> dict[str, Any]:
    """The keys that this source has beyond those of `PairsSection`, in the form that tasks receive."""
    return pairs.model_dump(exclude=set(PairsSection.model_fields))


def rules_of(pairs: PairsSection) -> dict[str, Any]:
    """The keys that decide which images are acquired. They are part of the recipe of a shard."""
    return {key: getattr(pairs, key) for key in RULES if key in type(pairs).model_fields}


def is_url(text: str) -> bool:
    """Whether a text is an http or https URL."""
    return text.startswith(("http://", "https://"))


def resolved(place: str) -> str:
    """A URL unchanged, or a path made absolute with its links resolved."""
    return place if is_url(place) else os.path.realpath(place)
