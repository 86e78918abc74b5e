"""The user's own vectors as pairs (`embeddings:PATH`): keys and captions from the folder's metadata, no pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from storage.sources import Arrived, Caption, Item, Listing, Source, SourceError
from storage.sources.section import PairsSection


class EmbeddingsSection(PairsSection):
    """The user's own vectors as pairs: keys and captions from the folder's metadata."""

    paths: ClassVar[tuple[str, ...]] = ("path",)

    source: Literal["embeddings"]
    path: str = Field(description="the folder, relative to the study file")

    def open(self, store: Path) -> Source:
        """Open the source. Reads the folder's bytes once, for the identity."""
        return EmbeddingsFolder(Path(self.path), store / "sources" / "fingerprints.json")


class EmbeddingsFolder(Source):
    """A folder of vectors as a source of pairs. The key of a caption is its row."""

    name = "embeddings"

    def __init__(self, path: Path, memo: Path) -> None:
        from storage.vectors import fingerprint  # zarr takes a third of a second to import

        self.path = path
        self.identity: dict[str, Any] = {"path": path.name, "sha256": fingerprint(path, memo) if path.is_dir() else ""}

    def list(self) -> Listing:
        """List the images in the order of their keys, each with its captions. Raises BadInput for an unknown layout."""
        import numpy as np

        from storage.vectors import open_vectors

        vectors = open_vectors(self.path)
        order = np.argsort(vectors.image_row, kind="stable")
        starts = np.searchsorted(vectors.image_row[order], np.arange(len(vectors.keys) + 1))
        items = []
        for row, key in enumerate(vectors.keys):
            own = order[starts[row] : starts[row + 1]]
            captions = tuple(Caption(f"{j:012d}", vectors.captions[j]) for j in own.tolist())
            stamp = hashlib.sha256(repr((key, vectors.groups[row], captions)).encode()).hexdigest()[:16]
            items.append(Item(key, vectors.groups[row], str(row), captions, stamp))
        return Listing(sorted(items), [])

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """Yield None for every item: the source has no pictures."""
        yield from (None for _ in locators)
