"""The explorer's descriptions of views are read completely from the headers of the views' SQL files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import duckdb
import polars as pl
import pytest

from analysis.statistic import statistics
from storage.definitions import define
from storage.documentation import COMMON, columns_of, documented, header_of
from storage.statements import SQL, literal, statement

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


#: Columns of the files that the views without a statistic read, by type.
FILES = {
    name: kind
    for kind, names in (
        (pl.String, "source_key group_key error caption modality label name cause detail method encoder split sha256"),
        (pl.Int64, "image_id pair_id item_id width height shard step rows failed nan k images_with_captions"),
        (pl.Int32, "concept_id of_seed of_concept"),
        (pl.Binary, "image"),
        (pl.Float64, "split_u activation epoch loss r2 l0 dead_fraction rows_per_second norm_min norm_mean norm_max"),
        (pl.Float64, "equal_share matched shuffled difference difference_low difference_high r2_image r2_text cosine"),
        (pl.Float64, "r2_at_k r2_image_at_k r2_text_at_k"),
        (pl.List(pl.Float32), "direction bias mean"),
    )
    for name in names.split()
}
SECONDS = {"method": pl.String, "k": pl.Int64, "seconds": pl.Float64}
SCHEMAS = {name: schema for statistic in statistics() for name, schema in statistic.tables.items()}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """A catalog with every view, over files without rows."""
    folder = tmp_path_factory.mktemp("views")
    for name, schema in {"files": FILES, "seconds": SECONDS, **SCHEMAS}.items():
        pl.DataFrame(schema=schema).write_parquet(folder / f"{name}.parquet")
    values: dict[str, Any] = {"heldout": 0.2, "failed": 0, "model": "m", "sae": "s", "seed": 0}
    values |= {"modality": "image", "shard": 0, "described": folder / "files.parquet"}
    values |= {name: [folder / "files.parquet"] for name in ("images", "captions", "ledger", "failures", "labels")}
    values |= {"figures": [folder / "files.parquet"], "seconds": [folder / "seconds.parquet"], "named": 1, "matched": 1}
    values |= {"names": [folder / "concept_names.parquet"], "matches": [folder / "matches.parquet"]}
    with duckdb.connect() as con:
        define(con)
        # The views that other views read come first.
        for view in sorted({*VIEWS, *SCHEMAS}, key=lambda name: (name not in {"images", "consensus_members"}, name)):
            file = [folder / f"{view if view in SCHEMAS else 'files'}.parquet"]
            if view in VIEWS:
                sql = statement(f"views/{view}", files=file, **values)
            else:
                sql = f"CREATE VIEW {view} AS FROM read_parquet({literal(file)})"
            con.execute(sql if "CREATE VIEW" in sql else f"CREATE VIEW {view} AS {sql}")
        yield con


@pytest.mark.parametrize("name", sorted({*VIEWS, *SCHEMAS}))
def test_every_column_of_every_view_is_described_in_words(name: str, catalog: duckdb.DuckDBPyConnection) -> None:
    # A new column needs its description in the header of its view's file, in words, with a formula beside them.
    (view,) = [view for view in documented(catalog) if view.name == name]
    assert view.columns
    plain = {column.name: re.findall(r"(?<![\w'])[a-z]{3,}(?![\w'])", column.doc) for column in view.columns}
    assert [column for column, words in plain.items() if len(words) < 3] == []


def test_a_description_of_a_view_goes_before_the_common_one(catalog: duckdb.DuckDBPyConnection) -> None:
    docs = {view.name: {column.name: column.doc for column in view.columns} for view in documented(catalog)}
    assert docs["bridges"]["split"] == COMMON["split"]
    assert docs["pairs"]["split"].startswith("the side of the split of the caption's image")


def test_a_view_is_documented_with_its_types() -> None:
    with duckdb.connect() as con:
        con.execute(
            "CREATE VIEW geometry AS SELECT 'm' AS model, 'lda' AS subspace, 1 AS rank, .5::DOUBLE AS heldout_accuracy"
        )
        (view,) = documented(con)
    assert view.name == "geometry"
    assert view.purpose == "the subspaces that separate a model's images from its captions"
    assert [column.type for column in view.columns] == ["VARCHAR", "VARCHAR", "INTEGER", "DOUBLE"]
    assert view.columns[0].doc == COMMON["model"]
    assert view.columns[2].doc == "number of dimensions of the subspace"
