"""The macros label_figures and probing_figures: a setting beside its frozen twins, on tables checked by hand."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from analysis.probing import PROBING
from analysis.tables import empty
from storage.definitions import define
from storage.statements import SQL

RUN = "model VARCHAR, sae VARCHAR, seed INTEGER"
SETTINGS = {"main": None, "main-a": "main", "main-b": "main", "other": None}


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    """Two seeds of `main`, of two frozen twins, and of a setting that is no twin; probes of two labels."""
    con = duckdb.connect(config={"threads": 1})
    define(con)
    con.execute(f"CREATE TABLE saes ({RUN}, twin_of VARCHAR)")
    con.execute(f"CREATE TABLE concepts ({RUN}, concept_id INTEGER, firings BIGINT, modality_score DOUBLE)")
    con.execute(f"""CREATE TABLE concept_labels ({RUN}, concept_id INTEGER, name VARCHAR, auc DOUBLE,
        above_null BOOLEAN)""")
    con.execute(f'CREATE TABLE nulls ({RUN}, statistic VARCHAR, "null" VARCHAR, mean DOUBLE, q975 DOUBLE)')
    con.register("schema_of_probing", empty(PROBING).to_arrow())
    con.execute("CREATE TABLE probing AS FROM schema_of_probing")
    for sae, twin_of in SETTINGS.items():
        best = {"main": 0.9, "main-a": 0.6, "main-b": 0.7, "other": 1.0}[sae]
        for seed in (0, 1):
            insert(con, "saes", ["m", sae, seed, twin_of])
            insert(con, "nulls", ["m", sae, seed, "label_auc_kind", "labels_permuted", 0.5, 0.52 + seed / 100])
            # The third concept fires too seldom to be counted.
            for concept, (firings, auc) in enumerate(((10, best), (10, best - 0.2), (9, 0.1))):
                insert(con, "concepts", ["m", sae, seed, concept, firings, 1.0])
                insert(con, "concept_labels", ["m", sae, seed, concept, "kind", auc - seed / 10, auc > 0.7])
            for features in (1, 2):
                for label, extra in (("cat", 0.0), ("dog", 0.1)):
                    value = best - 0.2 + extra + features / 100 - seed / 50
                    insert_probe(con, sae, seed, "concepts", features, label, value)
            insert_probe(con, sae, seed, "all_concepts", 9, "cat", best)
    for features in (1, 2):
        insert_probe(con, None, None, "pca", features, "cat", 0.5 + features / 10)
        insert_probe(con, None, None, "pca_chosen", features, "cat", 0.6 + features / 10)
    insert_probe(con, None, None, "embedding", 4, "cat", 0.95)
    for macro in ("label_figures", "probing_figures"):
        con.execute((SQL / "macros" / f"{macro}.sql").read_text())
    return con


def insert(con: duckdb.DuckDBPyConnection, table: str, row: list[Any]) -> None:
    con.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def insert_probe(
    con: duckdb.DuckDBPyConnection,
    sae: str | None,
    seed: int | None,
    probe: str,
    features: int,
    label: str,
    value: float,
) -> None:
    insert(con, "probing", ["m", sae, seed, "image", probe, features, "kind", label, value, 0.01, 20, 100, 50])


def answer(con: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    cursor = con.execute(query)
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_label_aucs_stand_beside_their_null_and_the_best_twin(con: duckdb.DuckDBPyConnection) -> None:
    (row,) = answer(con, "FROM label_figures('m', 'main')")
    # The two counted concepts of the seeds have .9 and .7, and .8 and .6; one of each two was above its null.
    assert (row["name"], row["concepts"], row["above_null"]) == ("kind", 2, 0.5)
    assert (row["auc"], row["low"], row["high"]) == pytest.approx((0.75, 0.7, 0.8))
    assert (row["null_mean"], row["null_q975"]) == pytest.approx((0.5, 0.53))
    assert row["best_twin"] == "main-b"
    assert (row["best_frozen"], row["excess"]) == pytest.approx((0.55, 0.2 / 0.45))
    (row,) = answer(con, "FROM label_figures('m', 'other')")
    assert (row["best_frozen"], row["best_twin"], row["excess"]) == (None, None, None)
    assert answer(con, "FROM label_figures('m', 'not there')") == []


def test_probes_on_concepts_stand_beside_the_baselines_and_the_best_twin(con: duckdb.DuckDBPyConnection) -> None:
    one, two = answer(con, "FROM probing_figures('m', 'main')")
    assert (one["modality"], one["name"], one["features"], one["labels"]) == ("image", "kind", 1, 2)
    # Means over the labels: .7 + .05 + .01 for seed 0, and .02 less for seed 1.
    assert (one["concepts"], one["low"], one["high"]) == pytest.approx((0.75, 0.74, 0.76))
    assert one["best_twin"] == "main-b"
    assert (one["best_frozen"], one["excess"]) == pytest.approx((0.55, 0.2 / 0.45))
    assert (one["pca"], one["pca_chosen"], one["all_concepts"], one["embedding"]) == pytest.approx(
        (0.6, 0.7, 0.9, 0.95)
    )
    assert (two["features"], two["concepts"], two["pca"]) == (2, pytest.approx(0.76), pytest.approx(0.7))
    (row, _) = answer(con, "FROM probing_figures('m', 'other')")
    assert (row["best_frozen"], row["best_twin"], row["excess"]) == (None, None, None)
