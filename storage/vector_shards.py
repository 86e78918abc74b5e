"""The rows of the user's own vectors that belong to each shard of pairs, and their digests.

A shard's embeddings are made from the rows of the shard, so their recipe holds a digest of these rows and not of the
whole folder. Images are found by their key, and captions by their image and text, so the order of the images does not
matter. A memo keeps the digests. They are valid while the size and the time of every file in the folder stay the same,
so `bridgescope status` reads no vectors.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import TypeAdapter

from storage.dataset import Dataset
from storage.errors import BadInput
from storage.fingerprints import stamp
from storage.memo import read_memo, update_memo
from storage.places import is_folder

if TYPE_CHECKING:  # these modules, and zarr, take most of a second to import
    import numpy as np
    import polars as pl

    from storage.vectors import Vectors


class Digest(NamedTuple):
    """The digest of the rows of one shard."""

    read: str  #: hash over the row numbers in their order, and over the files that hold the rows: name, size, time
    sha256: str


class Known(NamedTuple):
    """The digests of the rows of one folder."""

    stamp: str  #: hash over the names, sizes and times of the folder's files
    digests: dict[str, Digest]  #: {digest of a shard of pairs: digest of its rows}


class Place(NamedTuple):
    """Row numbers in a folder of the images and captions of a shard, in the order of the shard."""

    image: np.ndarray[Any, np.dtype[np.int64]]
    text: np.ndarray[Any, np.dtype[np.int64]]


FOLDERS = TypeAdapter(dict[str, Known])


def digests(store: Path, path: Path, pairs: Sequence[Dataset]) -> list[str]:
    """For each shard of pairs, return the digest of its rows in the folder `path`.

    Raises BadInput for the same reasons as `open_vectors`, and if the folder lacks an image or a caption of the pairs.
    """
    if not is_folder(path):
        raise BadInput(f"embeddings:{path}: no such folder")
    memo, name, now = store / "sources" / "vectors.json", str(path.resolve()), stamp(path)
    known = read_memo(memo, FOLDERS).get(name)
    before = known.digests if known is not None else {}
    found = dict(before) if known is not None and known.stamp == now else {}
    if missing := [shard for shard in pairs if shard.digest not in found]:
        folder = open_folder(path, now)
        folder.check_images(store, missing)
        if not folder.vectors.is_named:
            folder.check_unnamed(store, pairs)
        for shard in missing:
            place = folder.place(store, shard)
            read, old = folder.read(place), before.get(shard.digest)
            found[shard.digest] = old if old and old.read == read else Digest(read, folder.digest(place))
        if stamp(path) != now:
            raise BadInput(f"embeddings:{path}: the folder changed while it was read: run the study again")
        update_memo(memo, FOLDERS, {name: Known(now, found)})
    return [found[shard.digest].sha256 for shard in pairs]


def forget(store: Path, path: Path) -> None:
    """Delete what the memo knows of a folder, so that the next run reads all rows again."""
    update_memo(store / "sources" / "vectors.json", FOLDERS, {}, {str(path.resolve())})


@functools.lru_cache(maxsize=2)
def open_folder(path: Path, stamp: str) -> Folder:
    """Open a folder of vectors once for all shards. A changed folder has another `stamp` and is opened again."""
    from storage.vectors import open_unchecked

    return Folder(path, stamp, open_unchecked(path))


class Folder:
    """An open folder of vectors, in which rows are found by the key of an image and the text of a caption."""

    def __init__(self, path: Path, stamp: str, vectors: Vectors) -> None:
        import numpy as np
        import polars as pl

        self.path, self.stamp, self.vectors = path, stamp, vectors
        self.row_of = {key: row for row, key in enumerate(vectors.keys)}
        self.texts = pl.Series("text", vectors.captions, dtype=pl.String)
        #: The caption rows, grouped by image. Image row i has the caption rows order[starts[i] : starts[i + 1]].
        self.order = np.argsort(vectors.image_row, kind="stable")
        self.starts = np.searchsorted(vectors.image_row[self.order], np.arange(len(vectors.keys) + 1))

    def check_images(self, store: Path, pairs: Sequence[Dataset]) -> None:
        """Raise BadInput if the folder lacks images of the pairs."""
        from storage.pairs import read_images

        keys = [key for shard in pairs for key in read_images(store, shard, ["source_key"])["source_key"].to_list()]
        missing = [key for key in keys if key not in self.row_of]
        if len(missing) == len(keys) > 0:
            raise BadInput(
                f"embeddings:{self.path}: names its images differently from pairs.path: it has "
                f"{self.vectors.keys[0]!r}, the pairs have {missing[0]!r}: a "
                f"metadata.parquet with the column `key` must give the same names"
            )
        if missing:
            raise BadInput(
                f"embeddings:{self.path}: {len(missing)} of the {len(keys)} images of pairs.path are missing in the "
                f"folder, the first is {missing[0]!r}: every image of the pairs needs a vector in each folder"
            )

    def check_unnamed(self, store: Path, pairs: Sequence[Dataset]) -> None:
        """Raise BadInput if a folder without keys has more images than the pairs.

        Its images then have their row numbers as keys, which name the images of the pairs by position alone.
        """
        from storage.pairs import read_images

        images, held = sum(read_images(store, one, ["image_id"]).height for one in pairs), len(self.vectors.keys)
        if images != held:
            raise BadInput(
                f"embeddings:{self.path}: has {held} images without keys, the pairs have {images}: a metadata.parquet "
                "with the column `key` must say which image is which; if the folder has grown, run `acquire` again"
            )

    def place(self, store: Path, pairs: Dataset) -> Place:
        """Return the rows of a shard. Raises BadInput if the folder lacks an image or a caption of the shard."""
        from storage.pairs import read_captions, read_images

        images = read_images(store, pairs, ["image_id", "source_key"])
        return self.rows(images, read_captions(store, pairs, ["image_id", "caption"]))

    def rows(self, images: pl.DataFrame, captions: pl.DataFrame) -> Place:
        """Return the rows of given images (image_id, source_key) and captions (image_id, caption), in the given order.

        If an image has several captions with the same text, the n-th of them in the pairs is the n-th in the folder. If
        the folder or the pairs have no texts, the n-th caption of an image in the pairs is its n-th caption in the
        folder. Then the image must have equally many captions in both.
        """
        import numpy as np
        import polars as pl

        image = np.array([self.row_of.get(key, -1) for key in images["source_key"].to_list()], np.int64)
        if (image < 0).any():
            missing = images["source_key"][int(np.flatnonzero(image < 0)[0])]
            raise BadInput(
                f"embeddings:{self.path}: the image {missing!r} of the pairs is missing in the folder: every image of "
                "the pairs needs a vector in each folder"
            )
        row_of_id = images.select("image_id", image=pl.Series(image, dtype=pl.Int64))
        wanted = captions.join(row_of_id, on="image_id", how="left", maintain_order="left")
        wanted = wanted.select("image", text=pl.col("caption").fill_null(""))
        held = self._captions_of(image)
        by = ["image", "text"]
        if not (wanted["text"] != "").any() or not (held["text"] != "").any():
            self._check_counts(wanted, held)
            by = ["image"]
        wanted, held = (table.with_columns(nth=pl.int_range(pl.len()).over(by)) for table in (wanted, held))
        joined = wanted.join(held.select(*by, "nth", "row"), on=[*by, "nth"], how="left", maintain_order="left")
        if joined["row"].null_count():
            first = joined.filter(pl.col("row").is_null()).row(0, named=True)
            raise BadInput(
                f"embeddings:{self.path}: {joined['row'].null_count()} captions of pairs.path are missing in the "
                f"folder, the first is {first['text']!r} of the image {self.vectors.keys[first['image']]!r}: captions "
                "are found by their exact text, and every caption of the pairs needs a vector in each folder"
            )
        return Place(image, joined["row"].to_numpy())

    def _captions_of(self, image: np.ndarray[Any, np.dtype[np.int64]]) -> pl.DataFrame:
        """Return (image, row, text) of the folder's captions of the given image rows, by image and then by row."""
        import numpy as np
        import polars as pl

        first, counts = self.starts[image], self.starts[image + 1] - self.starts[image]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        row = self.order[np.repeat(first, counts) + within]
        columns = {"image": np.repeat(image, counts), "row": row}
        return pl.DataFrame(columns, schema={"image": pl.Int64, "row": pl.Int64}).with_columns(
            text=self.texts.gather(row)
        )

    def _check_counts(self, wanted: pl.DataFrame, held: pl.DataFrame) -> None:
        """Raise BadInput if captions cannot be told apart without their texts.

        An image must have equally many captions in the pairs and in the folder. If one of the two has texts, the image
        must have only one caption.
        """
        import polars as pl

        counts = wanted.group_by("image", maintain_order=True).agg(wanted=pl.len())
        both = counts.join(held.group_by("image").agg(held=pl.len()), on="image", how="left").fill_null(0)
        texts = (wanted["text"] != "").any() or (held["text"] != "").any()
        for image, of_pairs, of_folder in both.select("image", "wanted", "held").iter_rows():
            if of_pairs != of_folder or (texts and of_pairs > 1):
                raise BadInput(
                    f"embeddings:{self.path}: the image {self.vectors.keys[image]!r} has {of_folder} captions in the "
                    f"folder and {of_pairs} in the pairs, and one of them states no texts: the column `caption` must "
                    "say which caption is which"
                )

    def read(self, place: Place) -> str:
        """Return a hash over the row numbers of a shard and the files that hold the rows. Reads no vectors."""
        from storage.vectors import Parts

        total = hashlib.sha256()
        for name, array, rows in (("image", self.vectors.image, place.image), ("text", self.vectors.text, place.text)):
            files = array.stamps(rows) if isinstance(array, Parts) else [(0, self.stamp)]
            total.update(f"{name} {len(rows)} {files}\n".encode())
            total.update(rows.tobytes())
        return total.hexdigest()[:20]

    def digest(self, place: Place) -> str:
        """Return the sha256 over the rows of a shard. It does not depend on the type in which a file stores the rows.

        Raises BadInput, with the row, for a vector that is zero or not finite.
        """
        import numpy as np

        from storage.vectors import BLOCK, first_bad

        total = hashlib.sha256()
        for name, array, rows in (("image", self.vectors.image, place.image), ("text", self.vectors.text, place.text)):
            total.update(f"{name} {len(rows)} {array.shape[1]}\n".encode())
            for start in range(0, len(rows), BLOCK):
                block = array[rows[start : start + BLOCK]]
                if (row := first_bad(block)) is not None:
                    raise self.vectors.bad(self.path, name, int(rows[start + row]))
                with np.errstate(over="ignore"):
                    narrow = block.astype(np.float32)
                exact = bool((narrow == block).all())  # so equal values in another type have the same digest
                kept = np.ascontiguousarray(narrow if exact else block.astype(np.float64))
                total.update(kept.reshape(-1).view(np.uint8).data)
        return total.hexdigest()
