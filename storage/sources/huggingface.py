"""Parquet files of a dataset on the Hugging Face hub, with a column of encoded images and a column of captions.

Files are downloaded by huggingface_hub into its cache; a local folder of the same layout is read in place. No code of
the dataset is run.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeGuard

from pydantic import Field

from storage.errors import BadInput
from storage.sources import Arrived, Dropped, Item, Listing, Source, SourceError
from storage.sources.captions import Texts, captions_of, left_out, texts_of
from storage.sources.files import indexed
from storage.sources.section import FilesSection, resolved
from storage.sources.tables import stamp

if TYPE_CHECKING:  # polars and pyarrow take a third of a second to import
    import polars as pl
    import pyarrow as pa

ROWS_AT_ONCE = 32  # number of images in memory while a file is read
Pictures = list[bytes | None]
INDEX: dict[str, Any] = {"sha256": str, "size": int, "group": str, "texts": list[str], "left_out": list[list[str]]}


class HuggingFaceSection(FilesSection):
    """The section of a study file for Parquet files of a dataset on the Hugging Face hub."""

    paths: ClassVar[tuple[str, ...]] = ("repo",)

    source: Literal["huggingface"]
    repo: str = Field(description="OWNER/NAME on the hub, or a folder (starting with . or /)")
    revision: str = Field("main", description="branch, tag or commit")
    files: str = Field("**/*.parquet", description="pattern of the files, relative to the dataset")
    image_column: str = "image"
    caption_column: str = "caption"
    group_column: str | None = Field(None, description="images of one group stay on one side of the split")

    @classmethod
    def is_path(cls, value: Any) -> TypeGuard[str]:
        """Whether `repo` is a folder. A folder begins with . or /, a name on the hub does not."""
        return super().is_path(value) and value.startswith((".", "/"))

    def place(self) -> dict[str, Any]:
        """The name or folder of the dataset, and its image column."""
        return {"repo": resolved(self.repo) if os.path.isabs(self.repo) else self.repo, "image": self.image_column}

    def remote(self) -> str | None:
        """The repository on the hub; None if `repo` is a folder."""
        return None if os.path.isabs(self.repo) else self.repo

    def reader(self, own: Path, identity: dict[str, Any]) -> Source:
        """Open the source without the limit."""
        return HuggingFace(
            self.repo,
            own,
            identity=identity,
            revision=self.revision,
            files=self.files,
            image_column=self.image_column,
            caption_column=self.caption_column,
            group_column=self.group_column,
            max_image_bytes=self.max_image_bytes,
        )


class HuggingFace(Source):
    """Source of the rows of a dataset's Parquet files.

    The key of an image is the digest of its bytes. So rows with equal images are one item with several captions.

    Args:
        repo: OWNER/NAME on the hub, or a folder by its absolute path.
        downloads: folder that caches the indices of the files.
        revision: branch, tag or commit.
        files: pattern of the files, relative to the dataset ("data/train-*.parquet").
        image_column, caption_column, group_column: columns of the files.
        max_image_bytes: larger images fail.
        identity: identity of the source in the store.
    """

    name = "huggingface"

    def __init__(
        self,
        repo: str,
        downloads: Path,
        *,
        identity: dict[str, Any],
        revision: str = "main",
        files: str = "**/*.parquet",
        image_column: str = "image",
        caption_column: str = "caption",
        group_column: str | None = None,
        max_image_bytes: int = 32 << 20,
    ) -> None:
        self.repo, self.downloads, self.revision, self.files = repo, downloads, revision, files
        self.identity, self.columns = identity, (image_column, caption_column, group_column)
        self.max_image_bytes = max_image_bytes

    def list(self) -> Listing:
        """List the rows, in the order of the files. Raises BadInput for files that are unavailable or lack a column."""
        groups: dict[str, str] = {}
        places: dict[str, str] = {}
        texts: dict[str, Texts] = {}
        dropped = []
        root = self._root()
        for path in self._paths(root):
            name = path.relative_to(root).as_posix()
            for row, (digest, _, group, own, left) in enumerate(self._index(path).iter_rows()):
                if digest is None:
                    dropped.append(Dropped(f"{name}:{row}", "no bytes in the table"))
                    continue
                places.setdefault(digest, json.dumps([name, row]))
                groups.setdefault(digest, group or "")
                found = texts.setdefault(digest, Texts([], []))
                found.texts.extend(own)
                found.left_out.extend(left)
        items = []
        for digest, locator in places.items():
            key = digest[:24]
            captions = captions_of(key, texts[digest].texts)
            dropped += left_out(key, texts[digest].left_out)
            if captions:
                items.append(Item(key, groups[digest], locator, captions, stamp(digest, captions)))
            else:
                dropped.append(Dropped(key, "no caption", locator))
        return Listing(items, dropped)

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """Yield the images. If the locators of a file are not in row order, row groups are read more than once."""
        root = self._root()
        reader: _Reader | None = None
        for locator in locators:
            name, row = json.loads(locator)
            path = root / name
            if reader is None or reader.path != path:
                reader = _Reader(path, self.columns[0])
            data = reader.at(row)
            if data is None:
                yield SourceError("no bytes in the table", f"{name}:{row}")
            elif len(data) > self.max_image_bytes:
                yield SourceError("too large", f"{len(data):,} bytes, allowed are {self.max_image_bytes:,}")
            else:
                yield data

    def _root(self) -> Path:
        """Return the folder of the dataset's files: the local folder `repo`, or the hub's snapshot in the cache."""
        if os.path.isabs(self.repo):
            if not Path(self.repo).is_dir():
                raise BadInput(f"pairs.repo: {self.repo}: no such folder")
            return Path(self.repo)
        import huggingface_hub
        from huggingface_hub import constants, errors

        try:
            snapshot = huggingface_hub.snapshot_download(
                self.repo, repo_type="dataset", revision=self.revision, allow_patterns=self.files
            )
        except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
            offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
            raise BadInput(
                f"pairs.repo: the dataset {self.repo!r} at {self.revision!r} is not in the cache "
                f"{constants.HF_HUB_CACHE} and {offline} (HF_HOME moves the cache, HF_HUB_OFFLINE=0 allows the network)"
            ) from error
        except (errors.HfHubHTTPError, errors.HFValidationError) as error:
            raise BadInput(f"pairs.repo: {self.repo!r} at {self.revision!r}: {str(error).splitlines()[0]}") from error
        return Path(snapshot)

    def _paths(self, root: Path) -> Sequence[Path]:
        paths = sorted(path for path in root.glob(self.files) if path.is_file() and path.suffix == ".parquet")
        if not paths:
            raise BadInput(f"pairs.files: {self.files!r} matches no Parquet file in {root}")
        return paths

    def _index(self, path: Path) -> pl.DataFrame:
        import pyarrow as pa

        try:
            return indexed(path, self.downloads / "index", repr(self.columns), self._indexing)
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"{path}: not a readable Parquet file ({error})") from error

    def _indexing(self, path: Path) -> pl.DataFrame:
        """Read a file once and return the digest, size, group and captions of each row."""
        import polars as pl
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            image, caption, group = self.columns
            for name, key in ((image, "image_column"), (caption, "caption_column"), (group, "group_column")):
                if name is not None and name not in schema.names:
                    raise BadInput(f"pairs.{key} = {name!r}: {path.name} has the columns {', '.join(schema.names)}")
            rows = []
            wanted = [name for name in self.columns if name is not None]
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=wanted):
                pictures = _bytes_of(batch.column(image), path, image)
                groups = batch.column(group).to_pylist() if group else [None] * len(batch)
                for data, value, of in zip(pictures, batch.column(caption).to_pylist(), groups, strict=True):
                    texts = texts_of(value)
                    digest = None if data is None else hashlib.sha256(data).hexdigest()
                    size = 0 if data is None else len(data)
                    rows.append(
                        (digest, size, None if of is None else str(of), texts.texts, list(map(list, texts.left_out)))
                    )
        return pl.DataFrame(rows, schema=INDEX, orient="row")


class _Reader:
    """Reader of the image column of one file, from front to back, with a few rows in memory."""

    def __init__(self, path: Path, column: str) -> None:
        import pyarrow.parquet as pq

        self.path, self.column = path, column
        self.file = pq.ParquetFile(path)
        counts = [self.file.metadata.row_group(group).num_rows for group in range(self.file.num_row_groups)]
        self.starts = [sum(counts[:group]) for group in range(len(counts) + 1)]
        self.first = self.stop = 0
        self.batch: Pictures = []
        self.batches: Iterator[pa.RecordBatch] = iter(())

    def at(self, row: int) -> bytes | None:
        """Return the image bytes of a row; None if the row has no image or does not exist."""
        if row >= self.starts[-1]:
            return None
        if not self.first <= row < self.stop:
            group = bisect.bisect_right(self.starts, row) - 1
            self.first, self.stop, self.batch = self.starts[group], self.starts[group + 1], []
            self.batches = self.file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=[self.column])
        while row >= self.first + len(self.batch):
            self.first += len(self.batch)
            self.batch = _bytes_of(next(self.batches).column(0), self.path, self.column)
        return self.batch[row - self.first]


def _bytes_of(column: Any, path: Path, name: str) -> Pictures:
    """Return the encoded pictures in a column. The column is binary, or a struct with the field `bytes`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        column, kind = pc.struct_field(column, "bytes"), kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        hint = 'source = "urls" reads lists of URLs' if pa.types.is_string(kind) else "binary, or a struct with bytes"
        raise BadInput(f"pairs.image_column = {name!r}: {path.name} holds {kind} there, not encoded pictures ({hint})")
    return list(column.to_pylist())
