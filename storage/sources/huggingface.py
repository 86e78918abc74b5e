"""Parquet files of a dataset on the Hugging Face hub, with a column of encoded images and a column of captions.

Files are downloaded by huggingface_hub into its cache; a local folder of the same layout is read in place. No code of
the dataset is run.
"""

from __future__ import annotations

import bisect
import glob
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeGuard

from pydantic import Field

from storage.errors import BadInput
from storage.places import is_folder
from storage.sources import Arrived, Dropped, Item, Label, Listing, Source, SourceError
from storage.sources.captions import Texts, captions_of, left_out, shown, texts_of
from storage.sources.files import indexed
from storage.sources.labels import NO_GROUP, NO_LABEL, SEVERAL_GROUPS, group_after, group_of, label_texts
from storage.sources.parquet_layout import (
    caption_like,
    check_shared,
    checked_pattern,
    choose,
    class_names,
    holds,
    inner,
    local_files,
    matching,
    named_classes,
    place_of,
    top_column,
    values_of,
)
from storage.sources.section import Columns, FilesSection, resolved
from storage.sources.tables import stamp

if TYPE_CHECKING:  # polars and pyarrow take a third of a second to import
    import polars as pl
    import pyarrow as pa

log = logging.getLogger("bridgescope")

NO_BYTES = "no bytes in the table"  # cause
VERSION = 2  # an index of an earlier version names the group 7.0 where this one names 7
ROWS_AT_ONCE = 32  # number of images in memory while a file is read
Pictures = list[bytes | None]
#: columns of the index of a file, a row for each row; an image without bytes has no sha256 and perhaps a path
INDEX: dict[str, Any] = {
    "sha256": str,
    "path": str,
    "group": str,
    "texts": list[str],
    "labels": list[list[str]],
    "left_out": list[list[str]],
}


