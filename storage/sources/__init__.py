"""Sources of image-text pairs. One file a source; each lists its items and reads their bytes.

A source never writes into the store; it may keep what it downloaded in the folder it is given.
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

    source_key: str  #: the source's own key, unique; the source is listed in the order of these
    group_key: str  #: items of one group stay on one side of the split; "" means the sha256 of the image's bytes
    locator: str  #: what `Source.read` needs to find the bytes
    captions: tuple[Caption, ...]
    fingerprint: str  #: changes if and only if the item's bytes or captions change


class Dropped(NamedTuple):
    """Something that the source holds and the study does not get, and why."""

    source_key: str
    cause: str  #: a short fixed phrase, so that causes can be counted
    detail: str = ""


class Listing(NamedTuple):
    """Everything a source holds: what is offered, in the order of the keys, and what is not."""

    items: list[Item]
    dropped: list[Dropped]


#: Causes that may be gone at the next try. All others are permanent: what failed by them is not asked for again.
TRANSIENT = frozenset({"DNS failure", "connection failed", "timeout", "cut short", "HTTP 408", "HTTP 425", "HTTP 429"})


def is_transient(cause: str) -> bool:
    """Whether trying again may help: names, connections, timeouts, and servers that are busy or broken (5xx)."""
    return cause in TRANSIENT or cause.startswith("HTTP 5")


class SourceError(Exception):
    """One item could not be read: `cause` is a short fixed phrase to count by, the message says the rest."""

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause, self.detail = cause, detail


Arrived = Callable[[int, Callable[[], bytes]], None]


class Source(Protocol):
    """What every source offers."""

    name: str
    identity: dict[str, Any]  #: JSON-ready; what the source is (names, versions, paths): hashed into the recipes

    def list(self) -> Listing:
        """List everything the source holds. Raises `storage.errors.BadInput` when it cannot be reached."""
        ...

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """Yield for each locator, in order, the image's bytes as they came; None where the source has vectors
        but no pictures; or the error that kept it from being read. Asked again, it fetches nothing twice.

        A source whose items come in any order tells `arrived` of each as soon as it is there: its place among the
        locators, and a function that gives its bytes. It may be called from another thread.
        """
        ...

    def release(self, locators: Sequence[str]) -> None:
        """These items are in the store: what was kept on disk for a next `read` of them may go."""
        return None  # most sources keep nothing
