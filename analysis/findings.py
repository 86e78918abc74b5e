"""Findings: each claim of the paper with its figure and its level of chance, computed in SQL."""

from __future__ import annotations

import duckdb
import polars as pl

from analysis.inputs import Analysis
from analysis.statistic import Statistic, Table
from analysis.tables import Schema, fill

FINDINGS: Schema = {
    "model": pl.String, "sae": pl.String, "claim": pl.String, "figure": pl.Float64, "null": pl.Float64,
    "low": pl.Float64, "high": pl.Float64, "holds": pl.Boolean,
}  # fmt: skip


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The table `findings`, made by storage/sql/tables/findings.sql."""
    fill(con, "findings")
    return {"findings": con.table("findings")}


STATISTIC = Statistic(
    name="findings",
    version="2",
    needs=("concepts", "matches", "bridge_totals", "nulls"),
    tables={"findings": FINDINGS},
    make=make,
    per="study",
)
