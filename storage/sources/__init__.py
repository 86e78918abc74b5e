"""Sources of image-text pairs, one file per source. A source lists its items and reads their bytes.

A source writes no datasets; it may keep downloads and indices in the folder that it gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol


class Caption(NamedTuple):
    """One caption of an item."""

    source_key: str  #: key that the source gives the caption, unique within the source
    text: str


class Item(NamedTuple):
    """One image and its captions, as a source lists them."""

    source_key: str  #: key that the source gives the item, unique within the source
    group_key: str  #: items of one group are on the same side of the split; "" means the sha256 of the image
    locator: str  #: what `Source.read` needs to find the bytes
    captions: tuple[Caption, ...]
    fingerprint: str  #: changes if and only if the item's bytes or captions change


class Dropped(NamedTuple):
    """An item that the source holds but cannot offer to a study, with the cause."""

    source_key: str
    cause: str  #: a short fixed phrase, so that causes can be counted
    detail: str = ""


class Label(NamedTuple):
    """One label of an item, as a source lists it. An item may have any number of labels of the same name."""

    source_key: str  #: key of the item
    name: str  #: what the label says: the name of its column, or "category"
    label: str


class Listing(NamedTuple):
    """Everything that a source holds: the items that it offers, in an order of its choice, and the dropped items."""

    items: list[Item]
    dropped: list[Dropped]
    labels: Sequence[Label] = ()  #: labels of items, also of items that are not offered


#: Causes of failure that a later try can get past. Statuses HTTP 5xx count too (see `is_transient`). An item that
#: failed by any other cause is not requested again.
TRANSIENT = frozenset(
    {
        "DNS failure", "connection failed", "timeout", "cut short", "HTTP 408", "HTTP 425", "HTTP 429", "out of memory",
    }
)  # fmt: skip


def is_transient(cause: str) -> bool:
    """Whether a retry may succeed: after a cause in TRANSIENT, or after HTTP 5xx from a busy or broken server."""
    return cause in TRANSIENT or cause.startswith("HTTP 5")


class SourceError(Exception):
    """One item could not be read. `cause` is a short fixed phrase, so that causes can be counted."""

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause, self.detail = cause, detail


Arrived = Callable[[int, Callable[[], bytes]], None]


class Source(Protocol):
    """The interface of a source."""

    name: str
    identity: dict[str, Any]  #: names, versions and paths of the source, ready for JSON; its recipe is a hash of them

    def list(self) -> Listing:
        """List everything that the source holds. Raises `storage.errors.BadInput` when the source cannot be reached."""
        ...

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """Yield the original bytes of each image in the order of the locators, or the error that prevented the reading.

        A source of vectors without pictures yields None. A second call does not repeat downloads.

        A source whose items arrive in any order calls `arrived(place, read)` as soon as an item is there, perhaps from
        another thread. `place` is the index of the item's locator, and `read()` returns the item's bytes.
        """
        ...

    def release(self, locators: Sequence[str]) -> None:
        """Delete the files kept for a repeated `read` of these items. Called once the store holds the items."""
        return None  # most sources keep no such files

    def commit(self) -> str | None:
        """The commit that `list` listed, where a name such as a branch stands for another one later; else None."""
        return None

    def pin(self, commit: str) -> None:
        """Read from this commit, which `commit` returned when the items were listed, perhaps by another process."""
        return None

    def digest_of(self, source_key: str) -> str:
        """The sha256 that the bytes of an item must have, in hexadecimal, or its beginning; "" if it is not known."""
        return ""
