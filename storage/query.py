"""The guard of ad-hoc SQL: it admits one statement that reads, and none that writes, attaches, installs or sets."""

from __future__ import annotations

import csv
import json
import re
import shutil
from typing import TextIO

import duckdb

from storage.errors import BadInput

ALLOWED = "one SELECT, EXPLAIN, DESCRIBE or SHOW statement"
EXPLAIN = re.compile(r"\A\s*explain(\s+analyze)?(\s*\([^)]*\))?\s", re.IGNORECASE)


def check(con: duckdb.DuckDBPyConnection, query: str) -> None:
    """Raise BadInput unless the query is one statement that reads.

    DuckDB's `read_only` is not enough, since COPY can still write files. EXPLAIN ANALYZE runs the statement that it
    explains, so the statement after EXPLAIN must be a SELECT too.
    """
    kind = _kind(con, query)
    if kind == "EXPLAIN":
        explained = EXPLAIN.sub("", query, count=1)
        if explained == query:
            raise BadInput("EXPLAIN must be the first word of the query")
        kind = _kind(con, explained)
    if kind != "SELECT":
        raise BadInput(f"{kind} is not allowed here: {ALLOWED}")


def _kind(con: duckdb.DuckDBPyConnection, query: str) -> str:
    try:
        statements = con.extract_statements(query)
    except duckdb.Error as error:
        raise BadInput(str(error).rstrip()) from error
    if len(statements) != 1:
        raise BadInput(f"the query holds {len(statements)} statements: {ALLOWED}")
    return str(statements[0].type).rpartition(".")[2]


def answer(con: duckdb.DuckDBPyConnection, query: str, style: str, out: TextIO) -> None:
    """Check a query, run it and write its rows as 'table', 'csv', 'json' (one object per line) or 'parquet'.

    Raises BadInput, with DuckDB's message, for a query that is not allowed, is not valid, or fails while it runs.
    """
    check(con, query)
    try:
        if style == "table":
            con.sql(query).show(max_rows=1000, max_width=_width(out))
        elif style == "parquet":
            _write_parquet(con.execute(query), out)
        else:
            _write_text(con.execute(query), style, out)
    except duckdb.CatalogException as error:
        raise BadInput(f"{str(error).rstrip()}\nViews: {', '.join(views(con))}") from error
    except duckdb.InterruptException as error:
        raise KeyboardInterrupt from error
    except duckdb.Error as error:
        raise BadInput(str(error).rstrip()) from error


def _width(out: TextIO) -> int:
    return shutil.get_terminal_size().columns if out.isatty() else 240


def _write_parquet(result: duckdb.DuckDBPyConnection, out: TextIO) -> None:
    import pyarrow.parquet as pq

    if out.isatty():
        raise BadInput(
            "--format parquet writes bytes: send it to a file, as in bridgescope sql ... --format parquet > x.parquet"
        )
    pq.write_table(result.to_arrow_table(), out.buffer)


def _write_text(result: duckdb.DuckDBPyConnection, style: str, out: TextIO) -> None:
    columns = [column[0] for column in result.description or []]
    writer = csv.writer(out, lineterminator="\n")
    if style == "csv":
        writer.writerow(columns)
    while rows := result.fetchmany(10_000):
        if style == "csv":
            writer.writerows(rows)
        else:
            out.writelines(json.dumps(dict(zip(columns, row, strict=True)), default=str) + "\n" for row in rows)


def views(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Names of the catalog's views."""
    rows = con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY view_name").fetchall()
    return [str(row[0]) for row in rows]
