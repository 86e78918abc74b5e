"""Number of rows and dimension of a folder of vectors (`embeddings:PATH`), from file headers and at most one row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from storage.errors import BadInput


class VectorSize(NamedTuple):
    """Size of a folder of vectors."""

    images: int
    texts: int
    dim: int
    layout: str  #: the layout of the folder, in words


def vector_size(path: Path) -> VectorSize | None:
    """Return the size of a folder of vectors, or None if it has none of the layouts of `storage.vector_layouts`.

    Raises BadInput for a file whose header cannot be read.
    """
    try:
        if (path / "image.npy").is_file() and (path / "text.npy").is_file():
            return _of_shapes(_npy(path / "image.npy"), _npy(path / "text.npy"), "image.npy and text.npy")
        if (path / "img_emb").is_dir() and (path / "text_emb").is_dir():
            parts = [[_npy(file) for file in _named(path / name, ".npy")] for name in ("img_emb", "text_emb")]
            if all(parts):
                image, text = ((sum(shape[0] for shape in shapes), shapes[0][1]) for shapes in parts)
                return _of_shapes(image, text, "img_emb/ and text_emb/ of clip-retrieval")
        if (path / "image" / "zarr.json").is_file() or (path / "image" / ".zarray").is_file():
            return _of_shapes(_zarr(path / "image"), _zarr(path / "text"), "the Zarr arrays image and text")
        return _parquet(path) or _npz(path)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise BadInput(f"embeddings:{path}: cannot be read: {error}") from error


def _of_shapes(image: tuple[int, ...], text: tuple[int, ...], layout: str) -> VectorSize:
    """Return the size. Raises BadInput for arrays that are not [rows, dim]."""
    if not len(image) == len(text) == 2:
        raise BadInput(f"the arrays have the shapes {image} and {text}: both must be [rows, dim]")
    return VectorSize(image[0], text[0], image[1], layout)


def _named(folder: Path, suffix: str) -> list[Path]:
    return sorted(file for file in folder.glob(f"*{suffix}") if not file.name.startswith("."))


def _npy(file: Path) -> tuple[int, ...]:
    from storage.vector_arrays import read_npy

    return tuple(read_npy(file).shape)


def _npz(path: Path) -> VectorSize | None:
    """Return the size of a folder with one .npz, or with image.npz and text.npz. Their arrays are read for this."""
    from storage.vector_arrays import read_npz

    files = _named(path, ".npz")
    if [file.name for file in files] == ["image.npz", "text.npz"]:
        image, text = (read_npz(file, file.stem)[0] for file in files)
    elif len(files) == 1:
        image, text = read_npz(files[0], "image", "text")
    else:
        return None
    return _of_shapes(image.shape, text.shape, " and ".join(file.name for file in files))


def _zarr(folder: Path) -> tuple[int, ...]:
    described = folder / "zarr.json" if (folder / "zarr.json").is_file() else folder / ".zarray"
    return tuple(json.loads(described.read_text())["shape"])


def _parquet(path: Path) -> VectorSize | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, dim = 0, 0
    for file in _named(path, ".parquet"):
        try:
            with pq.ParquetFile(file) as table:
                if not {"image_embedding", "text_embedding"} <= set(table.schema_arrow.names):
                    continue
                rows += table.metadata.num_rows
                if not dim and table.metadata.num_rows:
                    first = next(table.iter_batches(1, columns=["image_embedding"])).column(0)[0].as_py()
                    if not isinstance(first, list):
                        raise BadInput(f"{file}: row 0: `image_embedding` is no list of numbers")
                    dim = len(first)
        except pa.ArrowException as error:
            raise BadInput(f"{file}: not a readable Parquet file: {error}") from error
    return VectorSize(rows, rows, dim, "Parquet with the columns image_embedding and text_embedding") if dim else None
