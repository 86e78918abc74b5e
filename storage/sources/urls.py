"""A table of URLs and captions (CSV, JSONL, Parquet), as for img2dataset. The pictures are downloaded from the web."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from storage.dataset import locked
from storage.sources import Arrived, Dropped, Item, Listing, Source, SourceError
from storage.sources.captions import Texts, captions_of, left_out, texts_of
from storage.sources.download import Policy, Wanted, discard, download
from storage.sources.section import DownloadsSection, resolved
from storage.sources.tables import (
    CAPTION_COLUMNS,
    GROUP_COLUMNS,
    column,
    optional,
    read_table,
    stamp,
)

URL_COLUMNS = ("url", "URL", "image_url")
DIGEST_COLUMNS = ("sha256",)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class UrlsSection(DownloadsSection):
    """The section of a study file for a table of URLs and captions."""

    paths: ClassVar[tuple[str, ...]] = ("path",)

    source: Literal["urls"]
    path: str = Field(description="CSV, TSV, JSONL or Parquet, or a folder of these; relative to the study file")
    url_column: str | None = Field(None, description="default: url, URL, image_url")
    caption_column: str | None = Field(None, description="default: caption, captions, text, title, TEXT")
    group_column: str | None = Field(None, description="images of one group stay on one side of the split")
    sha256_column: str | None = Field(
        None, description="the expected sha256 of the image; default: sha256, if that column exists"
    )

    def place(self) -> dict[str, Any]:
        """The path of the table."""
        return {"at": resolved(self.path)}

    def reader(self, own: Path, identity: dict[str, Any]) -> Source:
        """Open the source without the limit."""
        return Urls(
            Path(self.path),
            own,
            identity=identity,
            url_column=self.url_column,
            caption_column=self.caption_column,
            group_column=self.group_column,
            sha256_column=self.sha256_column,
            policy=self.policy(),
        )


class Urls(Source):
    """Source of pictures at URLs. The key of an image is the digest of its URL, so rows with equal URLs are one item.

    Args:
        path: the table, or a folder of tables.
        downloads: folder of the pictures that are downloaded and not yet in a shard.
        url_column, caption_column, group_column, sha256_column: columns of the table; default: the usual names.
        policy: limits of the downloads.
        identity: identity of the source in the store.
    """

    name = "urls"

    def __init__(
        self,
        path: Path,
        downloads: Path,
        *,
        identity: dict[str, Any],
        url_column: str | None = None,
        caption_column: str | None = None,
        group_column: str | None = None,
        sha256_column: str | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.path, self.downloads, self.identity = path, downloads, identity
        self.columns = (url_column, caption_column, group_column, sha256_column)
        self.policy = policy or Policy()

    def list(self) -> Listing:
        """List the rows of the table, without any download. Raises BadInput for a table that cannot be read."""
        table = read_table(self.path)
        url = column(table, self.columns[0], URL_COLUMNS, "url_column", self.path)
        caption = column(table, self.columns[1], CAPTION_COLUMNS, "caption_column", self.path)
        group = optional(table, self.columns[2], GROUP_COLUMNS, "group_column", self.path)
        digest = optional(table, self.columns[3], DIGEST_COLUMNS, "sha256_column", self.path)
        columns = [table[name].to_list() if name else [None] * table.height for name in (url, caption, group, digest)]
        listed: dict[str, tuple[str, str, Texts]] = {}
        dropped = []
        for row, (at, value, of, known) in enumerate(zip(*columns, strict=True)):
            if not isinstance(at, str) or not at.strip():
                dropped.append(Dropped(f"row {row}", "no URL"))
                continue
            _, _, texts = listed.setdefault(at.strip(), ("" if of is None else str(of), _sum(known), Texts([], [])))
            found = texts_of(value)
            texts.texts.extend(found.texts)
            texts.left_out.extend(found.left_out)
        items = []
        for at, (of, known, texts) in listed.items():
            key = hashlib.sha256(at.encode(errors="surrogatepass")).hexdigest()[:24]
            captions = captions_of(key, texts.texts)
            dropped += left_out(key, texts.left_out)
            if captions:
                items.append(Item(key, of, json.dumps([at, known]), captions, stamp(f"{at} {known}", captions)))
            else:
                dropped.append(Dropped(key, "no caption", at))
        return Listing(sorted(items), dropped)

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """Download pictures concurrently and yield them in order. Pictures on disk are not downloaded again."""
        wanted = [self._wanted(locator) for locator in locators]

        def notify(place: int) -> None:
            if arrived is not None:
                arrived(place, wanted[place].path.read_bytes)

        with locked(self.downloads):  # another process may download the same table for another study
            for one, error in zip(wanted, download(wanted, self.policy, notify), strict=True):
                if error is not None:
                    error.detail = f"{error.detail} at {one.url}" if error.detail else one.url
                    yield error
                else:
                    yield one.path.read_bytes()

    def release(self, locators: Sequence[str]) -> None:
        """Remove the downloaded files of these pictures, complete or incomplete."""
        with locked(self.downloads):
            for locator in locators:
                discard(self._wanted(locator).path)

    def _wanted(self, locator: str) -> Wanted:
        url, known = json.loads(locator)
        # The name is a hash of URL and expected digest. So a corrected digest in the table starts a new download.
        name = hashlib.sha256(locator.encode()).hexdigest()[:32]
        return Wanted(url, self.downloads / name[:2] / name, f"sha256:{known}" if known else "")


def _sum(value: Any) -> str:
    """Return the value in lower case if it is a sha256, else ""."""
    return value.lower() if isinstance(value, str) and _SHA256.fullmatch(value) else ""
