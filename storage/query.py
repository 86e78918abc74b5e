"""Answers to ad-hoc SQL that passed the guard, written for people or for other programs."""

from __future__ import annotations

import base64
import csv
import decimal
import json
import math
import shutil
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

import duckdb
from duckdb.sqltypes import DuckDBPyType

from storage.errors import BadInput
from storage.guard import EXPLAIN, check

#: Types whose values a format would change, by DuckDB's names: they are written as the text that DuckDB shows. Python's
#: dates have no infinity and no nanoseconds, and its intervals no months. Arrow has no such integers, bits and zones.
AS_TEXT_FOR_PYTHON = frozenset(
    {"date", "time", "time_ns", "time with time zone", "timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns"}
    | {"timestamp with time zone", "timestamptz_ns", "interval", "geometry"}
)
AS_TEXT_IN_PARQUET = frozenset({"uhugeint", "bignum", "bit", "time with time zone", "geometry"})
NOT_IN_PARQUET = frozenset({"interval", "union"})


def answer(con: duckdb.DuckDBPyConnection, query: str, style: str, out: TextIO) -> None:
    """Check a query, run it and write its rows: 'table' (for people), 'csv', 'json', 'jsonl' or 'parquet'.

    'json' is one array of objects; 'jsonl' is one object per line. In 'json', 'jsonl' and 'parquet', two columns named
    `seed` become `seed` and `seed_1`, as in DuckDB. Raises BadInput for a query that is not allowed, for a column of a
    type that Parquet lacks, and, with DuckDB's message, for a query that is not valid or fails.
    """
    text = check(con, query)
    try:
        if style == "table":
            con.sql(text).show(max_rows=1000, max_width=_width(out))
        elif style == "parquet":
            _write_parquet(con, text, out)
        elif style == "csv":
            _write_csv(con.execute(_with_texts(text, _columns(con, text), AS_TEXT_FOR_PYTHON)), out)
        else:
            result = con.execute(_with_texts(text, _columns(con, text), AS_TEXT_FOR_PYTHON))
            _write_json(result, out, lines=style == "jsonl")
    except duckdb.CatalogException as error:
        raise BadInput(f"{str(error).rstrip()}\nViews: {', '.join(views(con))}") from error
    except duckdb.InterruptException as error:
        raise KeyboardInterrupt from error
    except duckdb.Error as error:
        raise BadInput(str(error).rstrip()) from error


def _width(out: TextIO) -> int:
    return shutil.get_terminal_size().columns if out.isatty() else 240


def _write_parquet(con: duckdb.DuckDBPyConnection, text: str, out: TextIO) -> None:
    import pyarrow.parquet as pq

    if out.isatty():
        raise BadInput(
            "--format parquet writes bytes: send it to a file, as in bridgescope sql ... --format parquet > x.parquet"
        )
    columns = _columns(con, text)
    for name, kind in columns:
        if _lacks_parquet(kind):
            raise BadInput(f"Parquet has no type for the column {_quoted(name)}, which is {kind}: cast it to VARCHAR")
    table = con.sql(_with_texts(text, columns, AS_TEXT_IN_PARQUET)).to_arrow_table()
    pq.write_table(table.rename_columns(distinct(table.column_names)), out.buffer)


def _lacks_parquet(kind: DuckDBPyType) -> bool:
    """Whether Parquet has no type for a type of DuckDB, or for a part of it."""
    parts = _parts(kind)
    if kind.id in NOT_IN_PARQUET or (kind.id == "struct" and not parts):
        return True
    return any(_lacks_parquet(part) for _, part in parts)


def _columns(con: duckdb.DuckDBPyConnection, text: str) -> list[tuple[str, DuckDBPyType]]:
    """Names and types of a query's columns. None are given for EXPLAIN, which would run: its columns are text."""
    if EXPLAIN.match(text):
        return []
    relation = con.sql(text)
    return list(zip(relation.columns, relation.types, strict=True))


def _with_texts(text: str, columns: list[tuple[str, DuckDBPyType]], kinds: frozenset[str]) -> str:
    """Return the query with the values of some types cast to text, also those inside lists, structs and maps."""
    wanted = [(name, _cast(kind, kinds)) for name, kind in columns]
    if not any(kind for _, kind in wanted):
        return text
    selected = [
        f"#{place}" if kind is None else f"CAST(#{place} AS {kind}) AS {_quoted(name)}"
        for place, (name, kind) in enumerate(wanted, 1)
    ]
    return f"SELECT {', '.join(selected)} FROM (\n{text}\n)"


def _cast(kind: DuckDBPyType, kinds: frozenset[str]) -> str | None:
    """The type, in SQL, with VARCHAR in place of every part that is one of `kinds`. None if there is no such part."""
    if kind.id in kinds:
        return "VARCHAR"
    parts = [(name, part, _cast(part, kinds)) for name, part in _parts(kind)]
    if not any(new for _, _, new in parts):
        return None
    inner = [new or str(part) for _, part, new in parts]
    if kind.id in ("list", "array"):
        return inner[0] + (f"[{dict(kind.children)['size']}]" if kind.id == "array" else "[]")
    if kind.id in ("struct", "union"):
        inner = [f"{_quoted(name)} {new}" for (name, _, _), new in zip(parts, inner, strict=True)]
    return f"{kind.id.upper()}({', '.join(inner)})"


def _parts(kind: DuckDBPyType) -> list[tuple[str, DuckDBPyType]]:
    """Names and types of what values of a nested type consist of, in order. Other types have none."""
    if kind.id not in ("list", "array", "struct", "tuple", "map", "union"):
        return []
    children = [(name, part) for name, part in kind.children if isinstance(part, DuckDBPyType)]
    return children[1:] if kind.id == "union" else children  # the first child of a union is its tag


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _write_csv(result: duckdb.DuckDBPyConnection, out: TextIO) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column[0] for column in result.description or []])
    writer.writerows(map(_csv_value, row) for row in _rows(result))


def _csv_value(value: Any) -> Any:
    """Convert a DuckDB value for CSV: as in JSON where it is bytes, true or false, a list, a struct or a map."""
    if isinstance(value, (bool, list, tuple, dict)):
        return json.dumps(json_value(value), default=str, ensure_ascii=False)
    return json_value(value) if isinstance(value, bytes) else value


def _write_json(result: duckdb.DuckDBPyConnection, out: TextIO, *, lines: bool) -> None:
    columns = distinct(column[0] for column in result.description or [])
    objects = (json.dumps(dict(zip(columns, map(json_value, row), strict=True)), default=str) for row in _rows(result))
    if lines:
        out.writelines(text + "\n" for text in objects)
        return
    out.write("[")
    for place, text in enumerate(objects):
        out.write(f"{',' if place else ''}\n{text}")
    out.write("\n]\n")


def _rows(result: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := result.fetchmany(10_000):
        yield from rows


def distinct(names: Iterable[str]) -> list[str]:
    """Make column names unique: a name that occurred before gets the suffix `_1`, `_2` and so on."""
    unique = dict[str, None]()
    for name in names:
        free, count = name, 0
        while free in unique:
            count += 1
            free = f"{name}_{count}"
        unique[free] = None
    return list(unique)


def json_value(value: Any) -> Any:
    """Convert a DuckDB value for JSON. NaN and infinity become null, decimals become numbers, bytes become base64."""
    if isinstance(value, decimal.Decimal):
        value = float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    return value


def views(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the names of the catalog's views."""
    rows = con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY view_name").fetchall()
    return [str(row[0]) for row in rows]
