"""The shared definitions give numbers worked out by hand, and the same numbers in SQL and in Python."""

from __future__ import annotations

import math

import duckdb
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from storage.definitions import define, definitions, is_counted, is_unimodal
from storage.statements import SQL


@pytest.fixture(scope="module")
def con() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    define(con)
    return con


def test_a_concept_on_the_bound_is_bimodal(con: duckdb.DuckDBPyConnection) -> None:
    scores = [0.0, 0.0999, 0.1, 0.5, 0.9, 0.9001, 1.0, None]
    classes = [con.execute("SELECT modality_class(?::DOUBLE)", [score]).fetchall()[0][0] for score in scores]
    assert classes == ["text", "text", "bimodal", "bimodal", "bimodal", "image", "image", "silent"]


@given(score=st.floats(0, 1))
def test_sql_and_python_agree_on_unimodal(con: duckdb.DuckDBPyConnection, score: float) -> None:
    ((in_sql, modality),) = con.execute(
        "SELECT is_unimodal($1::DOUBLE), modality_class($1::DOUBLE)", [score]
    ).fetchall()
    assert in_sql == bool(is_unimodal(np.array([score]))[0]) == (modality in ("image", "text"))


def test_a_concept_counts_from_ten_firings_on_and_with_a_score(con: duckdb.DuckDBPyConnection) -> None:
    assert definitions().min_firings == 10
    counted = con.execute("SELECT is_counted(9, .5), is_counted(10, .5), is_counted(10, NULL)").fetchall()
    assert counted == [(False, True, False)]
    assert is_counted(np.array([9, 10, 10]), np.array([0.5, 0.5, np.nan])).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("k", "own", "total", "chance"),
    [
        (1, 2, 10, 2 / 10),
        (3, 1, 7, 3 / 7),
        (2, 2, 5, 1 - (3 / 5) * (2 / 4)),  # 1 - C(3, 2) / C(5, 2), where C(n, k) is the binomial coefficient
        (10, 1, 4, 1.0),  # more draws than items
        (3, 3, 5, 1.0),  # more draws than the two items that are no hits
    ],
)
def test_chance_of_a_hit(con: duckdb.DuckDBPyConnection, k: int, own: int, total: int, chance: float) -> None:
    ((value,),) = con.execute("SELECT chance_of_hit($1, $2, $3)", [k, own, total]).fetchall()
    assert math.isclose(value, chance)


@pytest.mark.parametrize("df", [1, 2, 5, 19, 20, 21, 40, 1000])
def test_quantile_of_t(con: duckdb.DuckDBPyConnection, df: int) -> None:
    ((value,),) = con.execute("SELECT t_quantile($1)", [df]).fetchall()
    assert value == pytest.approx(scipy.stats.t.ppf(0.975, df), abs=0.007)


def test_chance_of_retrieval_follows_the_captions_of_the_gallery() -> None:
    """The gallery holds two of the three held-out images. One image has one caption, the other has two captions.

    At k = 1 the chance from image to text is the mean of 1/3 and 2/3. The chance from text to image is 1/2. At k = 5
    both chances are 1.
    """
    con = duckdb.connect()
    define(con)
    con.execute("""
        CREATE TABLE images AS
            FROM (VALUES (1, .01, 'heldout'), (2, .02, 'heldout'), (3, .03, 'heldout'), (4, .5, 'train'))
            AS t(image_id, split_u, split);
        CREATE TABLE pairs AS FROM (VALUES (1, 1), (2, 2), (3, 2), (4, 3), (5, 4), (6, 4)) AS t(pair_id, image_id);
        CREATE TABLE retrieval AS SELECT 'heldout' AS split, 2 AS gallery;
    """)
    con.execute((SQL / "macros" / "retrieval_chance.sql").read_text())
    rows = con.execute("FROM retrieval_chance()").fetchall()
    assert [(direction, k) for direction, k, _ in rows] == [
        (direction, k) for direction in ("image_to_text", "text_to_image") for k in (1, 5, 10)
    ]
    assert [chance for _, _, chance in rows] == pytest.approx([1 / 2, 1, 1, 1 / 2, 1, 1])
