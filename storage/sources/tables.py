"""Reading of tables of pairs (CSV, TSV, JSON lines, JSON, Parquet), and the fingerprint of an item."""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storage.errors import BadInput
from storage.places import is_folder
from storage.sources import Caption, Dropped
from storage.sources.annotations import is_token, looks_like_captions, parse_document, parse_lines, parse_token
from storage.sources.captions import clean, shown
from storage.sources.delimited import HEAD, Data, Form, Parsed, content, names_a_picture, parse, separator_of
from storage.sources.files import of_macos

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
NAMED_TABLES = (".json", ".token", ".txt")  # read where the study names the file, or where `table_in` recognises it
IMAGE_COLUMNS = ("file_name", "image", "image_path", "path", "filename", "filepath", "image_name")
CAPTION_COLUMNS = ("caption", "captions", "text", "title", "CAPTION", "TEXT", "comment")
GROUP_COLUMNS = ("group", "group_key")
USUAL = Form()
SHOWN_COLUMNS, SHOWN_FIELD, SHOWN_ROW = 20, 60, 400  # columns, and characters of a field and of a row, in an error


class Table:
    """A table of one file or of several. Rows count through all files; `columns` are those of all files.

    Args:
        parts: each file with its content.
        header: whether files of delimited text have a header line. Such a table is `headed`: its columns have the names
            of that line, as opposed to keys or numbers.
    """

    def __init__(self, parts: Sequence[tuple[Path, Parsed]], header: bool) -> None:
        self.parts, self.header = parts, header
        self.headed = header and parts[0][0].suffix.lower() in (".csv", ".tsv", ".txt")
        self.columns = list(dict.fromkeys(name for _, part in parts for name in part.columns))
        self.starts = [0]
        for _, part in parts:
            self.starts.append(self.starts[-1] + part.rows)
        self.height = self.starts[-1]

    def __getitem__(self, name: str) -> list[Any]:
        """Return the values of a column, in the order of the rows; None in the rows of a file without the column."""
        return self.values([name] * len(self.parts))

    def values(self, names: Sequence[str | None]) -> list[Any]:
        """Return the same as `table[name]`, with the column's name in each file; None for a file without the column."""
        import polars as pl

        values: list[Any] = []
        for name, (_, part) in zip(names, self.parts, strict=True):
            held = [None] * part.rows if name is None else part.columns.get(name, [None] * part.rows)
            values += held.to_list() if isinstance(held, pl.Series) else held
        return values

    def files(self) -> list[Table]:
        """Return each file as a table of its own."""
        return [Table([part], self.header) for part in self.parts]

    def place(self, row: int) -> str:
        """Return the file and the line of a row, for the ledger and for errors."""
        number = bisect.bisect_right(self.starts, row) - 1
        file, part = self.parts[number]
        return f"{clean(file.name)}: {part.unit} {part.numbers[row - self.starts[number]]}"

    def left_out(self) -> list[Dropped]:
        """Return the rows that could not be read."""
        return [
            Dropped(f"{clean(file.name)}: {part.unit} {number}", cause, detail)
            for file, part in self.parts
            for number, cause, detail in part.left_out
        ]

    def first_row(self) -> dict[str, Any]:
        """Return the values of the first row; none for a table without rows."""
        first = next((part for _, part in self.parts if part.rows), None)
        return {name: values[0] for name, values in first.columns.items()} if first else {}


def is_table(file: Path) -> bool:
    """Whether a file is named as a table that is read without being named by the study."""
    return file.suffix.lower() in TABLES and not of_macos(file.name)


def stamp(digest: str, captions: Sequence[Caption]) -> str:
    """Return the fingerprint of an item, made from the digest of its bytes and its captions, but not from its path."""
    return hashlib.sha256(json.dumps([digest, captions]).encode()).hexdigest()[:16]


def read_table(path: Path, form: Form = USUAL) -> Table:
    """Read a table, or all tables of a folder, one after the other. `form` concerns CSV and TSV, whose values are text.

    A JSON file must hold one of the layouts of `storage.sources.annotations`. Rows that cannot be read are left out and
    listed by `Table.left_out`. Raises BadInput for a file that is no table, that cannot be read, or that has no row
    which can be read.
    """
    files = [path]
    if is_folder(path):
        files = sorted(filter(is_table, path.iterdir()))
        if not files:
            raise BadInput(f"{path}: holds no table; tables end in {', '.join(TABLES)}")
    parts = [(file, _read(file, form)) for file in files]
    return Table(parts, form.header)


