"""Metadata of the user's own vectors: the known columns of Parquet tables, checked and converted to their types."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from storage.errors import BadInput

COLUMNS = ("key", "image_path", "group", "caption", "image_row")  # the columns that are read
ROW = "row number"
KEYS = ("key", "image_path")  # the names of images are in the first of these columns that a table has


class Metadata(NamedTuple):
    """The metadata of a folder, one row per caption."""

    columns: dict[str, pl.Series]  #: known columns: image_row (Int64); key, group, caption (String, no nulls)
    files: list[Path]
    rows: list[int]  #: number of rows in each file

    def place(self, row: int) -> str:
        """Return the file that holds a row, and the number of the row in that file, as text for a message."""
        for file, rows in zip(self.files, self.rows, strict=True):
            if row < rows:
                return f"{file}: row {row}"
            row -= rows
        raise IndexError(row)


def columns_of(file: Path) -> set[str]:
    """Return the names of the columns of a Parquet file. Raises BadInput when it cannot be read as Parquet."""
    try:
        with file.open("rb") as opened:
            return set(pl.read_parquet_schema(opened))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadInput(f"{file}: cannot be read as Parquet: {_line(error)}") from error


def read_table(file: Path, columns: Sequence[str]) -> pl.DataFrame:
    """Read those of the given columns that a Parquet file has. The values of its other columns are not read.

    Without any of them, the result has a row number alone, so that its height is that of the file. Raises BadInput
    when the file cannot be read as Parquet.
    """
    held = columns_of(file)
    _refuse_misspelt(file, held)
    try:
        if wanted := [name for name in columns if name in held]:
            return pl.read_parquet(file, columns=wanted, glob=False)
        rows = pl.scan_parquet(file, glob=False).select(pl.len()).collect().item()
        return pl.DataFrame({ROW: range(rows)})
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadInput(f"{file}: cannot be read as Parquet: {_line(error)}") from error


def stated(file: Path) -> set[str]:
    """Return the metadata that a Parquet file states, also in columns such as `Captions`: names that `Metadata` has.

    Raises BadInput when it cannot be read as Parquet.
    """
    held = {_meant(name) or name for name in columns_of(file)} & {*COLUMNS}
    return {"key" if name in KEYS else name for name in held}


def _meant(name: str) -> str | None:
    """Return the known column that a name such as `Captions` means, or None. Groups are often something else."""
    word = name.strip().lower()
    return next((known for known in COLUMNS if known != "group" and word in (known, f"{known}s")), None)


def _refuse_misspelt(file: Path, held: set[str]) -> None:
    """Raise BadInput for a column such as `Captions` in a table without `caption`: its values would be lost."""
    for name in sorted(held - {*COLUMNS}):
        meant = _meant(name)
        if meant is not None and meant not in held:
            raise BadInput(f"{file}: its column {name!r} is not read: name it `{meant}`, or give it another name")


def metadata_of(files: Sequence[Path], tables: Sequence[pl.DataFrame]) -> Metadata:
    """Join the metadata of several tables.

    Raises BadInput, with the file, for an empty key or row number, for a value of a wrong type, and for a column that
    only some of the tables have.
    """
    typed = [_typed(file, table) for file, table in zip(files, tables, strict=True)]
    for file, columns in zip(files, typed, strict=True):
        for name in sorted(columns.keys() ^ typed[0].keys()):
            has, lacks = (file, files[0]) if name in columns else (files[0], file)
            raise BadInput(f"{lacks}: has no column for `{name}`, which {has.name} has")
    columns = {name: pl.concat([columns[name] for columns in typed]) for name in (typed[0] if typed else {})}
    return Metadata(columns, list(files), [table.height for table in tables])


def _typed(file: Path, table: pl.DataFrame) -> dict[str, pl.Series]:
    """Return the known columns of one table, converted to their types."""
    columns = {}
    if "image_row" in table.columns:
        columns["image_row"] = _whole_numbers(file, table["image_row"])
    if (key := next((name for name in KEYS if name in table.columns), None)) is not None:
        named = _names(file, table[key])
        if (row := first_true(named.is_null() | (named == ""))) is not None:
            raise BadInput(f"{file}: row {row}: `{key}` is empty: every row needs the key of its image")
        columns["key"] = named
    if "group" in table.columns:
        columns["group"] = _names(file, table["group"]).fill_null("")
    if "caption" in table.columns:
        columns["caption"] = _captions(file, table["caption"]).fill_null("")
    return {name: column.rename(name) for name, column in columns.items()}


def _whole_numbers(file: Path, column: pl.Series) -> pl.Series:
    """Return a column of whole numbers as Int64.

    Raises BadInput, with file and row, for a value that is empty or not a whole number. A column of floating point
    numbers is accepted if all of them are whole. Some programs store whole numbers as floating point numbers once a
    column has held an empty value.
    """
    name, kind = column.name, column.dtype
    if not (kind.is_integer() or kind.is_float() or kind == pl.Null):
        raise BadInput(f"{file}: the column `{name}` holds {_named(kind)}: whole numbers are needed")
    missing = column.is_null() | column.is_nan() if kind.is_float() else column.is_null()
    if (row := first_true(missing)) is not None:
        raise BadInput(f"{file}: row {row}: `{name}` is empty: a whole number is needed")
    numbers = column.cast(pl.Int64, strict=False)
    if (row := first_true((numbers.is_null() | (numbers != column)).fill_null(True))) is not None:
        raise BadInput(f"{file}: row {row}: `{name}` is {column[row]}: a whole number is needed")
    return numbers


def _texts(file: Path, column: pl.Series) -> pl.Series:
    """Return a column of texts, which may hold nulls. Raises BadInput for a column of another type."""
    if column.dtype in (pl.String, pl.Null, pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    raise BadInput(
        f"{file}: the column `{column.name}` holds {_named(column.dtype)}: text is needed: write the column as text"
    )


def _captions(file: Path, column: pl.Series) -> pl.Series:
    """Return a column of captions, with nulls. A list of one text is that text.

    Raises BadInput, with the row, for a list of several texts, and for a column of another type.
    """
    if not (isinstance(column.dtype, pl.List | pl.Array) and column.dtype.inner in (pl.String, pl.Null)):
        return _texts(file, column)
    lists = column.cast(pl.List(pl.String))
    if (row := first_true((lists.list.len() > 1).fill_null(False))) is not None:
        raise BadInput(
            f"{file}: row {row}: `{column.name}` holds {lists.list.len()[row]} texts: a text vector belongs to one "
            "caption: write one row for each, and the row of its image in `image_row`"
        )
    return lists.list.first()


def _names(file: Path, column: pl.Series) -> pl.Series:
    """Return names (texts or whole numbers) as texts, with nulls. Raises BadInput for a column of another type."""
    return column.cast(pl.String) if column.dtype.is_integer() else _texts(file, column)


def _named(kind: pl.DataType) -> str:
    """Describe a type in words, for a message."""
    words = {pl.String: "text", pl.Boolean: "true and false", pl.Binary: "bytes", pl.Null: "nothing"}
    if kind.is_float():
        return "floating point numbers"
    if kind.is_integer():
        return "whole numbers"
    return next((word for one, word in words.items() if kind == one), f"values of the type {kind}")


def first_true(true: pl.Series) -> int | None:
    """Return the number of the first row in which `true` is true, or None."""
    rows = true.arg_true()
    return int(rows[0]) if len(rows) else None


def _line(error: Exception) -> str:
    return str(error).splitlines()[0]
