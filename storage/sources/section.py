"""Sections [pairs] of a study file: the keys that sources share, and how a source is opened from its section.

Each source declares a section of its own beside its reader; `storage.sources.registry` finds them all.
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

MAX_PIXELS = 89_478_485  # the default of `vlm.decode`, which a study file is read without
#: Keys that change which images come through, and so what a shard holds.
RULES = ("duplicates", "max_pixels", "max_image_bytes", "allow_private_addresses", "respect_noai")
#: Keys that change how it goes, and no result.
HOW = ("concurrency", "timeout", "tries", "min_success", "retry_after")


class Section(BaseModel):
    """A part of a study file: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PairsSection(Section):
    """Keys that every source of pairs has."""

    #: Keys that may hold a path of this machine. Paths in a study file are relative to it.
    paths: ClassVar[tuple[str, ...]] = ()
    if TYPE_CHECKING:
        source: str  # the section of each source declares it, as the one name that it has

    heldout: float = Field(0.2, ge=0, lt=1, description="share of images never trained on")
    shard_size: int = Field(
        8192, ge=1, le=2**20, description="images a shard; given out once, when they are first seen"
    )
    duplicates: Literal["keep", "drop"] = Field("keep", description="what is done with images of equal bytes")
    min_success: float = Field(
        0.5, ge=0, le=1, description="share of images that must come through, else the run stops"
    )
    max_pixels: int = Field(
        MAX_PIXELS,
        ge=1,
        le=2 * MAX_PIXELS,
        description="an image of more pixels fails; Pillow opens none above the limit",
    )
    retry_after: float = Field(
        600, ge=0, description="seconds until what failed for now is tried again by a later run; then twice as long"
    )
    licence: str | None = Field(
        None, max_length=200, description="of the images and captions, as the report and a published study say it"
    )

    @classmethod
    def is_path(cls, value: Any) -> TypeGuard[str]:
        """Whether the value of a key in `paths` is a path: URLs are none, and neither is what is no string."""
        return isinstance(value, str) and "://" not in value

    @abstractmethod
    def open(self, store: Path) -> Source:
        """The source that the section names. Lists and downloads nothing yet."""


class FilesSection(PairsSection):
    """Keys that every source of the user's own images has."""

    id: str | None = Field(
        None, min_length=1, max_length=200, description="names the source in the store; default: where it lies"
    )
    limit: int | None = Field(None, ge=2, description="take the first so many items only")
    max_image_bytes: int = Field(32 << 20, ge=1, description="a larger image file fails")

    def open(self, store: Path) -> Source:
        """The source, cut at the limit. It keeps its downloads and memos in a folder named by its identity."""
        identity = self.identity()
        digest = hashlib.sha256(repr(sorted(identity.items())).encode()).hexdigest()[:12]
        source = self.reader(store / "downloads" / self.source / digest, identity)
        return source if self.limit is None else First(source, self.limit)

    def identity(self) -> dict[str, Any]:
        """The source's name in the store: the study's own name for it, else the place that does not change as it grows.

        Only the list of what was given which id hangs on it: datasets are addressed by what they hold.
        """
        return {"id": self.id} if self.id else self.place()

    @abstractmethod
    def place(self) -> dict[str, Any]:
        """Where the source lies, JSON-ready, by keys that stay the same when it grows."""

    @abstractmethod
    def reader(self, own: Path, identity: dict[str, Any]) -> Source:
        """The source without the limit. `own` is the folder that it may keep things in."""


class DownloadsSection(FilesSection):
    """Keys that every source has that may lie at URLs."""

    concurrency: int = Field(64, ge=1, le=1024, description="downloads at once")
    timeout: float = Field(15, gt=0, description="seconds for one image")
    tries: int = Field(3, ge=1, le=10, description="of a download in one run, when its failure may go away")
    allow_private_addresses: bool = Field(False, description="also download from private networks and this machine")
    respect_noai: bool = Field(True, description="leave out what X-Robots-Tag marks as noai or noimageai")

    def policy(self) -> Policy:
        """How the source downloads, and what it may do."""
        return Policy(
            concurrency=self.concurrency,
            timeout=self.timeout,
            tries=self.tries,
            max_bytes=self.max_image_bytes,
            allow_private_addresses=self.allow_private_addresses,
            respect_noai=self.respect_noai,
        )


class First(Source):
    """The first so many items of a source. The limit is no part of the identity: raising it is growth."""

    def __init__(self, source: Source, limit: int) -> None:
        self.source, self.limit = source, limit
        self.name, self.identity = source.name, source.identity

    def list(self) -> Listing:
        """The source's list, cut."""
        listing = self.source.list()
        return listing._replace(items=listing.items[: self.limit])

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """The source's own `read`."""
        return self.source.read(locators, arrived)

    def release(self, locators: Sequence[str]) -> None:
        """The source's own `release`."""
        self.source.release(locators)


def source_of(pairs: PairsSection) -> dict[str, Any]:
    """The source, as its tasks take it."""
    return pairs.model_dump(exclude=set(PairsSection.model_fields))


def rules_of(pairs: PairsSection) -> dict[str, Any]:
    """The rules that decide which images of a source come through: part of the recipe of its shards."""
    return {key: getattr(pairs, key) for key in RULES if key in type(pairs).model_fields}


def is_url(text: str) -> bool:
    """Whether a study names something at a URL."""
    return text.startswith(("http://", "https://"))


def resolved(place: str) -> str:
    """A place as it names a source: a URL as it is, a path with its links followed."""
    return place if is_url(place) else os.path.realpath(place)
