"""Reading of tables of pairs (CSV, JSONL, Parquet), and the fingerprint of an item."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from storage.errors import BadInput
from storage.sources import Caption

if TYPE_CHECKING:  # polars takes a fifth of a second to import
    import polars as pl

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
IMAGE_COLUMNS = ("file_name", "image", "image_path", "path", "filename", "filepath")
CAPTION_COLUMNS = ("caption", "captions", "text", "title", "CAPTION", "TEXT")
GROUP_COLUMNS = ("group", "group_key")


def stamp(digest: str, captions: Sequence[Caption]) -> str:
    """Return the fingerprint of an item, made from the digest of its bytes and its captions, but not from its path."""
    return hashlib.sha256(json.dumps([digest, captions]).encode()).hexdigest()[:16]


def read_table(path: Path) -> pl.DataFrame:
    """Read a table, or all tables of a folder, concatenated. CSV and TSV need a header line; their columns are text.

    Raises BadInput for a file that has none of the extensions TABLES, or that cannot be read.
    """
    import polars as pl

    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in TABLES)
        if not files:
            raise BadInput(f"{path}: holds no table; tables end in {', '.join(TABLES)}")
        return pl.concat([read_table(file) for file in files], how="diagonal_relaxed")
    try:
        match path.suffix.lower():
            case ".csv" | ".tsv":
                separator = "\t" if path.suffix.lower() == ".tsv" else ","
                return pl.read_csv(path, separator=separator, infer_schema=False, glob=False)
            case ".jsonl" | ".ndjson":
                with path.open("rb") as opened:  # an open file, since polars would read a path as a pattern
                    return pl.read_ndjson(opened, infer_schema_length=None)
            case ".parquet":
                return pl.read_parquet(path, glob=False)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadInput(f"{path}: cannot be read as {path.suffix[1:]}: {str(error).splitlines()[0]}") from None
    raise BadInput(f"{path}: no table; tables end in {', '.join(TABLES)}")


def column(table: pl.DataFrame, named: str | None, usual: Sequence[str], key: str, where: Path) -> str:
    """Return the column that the study names, else the first existing column of `usual`. Raises BadInput for none."""
    for name in [named] if named else usual:
        if name in table.columns:
            return name
    wanted = repr(named) if named else f"named {', '.join(usual)}"
    raise BadInput(f"{where}: there is no column {wanted}; set pairs.{key} to one of {', '.join(table.columns)}")


def optional(table: pl.DataFrame, named: str | None, usual: Sequence[str], key: str, where: Path) -> str | None:
    """Return the same as `column`, but None when the study names no column and no column of `usual` exists."""
    if named is None and not set(usual) & set(table.columns):
        return None
    return column(table, named, usual, key, where)
