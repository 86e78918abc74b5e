"""Answers of the catalog, rounded for the explorer to six significant digits. NaN and infinity become null."""

from __future__ import annotations

from typing import Any

import duckdb
import polars as pl
from polars import selectors

from storage.statements import statement

DIGITS = 6  # significant digits; they are more than a screen shows, and take half the bytes of a float64


def rows_of(con: duckdb.DuckDBPyConnection, name: str, **values: Any) -> pl.DataFrame:
    """The answer to `storage/sql/explorer/<name>.sql`, with its floats rounded, and null for NaN and infinity."""
    return table_of(con, statement(f"explorer/{name}", **values))


def table_of(con: duckdb.DuckDBPyConnection, query: str) -> pl.DataFrame:
    """The answer to a query, with its floats `rounded`."""
    return rounded(pl.DataFrame(con.sql(query).to_arrow_table()))


def rounded(table: pl.DataFrame, digits: int = DIGITS) -> pl.DataFrame:
    """The table with its floats rounded to `digits` significant digits. NaN and infinity become null."""
    finite = pl.when(selectors.float().is_finite()).then(selectors.float().cast(pl.Float64).round_sig_figs(digits))
    return table.with_columns(finite)
