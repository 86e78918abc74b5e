"""Helpers for the tables of all statistics: shared columns, rows of nulls, data frames, and tables made by SQL."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq

from storage.statements import SQL

Schema = dict[str, Any]
ROW_GROUP = 131_072  # rows per row group of a written table
SAE_KEYS: Schema = {"model": pl.String, "sae": pl.String, "seed": pl.Int32}
NULL_DRAWS: Schema = {
    **SAE_KEYS, "statistic": pl.String, "null": pl.String, "draw": pl.Int32, "value": pl.Float64,
}  # fmt: skip
NULL_SUMMARIES: Schema = {
    **SAE_KEYS, "statistic": pl.String, "null": pl.String, "mean": pl.Float64, "sd": pl.Float64, "q025": pl.Float64,
    "q975": pl.Float64, "draws": pl.Int64,
}  # fmt: skip


class Null(NamedTuple):
    """Summary of the values that one result of one SAE takes under a null (by chance)."""

    mean: float
    sd: float
    q025: float
    q975: float
    draws: int  # number of draws; 0 where the null is computed in closed form


def null_row(keys: dict[str, Any], statistic: str, name: str, null: Null) -> dict[str, Any]:
    """One row of null_summaries."""
    return {**keys, "statistic": statistic, "null": name, **null._asdict()}


def table(columns: dict[str, Any], schema: Schema) -> pl.DataFrame:
    """A table whose columns are arrays and constants. NaN becomes NULL.

    A constant is repeated to the length of the arrays, which may be 0.
    """
    arrays = {name: value for name, value in columns.items() if isinstance(value, np.ndarray)}
    constants = [pl.lit(value, dtype=schema[name]).alias(name) for name, value in columns.items() if name not in arrays]
    rows = pl.DataFrame(arrays).with_columns(constants).select(pl.col(name).cast(kind) for name, kind in schema.items())
    return rows.with_columns(pl.col(pl.Float32, pl.Float64).fill_nan(None))


def table_of_rows(rows: list[dict[str, Any]], schema: Schema) -> pl.DataFrame:
    """A table of the given rows. NaN becomes NULL."""
    return pl.DataFrame(rows, schema=schema).with_columns(pl.col(pl.Float64).fill_nan(None))


def empty(schema: Schema) -> pl.DataFrame:
    """A table without rows."""
    return pl.DataFrame(schema=schema)


def write_table(out: Path, name: str, rows: pl.DataFrame) -> None:
    """Write one table as Parquet."""
    rows.write_parquet(out / f"{name}.parquet", compression="zstd", row_group_size=ROW_GROUP)


def open_pieces(out: Path, name: str, schema: Schema) -> pq.ParquetWriter:
    """Open the file of a table that is written in pieces; `add_piece` appends rows to it."""
    texts = [column for column, kind in schema.items() if kind == pl.String]
    columns = empty(schema).to_arrow().schema
    return pq.ParquetWriter(out / f"{name}.parquet", columns, compression="zstd", use_dictionary=texts)


def add_piece(file: pq.ParquetWriter, rows: pl.DataFrame) -> None:
    """Append rows, in new row groups, to a file that `open_pieces` opened."""
    file.write_table(rows.to_arrow().cast(file.schema), row_group_size=ROW_GROUP)


def read_tables(con: duckdb.DuckDBPyConnection, folder: Path, names: list[str] | None = None) -> None:
    """Register the tables of a part's folder in a connection, each under the name of its file. names: only these."""
    for path in sorted(folder.glob("*.parquet")):
        if names is not None and path.stem not in names:
            continue
        con.register(path.stem, pl.read_parquet(path, glob=False).to_arrow())


def fill(con: duckdb.DuckDBPyConnection, table: str, *, insert: bool = False, **values: Any) -> None:
    """Create a table with `storage/sql/tables/<table>.sql`, or insert rows into it.

    values: parameters of the statement. Values that the statement does not use are ignored.
    """
    sql = (SQL / "tables" / f"{table}.sql").read_text()
    named = {name: values[name] for name in re.findall(r"\$(\w+)", sql)}
    con.execute(f"INSERT INTO {table} {sql}" if insert else f"CREATE OR REPLACE TEMP TABLE {table} AS {sql}", named)
