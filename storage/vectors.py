"""The user's own vectors, named as `embeddings:PATH` in a study file: .npy, .npz, Parquet or Zarr.

Layouts, each in one folder:
  image.npy + text.npy                           two arrays
  img_emb/img_emb_*.npy + text_emb/text_emb_*.npy
                                                 the output of clip-retrieval: parts in numeric order, with
                                                 metadata/metadata_*.parquet
  *.parquet with columns image_embedding, text_embedding
  image + text                                   two Zarr arrays; the folder may be a Zarr group
  image.npz + text.npz, or one .npz              one array in each, or the arrays image and text
The folder may also hold metadata.parquet (or metadata/*.parquet) with one row per pair. Its columns are key,
image_path, group, caption and image_row; all are optional. Caption row j belongs to image row j, or to the image row
that the integer column `image_row` states. Other files that state names or captions are refused, unless the metadata
holds both: they would be lost.

Rows are numbered from 0. A value is cast only after it has been checked. Files are joined by position only if they have
equally many rows. Of a table, only the columns that are used are read.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from storage.errors import BadInput
from storage.fingerprints import fingerprint as fingerprint
from storage.places import is_folder
from storage.vector_arrays import Array, joined, read_npy, read_npz, read_zarr, vectors_in
from storage.vector_arrays import Parts as Parts
from storage.vector_metadata import COLUMNS, Metadata, columns_of, first_true, metadata_of, read_table, stated

BLOCK = 16_384  # rows that are read at a time
PARTS = ("img_emb", "text_emb", "metadata")  # folders of clip-retrieval's layout
EMBEDDINGS = ("image_embedding", "text_embedding")  # columns of vectors in Parquet
OTHER_TABLES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".feather", ".arrow"})
#: Names of files with names or captions that are not read, in lower case.
LISTS = re.compile(r"(keys?|captions?|metadata)\.(csv|tsv|jsonl|ndjson|json|feather|arrow|txt)(\.(gz|bz2|xz|zst|zip))?")


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


class _Layout(NamedTuple):
    """The contents of a folder, before each caption is assigned to its image."""

    image: Array | Parts
    text: Array | Parts
    files: tuple[Path, Path]  #: see `Vectors`
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
                raise vectors.bad(path, name, start + row)
    return vectors


def open_unchecked(path: Path) -> Vectors:
    """Read a folder of vectors as `open_vectors` does, but do not check for rows that are zero or not finite."""
    if not is_folder(path):
        raise BadInput(f"embeddings:{path}: no such folder")
    _refuse_broken_links(path)
    image, text, files, metadata, sizes = _layout(path)
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


def _refuse_broken_links(path: Path) -> None:
    """Raise BadInput for a link to a missing file or folder with vectors or metadata: it would count as not there."""
    for link in sorted(one for one in path.iterdir() if one.is_symlink() and not one.exists()):
        if link.suffix.lower() in ("", ".npy", ".npz", ".parquet"):
            raise BadInput(f"{link}: is a broken link: {os.readlink(link)} is not there; fetch it, or remove the link")


def _refuse_two_layouts(path: Path) -> None:
    """Raise BadInput for a folder with vectors in two layouts: one of them would be read without a word."""
    zarrs = [name for name in ("zarr.json", ".zarray") if (path / "image" / name).exists()]
    archives = [file.name for file in _files(path, ".npz")]
    tables = [file for file in _files(path, ".parquet") if file.name != "metadata.parquet"]
    found = {
        "image.npy": (path / "image.npy").exists(),
        "img_emb": bool(_files(path / "img_emb", ".npy")),
        "image (Zarr)": bool(zarrs),
        "image.npz": archives == ["image.npz", "text.npz"],
        tables[0].name if tables else "": bool(tables) and columns_of(tables[0]) >= {*EMBEDDINGS},
    }
    two = [name for name, there in found.items() if there]
    if len(two) > 1:
        raise BadInput(f"embeddings:{path}: {two[0]} and {two[1]} both hold vectors: keep one of them in this folder")


def _layout(path: Path) -> _Layout:
    _refuse_two_layouts(path)
    if (path / "image.npy").exists():
        return _whole(path, "image.npy", "text.npy", read_npy(path / "image.npy"), read_npy(path / "text.npy"))
    if (path / "img_emb").is_dir():
        return _clip_retrieval(path)
    if (path / "image" / "zarr.json").exists() or (path / "image" / ".zarray").exists():
        return _whole(path, "image", "text", read_zarr(path / "image"), read_zarr(path / "text"))
    tables = [file for file in _files(path, ".parquet") if file.name != "metadata.parquet"]
    whole = path / "metadata.parquet"
    if not tables and whole.exists():
        tables = [whole]
    if tables and columns_of(tables[0]) >= {*EMBEDDINGS}:
        return _parquet(path, tables)
    archives = _files(path, ".npz")
    if [file.name for file in archives] == ["image.npz", "text.npz"]:
        arrays = [read_npz(file, modality)[0] for file, modality in zip(archives, ("image", "text"), strict=True)]
        return _whole(path, "image.npz", "text.npz", *arrays)
    if len(archives) == 1:
        return _whole(path, archives[0].name, archives[0].name, *read_npz(archives[0], "image", "text"))
    held = ", ".join(sorted(file.name for file in path.iterdir())[:8]) or "nothing"
    raise BadInput(
        f"embeddings:{path}: found no image.npy, img_emb/*.npy, Zarr array image, "
        "or Parquet with columns image_embedding and text_embedding, and no .npz with the arrays image and text; "
        f"the folder holds {held}: name the files in one of these ways"
    )


def _whole(path: Path, image_name: str, text_name: str, image: Array, text: Array) -> _Layout:
    """Return a layout of two arrays with the metadata beside them."""
    sizes = {"": (len(image), len(text))} if image.ndim and text.ndim else {}
    return _Layout(image, text, (path / image_name, path / text_name), _metadata(path), sizes)


def _clip_retrieval(path: Path) -> _Layout:
    """Read numbered parts of images, texts and metadata. The metadata may be absent as a whole.

    Raises BadInput if one of these lacks a part, or if a part has different numbers of texts and of metadata rows.
    """
    files = {name: _numbered(path / name, ".parquet" if name == "metadata" else ".npy") for name in PARTS}
    if not files["metadata"]:
        del files["metadata"]
    for (name, numbers), (other, others) in itertools.permutations(files.items(), 2):
        if missing := sorted(others.keys() - numbers.keys()):
            wanted = others[missing[0]].stem.replace(other, name)
            raise BadInput(
                f"embeddings:{path}: {wanted} is missing, the part {missing[0]} that {other} has "
                f"({others[missing[0]]}): parts must have the same numbers in {', '.join(files)}"
            )
    if not files["img_emb"]:
        raise BadInput(f"embeddings:{path}: img_emb/ and text_emb/ must both hold .npy files")
    images, texts = ({number: read_npy(file) for number, file in files[name].items()} for name in PARTS[:2])
    of_images, of_texts = (list(files[name].values()) for name in PARTS[:2])
    image, text = joined(of_images, list(images.values())), joined(of_texts, list(texts.values()))
    metadata = _metadata(path)
    sizes = {f"part {number}: ": (len(images[number]), len(texts[number])) for number in images}
    if metadata is not None and "metadata" in files:
        for number, rows in zip(texts, metadata.rows, strict=True):
            if rows != len(texts[number]):
                raise BadInput(
                    f"embeddings:{path}: part {number}: {len(texts[number])} text rows, but the metadata has {rows} "
                    f"({files['metadata'][number]}): it must have one row for each text vector, in the same order"
                )
    return _Layout(image, text, (of_images[0], of_texts[0]), metadata, sizes)


def _numbered(folder: Path, suffix: str) -> dict[int, Path]:
    """Return {part number: file} of a folder, in numeric order. The part number is the last number in the file name.

    Raises BadInput if two files have the same part number.
    """
    files: dict[int, Path] = {}
    for file in _files(folder, suffix):
        number = _number(file)[0]
        if number in files:
            raise BadInput(
                f"{folder}: {files[number].name} and {file.name} have the same number of a part, which is the last "
                "number in the name: keep one of them, or name the parts by numbers at the end"
            )
        files[number] = file
    return files


def _parquet(path: Path, tables: list[Path]) -> _Layout:
    """Read tables of pairs. Each row holds the vectors of an image and of its caption, and their metadata.

    Tables without rows are passed over, since the types of their columns say nothing.
    """
    read, arrays = list[tuple[Path, pl.DataFrame]](), {name: list[Array]() for name in EMBEDDINGS}
    for file in tables:
        table = read_table(file, (*EMBEDDINGS, *COLUMNS))
        for name in EMBEDDINGS:
            if name not in table.columns:
                raise BadInput(f"{file}: has no column {name}, which {tables[0].name} has")
        if table.height:
            read.append((file, table))
    if not read:
        raise BadInput(f"{tables[0]}: has no rows, as all tables of vectors here: one row for each pair is needed")
    tables = [file for file, _ in read]
    for file, table in read:
        for name, parts in arrays.items():
            parts.append(vectors_in(file, table[name]))
    image, text = (joined(tables, parts) for parts in arrays.values())
    metadata = metadata_of(tables, [table for _, table in read])
    if not metadata.columns:
        beside = _metadata(path)
        metadata = metadata if beside is None else beside
    elif lost := sorted(
        {name for file in _tables(path) for name in columns_of(file) & {*COLUMNS}} - {*read[0][1].columns}
    ):
        raise BadInput(
            f"{_tables(path)[0]}: its column `{lost[0]}` is not read, since {tables[0].name} holds metadata too: put "
            f"`{lost[0]}` into the table of the vectors"
        )
    else:
        _refuse_lists(path, metadata)
    return _Layout(image, text, (tables[0], tables[0]), metadata, {"": (len(image), len(text))})


def _metadata(path: Path) -> Metadata | None:
    """Return the metadata beside the vectors, or None if there is none.

    Raises BadInput if two tables have the same place in the order, and for names or captions in a file that is not
    read: they would be lost without a message.
    """
    files = _tables(path)
    _refuse_two(path)
    for one, other in itertools.pairwise(files):
        if _unpadded(one) == _unpadded(other):
            raise BadInput(f"{one.parent}: {one.name} and {other.name} have the same number: keep one of them")
    metadata = metadata_of(files, [read_table(file, COLUMNS) for file in files]) if files else None
    _refuse_other_tables(path, files, metadata)
    _refuse_lists(path, metadata)
    return metadata


def _tables(path: Path) -> list[Path]:
    """Return the files of the metadata beside the vectors, in their order."""
    return _files(path / "metadata", ".parquet") or [*path.glob("metadata.parquet")]


def _refuse_two(path: Path) -> None:
    """Raise BadInput for metadata in two places, and for one whose name has other upper and lower case."""
    known = ("metadata", "metadata.parquet")
    held = sorted(one for one in path.iterdir() if one.name.lower() in known)
    held = [one for one in held if one.suffix or _files(one, ".parquet")]
    if len(held) > 1:
        raise BadInput(f"{path}: {held[0].name} and {held[1].name} both hold metadata: keep one of them")
    if held and held[0].name not in known:
        raise BadInput(f"{held[0]}: is not read: name it {held[0].name.lower()}")


def _refuse_other_tables(path: Path, files: list[Path], metadata: Metadata | None) -> None:
    """Raise BadInput for a Parquet file with names or captions, beside those of the metadata, that these lack."""
    for file in sorted(file for file in path.iterdir() if file.suffix.lower() == ".parquet"):
        if file in files or file.name.startswith(".") or not file.is_file():
            continue
        if lost := sorted(stated(file) - (metadata.columns.keys() if metadata is not None else set())):
            advice = "name the file metadata.parquet" if metadata is None else f"put it into {files[0].name}"
            raise BadInput(f"{file}: its column for `{lost[0]}` is not read: {advice}, or move the file elsewhere")


def _refuse_lists(path: Path, metadata: Metadata | None) -> None:
    """Raise BadInput for a list of names or captions that is no Parquet, unless the metadata has both."""
    if metadata is not None and {"key", "caption"} <= metadata.columns.keys():
        return
    lists = [file for file in path.iterdir() if LISTS.fullmatch(file.name.lower())]
    parts = [file for file in path.glob("metadata/*") if file.suffix.lower() in OTHER_TABLES]
    for file in sorted(file for file in (*lists, *parts) if file.is_file()):
        of_metadata = file in parts or file.name.lower().startswith("metadata")
        if of_metadata and file.suffix.lower() == ".json" and not _is_list(file):
            continue  # settings of the program that wrote the vectors
        raise BadInput(
            f"{file}: metadata is read from Parquet alone: write it as metadata.parquet with the columns "
            f"{', '.join(COLUMNS)} (all optional), one row for each text vector"
        )


def _is_list(file: Path) -> bool:
    """Whether a JSON file holds a list."""
    with file.open("rb") as opened:
        return opened.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _files(folder: Path, suffix: str) -> list[Path]:
    """Return the files with a suffix, in numeric order. Hidden files, as macOS writes them (._NAME), are left out."""
    return sorted((file for file in folder.glob(f"*{suffix}") if not file.name.startswith(".")), key=_number)


def _number(path: Path) -> tuple[int, tuple[int, ...], str]:
    """Order files by the last number in their names, then by all numbers (part-2-of-12, part-10-of-12)."""
    numbers = tuple(int(number) for number in re.findall(r"[0-9]+", path.stem))
    return (numbers[-1] if numbers else -1, numbers, path.name)


def _unpadded(path: Path) -> str:
    """Return the name of a file with its numbers written without leading zeros."""
    return re.sub(r"[0-9]+", lambda number: f"{int(number[0])}", path.name)


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
