"""How the modalities lie in a model's space, and how each concept lies to them."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import duckdb
import numpy as np
import polars as pl

from sae import SAE
from sae.concepts.geometry import Modalities, Subspace, modalities, smallest, subspaces
from sae.concepts.modality import Null, modality
from sae.concepts.monosemanticity import monosemanticity
from sae.concepts.usage import shuffled_shares
from storage.rows import Rows
from storage.runs import Entry
from tasks.tables.frames import CONCEPT_GEOMETRY, GEOMETRY, NULL_DRAWS, NULL_SUMMARIES, empty, table
from tasks.tables.inputs import Analysis, Keys, codes_of, keys_of

DRAWS = 20  # of modality labels
NONE = float("nan")  # the baseline is over all pairs: it has no spread
log = logging.getLogger("bridgescope")


class Space(NamedTuple):
    """What geometry needs of one model."""

    train: Modalities
    heldout: Modalities
    subspaces: dict[str, Subspace]


class Tables(NamedTuple):
    """What `geometry_tables` gives."""

    geometry: pl.DataFrame
    concepts: pl.DataFrame
    nulls: pl.DataFrame


def geometry_tables(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> Tables:
    """The table geometry, the columns of concepts that it gives, and their nulls. Reads the views."""
    geometry, concepts, nulls = [empty(GEOMETRY)], [empty(CONCEPT_GEOMETRY)], [empty(NULL_SUMMARIES)]
    if analysis.heldout == 0:
        log.warning("no image is held out (pairs.heldout = 0): alignment and direction accuracy are left empty")
    for model in analysis.models():
        space = space_of(analysis, model) if analysis.heldout > 0 else None
        if space is not None:
            geometry.append(geometry_rows(model, space))
        rows = analysis.rows(model, analysis.split)
        for entry, net in analysis.trained(model):
            columns, found = of_sae(con, entry, net, rows, space)
            concepts.append(columns)
            nulls.append(found)
    return Tables(pl.concat(geometry), pl.concat(concepts), pl.concat(nulls))


def space_of(analysis: Analysis, model: str) -> Space:
    """Training and held-out rows of a model, those with the smallest split_u, and the subspaces fitted on them."""
    train, heldout = (_nearest(analysis.rows(model, side), f"{side} rows of {model}") for side in ("train", "heldout"))
    return Space(train, heldout, subspaces(train, heldout))


def _nearest(rows: Rows, where: str) -> Modalities:
    image, text = smallest(rows.split_u), smallest(rows.split_u[rows.owner])
    return modalities(rows.image[image], rows.text[text], where)


def geometry_rows(model: str, space: Space) -> pl.DataFrame:
    """The subspaces of one model, in the order they are fitted in."""
    found = [
        {"model": model, "subspace": one.name, "rank": one.rank, "heldout_accuracy": one.heldout_accuracy}
        for one in space.subspaces.values()
    ]
    return pl.DataFrame(found, schema=GEOMETRY)


def of_sae(
    con: duckdb.DuckDBPyConnection, entry: Entry, net: SAE, rows: Rows, space: Space | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Columns of `concepts` for one SAE, and their nulls."""
    keys, width = keys_of(entry), net.config.width
    order = np.argsort(rows.image_id, kind="stable")
    mono = monosemanticity(codes_of(con, keys, "image", rows.image_id[order]), rows.image[order], width)
    columns: dict[str, Any] = dict.fromkeys(CONCEPT_GEOMETRY)
    columns |= {**keys, "concept_id": np.arange(width), "monosemanticity": mono.score}
    nulls = [_null(keys, "monosemanticity", "random_pairs", Null(mono.baseline, NONE, NONE, NONE, 0))]
    if space is not None:
        found = modality(net.dictionary.numpy(), space.subspaces, space.train, space.heldout, entry.seed or 0)
        columns |= {f"align_{name}": values for name, values in found.alignment.items()}
        columns["direction_accuracy"] = found.accuracy.heldout
        nulls += [_null(keys, *null) for null in found.nulls]
    return table(columns, CONCEPT_GEOMETRY), pl.DataFrame(nulls, schema=NULL_SUMMARIES).with_columns(
        pl.col(pl.Float64).fill_nan(None)
    )


def _null(keys: Keys, statistic: str, name: str, null: Null) -> dict[str, Any]:
    return {**keys, "statistic": statistic, "null": name, **null._asdict()}


def usage_draws(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> pl.DataFrame:
    """Shares of unimodal concepts were modality a matter of chance. Reads the tables concepts and group_sizes."""
    found = [empty(NULL_DRAWS)]
    images, texts = con.execute("SELECT sum(images)::BIGINT, sum(texts)::BIGINT FROM group_sizes").fetchall()[0]
    for entry in sorted((e for e in analysis.entries if e.kind == "train"), key=lambda e: (e.model, e.sae, e.seed)):
        keys = keys_of(entry)
        of = con.execute(
            "SELECT energy, firings FROM concepts WHERE model = $model AND sae = $sae AND seed = $seed "
            "ORDER BY concept_id",
            keys,
        ).fetchnumpy()
        drawn = shuffled_shares(of["energy"], of["firings"], images, texts, DRAWS, entry.seed or 0)
        rows = [
            {**keys, "null": "modality_shuffled", "draw": draw, "statistic": name, "value": value}
            for draw, shares in enumerate(drawn)
            for name, value in shares.items()
        ]
        found.append(pl.DataFrame(rows, schema=NULL_DRAWS).with_columns(pl.col(pl.Float64).fill_nan(None)))
    return pl.concat(found)
