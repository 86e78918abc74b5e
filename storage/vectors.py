"""The user's own vectors, named as `embeddings:PATH` in a study file: .npy, Parquet or Zarr, read into one form.

Layouts, each in one folder:
  image.npy + text.npy                           two arrays
  img_emb/img_emb_*.npy + text_emb/text_emb_*.npy
                                                 the output of clip-retrieval: parts in numeric order, with
                                                 metadata/metadata_*.parquet
  *.parquet with columns image_embedding, text_embedding
  image + text                                   two Zarr arrays; the folder may be a Zarr group
The folder may also hold metadata.parquet (or metadata/*.parquet) with one row per pair. Its columns are key,
image_path, group, caption and image_row; all are optional. Caption row j belongs to image row j, or to the image row
that the integer column `image_row` states.

Rows are numbered from 0. A value is cast only after it has been checked. Files are joined by position only if they have
equally many rows.
"""

from __future__ import annotations

import itertools
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import zarr

from storage.errors import BadInput
from storage.fingerprints import fingerprint as fingerprint
from storage.fingerprints import stamp
from storage.vector_metadata import Metadata, first_true, metadata_of, read_table

Array = np.ndarray[Any, np.dtype[Any]]
BLOCK = 16_384  # rows that are read at a time
PARTS = ("img_emb", "text_emb", "metadata")  # folders of clip-retrieval's layout


class Parts:
    """Arrays of rows in several files, which are read like one array. They are not copied into one array."""

    def __init__(self, files: Sequence[Path], arrays: Sequence[Array]) -> None:
        self.arrays = arrays
        self.read = [stamp(file) for file in files]  # before any value is read, so that a later change is noticed
        self.starts = np.cumsum([0, *(len(array) for array in arrays)])
        self.shape = (int(self.starts[-1]), arrays[0].shape[1])
        self.ndim, self.dtype = 2, np.result_type(*arrays)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Array | slice) -> Array:
        """Return the rows with the given numbers, or the rows of a slice."""
        wanted = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        found = np.empty((len(wanted), self.shape[1]), self.dtype)
        for number, mine, of_part in self._split(wanted):
            found[mine] = self.arrays[number][of_part]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self[:], dtype)

    def stamps(self, rows: Array) -> list[tuple[int, str]]:
        """For each part with some of the rows: the number of its first row, and the stamp of its file."""
        return [(int(self.starts[number]), self.read[number]) for number, _, _ in self._split(rows)]

    def _split(self, rows: Array) -> Iterator[tuple[int, Array, Array]]:
        """Yield (part number, positions in `rows`, row numbers in the part) for each part with some of the rows."""
        part = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(part).tolist():
            mine = np.flatnonzero(part == number)
            yield number, mine, rows[mine] - self.starts[number]


class Vectors(NamedTuple):
    """Image and text vectors, with the image row of each caption."""

    image: Array | Parts  #: [n, d], as stored
    text: Array | Parts  #: [m, d], as stored
    image_row: Array  #: int64 [m]: the row of `image` for each caption
    keys: list[str]  #: n unique names of the images
    groups: list[str]  #: n group keys, "" where the metadata has none
    captions: list[str]  #: m texts, "" where the metadata has none


class _Layout(NamedTuple):
    """The contents of a folder, before each caption is assigned to its image."""

    image: Array | Parts
    text: Array | Parts
    metadata: Metadata | None
    sizes: dict[str, tuple[int, int]]  #: {part: (image rows, text rows)}; most layouts have one part


def open_vectors(path: Path) -> Vectors:
    """Read a folder of vectors, and check every value in it.

    Raises BadInput for an unknown layout, for a layout whose parts do not fit together, and for a row that is zero or
    not finite.
    """
    vectors = open_unchecked(path)
    for name, array in (("image", vectors.image), ("text", vectors.text)):
        for start in range(0, len(array), BLOCK):
            if (row := first_bad(array[start : start + BLOCK])) is not None:
                raise BadInput(f"embeddings:{path}: {name} row {start + row} is zero or not finite")
    return vectors


