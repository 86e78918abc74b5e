"""The macro frozen_figures: figures of a setting beside those of its frozen twins, on tables checked by hand."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from storage.definitions import define
from storage.statements import SQL

RUN = "model VARCHAR, sae VARCHAR, seed INTEGER"
TWINS = {"main-frozen_decoder": "frozen_decoder", "main-frozen_encoder-random": "frozen_encoder"}
R2 = {
    "main": (0.8, 0.6),
    "main-frozen_decoder": (0.4, 0.2),
    "main-frozen_encoder-random": (0.5, 0.5),
    "other": (0.9, 1),
}
ORDER = ["r2_image", "r2_text", "retrieval_r1", "stability", "unimodal_share", "unimodal_energy_share"]
ORDER += ["monosemanticity", "covariance_opposite_share"]


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    """Two seeds of `main`, of two frozen twins, and of a setting that is no twin."""
    con = duckdb.connect(config={"threads": 1})
    define(con)
    con.execute(f"CREATE TABLE saes ({RUN}, r2_image DOUBLE, r2_text DOUBLE, frozen VARCHAR, twin_of VARCHAR)")
    con.execute(f"""CREATE TABLE concepts ({RUN}, energy DOUBLE, firings BIGINT, modality_score DOUBLE,
        monosemanticity DOUBLE)""")
    con.execute(f"CREATE TABLE retrieval ({RUN}, intervention VARCHAR, direction VARCHAR, r1 DOUBLE)")
    con.execute("""CREATE TABLE matches (model VARCHAR, sae_a VARCHAR, seed_a INTEGER, sae_b VARCHAR, seed_b INTEGER,
        cosine FLOAT)""")
    con.execute(f"""CREATE TABLE bridge_totals ({RUN}, class_image VARCHAR, class_text VARCHAR, self BOOLEAN,
        kind VARCHAR, positive DOUBLE)""")
    for sae, values in R2.items():
        frozen = TWINS.get(sae)
        for seed, value in enumerate(values):
            insert(con, "saes", ["m", sae, seed, value, 1.0, frozen, frozen and "main"])
            insert(con, "retrieval", ["m", sae, seed, "reconstructions", "image_to_text", value / 2])
            insert(con, "retrieval", ["m", sae, seed, "embeddings", "image_to_text", 1.0])
            # The third concept fires too seldom. Of the energy of the others, 3, that of the unimodal one is 1.
            for energy, firings, score, mono in ((1.0, 10, 1.0, 0.2), (2.0, 10, 0.5, 0.6), (9.0, 9, 0.0, None)):
                insert(con, "concepts", ["m", sae, seed, energy, firings, score, mono if sae == "main" else 0.4])
            insert(con, "bridge_totals", ["m", sae, seed, "image", "text", False, "covariance", value])
            insert(con, "bridge_totals", ["m", sae, seed, "image", "text", True, "covariance", 1 - value])
            insert(con, "bridge_totals", ["m", sae, seed, "image", "text", False, "raw", 100.0])
        for seeds in ((0, 1), (1, 0)):
            insert(con, "matches", ["m", sae, seeds[0], sae, seeds[1], values[0]])
    con.execute((SQL / "macros" / "frozen_figures.sql").read_text())
    return con


def insert(con: duckdb.DuckDBPyConnection, table: str, row: list[Any]) -> None:
    con.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def figures(con: duckdb.DuckDBPyConnection, sae: str = "main") -> dict[str, dict[str, Any]]:
    answer = con.execute(f"FROM frozen_figures('m', '{sae}')")
    names = [column[0] for column in answer.description or []]
    rows = [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
    return {row["figure"]: row for row in rows}


def test_figures_stand_beside_those_of_each_twin(con: duckdb.DuckDBPyConnection) -> None:
    found = figures(con)
    assert list(found) == ORDER
    row = found["r2_image"]
    assert (row["trained"], row["low"], row["high"]) == pytest.approx((0.7, 0.6, 0.8))
    assert (row["frozen_decoder"], row["frozen_encoder_random"]) == pytest.approx((0.3, 0.5))
    assert (row["frozen_encoder"], row["soft_frozen_decoder"]) == (None, None)
    assert (row["best_frozen"], row["best_twin"]) == (0.5, "main-frozen_encoder-random")
    assert (row["bound"], row["excess"]) == (1, pytest.approx((0.7 - 0.5) / (1 - 0.5)))
    assert found["retrieval_r1"]["trained"] == pytest.approx(0.35)
    assert found["stability"]["trained"] == pytest.approx(0.8)
    assert found["stability"]["excess"] == pytest.approx((0.8 - 0.5) / (1 - 0.5))
    assert found["unimodal_share"]["trained"] == pytest.approx(1 / 2)
    assert found["unimodal_energy_share"]["trained"] == pytest.approx(1 / 3)
    assert found["unimodal_share"]["excess"] == 0
    assert found["monosemanticity"]["trained"] == pytest.approx(0.4)
    assert found["covariance_opposite_share"]["trained"] == pytest.approx(0.7)


def test_a_twin_that_reaches_the_bound_leaves_no_excess(con: duckdb.DuckDBPyConnection) -> None:
    row = figures(con)["r2_text"]
    assert (row["best_frozen"], row["excess"]) == (1, None)


def test_a_setting_without_twins_has_its_own_figures_alone(con: duckdb.DuckDBPyConnection) -> None:
    row = figures(con, "other")["r2_image"]
    assert (row["trained"], row["best_frozen"], row["best_twin"], row["excess"]) == (0.95, None, None, None)
    assert figures(con, "not there") == {}


def test_the_independent_score_is_unknown_where_the_table_has_none(con: duckdb.DuckDBPyConnection) -> None:
    assert "monosemanticity_independent" not in figures(con)
    con.execute("ALTER TABLE concepts ADD COLUMN monosemanticity_independent DOUBLE")
    con.execute("UPDATE concepts SET monosemanticity_independent = 0.9 WHERE sae = 'main'")
    con.execute("UPDATE concepts SET monosemanticity_independent = 0.8 WHERE sae = 'main-frozen_decoder'")
    row = figures(con)["monosemanticity_independent"]
    assert (row["trained"], row["frozen_decoder"]) == pytest.approx((0.9, 0.8))
    assert row["excess"] == pytest.approx(0.1 / 0.2)
