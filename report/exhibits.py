"""The strongest bridges of an SAE, with the top images and captions of the two concepts that each bridge joins.

The page shows them as cards, and the figure files as panels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import duckdb

from report import queries
from report.pictures import thumbnails
from report.queries import Answer, Row, ask, has_columns, holds
from report.wording import number

TOP_BRIDGES = (("bridge", 6), ("correlation_bridge", 3))  # first setting: (score that ranks the bridges, number shown)
TOP_BRIDGES_OTHERS = (("bridge", 4), ("correlation_bridge", 2))  # every other setting, in a collapsed section
IMAGES, CAPTIONS = 6, 5  # number of images and of captions shown per concept


class Concept(NamedTuple):
    """One side of a bridge."""

    id: int
    score: str  #: modality score of the concept, as text
    name: str  #: name of the concept with its score, or "no name"; empty in a run of an earlier version
    items: list[Row]  #: the top images (with key, caption, picture) or the top captions (with caption)


class Bridge(NamedTuple):
    """An image concept, a text concept, and the scores of their bridge."""

    image: Concept
    text: Concept
    own: bool  #: whether both sides are the same concept
    numbers: Row  #: the bridge's row in the answer to `queries.top_bridges`


class BridgeList(NamedTuple):
    """The strongest bridges of one SAE, ranked by one score."""

    title: str
    bridges: list[Bridge]
    #: Digits after the point for bridge and covariance. The largest bridge then has three significant digits.
    digits: int
    sql: list[str]


class Exhibit(NamedTuple):
    """The bridge lists of one SAE."""

    model: str
    sae: str
    seed: int
    lists: list[BridgeList]


def exhibit(con: duckdb.DuckDBPyConnection, model: str, sae: str, first: bool) -> Exhibit:
    """The strongest bridges of the first seed of a model and setting, with the items of both sides.

    first: whether this is the first setting of the page, which shows more bridges than the others.
    """
    seed = queries.first_seed(con, model, sae)
    lists = []
    for by, n in TOP_BRIDGES if first else TOP_BRIDGES_OTHERS:
        top = ask(con, queries.top_bridges(model, sae, seed, n, by))
        top = top._replace(rows=[row for row in top.rows if row[by] is not None])
        lists.append(bridge_list(con, model, sae, seed, by, top))
    return Exhibit(model, sae, seed, lists)


def name_of(row: Row) -> str:
    """The name of a concept with its score on held-out items; "no name" where it has none."""
    if row["name"] is None:
        return "no name"
    return row["name"] if row["name_score"] is None else f"{row['name']} (score {number(row['name_score'], 2)})"


def bridge_list(con: duckdb.DuckDBPyConnection, model: str, sae: str, seed: int, by: str, top: Answer) -> BridgeList:
    """The bridges in `top`, with pictures and captions. top: the answer to `queries.top_bridges`."""
    title = f"Top {len(top.rows)} by {by.replace('_', ' ')}"
    if not top.rows:
        return BridgeList(title, [], 4, [top.sql])
    images = ask(con, queries.top_images(model, sae, seed, sorted({row["image_concept"] for row in top.rows}), IMAGES))
    captions = ask(
        con, queries.top_captions(model, sae, seed, sorted({row["text_concept"] for row in top.rows}), CAPTIONS)
    )
    sql = [top.sql, images.sql, captions.sql]
    uris: dict[int, str] = {}
    if images.rows and holds(con, "image_bytes"):
        read, uris = thumbnails(con, sorted({row["image_id"] for row in images.rows}))
        sql.append(read.sql)
    names: dict[int, str] = {}
    if has_columns(con, "concepts", "name", "name_score"):
        both = {row[side] for row in top.rows for side in ("image_concept", "text_concept")}
        named = ask(con, queries.names_of(model, sae, seed, sorted(both)))
        sql.append(named.sql)
        names = {row["concept_id"]: name_of(row) for row in named.rows}
    shown = [row | {"picture": uris.get(row["image_id"])} for row in images.rows]
    largest = max(abs(row["bridge"] or 0) for row in top.rows)
    digits = min(9, max(2, 2 - math.floor(math.log10(largest)))) if largest > 0 else 4
    bridges = [
        Bridge(
            Concept(
                row["image_concept"],
                number(row["image_score"], 2),
                names.get(row["image_concept"], ""),
                [item for item in shown if item["concept_id"] == row["image_concept"]],
            ),
            Concept(
                row["text_concept"],
                number(row["text_score"], 2),
                names.get(row["text_concept"], ""),
                captions.of(concept_id=row["text_concept"]),
            ),
            row["image_concept"] == row["text_concept"],
            row,
        )
        for row in top.rows
    ]
    return BridgeList(title, bridges, digits, sql)