def open_unchecked(path: Path) -> Vectors:
    """Read a folder of vectors as `open_vectors` does, but do not check for rows that are zero or not finite."""
    if not path.is_dir():
        raise BadInput(f"embeddings:{path}: no such folder")
    image, text, metadata, sizes = _layout(path)
    for name, array in (("image", image), ("text", text)):
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating) or 0 in array.shape:
            raise BadInput(
                f"embeddings:{path}: {name} must be floating point [rows, dim], is {array.dtype} {array.shape}"
            )
    if image.shape[1] != text.shape[1]:
        raise BadInput(f"embeddings:{path}: image rows have {image.shape[1]} dimensions, text rows {text.shape[1]}")
    columns = metadata.columns if metadata is not None else {}
    if metadata is not None and sum(metadata.rows) != len(text):
        raise BadInput(f"embeddings:{path}: {len(text)} text rows, but the metadata has {sum(metadata.rows)}")
    if metadata is not None and "image_row" in columns:
        image_row = _checked_rows(metadata, len(image))
    else:
        _check_sizes(path, sizes, len(image))
        image_row = np.arange(len(text))
    keys, groups = _of_images(path, metadata, image_row, len(image))
    captions = columns["caption"].to_list() if "caption" in columns else [""] * len(text)
    return Vectors(image, text, image_row, keys, groups, captions)


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


def _layout(path: Path) -> _Layout:
    if (path / "image.npy").exists():
        return _whole(_npy(path / "image.npy"), _npy(path / "text.npy"), _metadata(path))
    if (path / "img_emb").is_dir():
        return _clip_retrieval(path)
    if (path / "image" / "zarr.json").exists() or (path / "image" / ".zarray").exists():
        return _whole(_zarr(path / "image"), _zarr(path / "text"), _metadata(path))
    tables = [file for file in sorted(path.glob("*.parquet"), key=_number) if file.name != "metadata.parquet"]
    whole = path / "metadata.parquet"
    if not tables and whole.exists():
        tables = [whole]
    if tables and _columns(tables[0]) >= {f"{name}_embedding" for name in ("image", "text")}:
        return _parquet(path, tables)
    raise BadInput(
        f"embeddings:{path}: found no image.npy, img_emb/*.npy, Zarr array image, "
        "or Parquet with columns image_embedding and text_embedding"
    )


def _whole(image: Array, text: Array, metadata: Metadata | None) -> _Layout:
    return _Layout(image, text, metadata, {"": (len(image), len(text))} if image.ndim and text.ndim else {})


def _clip_retrieval(path: Path) -> _Layout:
    """Read numbered parts of images, texts and metadata. The metadata may be absent as a whole.

    Raises BadInput if one of these lacks a part, or if a part has different numbers of texts and of metadata rows.
    """
    files = {name: _numbered(path / name, ".parquet" if name == "metadata" else ".npy") for name in PARTS}
    if not files["metadata"]:
        del files["metadata"]
    for (name, numbers), (other, others) in itertools.permutations(((n, f.keys()) for n, f in files.items()), 2):
        if missing := sorted(others - numbers):
            raise BadInput(
                f"embeddings:{path}: {name}_{missing[0]} is missing, the part {missing[0]} that {other} has: "
                f"parts must have the same numbers in {', '.join(files)}"
            )
    if not files["img_emb"]:
        raise BadInput(f"embeddings:{path}: img_emb/ and text_emb/ must both hold .npy files")
    images, texts = ({number: _npy(file) for number, file in files[name].items()} for name in PARTS[:2])
    image, text = _joined(files["img_emb"], images), _joined(files["text_emb"], texts)
    metadata = _metadata(path)
    sizes = {f"part {number}: ": (len(images[number]), len(texts[number])) for number in images}
    if metadata is not None and "metadata" in files:
        for number, rows in zip(texts, metadata.rows, strict=True):
            if rows != len(texts[number]):
                raise BadInput(
                    f"embeddings:{path}: part {number}: {len(texts[number])} text rows, but the metadata has {rows}"
                )
    return _Layout(image, text, metadata, sizes)


def _numbered(folder: Path, suffix: str) -> dict[int, Path]:
    """Return {part number: file} of a folder, in numeric order. The part number is the last number in the file name.

    Raises BadInput if two files have the same part number.
    """
    files: dict[int, Path] = {}
    for file in sorted(folder.glob(f"*{suffix}"), key=_number):
        number = _number(file)[0]
        if number in files:
            raise BadInput(f"{folder}: {files[number].name} and {file.name} are both part {number}")
        files[number] = file
    return files


