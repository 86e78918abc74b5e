"""Embeddings of one model and one pair shard: two Zarr v3 arrays, written one chunk at a time.

Each array has one writer; a killed process loses at most one chunk. The rows have the order of the pair shard. The row
of a failed image is NaN, and the attribute `failed_rows` lists its number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import TypeAdapter

from storage.dataset import Dataset, sync, write_atomically
from storage.manifest import Damaged
from storage.memo import read_memo

if TYPE_CHECKING:
    import zarr

CHUNK = 1024  # rows per chunk, the unit of resuming
BLOCK = 16_384  # rows processed at a time, so that temporary arrays stay small
DESCRIPTION = "zarr.json"  # in the folder of an array: its shape, type and attributes
PROGRESS = "progress.json"  # number of complete chunks on disk; removed when the dataset is finished
CHUNKS = TypeAdapter(dict[str, int])
#: In the checks of a shard: the table of its images that were acquired and not embedded. Missing if there are none.
FAILURES = "failures.parquet"
LARGEST = 65504.0  # the largest float16
NDArray = np.ndarray[Any, np.dtype[np.float32]]


class EmbeddingError(ValueError):
    """Embeddings that cannot be stored or used: not finite, too large for float16, or missing rows."""

    exit_code = 2


class Embeddings(NamedTuple):
    """The arrays of a shard, as stored or L2-normalised by row. Norms of stored rows differ from 1 by rounding."""

    image: NDArray  #: n images x d, float32 if normalised, float16 as stored; NaN in failed rows
    text: NDArray  #: m captions x d, float32 if normalised, float16 as stored
    failed_rows: list[int]  #: image rows without an embedding


def open_array(path: Path, mode: Literal["r", "r+"] = "r", **options: Any) -> zarr.Array[Any]:
    """Open a Zarr array of the store. Raises FileNotFoundError if there is none, and Damaged if it cannot be read.

    zarr is imported here, since its import takes .3 s and lists of jobs need no array.
    """
    import zarr

    try:
        return zarr.open_array(path, mode=mode, **options)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(array: Path, error: Exception) -> Damaged:
    why = (str(error).splitlines() or [type(error).__name__])[0]
    return Damaged(f"{array} is damaged: {why}: delete the folder {array.parent.name}, and the next run makes it again")


class Writer:
    """Writes the array of one modality in chunks of 1,024 rows, after the last synced chunk of an earlier call.

    out: folder of the dataset.
    """

    def __init__(self, out: Path, modality: str, rows: int, dim: int) -> None:
        self.out, self.modality, self.rows = out, modality, rows
        finished = read_memo(out / PROGRESS, CHUNKS).get(modality, 0)
        self.first = min(finished, _chunks_on_disk(out / modality, rows, dim))  #: number of the first chunk to write
        # Chunks of only NaN are stored too. So a chunk that is missing on disk was never written.
        if self.first == 0:
            import zarr

            self._array = zarr.create_array(
                out / modality, shape=(rows, dim), chunks=(CHUNK, dim), dtype="float16", compressors=None,
                fill_value=np.nan, zarr_format=3, overwrite=True, config={"write_empty_chunks": True},
            )  # fmt: skip
        else:
            self._array = open_array(out / modality, mode="r+", config={"write_empty_chunks": True})

    @property
    def start(self) -> int:
        """The first row to write."""
        return min(self.first * CHUNK, self.rows)

    def write(self, start: int, block: NDArray) -> None:
        """Write the chunk that begins at row `start`: float32 [n, dim], with NaN in failed rows.

        Raises EmbeddingError for values that float16 cannot hold.
        """
        stop = start + len(block)
        if np.nanmax(np.abs(block), initial=0.0) > LARGEST:
            raise EmbeddingError(f"{self.modality} rows {start} to {stop - 1}: values that float16 cannot hold")
        self._array[start:stop] = block.astype(np.float16)
        chunk = start // CHUNK
        sync(_chunk(self.out / self.modality, chunk))
        finished = read_memo(self.out / PROGRESS, CHUNKS)
        write_atomically(self.out / PROGRESS, json.dumps({**finished, self.modality: chunk + 1}))


def write_modality(
    out: Path, modality: str, rows: int, dim: int, encode: Callable[[int, int], NDArray], done: Callable[[int], None]
) -> None:
    """Write the array of one modality with a `Writer`.

    `encode(start, stop)` returns the rows of a chunk. `done(rows)` reports progress. It is called once with the number
    of rows that earlier calls wrote, if any, then with the rows of each chunk.
    """
    writer = Writer(out, modality, rows, dim)
    if writer.start:
        done(writer.start)
    for start in range(writer.start, rows, CHUNK):
        stop = min(start + CHUNK, rows)
        writer.write(start, encode(start, stop))
        done(stop - start)


def _chunk(array: Path, number: int) -> Path:
    return array / "c" / str(number) / "0"


def chunks_of_array(array: Path) -> list[Path]:
    """List the chunks of an array of a shard, in order: files of CHUNK rows of little-endian float16 each."""
    folder = array / "c"
    numbers = sorted(int(name) for name in os.listdir(folder)) if folder.is_dir() else []
    return [_chunk(array, number) for number in numbers]


def _chunks_on_disk(array: Path, rows: int, dim: int) -> int:
    """Count the whole chunks of an array [rows, dim] that precede the first missing or truncated chunk."""
    try:
        if open_array(array, mode="r").shape != (rows, dim):
            return 0
    except (OSError, ValueError, KeyError, TypeError):  # there is no array, or its description is damaged
        return 0
    size = CHUNK * dim * np.dtype(np.float16).itemsize
    count = -(-rows // CHUNK)
    files = (_chunk(array, number) for number in range(count))
    whole = (file.is_file() and file.stat().st_size == size for file in files)
    return next((number for number, there in enumerate(whole) if not there), count)


def written_rows(out: Path, modality: str, rows: np.ndarray[Any, np.dtype[np.int64]]) -> NDArray:
    """Read rows already written, as float32 [len(rows), d]. Callers copy them to later rows with the same content."""
    array = open_array(out / modality, mode="r")
    return np.asarray(array.oindex[rows, :], dtype=np.float32)


def failed_rows(out: Path) -> list[int]:
    """List the image rows that were written as NaN. Raises EmbeddingError when a chunk is missing from the disk."""
    image = open_array(out / "image", mode="r")
    rows, dim = image.shape
    if (there := _chunks_on_disk(out / "image", rows, dim)) < -(-rows // CHUNK):
        raise EmbeddingError(f"{out}: chunk {there} of the images is gone since it was written: run again")
    return [
        start + int(row)
        for start in range(0, rows, CHUNK)
        for row in np.flatnonzero(np.isnan(np.asarray(image[start : start + CHUNK, 0])))
    ]


def failures_attribute(causes: Mapping[int, tuple[str, str]]) -> dict[str, Any]:
    """The attribute `failures`, [[row, cause, detail]], of images that were acquired and not embedded.

    It is left out if there are none, as in the datasets of earlier versions.
    """
    return {"failures": [[row, *causes[row]] for row in sorted(causes)]} if causes else {}


def failures_of(store: Path, checks: Sequence[Dataset]) -> list[Path]:
    """Return the tables of images that were acquired and not embedded, of those shards that have such images."""
    paths = [store / each.path / FAILURES for each in checks]
    return [path for path in paths if path.exists()]


def finish(out: Path, attributes: dict[str, Any]) -> None:
    """Write the attributes and remove the progress file, as the last step before the folder gets its name."""
    open_array(out / "image", mode="r+").attrs.update(attributes)
    open_array(out / "text", mode="r+").attrs.update(attributes)
    (out / PROGRESS).unlink(missing_ok=True)


def read_attributes(store: Path, dataset: Dataset) -> dict[str, Any]:
    """Read the attributes of a dataset's arrays: model identity, preprocessing, shard, failed_rows."""
    return dict(open_array(store / dataset.path / "image", mode="r").attrs)


