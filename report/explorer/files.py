"""JSON as the explorer reads it: no spaces, real characters, numbers of six digits, null where a value is not defined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from polars import selectors

from storage.statements import statement

DIGITS = 6  # significant: more than a screen shows, half the bytes of a float64


def rows_of(con: duckdb.DuckDBPyConnection, name: str, **values: Any) -> pl.DataFrame:
    """The answer to `storage/sql/explorer/<name>.sql`, numbers rounded, NaN and infinity as null."""
    return table_of(con, statement(f"explorer/{name}", **values))


def table_of(con: duckdb.DuckDBPyConnection, query: str) -> pl.DataFrame:
    """The answer to a query, rounded alike."""
    return rounded(pl.DataFrame(con.execute(query).to_arrow_table()))


def rounded(table: pl.DataFrame) -> pl.DataFrame:
    """Floats to six significant digits."""
    finite = pl.when(selectors.float().is_finite()).then(selectors.float().cast(pl.Float64).round_sig_figs(DIGITS))
    return table.with_columns(finite)


def write_json(path: Path, value: Any) -> None:
    """Write one file, and the folders above it. Raises ValueError for a number that JSON does not have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    path.write_text(text, encoding="utf-8")
