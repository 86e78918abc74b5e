"""Arrays of the user's own vectors, read from one .npy, .npz or Zarr array, or from a Parquet column of lists.

Nothing in these files is unpickled. Every error names the file.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from storage.errors import BadInput
from storage.fingerprints import stamp
from storage.vector_metadata import first_true

Array = np.ndarray[Any, np.dtype[Any]]
UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, tokenize.TokenError, NotImplementedError)
#: Names of the arrays of images and of texts in an archive
NAMES = {
    modality: {f"{word}{rest}" for word in words for rest in ("", "s", "_emb", "_embedding", "_embeddings")}
    for modality, words in (("image", ("image", "img")), ("text", ("text", "txt")))
}


class Parts:
    """Arrays of rows in several files, which are read like one array. They are not copied into one array."""

    def __init__(self, files: Sequence[Path], arrays: Sequence[Array]) -> None:
        self.files, self.arrays = files, arrays
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

    def place(self, row: int) -> tuple[Path, int]:
        """Return the file that holds a row, and the number of the row in that file."""
        ((number, _, of_part),) = self._split(np.array([row]))
        return self.files[number], int(of_part[0])

    def stamps(self, rows: Array) -> list[tuple[int, str]]:
        """For each part with some of the rows: the number of its first row, and the stamp of its file."""
        return [(int(self.starts[number]), self.read[number]) for number, _, _ in self._split(rows)]

    def _split(self, rows: Array) -> Iterator[tuple[int, Array, Array]]:
        """Yield (part number, positions in `rows`, row numbers in the part) for each part with some of the rows."""
        part = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(part).tolist():
            mine = np.flatnonzero(part == number)
            yield number, mine, rows[mine] - self.starts[number]


def joined(files: Sequence[Path], arrays: Sequence[Array]) -> Array | Parts:
    """Return the arrays of several files as one. Raises BadInput, with the file, if their shapes or types differ."""
    for file, array in zip(files, arrays, strict=True):
        if array.ndim != 2 or array.shape[1] != arrays[0].shape[1]:
            raise BadInput(
                f"{file}: its shape is {array.shape}, that of {files[0].name} {arrays[0].shape}: "
                "all parts must be [rows, dim] of one dim"
            )
        if not np.issubdtype(array.dtype, np.floating):
            raise BadInput(f"{file}: holds {array.dtype}: every part must be floating point, such as float32")
    return arrays[0] if len(arrays) == 1 else Parts(files, arrays)


def read_npy(file: Path) -> Array:
    """Open an .npy file without reading its values. Raises BadInput for a file that is none, or that holds objects."""
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as error:
        if "pickle" in str(error):  # numpy's advice to allow pickles is not for users
            why = "it is no .npy file, or holds Python objects, which are not read"
        else:
            why = _line(error)
        raise BadInput(f"{file}: cannot be read as .npy: {why}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise BadInput(f"{file}: cannot be read as .npy: it is an archive of several arrays")
    return array


def holds_both(file: Path) -> bool:
    """Whether a file is an .npz archive with an array for each modality."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        names = {name.lower().removesuffix(".npy") for name in archive.namelist()}
    return all(names & known for known in NAMES.values())


def read_npz(file: Path, *modalities: str) -> list[Array]:
    """Read the array of each modality ("image", "text") from an .npz file.

    An array is found by its name (NAMES). The only array of a file for one modality may have any name. Raises BadInput
    if one is missing, if the file holds others, and if the file is unreadable or holds objects.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            chosen = [[name for name in archive.files if name.lower() in NAMES[modality]] for modality in modalities]
            if len(modalities) == len(archive.files) == 1:
                chosen = [archive.files]
            if any(len(names) != 1 for names in chosen) or len(archive.files) != len(modalities):
                raise BadInput(
                    f"{file}: holds the arrays {', '.join(archive.files) or '(none)'}: it must hold one array for "
                    f"each of {', '.join(modalities)}, and no other; names and captions belong into metadata.parquet"
                )
            return [archive[names[0]] for names in chosen]
    except BadInput:  # which is a ValueError
        raise
    except UNREADABLE as error:
        raise BadInput(f"{file}: cannot be read as .npz: {_line(error)}") from error
    except TypeError as error:  # the file is an .npy, whose array is no archive
        raise BadInput(f"{file}: cannot be read as .npz: it is no archive of arrays") from error


def read_zarr(path: Path) -> Array:
    """Read a Zarr array. Raises BadInput if there is none."""
    import zarr

    if not path.is_dir():
        raise BadInput(
            f"{path}: cannot be read as a Zarr array: there is no such folder; the arrays must be named image and text"
        )
    try:
        array = zarr.open_array(path, mode="r")
        there, values = array.nchunks_initialized, np.asarray(array[:])
    except Exception as error:  # zarr and its codecs raise many kinds of errors on broken arrays
        raise BadInput(f"{path}: cannot be read as a Zarr array: {_line(error)}") from error
    if there < array.nchunks:
        raise BadInput(
            f"{path}: {array.nchunks - there:,} of its {array.nchunks:,} chunks are not there, which would be read as "
            f"{array.fill_value}: copy the array whole; where chunks of equal values were left out, write it with "
            'config={"write_empty_chunks": True}'
        )
    return values


def vectors_in(file: Path, column: pl.Series) -> Array:
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
        raise BadInput(f"{file}: row {row}: `{column.name}` is empty: every row needs a vector: leave the row out")
    dim = int(lengths[0]) if len(lengths) else 0
    if (row := first_true(lengths != dim)) is not None:
        raise BadInput(
            f"{file}: row {row}: `{column.name}` has {lengths[row]} numbers, row 0 has {dim}: all vectors must have "
            "one length"
        )
    flat = lists.explode() if dim else pl.Series(dtype=inner)
    if (place := first_true(flat.is_null())) is not None:
        raise BadInput(f"{file}: row {place // dim}: `{column.name}` holds an empty number: leave the row out")
    array = flat.to_numpy()
    return (array if inner.is_float() else array.astype(np.float32)).reshape(len(lengths), dim)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
