"""Run SQL that a reader of the page wrote: only statements that read, with limits on time and on the answer's size."""

from __future__ import annotations

import base64
import contextlib
import csv
import datetime
import decimal
import io
import math
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import duckdb
import pyarrow.parquet as pq

from storage.errors import BadInput
from storage.guard import check
from storage.query import views

SECONDS = 10.0
ROWS = 10_000
LETTERS = 32 << 20  # most characters of all values together: a few rows can be large
BATCH = 2048  # rows of a Parquet answer that are read at a time
READY = "ready\n"  # printed by the process that answers queries, when it is ready for the first query
LARGEST = 2**53  # JavaScript rounds integers beyond this value


class TooLong(Exception):
    """A query was not answered in time."""


class Answered(NamedTuple):
    """Answer of the catalog to one query."""

    columns: list[dict[str, str]]  #: name, type
    rows: list[list[Any]]  #: JSON-ready
    truncated: bool  #: whether the query has more rows than the limits allow
    seconds: float


class Packed(NamedTuple):
    """Answer of the catalog to one query, as a Parquet file."""

    parquet: str  #: the file, in base64
    truncated: bool


def answered(con: duckdb.DuckDBPyConnection, query: str, seconds: float = SECONDS, most: int = ROWS) -> Answered:
    """Run one read-only statement on its own connection to a guarded catalog.

    Raises BadInput for a statement that is not allowed, not valid, or fails; TooLong when it was interrupted at the
    time limit.
    """
    began = time.perf_counter()
    with _running(con, query, seconds) as answer:
        columns = [{"name": str(name), "type": str(kind)} for name, kind, *_ in answer.description or []]
        rows, truncated = _rows(answer, most)
    return Answered(columns, rows, truncated, round(time.perf_counter() - began, 4))


def packed(con: duckdb.DuckDBPyConnection, query: str, seconds: float = SECONDS, most: int = ROWS) -> Packed:
    """Run one read-only statement as `answered` does, and return its answer as Parquet, with DuckDB's types.

    The limits are the same: `most` rows, or as many batches of rows as are smaller than LETTERS bytes together.
    """
    out = io.BytesIO()
    with _running(con, query, seconds) as answer:
        batches: Any = answer.to_arrow_reader(BATCH)
        rows, size, truncated = 0, 0, False
        with pq.ParquetWriter(out, batches.schema, compression="zstd") as file:
            for batch in batches:
                truncated = rows + batch.num_rows > most or size + batch.nbytes > LETTERS
                file.write_batch(batch.slice(0, most - rows))
                rows, size = rows + batch.num_rows, size + batch.nbytes
                if truncated:
                    break
    return Packed(base64.b64encode(out.getvalue()).decode("ascii"), truncated)


@contextlib.contextmanager
def _running(con: duckdb.DuckDBPyConnection, query: str, seconds: float) -> Iterator[duckdb.DuckDBPyConnection]:
    """Start a statement and interrupt it at the time limit. What DuckDB raises becomes BadInput or TooLong."""
    with _watched(con, seconds) as late:
        try:
            yield con.execute(check(con, query))
        except duckdb.InterruptException as error:
            raise TooLong(f"stopped after {seconds:g} s: ask for less, or use bridgescope sql") from error
        except duckdb.CatalogException as error:
            if late.is_set():
                raise TooLong(f"stopped after {seconds:g} s") from error
            raise BadInput(f"{str(error).rstrip()}\nViews: {', '.join(views(con))}") from error
        except duckdb.Error as error:
            raise BadInput(str(error).rstrip()) from error


@contextlib.contextmanager
def _watched(con: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[threading.Event]:
    """Interrupt the statement of a connection at the time limit; the event is set if the statement was interrupted."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        con.interrupt()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _rows(answer: duckdb.DuckDBPyConnection, most: int) -> tuple[list[list[Any]], bool]:
    rows: list[list[Any]] = []
    letters = 0
    while len(rows) <= most and (fetched := answer.fetchmany(256)):
        for row in fetched:
            rows.append([plain(value) for value in row])
            letters += sum(len(value if isinstance(value, str) else repr(value)) for value in rows[-1])
        if letters > LETTERS:
            return rows[:most], True
    return rows[:most], len(rows) > most


def plain(value: Any) -> Any:
    """A value of DuckDB for JSON. Bytes become their count. Integers that JavaScript would round become text."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if abs(value) <= LARGEST else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value)} bytes"
    if isinstance(value, decimal.Decimal):
        return plain(float(value))
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (datetime.date, datetime.time, datetime.datetime)):
        return value.isoformat()
    return str(value)


def as_csv(answer: Answered) -> str:
    """An answer as CSV, with a header."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column["name"] for column in answer.columns])
    writer.writerows(answer.rows)
    return out.getvalue()
