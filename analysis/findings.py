"""Findings: each question with its result, its chance level, the rule and the verdict, computed in SQL."""

from __future__ import annotations

import duckdb
import polars as pl

from analysis.inputs import Analysis
from analysis.statistic import Statistic, Table
from analysis.tables import Schema, fill

FINDINGS: Schema = {
    "model": pl.String, "sae": pl.String, "question": pl.String, "claim": pl.String, "statistic": pl.String,
    "figure": pl.Float64, "low": pl.Float64, "high": pl.Float64, "interval_over": pl.String, "null_name": pl.String,
    "null_mean": pl.Float64, "null_low": pl.Float64, "null_high": pl.Float64, "threshold": pl.Float64,
    "margin": pl.Float64, "rule": pl.String, "bound": pl.Float64, "seeds": pl.Int32, "answer": pl.String,
    "verdict": pl.String, "holds": pl.Boolean, "null": pl.Float64, "note": pl.String,
}  # fmt: skip


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The table `findings`, made by storage/sql/tables/findings.sql from the tables of `needs` and the table twins."""
    fill(con, "findings")
    return {"findings": con.table("findings")}


STATISTIC = Statistic(
    name="findings",
    version="3",
    needs=(
        "concepts",
        "concept_groups",
        "matches",
        "bridge_totals",
        "bridge_groups",
        "retrieval",
        "retrieval_groups",
        "nulls",
        "geometry",
        "saes",
    ),
    tables={"findings": FINDINGS},
    make=make,
    per="study",
)
