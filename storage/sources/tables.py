"""Lists of pairs in CSV, JSONL and Parquet, and what all sources make of captions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.errors import BadInput
from storage.sources import Caption

if TYPE_CHECKING:  # a fifth of a second to import
    import polars as pl

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
IMAGE_COLUMNS = ("file_name", "image", "image_path", "path", "filename", "filepath")
CAPTION_COLUMNS = ("caption", "captions", "text", "title", "CAPTION", "TEXT")
GROUP_COLUMNS = ("group", "group_key")


def captions_of(key: str, texts: Iterable[Any]) -> tuple[Caption, ...]:
    """Captions of the item `key`. Each is keyed by its text, so that one more leaves the others' rows alone.

    Blanks around a text go; empty ones and what is no text are left out; equal ones keep a row each.
    """
    found: list[Caption] = []
    seen: dict[str, int] = {}
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            continue
        text = text.strip()
        seen[text] = seen.get(text, 0) + 1
        digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
        found.append(Caption(f"{key}#{digest}" + (f"-{seen[text]}" if seen[text] > 1 else ""), text))
    return tuple(found)


def stamp(digest: str, captions: Sequence[Caption]) -> str:
    """An item's fingerprint: of its bytes and captions, not of where they lie."""
    return hashlib.sha256(json.dumps([digest, captions]).encode()).hexdigest()[:16]


def texts_of(value: Any) -> list[Any]:
    """A caption column's value as a list: one text, or a list of them."""
    import polars as pl

    return list(value) if isinstance(value, (list, tuple, pl.Series)) else [value]


def read_table(path: Path) -> pl.DataFrame:
    """Read a table, or all tables of one folder below each other. CSV and TSV come as text, with a header line.

    Raises BadInput for a file that is none of TABLES, or not what its name says.
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
                return pl.read_csv(path, separator=separator, infer_schema=False)
            case ".jsonl" | ".ndjson":
                return pl.read_ndjson(path, infer_schema_length=None)
            case ".parquet":
                return pl.read_parquet(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadInput(f"{path}: cannot be read as {path.suffix[1:]}: {str(error).splitlines()[0]}") from None
    raise BadInput(f"{path}: no table; tables end in {', '.join(TABLES)}")


def column(table: pl.DataFrame, named: str | None, usual: Sequence[str], key: str, where: Path) -> str:
    """The column that a study names, else the first usual one that is there. Raises BadInput that lists what is."""
    for name in [named] if named else usual:
        if name in table.columns:
            return name
    wanted = repr(named) if named else f"named {', '.join(usual)}"
    raise BadInput(f"{where}: there is no column {wanted}; set pairs.{key} to one of {', '.join(table.columns)}")


def optional(table: pl.DataFrame, named: str | None, usual: Sequence[str], key: str, where: Path) -> str | None:
    """As `column`, but None when the study names none and no usual one is there."""
    if named is None and not set(usual) & set(table.columns):
        return None
    return column(table, named, usual, key, where)
