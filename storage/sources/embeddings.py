"""The user's own vectors (`embeddings:PATH`) as a source of pairs without pictures.

Keys, captions and labels come from the metadata of the folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from storage.errors import BadInput
from storage.sources import Arrived, Caption, Dropped, Item, Label, Listing, Source, SourceError
from storage.sources.labels import NO_LABEL, label_texts
from storage.sources.section import Columns, PairsSection, resolved

if TYPE_CHECKING:  # this module takes most of a second to import
    from storage.vectors import Vectors


class EmbeddingsSection(PairsSection):
    """The section of a study file for the user's own vectors."""

    paths: ClassVar[tuple[str, ...]] = ("path",)

    source: Literal["embeddings"]
    path: str = Field(description="the folder, relative to the study file")
    labels: Columns = Field([], description="columns of the metadata that label images, by which concepts are compared")

    def open(self, store: Path) -> Source:
        """Open the source. Its identity is the path of the folder, which stays the same when the folder grows."""
        return EmbeddingsFolder(Path(self.path), {"at": resolved(self.path)}, self.labels)


class EmbeddingsFolder(Source):
    """A folder of vectors as a source of pairs. The key of a caption is the row of its vector.

    labels: columns of the metadata whose values are labels of the images.
    """

    name = "embeddings"

    def __init__(self, path: Path, identity: dict[str, Any], labels: Sequence[str] = ()) -> None:
        self.path, self.identity, self.labels = path, identity, labels

    def list(self) -> Listing:
        """List the images in the order of their keys, each with its captions.

        Raises BadInput for a folder of an unknown layout, for a folder whose files do not fit together, and for
        metadata that lacks a column of labels.
        """
        from storage.fingerprints import stamp
        from storage.vector_shards import open_folder

        folder = open_folder(self.path, stamp(self.path))
        vectors, order, starts = folder.vectors, folder.order, folder.starts
        items = []
        for row, key in enumerate(vectors.keys):
            own = order[starts[row] : starts[row + 1]]
            captions = tuple(Caption(f"{j:012d}", vectors.captions[j]) for j in own.tolist())
            changes = hashlib.sha256(repr((key, vectors.groups[row], captions)).encode()).hexdigest()[:16]
            items.append(Item(key, vectors.groups[row], str(row), captions, changes))
        labels, dropped = labels_of(self.path, vectors, self.labels)
        return Listing(sorted(items), dropped, labels)

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """Yield None for every item: the source has no pictures."""
        yield from (None for _ in locators)


def labels_of(path: Path, vectors: Vectors, names: Sequence[str]) -> tuple[list[Label], list[Dropped]]:
    """Return the labels of the images in columns of the metadata, each once, and the values that are no labels.

    Raises BadInput if the folder has no metadata, and, with the file, for a column that the metadata lacks.
    """
    from storage.vector_metadata import columns_of, read_table

    if names and not vectors.tables:
        raise BadInput(
            f"embeddings:{path}: has no metadata, in which pairs.labels names columns: write a "
            "metadata.parquet with one row for each text vector"
        )
    found, wrong, start = dict[Label, None](), dict[Dropped, None](), 0
    for file in vectors.tables if names else []:
        held = columns_of(file)
        if missing := [name for name in names if name not in held]:
            raise BadInput(
                f"{file}: has no column {missing[0]!r}, which pairs.labels names; it has {', '.join(sorted(held))}"
            )
        table = read_table(file, names)
        keys = [vectors.keys[row] for row in vectors.image_row[start : start + table.height].tolist()]
        for name in names:
            for key, value in zip(keys, table[name].to_list(), strict=True):
                for label, detail in label_texts(value):
                    if label:
                        found[Label(key, name, label)] = None
                    else:
                        wrong[Dropped(key, NO_LABEL, f"{name}: {detail}")] = None
        start += table.height
    return list(found), list(wrong)