class HuggingFaceSection(FilesSection):
    """The section of a study file for Parquet files of a dataset on the Hugging Face hub."""

    paths: ClassVar[tuple[str, ...]] = ("repo",)

    source: Literal["huggingface"]
    repo: str = Field(description="OWNER/NAME on the hub, or a folder (starting with . or /)")
    revision: str = Field("main", description="branch, tag or commit")
    files: str = Field("**/*.parquet", description="pattern of the files, relative to the dataset")
    image_column: str = Field("image", description="column of the images")
    caption_column: str = Field("caption", description="a text or a list of texts; a.b is the field b in the column a")
    group_column: str | None = Field(None, description="images of one group stay on one side of the split")
    config: Columns = Field([], description="configs (subsets) of the dataset, one or a list; default: all files")
    splits: Columns = Field([], description="splits of the dataset, such as train, one or a list; default: all files")
    labels: Columns = Field([], description="columns of labels, by which concepts can be compared; a.b as for captions")

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
            config=self.config,
            splits=self.splits,
            labels=self.labels,
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
        config, splits: configs and splits to read; [] stands for all.
        labels: columns of labels.
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
        config: Sequence[str] = (),
        splits: Sequence[str] = (),
        labels: Sequence[str] = (),
        max_image_bytes: int = 32 << 20,
    ) -> None:
        self.repo, self.downloads, self.revision, self.files = repo, downloads, revision, files
        self.config, self.splits, self.labels = config, splits, labels
        self.identity, self.columns = identity, (image_column, caption_column, group_column)
        self.max_image_bytes = max_image_bytes
        self._found: Path | None = None
        self._pinned: str | None = None  # the commit to read

    def list(self) -> Listing:
        """List the rows, in the order of the files.

        Raises BadInput for files that are unavailable or lack a column, and when several configs hold the same images
        and pairs.config names none.
        """
        rows: dict[str, _Rows] = {}
        configs: dict[str, set[str]] = {}
        dropped = []
        root = self._root()
        for path in self._paths(root):
            name = path.relative_to(root).as_posix()
            shared = configs.setdefault(place_of(name).config or "default", set())
            for row, (digest, inside, group, own, labels, left) in enumerate(self._index(path).iter_rows()):
                if digest is None:
                    dropped.append(Dropped(f"{name}:{row}", NO_BYTES, inside or ""))
                    continue
                shared.add(digest)
                if digest not in rows:
                    rows[digest] = _Rows("", json.dumps([name, row]), Texts([], []), {})
                whole, other = group_after(rows[digest].group, group)
                if other:
                    left = [*left, (SEVERAL_GROUPS, other)]
                rows[digest] = rows[digest]._replace(group=whole)
                rows[digest].texts.texts.extend(own)
                rows[digest].texts.left_out.extend(left)
                rows[digest].labels.update(dict.fromkeys(map(tuple, labels)))
        if not self.config and len(configs) > 1:
            check_shared(configs, f"pairs.repo: {self.repo}")
        return _listing(rows, dropped)

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
                yield SourceError(NO_BYTES, f"{name}:{row}")
            elif len(data) > self.max_image_bytes:
                yield SourceError("too large", f"{len(data):,} bytes, allowed are {self.max_image_bytes:,}")
            else:
                yield data

    def commit(self) -> str | None:
        """The commit that was listed; None for a folder."""
        return None if os.path.isabs(self.repo) or self._found is None else self._found.name

    def pin(self, commit: str) -> None:
        """Read from this commit, whatever the branch names by now."""
        self._pinned = commit

    def digest_of(self, source_key: str) -> str:
        """The key, which is the beginning of the digest."""
        return source_key

    def _root(self) -> Path:
        """Return the folder of the dataset's files: the local folder `repo`, or the hub's snapshot in the cache."""
        if self._found is None:
            self._found = Path(self.repo) if os.path.isabs(self.repo) else self._fetched()
            if not is_folder(self._found):
                raise BadInput(f"pairs.repo: {self.repo}: no such folder")
        return self._found

    def _fetched(self) -> Path:
        """Fetch the files that are read from the hub, and no others. Returns the snapshot in the cache.

        The folder of the snapshot is named by its commit. Without a network, the files in the cache are taken.
        """
        from huggingface_hub import HfApi, constants, errors

        offline = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)
        pattern, revision = checked_pattern(self.files), self._pinned or self.revision
        try:
            try:
                commit = self._pinned or HfApi().repo_info(self.repo, repo_type="dataset", revision=self.revision).sha
                held = HfApi().list_repo_files(self.repo, repo_type="dataset", revision=commit)
            except (errors.HfHubHTTPError, errors.HFValidationError):
                raise  # the hub has answered: the files to read must be known before any is fetched
            except Exception as error:  # each HTTP library raises its own errors without a network: try the cache
                log.debug("the hub does not list %s: %s", self.repo, error)
                commit, wanted = None, [pattern]
            else:
                wanted = [glob.escape(name) for name in self._chosen(_parquet(matching(held, pattern)), "the dataset")]
            # The branch is asked for by its name, so that the cache knows its commit without a network.
            found = self._snapshot(revision, wanted)
            return found if commit is None or found.name == commit else self._snapshot(commit, wanted)
        except offline as error:
            why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
            raise BadInput(
                f"pairs.repo: the dataset {self.repo!r} at {revision!r} is not in the cache "
                f"{constants.HF_HUB_CACHE} and {why} (HF_HOME moves the cache, HF_HUB_OFFLINE=0 allows the network)"
            ) from error
        except (errors.HfHubHTTPError, errors.HFValidationError) as error:
            raise BadInput(f"pairs.repo: {self.repo!r} at {revision!r}: {str(error).splitlines()[0]}") from error

    def _snapshot(self, revision: str, wanted: Sequence[str]) -> Path:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(self.repo, repo_type="dataset", revision=revision, allow_patterns=[*wanted]))

    def _paths(self, root: Path) -> Sequence[Path]:
        names = local_files(root, checked_pattern(self.files))
        return [root / name for name in self._chosen(names, f"{root}")]

    def _chosen(self, names: Sequence[str], where: str) -> Sequence[str]:
        """Return the files of the wanted configs and splits. Raises BadInput when there is none."""
        if not names:
            raise BadInput(f"pairs.files: {self.files!r} matches no Parquet file in {where}")
        chosen = choose(names, self.config, self.splits, where)
        if not chosen:
            raise BadInput(f"pairs.splits = {self.splits}: no file in {where} is of these splits and configs")
        return chosen

    def _index(self, path: Path) -> pl.DataFrame:
        import pyarrow as pa

        key = repr((VERSION, *self.columns, tuple(self.labels), tuple(INDEX)))
        try:
            return indexed(path, self.downloads / "index", key, self._indexing)
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"{path}: not a readable Parquet file ({error})") from error

    def _indexing(self, path: Path) -> pl.DataFrame:
        """Read a file once and return the digest, group, captions and labels of each row."""
        import polars as pl
        import pyarrow.parquet as pq

        image, caption, group = self.columns
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            self._check_columns(schema, path)
            inside = {name: top_column(schema.names, name) for name in (caption, group, *self.labels) if name}
            classes = {name: class_names(schema, name) for name in self.labels}
            wanted = list(dict.fromkeys([image, *(top for top, _ in inside.values())]))
            rows = []
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=wanted):
                pictures, paths = _bytes_of(batch.column(image), path, image), _paths_of(batch.column(image))
                held = {top: values_of(batch.column(top)) for top, _ in inside.values()}
                for row, (data, where) in enumerate(zip(pictures, paths, strict=True)):
                    values = {name: inner(held[top][row], keys) for name, (top, keys) in inside.items()}
                    labels = {
                        name: values[name] if names is None else named_classes(values[name], names)
                        for name, names in classes.items()
                    }
                    digest = None if data is None else hashlib.sha256(data).hexdigest()
                    of = values[group] if group else None
                    rows.append((digest, where if data is None else None, *_texts(values[caption], of, labels)))
        return pl.DataFrame(rows, schema=INDEX, orient="row")

    def _check_columns(self, schema: pa.Schema, path: Path) -> None:
        """Raise BadInput for a column that the file lacks, with the columns that it has."""
        image, caption, group = self.columns
        keys = [(image, "image_column"), (caption, "caption_column"), (group, "group_column")]
        for name, key in [*keys, *((label, "labels") for label in self.labels)]:
            if name and schema.names.count(top := top_column(schema.names, name)[0]) > 1:
                raise BadInput(f"pairs.{key}: {path} has several columns of the name {top!r}: rename all but one")
            if name is None or (name in schema.names if key == "image_column" else holds(schema, name)):
                continue
            likely = caption_like(schema) if key == "caption_column" else []
            hint = f"; {', '.join(likely)} may be captions" if likely else ""
            raise BadInput(f"pairs.{key} = {name!r}: {path.name} has the columns {', '.join(schema.names)}{hint}")


