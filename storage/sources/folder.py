"""Images in a folder. Captions are in a table (CSV, JSON, Parquet), or in a .txt file beside each image."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from storage.errors import BadInput
from storage.places import is_file, is_folder
from storage.sources import Arrived, Dropped, Item, Label, Listing, Source, SourceError
from storage.sources.captions import captions_of, clean, left_out, shown, texts_of
from storage.sources.delimited import Form, utf8
from storage.sources.files import (
    confined,
    digests,
    is_picture,
    is_rare,
    key_of,
    locator_of,
    name_of,
    not_read,
    of_macos,
    read_bounded,
)
from storage.sources.layouts import bases_of, below, contents, find, table_in
from storage.sources.rows import Columned, ColumnName, Rows, TableSection, add_row, rows_of
from storage.sources.section import resolved
from storage.sources.tables import (
    CAPTION_COLUMNS,
    GROUP_COLUMNS,
    IMAGE_COLUMNS,
    USUAL,
    column,
    optional,
    read_table,
    stamp,
)

MAX_CAPTION_FILE = 1 << 20
NO_NAME, NAME_NO_TEXT = "no image name", "image name is no text"  # causes
Ledger = list[Dropped]
EMBEDDED, SEVERAL = "image is in the table", "several files of this name"
FORMATS = "another format of an image"  # the cause of photo.heic beside photo.jpg
ALONE, LINKED = "caption without an image", "link to a folder is not followed"  # causes


class FolderSection(TableSection):
    """The section of a study file for images in a folder."""

    paths: ClassVar[tuple[str, ...]] = ("path",)

    source: Literal["folder"]
    path: str = Field(description="the folder, relative to the study file")
    table: str | Literal[False] | None = Field(
        None,
        description="CSV, TSV, JSON lines, JSON, .token or Parquet file in the folder; default: the only one; false: "
        "captions are in the .txt files beside the images",
    )
    image_column: ColumnName | None = Field(None, description="default: file_name, image, image_path, path, ...")
    caption_column: ColumnName | None = Field(None, description="default: caption, captions, text, title")
    group_column: ColumnName | None = Field(None, description="images of one group stay on one side of the split")
    images: str | None = Field(
        None,
        description="folder in the folder `path` to which names in the table are relative; default: `path`, the folder "
        "of the table, or a folder in one of these",
    )

    def place(self) -> dict[str, Any]:
        """The path of the folder."""
        return {"at": resolved(self.path)}

    def reader(self, own: Path, identity: dict[str, Any]) -> Source:
        """Open the source without the limit."""
        return Folder(
            Path(self.path),
            own / "digests.parquet",
            identity=identity,
            table=self.table,
            image_column=self.image_column,
            caption_column=self.caption_column,
            group_column=self.group_column,
            images=self.images,
            labels=self.labels,
            splits=self.splits,
            form=self.form(),
            max_image_bytes=self.max_image_bytes,
        )


class Placed(NamedTuple):
    """The file of an item."""

    name: str  #: its path below the folder
    file: Path


class Folder(Source):
    """Source of a folder's images. The key of an image is its path below the folder.

    Args:
        path: the folder.
        memo: file that caches the digests of the images, by path, size and time.
        table: name of the table in the folder. Default: the only table in the folder. Without a table, or with False,
            captions are read from .txt files, one caption per line.
        image_column, caption_column, group_column: columns of the table; default: the usual names.
        images: folder in the folder to which names in the table are relative.
        labels: columns of the table that label images.
        splits: values of the table's column `split` whose rows are taken; none: all rows.
        form: how a CSV or TSV file is written.
        max_image_bytes: larger files fail.
        identity: identity of the source in the store.
    """

    name = "folder"

    def __init__(
        self,
        path: Path,
        memo: Path,
        *,
        identity: dict[str, Any],
        table: str | Literal[False] | None = None,
        image_column: str | None = None,
        caption_column: str | None = None,
        group_column: str | None = None,
        images: str | None = None,
        labels: Sequence[str] = (),
        splits: Sequence[str] = (),
        form: Form = USUAL,
        max_image_bytes: int = 32 << 20,
    ) -> None:
        self.path, self.memo, self.table, self.identity = path, memo, table, identity
        self.columns = (image_column, caption_column, group_column)
        self.images, self.labels, self.splits, self.form = images, labels, splits, form
        self.max_image_bytes = max_image_bytes

    def list(self) -> Listing:
        """List the images that have a caption. Raises BadInput for a folder or table that cannot be read."""
        if not is_folder(self.path):
            raise BadInput(f"pairs.path: {self.path}: no such folder")
        root = self.path.resolve()
        dropped: Ledger = []
        table = self._table()
        placed, rows = self._from_table(root, table, dropped) if table else self._sidecars(root, dropped)
        items = []
        labels = []
        for (key, (name, _)), digest in zip(
            placed.items(), digests([file for _, file in placed.values()], self.memo), strict=True
        ):
            if key not in rows:
                continue
            group, (texts, left), labelled = rows[key]
            captions = captions_of(key, texts)
            dropped += left_out(key, left)
            labels += [Label(key, of, label) for of, label in labelled]
            if captions:
                items.append(Item(key, group, locator_of(name), captions, stamp(digest, captions)))
            else:
                dropped.append(Dropped(key, "no caption"))
        return Listing(sorted(items), dropped, labels)

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """Yield each file's bytes, read when they are requested."""
        root = self.path.resolve()
        for locator in locators:
            file = confined(root, name_of(locator))
            yield SourceError("path out of the folder") if file is None else read_bounded(file, self.max_image_bytes)

    def _table(self) -> Path | None:
        if self.table is False:
            return None
        if self.table is not None:
            path = confined(self.path.resolve(), self.table)
            if path is None:
                raise BadInput(f"pairs.table = {self.table!r} leads out of {self.path}")
            return path
        return table_in(self.path)

    def _from_table(self, root: Path, path: Path, dropped: Ledger) -> tuple[dict[str, Placed], dict[str, Rows]]:
        """Return the files and the rows of the images that a table names, by their keys."""
        table = read_table(path, self.form)
        columns = Columned(
            column(table, self.columns[0], IMAGE_COLUMNS, "image_column"),
            column(table, self.columns[1], CAPTION_COLUMNS, "caption_column"),
            optional(table, self.columns[2], GROUP_COLUMNS, "group_column"),
            self.labels,
            self.splits,
        )
        bases = bases_of(root, path, self.images)
        dropped += table.left_out()
        found: dict[str, str | None] = {}  # {name in the table: key}
        placed: dict[str, Placed] = {}
        rows: dict[str, Rows] = {}
        for row in rows_of(table, columns, path):
            name, cause, detail = _name_in(row.key)
            if cause:
                dropped.append(Dropped(table.place(row.number), cause, detail))
                continue
            if name not in found:
                found[name] = _placed(root, bases, name, placed, dropped)
            key = found[name]
            if key is not None:
                dropped += add_row(rows, key, row, self.labels)
        return placed, rows

    def _sidecars(self, root: Path, dropped: Ledger) -> tuple[dict[str, Placed], dict[str, Rows]]:
        """Return the files and captions of all images below the folder. A caption file is IMAGE.txt for IMAGE.jpg."""
        if self.labels or self.splits:
            raise BadInput(
                f"pairs.labels and pairs.splits name columns of a table, and {self.path} is read without one"
            )
        placed: dict[str, Placed] = {}
        rows: dict[str, Rows] = {}
        held, links = _walked(root, root / below(root, self.images))
        files = [file for file in held if is_picture(file.name)]
        usual = {file.with_suffix(""): file for file in files if not is_rare(file.name) and is_file(file)}
        for file in files:
            name = file.relative_to(root).as_posix()
            key = key_of(name)
            if not is_file(file):
                dropped.append(Dropped(key, "no such file", "broken link" if file.is_symlink() else ""))
                continue
            data = read_bounded(file.with_suffix(".txt"), MAX_CAPTION_FILE)
            inside = confined(root, name)
            if isinstance(data, SourceError):
                cause = "no caption" if data.cause == "no such file" else f"caption file {data.cause}"
                dropped.append(Dropped(key, cause, key_of(data.detail)))
            elif is_rare(file.name) and file.with_suffix("") in usual:
                dropped.append(Dropped(key, FORMATS, key_of(usual[file.with_suffix("")].name)))
            elif unread := not_read(name):  # files that a table names are judged by their bytes instead
                dropped.append(unread)
            elif inside is None:
                dropped.append(Dropped(key, "path out of the folder"))
            elif key in placed:
                dropped.append(Dropped(key, SEVERAL))
            else:
                placed[key] = Placed(name, inside)
                rows[key] = Rows("", texts_of([line for line in utf8(data).splitlines() if line.strip()]), {})
        if not files:
            raise BadInput(
                f"{self.path}: holds neither pictures nor a table of captions, but {contents(root)}. Tables end in "
                '.csv, .tsv, .jsonl or .parquet; pairs.table names another; pairs.source = "webdataset" reads tars, '
                '"huggingface" reads Parquet files with pictures, and "embeddings" reads vectors'
            )
        dropped += _alone(root, held)
        dropped += [Dropped(key_of(link.relative_to(root).as_posix()), LINKED) for link in links]
        return placed, rows


