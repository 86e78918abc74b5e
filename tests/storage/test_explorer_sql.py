"""The SQL statements that make the explorer's data files, on tables small enough to check by hand."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest
from sql_case import KEYS, catalog

from storage.statements import statement

CAPTIONS = ["red cat", "red cat", "red dog", "blue dog"]


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    """A catalog with two concepts, and with four images of one caption each. Images 0 and 1 are held out."""
    z_image = [[1.0, 0.0], [0.25, 0.0], [0.5, 2.0], [0.0, 2.0]]
    z_text = [[0.25, 0.0], [0.0, 0.0], [0.5, 0.0], [0.0, 0.0]]
    connection = catalog(z_image, z_text, [0, 1, 2, 3], [0.1, 0.2, 0.7, 0.8])
    for pair, caption in enumerate(CAPTIONS):
        connection.execute("UPDATE pairs SET caption = ? WHERE pair_id = ?", [caption, pair])
    return connection


def rows(con: duckdb.DuckDBPyConnection, name: str, **values: Any) -> list[tuple[Any, ...]]:
    return con.execute(statement(f"explorer/{name}", **values)).fetchall()


def fill_top(con: duckdb.DuckDBPyConnection, *firings: tuple[str, int, int, float]) -> None:
    """Fill the table explorer_top with rows (modality, concept, item, activation)."""
    con.execute(f"CREATE OR REPLACE TABLE explorer_top AS {statement('explorer/top', **KEYS, n=0, each=0)}")
    for modality, concept, item, activation in firings:
        con.execute(
            "INSERT INTO explorer_top VALUES ('m', 's', 0, ?, ?, ?, ?, NULL)", [modality, concept, item, activation]
        )


def test_top_items_are_the_strongest_of_each_modality(con: duckdb.DuckDBPyConnection) -> None:
    top = sorted(row[3:7] for row in rows(con, "top", **KEYS, n=2, each=2) if row[7] is None)
    # Concept 1 has the same activation on images 2 and 3. Its top 2 is both images, its top 1 the smaller id, image 2.
    assert top == [
        ("image", 0, 0, 1.0), ("image", 0, 2, 0.5), ("image", 1, 2, 2.0), ("image", 1, 3, 2.0),
        ("text", 0, 0, 0.25), ("text", 0, 2, 0.5),
    ]  # fmt: skip
    one = sorted(row[3:6] for row in rows(con, "top", **KEYS, n=1, each=1) if row[7] is None)
    assert one == [("image", 0, 0), ("image", 1, 2), ("text", 0, 2)]


def test_levels_are_quantiles_of_the_firings_of_a_concept_that_fires_more_often_than_its_top_list(
    con: duckdb.DuckDBPyConnection,
) -> None:
    # Of the three images of concept 0, the median is image 2 (.5) and the weakest is image 1 (.25). Concept 1 and the
    # captions have two firings each, which the top list holds.
    levels = {row[7]: row[3:7] for row in rows(con, "top", **KEYS, n=2, each=1) if row[7] is not None}
    assert levels == {
        0.75: ("image", 0, 0, 1.0), 0.5: ("image", 0, 2, 0.5), 0.25: ("image", 0, 2, 0.5), 0.0: ("image", 0, 1, 0.25),
    }  # fmt: skip
    con.execute(f"CREATE OR REPLACE TABLE explorer_top AS {statement('explorer/top', **KEYS, n=2, each=1)}")
    assert [row[1] for row in rows(con, "levels", **KEYS)] == [0.75, 0.5, 0.25, 0.0]
    assert len(rows(con, "top_of", **KEYS)) == 6


def test_histograms_count_the_split_in_equal_parts_of_the_whole_range(con: duckdb.DuckDBPyConnection) -> None:
    # The largest activation of concept 0 is 1, so each of its four bins is .25 wide. Of the held-out items, image 0 has
    # the activation 1, which belongs to the last bin (bin 3). Image 1 and caption 0 have .25, which belongs to bin 1.
    # Concept 1 has a largest activation of 2, but fires on training images only, so no bin of it is filled.
    assert rows(con, "histograms", **KEYS, split="heldout", bins=4) == [
        (0, 1.0, 1, 1, 1), (0, 1.0, 3, 1, 0), (1, 2.0, None, 0, 0),
    ]  # fmt: skip
    # With the training items, concept 0 also fires at .5 (bin 2) on image 2 and on caption 2. Concept 1 fires on two
    # images at its largest activation (bin 3).
    assert rows(con, "histograms", **KEYS, split="all", bins=4) == [
        (0, 1.0, 1, 1, 1), (0, 1.0, 2, 1, 1), (0, 1.0, 3, 1, 0), (1, 2.0, 3, 2, 0),
    ]  # fmt: skip


def test_a_small_study_shows_all_images_and_a_large_one_those_of_top_lists(con: duckdb.DuckDBPyConnection) -> None:
    fill_top(con, ("text", 0, 3, 1.0), ("image", 0, 1, 1.0))
    assert rows(con, "shown_images", small=4, block=3) == [(0, 0), (1, 0), (2, 0), (3, 1)]
    assert rows(con, "shown_images", small=3, block=1) == [(1, 0), (3, 1)]  # image 3 is there for its caption


def test_codes_are_those_of_what_is_shown(con: duckdb.DuckDBPyConnection) -> None:
    fill_top(con, ("image", 0, 2, 0.5), ("text", 0, 0, 0.25))
    con.execute(f"CREATE TABLE shown_images AS {statement('explorer/shown_images', small=4, block=2)}")
    codes = rows(con, "codes", **KEYS, modality="image", small=4)
    assert codes == [(0, 0, 0, 1.0), (0, 1, 0, 0.25), (1, 2, 1, 2.0), (1, 2, 0, 0.5), (1, 3, 1, 2.0)]
    assert rows(con, "codes", **KEYS, modality="text", small=4) == [(0, 0, 0, 0.25), (1, 2, 0, 0.5)]
    # A large study has codes only for the items in a top list of this SAE.
    assert rows(con, "codes", **KEYS, modality="image", small=3) == [(1, 2, 1, 2.0), (1, 2, 0, 0.5)]
    assert rows(con, "codes", **KEYS, modality="text", small=3) == [(0, 0, 0, 0.25)]


def test_items_carry_their_captions_and_their_file(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("ALTER TABLE images ADD COLUMN width INTEGER DEFAULT 7")
    con.execute("ALTER TABLE images ADD COLUMN height INTEGER DEFAULT 5")
    con.execute("UPDATE pairs SET image_id = 0 WHERE pair_id = 1")
    fill_top(con)
    con.execute(f"CREATE TABLE shown_images AS {statement('explorer/shown_images', small=4, block=2)}")
    assert rows(con, "images")[:2] == [(0, 0, "i0", 7, 5, "heldout", [0, 1]), (1, 0, "i1", 7, 5, "heldout", [])]
    assert rows(con, "captions") == [
        (0, 0, "red cat", 0, "heldout"), (1, 0, "red cat", 0, "heldout"), (2, 1, "red dog", 2, "train"),
        (3, 1, "blue dog", 3, "train"),
    ]  # fmt: skip