def _joined(files: dict[int, Path], arrays: dict[int, Array]) -> Array | Parts:
    """Return the parts as one array. Raises BadInput if their dimensions differ."""
    first = next(iter(arrays))
    for number, array in arrays.items():
        if array.ndim != 2 or array.shape[1] != arrays[first].shape[1]:
            raise BadInput(
                f"{files[number]}: its shape is {array.shape}, that of {files[first].name} {arrays[first].shape}: "
                "all parts must be [rows, dim] of one dim"
            )
    return arrays[first] if len(arrays) == 1 else Parts(list(files.values()), list(arrays.values()))


def _npy(file: Path) -> Array:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadInput(f"{file}: cannot be read as .npy: {error}") from error
    if not isinstance(array, np.ndarray):
        raise BadInput(f"{file}: cannot be read as .npy: it is an archive of several arrays")
    return array


def _zarr(path: Path) -> Array:
    try:
        return np.asarray(zarr.open_array(path, mode="r")[:])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BadInput(f"{path}: cannot be read as a Zarr array: {error}") from error


def _parquet(path: Path, tables: list[Path]) -> _Layout:
    """Read tables of pairs. Each row holds the vectors of an image and of its caption, and their metadata."""
    read, arrays = [], {"image": list[Array](), "text": list[Array]()}
    for file in tables:
        table = read_table(file)
        for name, parts in arrays.items():
            if f"{name}_embedding" not in table.columns:
                raise BadInput(f"{file}: has no column {name}_embedding, which {tables[0].name} has")
            parts.append(_rows(file, table[f"{name}_embedding"]))
        read.append(table)
    image, text = (_joined(dict(enumerate(tables)), dict(enumerate(parts))) for parts in arrays.values())
    metadata = metadata_of(tables, read)
    return _Layout(image, text, metadata if metadata.columns else _metadata(path), {"": (len(image), len(text))})


def _rows(file: Path, column: pl.Series) -> Array:
    """Return the vectors in a column of lists: [rows, dim].

    Raises BadInput for a column of another type. Raises BadInput, with the row, for a vector that is empty, differs in
    length from the vector of row 0, or holds an empty number.
    """
    kind = column.dtype
    inner = kind.inner if isinstance(kind, pl.List | pl.Array) else None
    if inner is None or not (inner.is_float() or inner.is_integer()):
        raise BadInput(f"{file}: the column `{column.name}` holds {kind}: lists of floating point numbers are needed")
    lists = column.cast(pl.List(inner))
    lengths = lists.list.len()
    if (row := first_true(lengths.is_null() | (lengths == 0))) is not None:
        raise BadInput(f"{file}: row {row}: `{column.name}` is empty: every row needs a vector")
    dim = int(lengths[0]) if len(lengths) else 0
    if (row := first_true(lengths != dim)) is not None:
        raise BadInput(f"{file}: row {row}: `{column.name}` has {lengths[row]} numbers, row 0 has {dim}")
    flat = lists.explode() if dim else pl.Series(dtype=inner)
    if (place := first_true(flat.is_null())) is not None:
        raise BadInput(f"{file}: row {place // dim}: `{column.name}` holds an empty number")
    array = flat.to_numpy()
    return (array if inner.is_float() else array.astype(np.float32)).reshape(len(lengths), dim)


def _columns(file: Path) -> set[str]:
    """Return the names of the columns of a Parquet file."""
    try:
        with file.open("rb") as opened:
            return set(pl.read_parquet_schema(opened))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadInput(f"{file}: cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def _metadata(path: Path) -> Metadata | None:
    """Return the metadata beside the vectors, or None if there is none."""
    files = sorted((path / "metadata").glob("*.parquet"), key=_number) or [*path.glob("metadata.parquet")]
    return metadata_of(files, [read_table(file) for file in files]) if files else None


def _number(path: Path) -> tuple[int, str]:
    numbers = re.findall(r"\d+", path.stem)
    return (int(numbers[-1]) if numbers else -1, path.name)


def _checked_rows(metadata: Metadata, images: int) -> Array:
    """Return the column `image_row`. Raises BadInput, with file and row, for a number that is no image row."""
    column = metadata.columns["image_row"]
    if (row := first_true((column < 0) | (column >= images))) is not None:
        raise BadInput(f"{metadata.place(row)}: image_row must lie in 0 to {images - 1}, is {column[row]}")
    return column.to_numpy()


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
                f"image rows {other} and {row} are both {key!r}"
            )
    return keys, groups