def _walked(root: Path, folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files below a folder and the links to folders, both sorted, without what macOS adds.

    The links are not followed, since they may lead out of `root`, or back to the folder.
    """
    files, links = list[Path](), list[Path]()
    for place, folders, names in os.walk(folder):
        files += [Path(place, name) for name in names]
        links += [path for name in folders if (path := Path(place, name)).is_symlink()]
    one, other = (
        sorted(path for path in paths if not of_macos(path.relative_to(root).as_posix())) for paths in (files, links)
    )
    return one, other


def _alone(root: Path, files: Sequence[Path]) -> Ledger:
    """List the .txt files of no picture. The detail is a file of that name: a picture in a format that is not known."""
    pictures = {file.with_suffix("") for file in files if is_picture(file.name)}
    others = {file.with_suffix(""): file.name for file in files if file.suffix.lower() != ".txt"}
    texts = [file for file in files if file.suffix.lower() == ".txt" and file.with_suffix("") not in pictures]
    return [
        Dropped(key_of(file.relative_to(root).as_posix()), ALONE, key_of(others.get(file.with_suffix(""), "")))
        for file in texts
    ]


def _name_in(value: Any) -> tuple[str, str, str]:
    """Return the name of an image in a value of a table, or the cause and detail why there is none.

    A whole number is a name by its digits. An object with a path and without bytes is the path, as in Parquet files
    that the library datasets writes.
    """
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        if value.get("bytes"):
            return "", EMBEDDED, clean(value["path"])
        value = value["path"]
    if value is None or (isinstance(value, str) and not value.strip()):
        return "", NO_NAME, ""
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value}"
    return (clean(value), "", "") if isinstance(value, str) else ("", *_no_name(value))


def _no_name(value: Any) -> tuple[str, str]:
    if isinstance(value, bytes) or (isinstance(value, dict) and value.get("bytes")):
        return EMBEDDED, ""
    return NAME_NO_TEXT, shown(value)


def _placed(root: Path, bases: Sequence[str], name: str, placed: dict[str, Placed], dropped: Ledger) -> str | None:
    """Add the file that a table names to `placed` and return its key, or list the name in `dropped`."""
    paths = find(root, bases, name) or find(root, bases, name.strip())
    file = confined(root, paths[0] if paths else name)
    if len(paths) > 1:
        dropped.append(Dropped(name, SEVERAL, ", ".join(map(key_of, paths[:3]))))
    elif file is None:
        dropped.append(Dropped(name, "path out of the folder"))
    elif not paths:
        dropped.append(Dropped(name, "no such file"))
    else:
        key = key_of(paths[0])
        placed[key] = Placed(paths[0], file)
        return key
    return None