def _read(path: Path, form: Form) -> Parsed:
    suffix = path.suffix.lower()
    if suffix not in TABLES + NAMED_TABLES:
        raise BadInput(f"{path}: no table; tables end in {', '.join(TABLES)}")
    try:
        parsed = _parquet(path) if suffix == ".parquet" else _text(path, content(path), form)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read as {suffix[1:]}: {error.strerror}") from None
    if parsed is None:
        raise BadInput(f"{path}: cannot be read as {suffix[1:]}: it is empty")
    if parsed.left_out and not parsed.rows:
        number, cause, detail = parsed.left_out[0]
        raise BadInput(f"{path}: cannot be read as {suffix[1:]}: no row can be read; {number}: {cause}: {detail}")
    return parsed


def _text(path: Path, data: Data, form: Form) -> Parsed | None:
    match path.suffix.lower():
        case ".json":
            return parse_document(path, data)
        case ".jsonl" | ".ndjson":
            if data[:HEAD].lstrip().startswith(b"[") and looks_like_captions(data[:HEAD]):
                return parse_document(path, data)
            return parse_lines(data) if data[:HEAD].strip() else None
        case ".token" | ".txt" if is_token(data):
            return parse_token(data, path)
        case ".csv":
            return parse(data, form, form.separator or separator_of(data, ","), path)
        case _:
            return parse(data, form, form.separator or separator_of(data, "\t"), path)


def _parquet(path: Path) -> Parsed:
    import polars as pl

    try:
        frame = pl.read_parquet(path, glob=False)
    except pl.exceptions.PolarsError as error:
        raise BadInput(f"{path}: cannot be read as parquet: {str(error).splitlines()[0]}") from None
    return Parsed({name: frame[name] for name in frame.columns}, frame.height, "row", range(1, frame.height + 1), [])


def column(
    table: Table, named: str | None, usual: Sequence[str], key: str, everywhere: bool = True
) -> list[str | None]:
    """Return, for each file, the column that the study names, else the first of `usual` that exists in this file.

    Raises BadInput for a file without one, or, if it need not be `everywhere`, for a table without one. The error says
    which columns the file has, and whether its header line is missing.
    """
    files = table.files()
    found = [_existing(file, named, usual) for file in files]
    if None in found if everywhere else set(found) == {None}:
        raise _missing(files[found.index(None)], named, usual, key, alone=len(files) == 1)
    return found


def optional(table: Table, named: str | None, usual: Sequence[str], key: str) -> list[str | None] | None:
    """Return the same as `column`. A column of `usual` may lack in some files, and None stands for all files."""
    if named is None and not set(usual) & set(table.columns):
        return None
    return column(table, named, usual, key, everywhere=named is not None)


def _existing(file: Table, named: str | None, usual: Sequence[str]) -> str | None:
    for name in [named] if named else usual:
        if name in file.columns:
            return name
        if name.strip() in file.columns:
            return name.strip()
    return None


def _missing(file: Table, named: str | None, usual: Sequence[str], key: str, alone: bool) -> BadInput:
    """Return the error of a table of one file without a column. `alone`: whether the study's table is this file."""
    where = file.parts[0][0]
    columns = ", ".join(_field(name) for name in file.columns[:SHOWN_COLUMNS])
    if len(file.columns) > SHOWN_COLUMNS:
        columns += f" and {len(file.columns) - SHOWN_COLUMNS} more"
    if file.headed and any(map(names_a_picture, file.columns)):
        numbers = [number for number, name in enumerate(file.columns, 1) if names_a_picture(name)]
        each = "" if alone else ". The files of a folder have either all a header line or none"
        return BadInput(
            f"{where}: there is no header line; the first line is data: {columns}. Set pairs.header = false, and name "
            f'columns by their numbers, from "1" to "{len(file.columns)}": column "{numbers[0]}" holds URLs or names '
            "of pictures (pairs.url_column or pairs.image_column); pairs.caption_column is the number of the captions"
            f"{each}"
        )
    wanted = repr(named) if named else f"named {', '.join(usual)}"
    told = f"{where}: there is no column {wanted}; set pairs.{key} to one of {columns}"
    row = ", ".join(f"{_field(name)} = {_field(value)}" for name, value in file.first_row().items())
    if row:
        told += f". The first row is {row[:SHOWN_ROW]}"
    if file.headed:
        told += ". A file whose first line is no header line needs pairs.header = false"
    if key == "caption_column" and "conversations" in file.columns:
        told += ". Conversations are questions and answers, not captions: add a column with a caption of each image"
    return BadInput(told)


def _field(value: Any) -> str:
    """Return the beginning of a name or value for an error."""
    text = clean(value) if isinstance(value, str) and value.isprintable() else shown(value)
    return text[:SHOWN_FIELD] + ("..." if len(text) > SHOWN_FIELD else "")
