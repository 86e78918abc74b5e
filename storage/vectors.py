"""The user's own vectors, named as `embeddings:PATH` in a study file: .npy, .npz, Parquet or Zarr.

`storage.vector_layouts` says which files the folder may hold.

Caption row j belongs to image row j, or to the image row that the column `image_row` of the metadata states. Rows are
numbered from 0. A value is cast only after it has been checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from storage.errors import BadInput
from storage.fingerprints import fingerprint as fingerprint
from storage.places import is_folder
from storage.vector_arrays import Array
from storage.vector_arrays import Parts as Parts
from storage.vector_layouts import layout_of
from storage.vector_metadata import Metadata, first_true

BLOCK = 16_384  # rows that are read at a time


class Vectors(NamedTuple):
    """Image and text vectors, with the image row of each caption."""

    image: Array | Parts  #: [n, d], as stored
    text: Array | Parts  #: [m, d], as stored
    image_row: Array  #: int64 [m]: the row of `image` for each caption
    keys: list[str]  #: n unique names of the images
    groups: list[str]  #: n group keys, "" where the metadata has none
    captions: list[str]  #: m texts, "" where the metadata has none
    files: tuple[Path, Path]  #: the file or folder of `image` and of `text`, the first one of several
    tables: list[Path]  #: files of the metadata, whose rows are together the rows of `text`
    is_named: bool  #: whether the metadata states keys; else an image has the number of its row as its key

    def bad(self, path: Path, modality: str, row: int) -> BadInput:
        """Return the error for a row of one modality ("image", "text") that is zero or not finite."""
        array, file = (self.image, self.files[0]) if modality == "image" else (self.text, self.files[1])
        file, of_file = array.place(row) if isinstance(array, Parts) else (file, row)
        return BadInput(
            f"embeddings:{path}: {modality} row {row} is zero or not finite ({file}: row {of_file}): embed it again, "
            "or leave the pair out of all files"
        )


def open_vectors(path: Path) -> Vectors:
    """Read a folder of vectors, and check every value in it.

    Raises BadInput for an unknown layout, for a layout whose parts do not fit together, and for a row that is zero or
    not finite.
    """
    vectors = open_unchecked(path)
    for name, array in (("image", vectors.image), ("text", vectors.text)):
        for start in range(0, len(array), BLOCK):
            if (row := first_bad(array[start : start + BLOCK])) is not None:
                raise vectors.bad(path, name, start + row)
    return vectors


def open_unchecked(path: Path) -> Vectors:
    """Read a folder of vectors as `open_vectors` does, but do not check for rows that are zero or not finite."""
    if not is_folder(path):
        raise BadInput(f"embeddings:{path}: no such folder")
    image, text, files, metadata, sizes = layout_of(path)
    for name, array, file in (("image", image, files[0]), ("text", text, files[1])):
        if not _is_matrix(array):
            raise BadInput(
                f"embeddings:{path}: {name} must be floating point [rows, dim], is {array.dtype} {array.shape} "
                f"({file}): save it as float32 or float16, one row for each vector"
            )
    if image.shape[1] != text.shape[1]:
        raise BadInput(
            f"embeddings:{path}: image rows have {image.shape[1]} dimensions, text rows {text.shape[1]} ({files[0]}, "
            f"{files[1]}): both must come from one model"
        )
    columns = metadata.columns if metadata is not None else {}
    if metadata is not None and sum(metadata.rows) != len(text):
        raise BadInput(
            f"embeddings:{path}: {len(text)} text rows, but the metadata has {sum(metadata.rows)} "
            f"({metadata.files[0]}): it must have one row for each text vector, in the same order"
        )
    if metadata is not None and "image_row" in columns:
        image_row = _checked_rows(metadata, len(image))
        _refuse_rows_of_parts(metadata, image, image_row)
    else:
        _check_sizes(path, sizes, len(image))
        image_row = np.arange(len(text))
    keys, groups = _of_images(path, metadata, image_row, len(image))
    captions = columns["caption"].to_list() if "caption" in columns else [""] * len(text)
    tables = metadata.files if metadata is not None else []
    return Vectors(image, text, image_row, keys, groups, captions, files, tables, "key" in columns)


def _is_matrix(array: Array | Parts) -> bool:
    """Whether an array has rows of floating point numbers of at most 64 bits."""
    kind = array.dtype
    return array.ndim == 2 and np.issubdtype(kind, np.floating) and kind.itemsize <= 8 and 0 not in array.shape


def first_bad(block: Array) -> int | None:
    """Return the number of the first row of a block that is zero or not finite, or None."""
    largest = np.abs(block).max(axis=1)
    bad = np.flatnonzero(~np.isfinite(largest) | (largest == 0))
    return int(bad[0]) if bad.size else None


def unit(block: Array) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Divide each row by its norm.

    Each row is first divided by its largest absolute value, so that the norm of a finite row does not overflow or
    underflow.
    """
    rows = block.astype(np.float64)
    rows /= np.abs(rows).max(axis=1, keepdims=True)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _checked_rows(metadata: Metadata, images: int) -> Array:
    """Return the column `image_row`. Raises BadInput, with file and row, for a number that is no image row."""
    column = metadata.columns["image_row"]
    if (row := first_true((column < 0) | (column >= images))) is not None:
        raise BadInput(f"{metadata.place(row)}: image_row must lie in 0 to {images - 1}, is {column[row]}")
    return column.to_numpy()


