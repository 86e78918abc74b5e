"""The user's own vectors (`embeddings:PATH`) as a source of pairs without pictures.

Keys and captions come from the metadata of the folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from storage.sources import Arrived, Caption, Item, Listing, Source, SourceError
from storage.sources.section import PairsSection, resolved


class EmbeddingsSection(PairsSection):
    """The section of a study file for the user's own vectors."""

    paths: ClassVar[tuple[str, ...]] = ("path",)

    source: Literal["embeddings"]
    path: str = Field(description="the folder, relative to the study file")

    def open(self, store: Path) -> Source:
        """Open the source. Its identity is the path of the folder, which stays the same when the folder grows."""
        return EmbeddingsFolder(Path(self.path), {"at": resolved(self.path)})


class EmbeddingsFolder(Source):
    """A folder of vectors as a source of pairs. The key of a caption is the row of its vector."""

    name = "embeddings"

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path, self.identity = path, identity

    def list(self) -> Listing:
        """List the images in the order of their keys, each with its captions.

        Raises BadInput for a folder of an unknown layout, and for a folder whose files do not fit together.
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
        return Listing(sorted(items), [])

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """Yield None for every item: the source has no pictures."""
        yield from (None for _ in locators)
