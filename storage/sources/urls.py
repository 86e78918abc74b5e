"""A table of URLs and captions (CSV, TSV, JSON, Parquet), as for img2dataset. The pictures are downloaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from storage.dataset import locked
from storage.sources import Arrived, Dropped, Item, Label, Listing, Source, SourceError
from storage.sources.captions import captions_of, left_out, shown
from storage.sources.delimited import Form
from storage.sources.download import Policy, Wanted, discard, download
from storage.sources.rows import Columned, ColumnName, Rows, TableSection, add_row, rows_of
from storage.sources.section import DownloadsSection, resolved
from storage.sources.tables import (
    CAPTION_COLUMNS,
    GROUP_COLUMNS,
    USUAL,
    column,
    optional,
    read_table,
    stamp,
)

URL_COLUMNS = ("url", "URL", "image_url")
DIGEST_COLUMNS = ("sha256",)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class UrlsSection(DownloadsSection, TableSection):
    """The section of a study file for a table of URLs and captions."""

    paths: ClassVar[tuple[str, ...]] = ("path",)

    source: Literal["urls"]
    path: str = Field(
        description="CSV, TSV, JSON lines, JSON or Parquet, or a folder of these; relative to the study file"
    )
    url_column: ColumnName | None = Field(None, description="default: url, URL, image_url")
    caption_column: ColumnName | None = Field(None, description="default: caption, captions, text, title, TEXT")
    group_column: ColumnName | None = Field(None, description="images of one group stay on one side of the split")
    sha256_column: ColumnName | None = Field(
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
            labels=self.labels,
            splits=self.splits,
            form=self.form(),
            policy=self.policy(),
        )


class Urls(Source):
    """Source of pictures at URLs. The key of an image is the digest of its URL, so rows with equal URLs are one item.

    Args:
        path: the table, or a folder of tables.
        downloads: folder of the pictures that are downloaded and not yet in a shard.
        url_column, caption_column, group_column, sha256_column: columns of the table; default: the usual names.
        labels: columns of the table that label images.
        splits: values of the table's column `split` whose rows are taken; none: all rows.
        form: how a CSV or TSV file is written.
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
        labels: Sequence[str] = (),
        splits: Sequence[str] = (),
        form: Form = USUAL,
        policy: Policy | None = None,
    ) -> None:
        self.path, self.downloads, self.identity = path, downloads, identity
        self.columns = (url_column, caption_column, group_column, sha256_column)
        self.labels, self.splits, self.form = labels, splits, form
        self.policy = policy or Policy()

    def list(self) -> Listing:
        """List the rows of the table, without any download. Raises BadInput for a table that cannot be read."""
        table = read_table(self.path, self.form)
        columns = Columned(
            column(table, self.columns[0], URL_COLUMNS, "url_column"),
            column(table, self.columns[1], CAPTION_COLUMNS, "caption_column"),
            optional(table, self.columns[2], GROUP_COLUMNS, "group_column"),
            self.labels,
            self.splits,
        )
        digest = optional(table, self.columns[3], DIGEST_COLUMNS, "sha256_column")
        digests = table.values(digest) if digest else None
        dropped = table.left_out()
        known: dict[str, str] = {}  # {URL: expected sha256}
        rows: dict[str, Rows] = {}
        for row in rows_of(table, columns, self.path):
            url = row.key.strip() if isinstance(row.key, str) else ""
            if not url:
                told = "" if row.key is None or isinstance(row.key, str) else shown(row.key)
                dropped.append(Dropped(table.place(row.number), "no URL", told))
                continue
            if url not in known:
                known[url] = _sum(digests[row.number]) if digests else ""
            dropped += add_row(rows, url, row, self.labels)
        items = []
        labels = []
        for url, (group, (texts, left), labelled) in rows.items():
            key = hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()[:24]
            captions = captions_of(key, texts)
            dropped += left_out(key, left)
            labels += [Label(key, name, label) for name, label in labelled]
            if captions:
                locator = json.dumps([url, known[url]])
                items.append(Item(key, group, locator, captions, stamp(f"{url} {known[url]}", captions)))
            else:
                dropped.append(Dropped(key, "no caption", url))
        return Listing(sorted(items), dropped, labels)

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