def read(store: Path, dataset: Dataset, normalised: bool = True) -> Embeddings:
    """Read a shard's embeddings as L2-normalised float32, or, without `normalised`, as float16 at half the memory.

    Raises EmbeddingError when a row is zero, or when a row is NaN and its item did not fail.
    """
    failed = [int(row) for row in read_attributes(store, dataset)["failed_rows"]]
    image, text = (_read(store / dataset.path / name, normalised) for name in ("image", "text"))
    missing = set(_rows_with_nan(image)) - set(failed)
    if missing or _rows_with_nan(text):
        raise EmbeddingError(
            f"{dataset.path}: rows without an embedding that never failed: delete the folder, run again"
        )
    return Embeddings(image, text, failed)


def _read(path: Path, normalised: bool) -> NDArray:
    array = open_array(path, mode="r")
    try:
        rows = np.asarray(array[:])
    except ValueError as error:  # a chunk of another size
        raise _damaged(path, error) from error
    if normalised:
        rows = rows.astype(np.float32)
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        norms = np.linalg.norm(block.astype(np.float32, copy=False), axis=1, keepdims=True)
        if (norms == 0).any():
            raise EmbeddingError(f"{path}: row {start + int(np.flatnonzero(norms == 0)[0])} is zero: no direction")
        if normalised:
            block /= norms
    return rows


def _rows_with_nan(rows: NDArray) -> list[int]:
    return [
        start + int(row)
        for start in range(0, len(rows), BLOCK)
        for row in np.flatnonzero(np.isnan(rows[start : start + BLOCK]).any(1))
    ]
