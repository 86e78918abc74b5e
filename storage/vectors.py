"""The user's own vectors, named as `embeddings:PATH` in a study file: .npy, Parquet or Zarr, read into one form.

Layouts, each in one folder:
  image.npy + text.npy                           two arrays
  img_emb/img_emb_*.npy + text_emb/text_emb_*.npy  clip-retrieval's, in numeric order, with metadata/metadata_*.parquet
  *.parquet with columns image_embedding, text_embedding
  image + text                                   two Zarr arrays; the folder may be a Zarr group
Optional beside them: metadata.parquet (or metadata/*.parquet), one row per pair: key, image_path, group, caption.
Caption row j belongs to image row j, or to the image row in the metadata's integer column `image_row`.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import zarr

from storage.errors import BadInput

Array = np.ndarray[Any, np.dtype[Any]]


class Vectors(NamedTuple):
    """Image and text vectors, with the image row of each caption."""

    image: Array  #: [n, d], as stored
    text: Array  #: [m, d], as stored
    image_row: Array  #: int64 [m]: the row of `image` for each caption
    keys: list[str]  #: n unique names of the images
    groups: list[str]  #: n group keys, "" where the metadata has none
    captions: list[str]  #: m texts, "" where the metadata has none


def open_vectors(path: Path) -> Vectors:
    """Read a folder of vectors. Raises BadInput for an unknown layout, or one whose parts do not fit together."""
    if not path.is_dir():
        raise BadInput(f"embeddings:{path}: no such folder")
    image, text, metadata = _arrays(path)
    for name, array in (("image", image), ("text", text)):
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating):
            raise BadInput(
                f"embeddings:{path}: {name} must be floating point [rows, dim], is {array.dtype} {array.shape}"
            )
    if image.shape[1] != text.shape[1]:
        raise BadInput(f"embeddings:{path}: image rows have {image.shape[1]} dimensions, text rows {text.shape[1]}")
    if metadata.height == 0:
        metadata = pl.DataFrame({"image_row": np.arange(len(text))})
    if metadata.height != len(text):
        raise BadInput(f"embeddings:{path}: {len(text)} text rows, but the metadata has {metadata.height}")
    image_row = metadata["image_row"].to_numpy() if "image_row" in metadata.columns else np.arange(len(text))
    if len(image_row) and (image_row.min() < 0 or image_row.max() >= len(image)):
        raise BadInput(
            f"embeddings:{path}: image_row must lie in 0 to {len(image) - 1}; without it, text row j has image j"
        )
    _check_finite(path, image, text)
    keys, groups = _of_images(metadata, image_row, len(image))
    if len(set(keys)) != len(keys):
        raise BadInput(f"embeddings:{path}: the column `key` (or `image_path`) has equal values for two images")
    captions = metadata["caption"].fill_null("").to_list() if "caption" in metadata.columns else [""] * len(text)
    return Vectors(image, text, image_row.astype(np.int64), keys, groups, captions)


def _arrays(path: Path) -> tuple[Array, Array, pl.DataFrame]:
    if (path / "image.npy").exists():
        return _npy([path / "image.npy"]), _npy([path / "text.npy"]), _metadata(path)
    if (path / "img_emb").is_dir():
        numbered = [sorted((path / name).glob("*.npy"), key=_number) for name in ("img_emb", "text_emb")]
        return _npy(numbered[0]), _npy(numbered[1]), _metadata(path)
    if (path / "image" / "zarr.json").exists() or (path / "image" / ".zarray").exists():
        image, text = (np.asarray(zarr.open_array(path / name, mode="r")[:]) for name in ("image", "text"))
        return image, text, _metadata(path)
    tables = sorted(path.glob("*.parquet"), key=_number)
    if tables and {"image_embedding", "text_embedding"} <= set(pl.read_parquet_schema(tables[0])):
        table = pl.concat([pl.read_parquet(table) for table in tables])
        image, text = (np.stack(table[f"{name}_embedding"].to_list()).astype(np.float32) for name in ("image", "text"))
        return image, text, table.drop("image_embedding", "text_embedding")
    raise BadInput(
        f"embeddings:{path}: found no image.npy, img_emb/*.npy, Zarr array image, "
        "or Parquet with columns image_embedding and text_embedding"
    )


def _npy(paths: list[Path]) -> Array:
    if not paths:
        raise BadInput("embeddings: img_emb/ and text_emb/ must both hold .npy files")
    try:
        parts = [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]
    except (OSError, ValueError) as error:
        raise BadInput(f"embeddings: {paths[0].parent} cannot be read as .npy: {error}") from error
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _metadata(path: Path) -> pl.DataFrame:
    files = sorted((path / "metadata").glob("*.parquet"), key=_number) or [*path.glob("metadata.parquet")]
    return pl.concat([pl.read_parquet(file) for file in files]) if files else pl.DataFrame()


def _number(path: Path) -> tuple[int, str]:
    numbers = re.findall(r"\d+", path.stem)
    return (int(numbers[-1]) if numbers else -1, path.name)


def _check_finite(path: Path, image: Array, text: Array) -> None:
    for name, array in (("image", image), ("text", text)):
        for start in range(0, len(array), 65536):
            block = np.asarray(array[start : start + 65536], dtype=np.float32)
            norms = np.linalg.norm(block, axis=1)
            bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
            if bad.size:
                raise BadInput(f"embeddings:{path}: {name} row {start + int(bad[0])} is zero or not finite")


def _of_images(metadata: pl.DataFrame, image_row: Array, count: int) -> tuple[list[str], list[str]]:
    """Keys and groups of the images, from the first metadata row of each image."""
    rows, first = np.unique(image_row, return_index=True)
    lists = []
    for names in (("key", "image_path"), ("group",)):
        column = next((name for name in names if name in metadata.columns), None)
        values = [f"{row:012d}" for row in range(count)] if "key" in names else [""] * count
        if column:
            stated = metadata[column].cast(pl.String).fill_null("").gather(first).to_list()
            for row, value in zip(rows.tolist(), stated, strict=True):
                values[row] = value or values[row]
        lists.append(values)
    return lists[0], lists[1]


def fingerprint(path: Path, memo: Path) -> str:
    """Sha256 over the names and bytes of a folder's files, or of one file. `memo` caches digests by size and time."""
    known: dict[str, list[Any]] = json.loads(memo.read_text()) if memo.exists() else {}
    total, seen = hashlib.sha256(), {}
    for file in [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file()):
        stat = file.stat()
        stamp = [stat.st_size, stat.st_mtime_ns]
        name = str(file)
        if known.get(name, [None])[:2] == stamp:
            seen[name] = known[name]
        else:
            with open(file, "rb") as opened:
                seen[name] = [*stamp, hashlib.file_digest(opened, "sha256").hexdigest()]
        total.update(f"{file.relative_to(path).as_posix()} {seen[name][2]}\n".encode())
    memo.parent.mkdir(parents=True, exist_ok=True)
    memo.write_text(json.dumps({**known, **seen}))
    return total.hexdigest()
