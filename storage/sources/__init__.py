"""Sources of image-text pairs, one file per source. A source lists its items and reads their bytes.

A source writes no datasets; it may keep downloads and indices in the folder that it gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol


class Caption(NamedTuple):
    """One caption of an item."""

    source_key: str  #: the source's own key of this caption, unique within the source
    text: str


class Item(NamedTuple):
    """One image and its captions, as a source lists them."""

    source_key: str  #: the source's own key, unique; items are listed in the order of their keys
    group_key: str  #: items of one group stay on one side of the split; "" stands for the sha256 of the image's bytes
    locator: str  #: what `Source.read` needs to find the bytes
    captions: tuple[Caption, ...]
    fingerprint: str  #: changes if and only if the item's bytes or captions change


class Dropped(NamedTuple):
    """An item that the source holds but does not offer for the study, and the cause."""

    source_key: str
    cause: str  #: a short fixed phrase, so that causes can be counted
    detail: str = ""


class Listing(NamedTuple):
    """Everything that a source holds: the offered items, in the order of their keys, and the dropped ones."""

    items: list[Item]
    dropped: list[Dropped]


#: Causes after which another try may succeed, as it may after HTTP 5xx (see `is_transient`). After any other cause the
#: item is not requested again.
TRANSIENT = frozenset({"DNS failure", "connection failed", "timeout", "cut short", "HTTP 408", "HTTP 425", "HTTP 429"})


def is_transient(cause: str) -> bool:
    """Whether a retry may succeed: name resolution, connections, timeouts, busy or broken servers (5xx)."""
    return cause in TRANSIENT or cause.startswith("HTTP 5")


class SourceError(Exception):
    """One item could not be read. `cause` is a short fixed phrase to count by; the message adds the detail."""

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause, self.detail = cause, detail


Arrived = Callable[[int, Callable[[], bytes]], None]


class Source(Protocol):
    """The interface of a source."""

    name: str
    identity: dict[str, Any]  #: JSON-ready names, versions and paths of the source, hashed into the recipes

    def list(self) -> Listing:
        """List everything the source holds. Raises `storage.errors.BadInput` when it cannot be reached."""
        ...

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """Yield for each locator, in order, the original bytes of the image, or the error that prevented reading it.
        Yields None where the source has vectors but no pictures. A second call downloads nothing again.

        A source whose items arrive in any order calls `arrived(place, read)` as soon as an item is there, perhaps from
        another thread. `place` is the index of the item's locator, and `read()` returns the item's bytes.
        """
        ...

    def release(self, locators: Sequence[str]) -> None:
        """Delete the files kept for another `read` of these items. Called when the items are in the store."""
        return None  # most sources keep nothing
