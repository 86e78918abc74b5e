"""Warnings for SAEs that are useless, with a remedy that fits the cause."""

from __future__ import annotations

import duckdb
import pytest

from flows.useless import MOST_DEAD, QUERY, sentences

SAES = "model, sae, seed, width, k, r2, dead_fraction, frozen"


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute(
        f"""CREATE TABLE saes AS FROM (VALUES
            ('m', 'good', 0, 64, 4, 0.6, 0.1, NULL),
            ('m', 'by-heart', 0, 64, 4, 0.1, 0.0, NULL), ('m', 'by-heart', 1, 64, 4, -0.25, 0.5, NULL),
            ('m', 'untrained', 0, 64, 4, -2.0, 0.75, NULL),
            ('m', 'foreign', 0, 64, NULL, -0.5, NULL, NULL),
            ('m', 'no-number', 0, 64, 4, 'nan'::DOUBLE, 'nan'::DOUBLE, NULL),
            ('m', 'twin', 0, 64, 4, -1.0, 0.9, 'frozen_decoder')) AS t({SAES})"""
    )
    con.execute(
        """CREATE TABLE training AS FROM (VALUES
            ('m', 'good', 0, 1, 0.9), ('m', 'by-heart', 0, 1, 0.8), ('m', 'by-heart', 1, 1, 0.1),
            ('m', 'by-heart', 1, 2, 0.95), ('m', 'untrained', 0, 1, -1.5)) AS t(model, sae, seed, step, r2)"""
    )
    return con


def test_each_cause_has_its_remedy(con: duckdb.DuckDBPyConnection) -> None:
    answer = con.execute(QUERY, {"most": MOST_DEAD})
    columns = [column[0] for column in answer.description or []]
    found = [sentence for row in answer.fetchall() for sentence in sentences(dict(zip(columns, row, strict=True)))]
    by_heart, foreign, untrained, dead = found
    assert by_heart.startswith("m by-heart: R2 is below 0 (lowest -0.25, in 1 of 2 seeds)")
    assert "On the rows of the training R2 is 0.95, so it overfits: set width to 32 (now 64)" in by_heart
    assert foreign.startswith("m foreign: R2 is below 0")
    assert "trained elsewhere" in foreign
    assert "On the rows of the training R2 is -1.50, so it has not learned" in untrained
    assert 'learning_rate at "auto"' in untrained
    assert dead.startswith("m untrained: up to 75% of the concepts fire on no training row. Set width to 32 (now 64)")
