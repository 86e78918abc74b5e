"""The labelled images and captions of both sides of the split, as the statistics of labels read them."""

from __future__ import annotations

from typing import NamedTuple

import duckdb
import numpy as np

from analysis.label_auc import Labelled
from storage.catalog import frame

POSITIVES = 20  # a label counts where at least this number of items of each side has it, and as many do not


class Side(NamedTuple):
    """The items of one modality on one side of the split, and the labels of their images."""

    items: np.ndarray  # ids of the items, ascending
    image: np.ndarray  # [items] int64: for each item, the row of its image
    images: np.ndarray  # ids of the n images, ascending
    labelled: Labelled  # labels of these images


class Kind(NamedTuple):
    """The labels of one name (the column of the source), as a slice of all labels that count."""

    name: str
    labels: list[str]
    at: slice


class LabelledItems(NamedTuple):
    """One modality's items of both sides, with the labels that count."""

    kinds: list[Kind]
    train: Side
    heldout: Side


def labelled_items(con: duckdb.DuckDBPyConnection, modality: str) -> LabelledItems | None:
    """The items of a modality with their labels; None where no label counts.

    A label counts where at least POSITIVES items of this modality have it, and as many do not, on either side of the
    split. Captions have the labels of their image. Reads the views images, pairs and labels; the last is absent where
    the source has no labels.
    """
    views = con.execute("SELECT table_name FROM information_schema.tables WHERE table_name = 'labels'").fetchall()
    if not views:
        return None
    counted = frame(con, _COUNTED, {"is_image": modality == "image", "least": POSITIVES})
    if counted.is_empty():
        return None
    con.register("counted_labels", counted.to_arrow())
    held = frame(
        con,
        "SELECT DISTINCT image_id, place FROM labels JOIN counted_labels USING (name, label) ORDER BY image_id, place",
    )
    con.unregister("counted_labels")
    kinds: list[Kind] = []
    for name, labels in counted.group_by("name", maintain_order=True).agg("label").iter_rows():
        first = kinds[-1].at.stop if kinds else 0
        kinds.append(Kind(name, labels, slice(first, first + len(labels))))
    of_image, label = held["image_id"].to_numpy(), held["place"].to_numpy().astype(np.int32)
    sides = (_side(con, modality, split, of_image, label, counted.height) for split in ("train", "heldout"))
    return LabelledItems(kinds, *sides)


def _side(
    con: duckdb.DuckDBPyConnection, modality: str, split: str, of_image: np.ndarray, label: np.ndarray, count: int
) -> Side:
    """One side of the split. of_image, label: each image with each of its labels, sorted by image."""
    values = {"split": split}
    images = frame(con, "SELECT image_id FROM images WHERE split = $split ORDER BY image_id", values)[
        "image_id"
    ].to_numpy()
    if modality == "image":
        items, image = images, np.arange(len(images))
    else:
        rows = frame(con, "SELECT pair_id, image_id FROM pairs WHERE split = $split ORDER BY pair_id", values)
        items, image = rows["pair_id"].to_numpy(), np.searchsorted(images, rows["image_id"].to_numpy())
    first = np.searchsorted(of_image, images, "left")
    lengths = np.searchsorted(of_image, images, "right") - first
    start = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    chosen = np.arange(start[-1]) + np.repeat(first - start[:-1], lengths)
    return Side(items, image, images, Labelled(start, label[chosen], count))


_COUNTED = """\
WITH items AS (
    SELECT image_id, split FROM images WHERE $is_image
    UNION ALL
    SELECT image_id, split FROM pairs WHERE NOT $is_image
),
sides AS (
    SELECT count(*) FILTER (split = 'train') AS train, count(*) FILTER (split = 'heldout') AS heldout FROM items
),
positive AS (
    SELECT
        name, label, count(*) FILTER (split = 'train') AS train, count(*) FILTER (split = 'heldout') AS heldout
    FROM (SELECT DISTINCT image_id, name, label FROM labels) AS held
    JOIN items USING (image_id)
    GROUP BY name, label
)
SELECT name, label, (row_number() OVER (ORDER BY name, label) - 1)::INTEGER AS place
FROM positive
CROSS JOIN sides
WHERE least(positive.train, positive.heldout, sides.train - positive.train, sides.heldout - positive.heldout) >= $least
ORDER BY name, label"""