def _refuse_rows_of_parts(metadata: Metadata, image: Array | Parts, image_row: Array) -> None:
    """Raise BadInput if `image_row` seems to count from 0 in each part, not through all parts.

    Then the rows of every part fit into this part alone, and images of later parts have no captions.
    """
    if not isinstance(image, Parts) or len(image.arrays) != len(metadata.rows):
        return
    ends = np.cumsum(metadata.rows)
    parts = zip(np.split(image_row, ends), image.arrays, strict=False)
    local = [len(rows) > 0 and rows.max() < len(own) for rows, own in parts]
    if all(local) and len(np.unique(image_row)) < len(image):
        raise BadInput(
            f"{metadata.place(int(ends[0]))}: image_row counts from 0 in this file: it must count through all parts, "
            f"so that the first image of the second part is row {image.starts[1]}"
        )


def _check_sizes(path: Path, sizes: dict[str, tuple[int, int]], images: int) -> None:
    """Raise BadInput if there are not equally many images and captions. They are joined by position."""
    for part, (image, text) in sizes.items():
        if image != text:
            raise BadInput(
                f"embeddings:{path}: {part}{image} image rows and {text} text rows: a column image_row must say which "
                f"belong together (image_row must lie in 0 to {images - 1}; without it, text row j has image j)"
            )


def _of_images(path: Path, metadata: Metadata | None, image_row: Array, count: int) -> tuple[list[str], list[str]]:
    """Return the keys and groups of the images.

    Raises BadInput if the metadata rows of one image state different values, or if two images have the same key.
    """
    rows, first_of, of = np.unique(image_row, return_index=True, return_inverse=True)
    lists = []
    for name in ("key", "group"):
        values = [f"{row:012d}" for row in range(count)] if name == "key" else [""] * count
        if metadata is not None and name in metadata.columns:
            stated = metadata.columns[name]
            of_image = stated.gather(first_of)
            if (row := first_true(stated != of_image.gather(of))) is not None:
                raise BadInput(
                    f"{metadata.place(row)}: {name} is {stated[row]!r}, but image row {image_row[row]} has "
                    f"{of_image[int(of[row])]!r} ({metadata.place(int(first_of[of[row]]))})"
                )
            for row, value in zip(rows.tolist(), of_image.to_list(), strict=True):
                values[row] = value
        lists.append(values)
    keys, groups = lists
    seen: dict[str, int] = {}
    for row, key in enumerate(keys):
        if (other := seen.setdefault(key, row)) != row:
            raise BadInput(
                f"embeddings:{path}: the column `key` (or `image_path`) has equal values for two images: "
                f"image rows {other} and {row} are both {key!r}{_stated_in(metadata, image_row, (other, row))}: the "
                "keys of images must be unique; captions of one image need a column image_row with its row"
            )
    return keys, groups


def _stated_in(metadata: Metadata | None, image_row: Array, images: Sequence[int]) -> str:
    """Return the places in the metadata that name some images, as text for a message."""
    rows = [np.flatnonzero(image_row == image) for image in images]
    places = [metadata.place(int(of_image[0])) for of_image in rows if metadata is not None and len(of_image)]
    return f" ({', '.join(places)})" if places else ""
