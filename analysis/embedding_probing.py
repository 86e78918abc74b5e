"""Probing of a model's embeddings: the baselines of probes on the concepts of SAEs, on the same items and labels."""

from __future__ import annotations

import duckdb
import numpy as np
import polars as pl

from analysis.inputs import Analysis
from analysis.probing import PROBING, SIZES, Drawn, Probed, drawn_items, probes_of, rows_of
from analysis.statistic import Statistic, Table
from analysis.tables import empty
from storage.rows import Rows


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The rows of `probing` that need no SAE. There are none where the study has no label that counts."""
    keys = {"model": analysis.model, "sae": None, "seed": None}
    tables = [empty(PROBING)]
    for drawn in drawn_items(con):
        tables += [rows_of(keys, drawn, one) for one in baselines(con, drawn, rows_in(analysis.embedded, drawn))]
    return {"probing": pl.concat(tables)}


def rows_in(rows: Rows, drawn: Drawn) -> np.ndarray:
    """The embeddings [n, d] of the drawn training items, then of the drawn held-out items."""
    vectors, ids = (rows.image, rows.image_id) if drawn.modality == "image" else (rows.text, rows.pair_id)
    order = np.argsort(ids, kind="stable")
    wanted = np.concatenate([drawn.train.items, drawn.heldout.items])
    return np.asarray(vectors[order[np.searchsorted(ids[order], wanted)]])


def baselines(con: duckdb.DuckDBPyConnection, drawn: Drawn, x: np.ndarray) -> list[Probed]:
    """Probes on the whole embedding and on principal components of the training items.

    x [n, d]: embeddings of the training items, then of the held-out items. The probes `pca` have the first s components
    for every label; the probes `pca_chosen` choose s components for each label, by the rule by which concepts are
    chosen.
    """
    scores = components(x, len(drawn.train.items))
    probed = probes_of(con, drawn, x, None, "embedding")
    for size in (size for size in SIZES if size <= x.shape[1]):
        probed += probes_of(con, drawn, scores[:, :size], None, "pca")
    return probed + probes_of(con, drawn, scores, "pca_chosen", None)


def components(x: np.ndarray, train: int) -> np.ndarray:
    """Coordinates [n, d] float32 in the principal components of the first `train` rows, largest variance first."""
    centred = x - x[:train].mean(0, dtype=np.float64)
    _, vectors = np.linalg.eigh(centred[:train].T @ centred[:train])
    return np.asarray(centred @ vectors[:, ::-1], np.float32)


STATISTIC = Statistic(
    name="embedding_probing",
    version="1",
    tables={"probing": PROBING},
    make=make,
    per="model",
)
