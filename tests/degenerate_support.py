"""Catalogs in which most figures have nothing to show. One function per case makes them from the small catalog.

A case returns the catalog and the study file. `CASES` lists them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb

Make = Callable[..., Any]
Case = Callable[[Make, Make], tuple[duckdb.DuckDBPyConnection, dict[str, Any]]]
CASES: dict[str, Case] = {}
#: name of a table of measurements -> its numeric columns
MEASURED = {
    "saes": ("r2", "r2_image", "r2_text", "r2_scalar_mean", "cosine", "l0", "l0_image", "l0_text", "hoyer",
             "dead_fraction"),
    "training": ("loss", "r2", "l0", "dead_fraction", "rows_per_second"),
    "retrieval": ("r1", "r5", "r10"),
    "bridges": ("coactivation", "cosine", "bridge", "covariance_bridge", "correlation_bridge"),
    "bridge_totals": ("total", "positive", "negative"),
    "matches": ("cosine",),
    "partners": ("correlation", "match_confidence", "assigned_correlation", "sampled_correlation", "floor"),
    "partner_floors": ("value",),
    "correspondence": ("correlation", "match_confidence", "assigned_correlation", "sampled_correlation", "floor"),
    "correspondence_floors": ("value",),
    "subspace_matches": ("projection",),
    "frontier": ("r2", "r2_image", "r2_text", "cosine", "l0", "r2_at_k", "r2_image_at_k", "r2_text_at_k", "seconds"),
    "geometry": ("heldout_accuracy",),
    "nulls": ("mean", "sd", "q025", "q975"),
    "findings": ("figure", "null", "low", "high", "null_mean", "null_low", "null_high", "threshold", "margin", "bound"),
    "concepts": ("energy", "energy_image", "energy_text", "modality_score", "align_mean_gap", "align_logistic",
                 "align_lda", "align_inlp", "monosemanticity"),
}  # fmt: skip


def case(function: Case) -> Case:
    """Decorator: add a function to `CASES` under the name of the function."""
    CASES[function.__name__] = function
    return function


def change(con: duckdb.DuckDBPyConnection, *statements: str) -> None:
    """Run SQL statements on a catalog."""
    for statement in statements:
        con.execute(statement)


@case
def an_empty_store(catalog: Make, config: Make) -> tuple[duckdb.DuckDBPyConnection, dict[str, Any]]:
    """Every table exists, and no table has a row."""
    con = catalog(models=("one",), whole=True)
    change(con, *(f"DELETE FROM {table}" for (table,) in con.execute("SHOW TABLES").fetchall()))
    return con, config(models=("one",))


@case
def one_row_each(catalog: Make, config: Make) -> tuple[duckdb.DuckDBPyConnection, dict[str, Any]]:
    """One row in each table: an image, a caption, an SAE of one concept that fires once."""
    con = catalog(models=("one",), seeds=1, whole=True)
    for (table,) in con.execute("SHOW TABLES").fetchall():
        columns = [name for name, *_ in con.execute(f"DESCRIBE {table}").fetchall()]
        narrowed = "WHERE sae = 'main'" if "sae" in columns and table not in ("retrieval",) else ""
        change(con, f"CREATE TABLE one AS FROM {table} {narrowed} LIMIT 1", f"DELETE FROM {table}")
        change(con, f"INSERT INTO {table} FROM one", "DROP TABLE one")
    return con, config(models=("one",))


@case
def imported_saes_alone(catalog: Make, config: Make) -> tuple[duckdb.DuckDBPyConnection, dict[str, Any]]:
    """All SAEs are imported, so no SAE has a training curve or a k."""
    con = catalog(models=("one",))
    change(con, "DELETE FROM training", "UPDATE saes SET k = 0, rows_seen = 0, image_share = 'unknown'")
    study = config(models=("one",))
    study["saes"] = [{"name": "main", "checkpoint": "lens", "seeds": [0, 1]}]
    return con, study


@case
def no_concept_fires_ten_times(catalog: Make, config: Make) -> tuple[duckdb.DuckDBPyConnection, dict[str, Any]]:
    """Only concepts that fire ten times are counted, so every share of the counted concepts is a share of nothing."""
    con = catalog(models=("one",), whole=True)
    change(con, "UPDATE concepts SET firings = 3")
    return con, config(models=("one",))


@case
def dead_saes(catalog: Make, config: Make) -> tuple[duckdb.DuckDBPyConnection, dict[str, Any]]:
    """No concept fires on any item."""
    con = catalog(models=("one",), whole=True)
    change(
        con,
        "DELETE FROM activations", "DELETE FROM bridges",
        "UPDATE bridge_totals SET total = 0, positive = 0, negative = 0",
        "UPDATE saes SET l0 = 0, l0_image = 0, l0_text = 0, hoyer = NULL, dead_fraction = 1, r2 = 0, cosine = NULL",
        "UPDATE concepts SET energy = 0, energy_image = 0, energy_text = 0, rate_image = 0, rate_text = 0, firings = 0,"
        " modality_score = NULL, modality_auc = NULL, monosemanticity = NULL, dead = true",
    )  # fmt: skip
    return con, config(models=("one",))


@case
def one_seed(catalog: Make, config: Make) -> tuple[duckdb.DuckDBPyConnection, dict[str, Any]]:
    """There is one seed, so no table compares seeds."""
    return catalog(models=("one",), seeds=1), config(models=("one",))


@case
def two_concepts(catalog: Make, config: Make) -> tuple[duckdb.DuckDBPyConnection, dict[str, Any]]:
    """Dictionaries of two concepts."""
    con = catalog(models=("one",), whole=True)
    change(con, *(f"DELETE FROM {table} WHERE concept_id > 1" for table in ("concepts", "activations", "floors")))
    change(con, "DELETE FROM matches WHERE concept_a > 1", "UPDATE saes SET width = 2, k = 1")
    change(con, "DELETE FROM bridges WHERE image_concept > 1 OR text_concept > 1")
    return con, config(models=("one",))


@case
def nothing_held_out(catalog: Make, config: Make) -> tuple[duckdb.DuckDBPyConnection, dict[str, Any]]:
    """No row is held out, so there is no retrieval, geometry, null, finding or bridge."""
    con = catalog(models=("one",), whole=True)
    change(con, *(f"DELETE FROM {name}" for name in ("retrieval", "geometry", "nulls", "findings", "bridges")))
    change(con, "DELETE FROM bridge_totals", "DELETE FROM matches", "DELETE FROM frontier", "DELETE FROM pairs")
    return con, config(models=("one",))


def _all_measured(value: str) -> Case:
    def make(catalog: Make, config: Make) -> tuple[duckdb.DuckDBPyConnection, dict[str, Any]]:
        con = catalog(models=("one",), whole=True)
        for table, columns in MEASURED.items():
            change(con, f"UPDATE {table} SET " + ", ".join(f'"{column}" = {value}' for column in columns))
        return con, config(models=("one",))

    return make


CASES["all_numbers_null"] = _all_measured("NULL")
CASES["all_numbers_nan"] = _all_measured("'nan'")
CASES["all_numbers_zero"] = _all_measured("0")
