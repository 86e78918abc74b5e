"""Images in a folder. Captions are in a table (CSV, JSONL, Parquet), or in a .txt file beside each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from storage.errors import BadInput
from storage.sources import Arrived, Dropped, Item, Listing, Source, SourceError
from storage.sources.captions import Texts, captions_of, left_out, texts_of
from storage.sources.files import confined, digests, is_picture, read_bounded
from storage.sources.section import FilesSection, resolved
from storage.sources.tables import (
    CAPTION_COLUMNS,
    GROUP_COLUMNS,
    IMAGE_COLUMNS,
    TABLES,
    column,
    optional,
    read_table,
    stamp,
)

MAX_CAPTION_FILE = 1 << 20
Captioned = dict[str, tuple[str, Texts]]  # {path of an image below the folder: (group, captions)}


class FolderSection(FilesSection):
    """The section of a study file for images in a folder."""

    paths: ClassVar[tuple[str, ...]] = ("path",)

    source: Literal["folder"]
    path: str = Field(description="the folder, relative to the study file")
    table: str | None = Field(None, description="CSV, TSV, JSONL or Parquet file in the folder; default: the only one")
    image_column: str | None = Field(None, description="default: file_name, image, image_path, path, ...")
    caption_column: str | None = Field(None, description="default: caption, captions, text, title")
    group_column: str | None = Field(None, description="images of one group stay on one side of the split")

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
            max_image_bytes=self.max_image_bytes,
        )


class Folder(Source):
    """Source of a folder's images. The key of an image is its path below the folder.

    Args:
        path: the folder.
        memo: file that caches the digests of the images, by path, size and time.
        table: name of the table in the folder. Default: the only table in the folder. Without a table, captions are
            read from .txt files, one caption per line.
        image_column, caption_column, group_column: columns of the table; default: the usual names.
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
        table: str | None = None,
        image_column: str | None = None,
        caption_column: str | None = None,
        group_column: str | None = None,
        max_image_bytes: int = 32 << 20,
    ) -> None:
        self.path, self.memo, self.table, self.identity = path, memo, table, identity
        self.columns = (image_column, caption_column, group_column)
        self.max_image_bytes = max_image_bytes

    def list(self) -> Listing:
        """List the images that have a caption. Raises BadInput for a folder or table that cannot be read."""
        if not self.path.is_dir():
            raise BadInput(f"pairs.path: {self.path}: no such folder")
        root = self.path.resolve()
        table = self._table()
        dropped: list[Dropped] = []
        captioned = self._from_table(table) if table else _sidecars(root, dropped)
        files: dict[str, Path] = {}
        for name in captioned:
            file = confined(root, name)
            if file is None:
                dropped.append(Dropped(name, "path out of the folder"))
            elif not file.is_file():
                dropped.append(Dropped(name, "no such file"))
            else:
                files[name] = file
        items = []
        for name, digest in zip(files, digests([*files.values()], self.memo), strict=True):
            group, (texts, left) = captioned[name]
            captions = captions_of(name, texts)
            dropped += left_out(name, left)
            if captions:
                items.append(Item(name, group, name, captions, stamp(digest, captions)))
            else:
                dropped.append(Dropped(name, "no caption"))
        return Listing(sorted(items), dropped)

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """Yield each file's bytes, read when they are requested."""
        root = self.path.resolve()
        for name in locators:
            file = confined(root, name)
            yield SourceError("path out of the folder") if file is None else read_bounded(file, self.max_image_bytes)

    def _table(self) -> Path | None:
        if self.table is not None:
            path = confined(self.path.resolve(), self.table)
            if path is None:
                raise BadInput(f"pairs.table = {self.table!r} leads out of {self.path}")
            return path
        tables = sorted(file for file in self.path.iterdir() if file.suffix.lower() in TABLES)
        if len(tables) > 1:
            names = ", ".join(file.name for file in tables)
            raise BadInput(f"{self.path} holds several tables: name one of {names} with pairs.table")
        return tables[0] if tables else None

    def _from_table(self, path: Path) -> Captioned:
        """Return {image: (group, captions)} from a table. Rows that name the same image are one item."""
        table = read_table(path)
        image = column(table, self.columns[0], IMAGE_COLUMNS, "image_column", path)
        caption = column(table, self.columns[1], CAPTION_COLUMNS, "caption_column", path)
        group = optional(table, self.columns[2], GROUP_COLUMNS, "group_column", path)
        captioned: Captioned = {}
        groups = table[group].to_list() if group else [None] * table.height
        for name, value, of in zip(table[image].to_list(), table[caption].to_list(), groups, strict=True):
            _, texts = captioned.setdefault(str(name or ""), ("" if of is None else str(of), Texts([], [])))
            found = texts_of(value)
            texts.texts.extend(found.texts)
            texts.left_out.extend(found.left_out)
        return captioned


def _sidecars(root: Path, dropped: list[Dropped]) -> Captioned:
    """Return {image: ("", captions)} of all images below the folder. A caption file is IMAGE.txt for IMAGE.jpg."""
    captioned: Captioned = {}
    for file in sorted(root.rglob("*")):
        if not is_picture(file.name) or not file.is_file():
            continue
        name = file.relative_to(root).as_posix()
        data = read_bounded(file.with_suffix(".txt"), MAX_CAPTION_FILE)
        if isinstance(data, SourceError):
            cause = "no caption" if data.cause == "no such file" else f"caption file {data.cause}"
            dropped.append(Dropped(name, cause, data.detail))
            continue
        captioned[name] = ("", texts_of([line for line in data.splitlines() if line.strip()]))
    return captioned