class _Rows(NamedTuple):
    """What the rows with one image say."""

    group: str
    locator: str
    texts: Texts
    labels: dict[Any, None]  #: (name, label), in order


def _listing(rows: dict[str, _Rows], dropped: list[Dropped]) -> Listing:
    """Return the listing of images by the digest of their bytes."""
    items, labels = [], []
    for digest, (group, locator, texts, own) in rows.items():
        key = digest[:24]
        captions = captions_of(key, texts.texts)
        dropped += left_out(key, texts.left_out)
        labels += [Label(key, name, label) for name, label in own]
        if captions:
            items.append(Item(key, group, locator, captions, stamp(digest, captions)))
        else:
            dropped.append(Dropped(key, "no caption", locator))
    return Listing(items, dropped, labels)


def _texts(caption: Any, group: Any, labels: dict[str, Any]) -> tuple[str, list[str], list[list[str]], list[list[str]]]:
    """Return the group, captions and labels in the values of a row, and (cause, detail) of what is none of these."""
    texts, of = texts_of(caption), group_of(group)
    left = [list(one) for one in texts.left_out]
    if of is None:
        left.append([NO_GROUP, shown(group)])
    found = []
    for name, value in labels.items():
        for label, wrong in label_texts(value):
            if wrong:
                left.append([NO_LABEL, f"{name}: {wrong}"])
            else:
                found.append([name, label])
    return of or "", texts.texts, found, left


def _parquet(names: Sequence[str]) -> list[str]:
    return sorted(name for name in names if name.endswith(".parquet"))


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
    if pa.types.is_null(kind):  # how a file is written whose every row lacks a picture
        return [None] * len(column)
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        reads = 'source = "urls" reads lists of URLs, source = "folder" reads lists of files'
        hint = reads if text else "binary, or a struct with bytes"
        raise BadInput(f"pairs.image_column = {name!r}: {path.name} holds {kind} there, not encoded pictures ({hint})")
    return list(column.to_pylist())


def _paths_of(column: Any) -> list[str | None]:
    """Return the paths in a column of pictures, None for a picture without one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    place = kind.get_field_index("path") if pa.types.is_struct(kind) else -1
    if place < 0 or not pa.types.is_string(kind.field(place).type):
        return [None] * len(column)
    return list(pc.struct_field(column, "path").to_pylist())
