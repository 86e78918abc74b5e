"""The explorer's descriptions of views are read completely from the headers of the views' SQL files."""

from __future__ import annotations

import re

import duckdb
import pytest

from storage.documentation import columns_of, documented, header_of
from storage.statements import SQL

VIEWS = sorted(path.stem for path in (SQL / "views").glob("*.sql"))
TABLES = ("concepts", "concept_groups", "nulls", "findings")  # tables that SQL computes; each has a view


def test_names_share_what_stands_behind_the_last_of_them() -> None:
    text = (
        "model, sae; r2, r2_image (explained; twice); kind ('raw' or 'covariance'); term: 'a' (one), 'b'; 'c' (three); "
        "G = E[z_i z_j]; width, height (pixels, NULL without a picture)"
    )
    names = ["model", "sae", "r2", "r2_image", "kind", "term", "G", "width", "height"]
    assert columns_of(text, names) == {
        "model": "", "sae": "",
        "r2": "explained; twice", "r2_image": "explained; twice",
        "kind": "'raw' or 'covariance'",
        "term": "'a' (one), 'b'; 'c' (three)",
        "G": "E[z_i z_j]",
        "width": "pixels, NULL without a picture", "height": "pixels, NULL without a picture",
    }  # fmt: skip


@pytest.mark.parametrize("view", [*VIEWS, *TABLES])
def test_every_view_has_a_purpose_and_every_column_is_named(view: str) -> None:
    header = header_of(view)
    assert header["Purpose"]
    assert re.match(r'"?\w+', header["Columns"])


def test_a_view_is_documented_with_its_types() -> None:
    with duckdb.connect() as con:
        con.execute(
            "CREATE VIEW geometry AS SELECT 'm' AS model, 'lda' AS subspace, 1 AS rank, .5::DOUBLE AS heldout_accuracy"
        )
        (view,) = documented(con)
    assert view.name == "geometry"
    assert view.purpose == "the subspaces that separate a model's images from its captions"
    assert [column.type for column in view.columns] == ["VARCHAR", "VARCHAR", "INTEGER", "DOUBLE"]
    assert view.columns[2].doc == "its dimensions"
    assert view.columns[1].doc == "'mean_gap', 'logistic', 'lda' or 'inlp'"
