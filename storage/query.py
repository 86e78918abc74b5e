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

from storage.errors import BadInput
from storage.guard import check


def answer(con: duckdb.DuckDBPyConnection, query: str, style: str, out: TextIO) -> None:
    """Check a query, run it and write its rows: 'table' (for people), 'csv', 'json', 'jsonl' or 'parquet'.

    'json' is one array of objects; 'jsonl' is one object per line. In 'json', 'jsonl' and 'parquet', two columns named
    `seed` become `seed` and `seed_1`, as in DuckDB. Raises BadInput for a query that is not allowed, and, with DuckDB's
    message, for a query that is not valid or fails.
    """
    text = check(con, query)
    try:
        if style == "table":
            con.sql(text).show(max_rows=1000, max_width=_width(out))
        elif style == "parquet":
            _write_parquet(con, text, out)
        elif style == "csv":
            _write_csv(con.execute(text), out)
        else:
            _write_json(con.execute(text), out, lines=style == "jsonl")
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
    table = con.sql(text).to_arrow_table()
    pq.write_table(table.rename_columns(distinct(table.column_names)), out.buffer)


def _write_csv(result: duckdb.DuckDBPyConnection, out: TextIO) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column[0] for column in result.description or []])
    writer.writerows(_rows(result))


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
