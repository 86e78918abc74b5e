"""Nulls: the chance level of every result, summarised in SQL from the draws and summaries of all statistics."""

from __future__ import annotations

import duckdb

from analysis.inputs import Analysis
from analysis.statistic import Statistic, Table
from analysis.tables import NULL_SUMMARIES, fill


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The table `nulls`, made by storage/sql/tables/nulls.sql."""
    fill(con, "nulls")
    return {"nulls": con.table("nulls")}


STATISTIC = Statistic(
    name="nulls",
    version="2",
    needs=("floors", "concepts", "null_draws", "null_summaries"),
    tables={"nulls": NULL_SUMMARIES},
    make=make,
)
