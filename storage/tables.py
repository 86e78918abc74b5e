"""The tables that SQL makes from a study's views: one statement a file in `storage/sql/tables/`, run in their order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import duckdb

from storage.statements import SQL


class Trained(NamedTuple):
    """One SAE of a study."""

    model: str
    sae: str
    seed: int
    width: int


def fill(con: duckdb.DuckDBPyConnection, table: str, *, insert: bool = False, **values: Any) -> None:
    """Make a table by `storage/sql/tables/<table>.sql`, or add to it. Values that it does not name are unused."""
    sql = (SQL / "tables" / f"{table}.sql").read_text()
    named = {name: values[name] for name in re.findall(r"\$(\w+)", sql)}
    con.execute(f"INSERT INTO {table} {sql}" if insert else f"CREATE OR REPLACE TEMP TABLE {table} AS {sql}", named)


def fill_concepts(con: duckdb.DuckDBPyConnection, saes: Iterable[Trained], split: str) -> None:
    """Make concept_groups and concept_auc, an SAE at a time, so that memory holds the codes of one.

    Sums are taken at one thread, in one order; ranks are whole numbers and take all.
    """
    fill(con, "group_sizes", split=split)
    for place, trained in enumerate(saes):
        of = {**trained._asdict(), "split": split}
        con.execute("SET threads = 1")
        fill(con, "codes", **of)
        fill(con, "concept_groups", insert=place > 0, **of)
        con.execute(f"SET threads = {os.cpu_count() or 1}")
        fill(con, "concept_auc", insert=place > 0, **of)
        con.execute("SET threads = 1")
    con.execute("DROP TABLE IF EXISTS codes")


def create_inputs(con: duckdb.DuckDBPyConnection) -> None:
    """Empty tables for what the SAE room computes and SQL joins, for studies and tests that do without."""
    keys = "model VARCHAR, sae VARCHAR, seed INTEGER"
    columns = ("direction_accuracy", "align_mean_gap", "align_logistic", "align_lda", "align_inlp", "monosemanticity")
    numbers = ", ".join(f"{name} DOUBLE" for name in columns)
    con.execute(f"CREATE TEMP TABLE concept_geometry ({keys}, concept_id INTEGER, {numbers})")
    con.execute(
        f'CREATE TEMP TABLE null_draws ({keys}, statistic VARCHAR, "null" VARCHAR, draw INTEGER, "value" DOUBLE)'
    )
    summary = "mean DOUBLE, sd DOUBLE, q025 DOUBLE, q975 DOUBLE, draws BIGINT"
    con.execute(f'CREATE TEMP TABLE null_summaries ({keys}, statistic VARCHAR, "null" VARCHAR, {summary})')
