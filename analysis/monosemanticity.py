"""Monosemanticity: the similarity, in an encoder's embeddings, of the images on which a concept fires.

Codes stay sparse, and the n x n matrix of similarities is never formed.
"""

from __future__ import annotations

from typing import NamedTuple

import duckdb
import numpy as np
import polars as pl
from scipy.sparse import csr_array

from analysis.coactivation import Codes
from analysis.inputs import Analysis, Keys, codes_of, keys_of
from analysis.statistic import Statistic, Table
from analysis.tables import NULL_SUMMARIES, SAE_KEYS, Null, Schema, null_row, table, table_of_rows
from storage.rows import Rows

CONCEPTS: Schema = {
    **SAE_KEYS, "concept_id": pl.Int32, "monosemanticity": pl.Float64, "monosemanticity_independent": pl.Float64,
}  # fmt: skip
COLUMNS = 64  # dimensions per block: 60 MB of float64 rows at 118,000 images
NONE = float("nan")  # stands for the sd and quantiles of the baseline, which is not drawn but exact over all pairs


class Monosemanticity(NamedTuple):
    """Monosemanticity of every concept of one SAE; see `monosemanticity`."""

    score: np.ndarray  # [C] float64, in [-1, 1]; NaN where the concept fires on fewer than 2 images
    images: np.ndarray  # [C] int64, images on which the concept fires
    baseline: float  # mean cosine over all pairs of images; NaN with fewer than 2 images


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The tables of this statistic, over the counted images: the model's own embeddings, and another model's."""
    entry, net = analysis.sae
    concepts, nulls = of_sae(con, keys_of(entry), analysis.counted, net.config.width, analysis.judging)
    return {"concept_monosemanticity": concepts, "null_summaries": nulls}


def of_sae(
    con: duckdb.DuckDBPyConnection, keys: Keys, rows: Rows, width: int, judging: Rows | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The scores of `concepts` for one SAE, and their nulls: the mean cosine over all pairs of images.

    rows: the counted items of the SAE's model. judging: those of an independent model, whose embeddings of the images
    that both models embedded give the column monosemanticity_independent; NULL without them.
    """
    columns: Keys = {**keys, "concept_id": np.arange(width), "monosemanticity_independent": np.full(width, np.nan)}
    nulls = []
    for name, of in (("monosemanticity", rows), ("monosemanticity_independent", judging)):
        if of is None:
            continue
        both = np.flatnonzero(np.isin(of.image_id, rows.image_id))
        order = both[np.argsort(of.image_id[both], kind="stable")]
        mono = monosemanticity(codes_of(con, "image", of.image_id[order]), of.image[order], width)
        columns[name] = mono.score
        nulls.append(null_row(keys, name, "random_pairs", Null(mono.baseline, NONE, NONE, NONE, 0)))
    return table({name: columns[name] for name in CONCEPTS}, CONCEPTS), table_of_rows(nulls, NULL_SUMMARIES)


def monosemanticity(codes: Codes, image: np.ndarray, width: int) -> Monosemanticity:
    """For each concept: mean cosine over all pairs of images, weighted by the product of their two activations.

    score = (|sum_j a_j u_j|^2 - sum_j a_j^2) / ((sum_j a_j)^2 - sum_j a_j^2), where a_j is the activation on image j
    and u_j the unit embedding of image j. baseline = (|sum_j u_j|^2 - n) / (n (n - 1)), exact over all pairs. Both are
    computed in float64. codes: the codes of n images. image [n, d]: the embeddings of these images, of any norm above
    0, from the model itself or from another encoder. Raises ValueError where the numbers of embeddings and codes
    differ, an activation is not finite, or an embedding is 0 or not finite.
    Source: docs/definitions.md, "Monosemanticity", after arXiv 2504.02821.
    """
    indptr, concepts, values = codes
    u = np.asarray(image)
    if u.ndim != 2 or len(u) != len(indptr) - 1 or indptr[-1] != len(concepts) or len(concepts) != len(values):
        raise ValueError(f"embeddings of shape {u.shape} and codes of {len(indptr) - 1} images; one row each is needed")
    if len(concepts) and not (concepts.min() >= 0 and concepts.max() < width):
        raise ValueError(f"a concept lies outside 0..{width - 1}")
    a = np.asarray(values, np.float64)
    if not np.isfinite(a).all():
        raise ValueError("an activation is NaN or infinite")
    norm = np.sqrt(np.einsum("nd,nd->n", u, u, dtype=np.float64))
    if not ((norm > 0) & np.isfinite(norm)).all():
        raise ValueError(f"embedding {int(np.argmax(~((norm > 0) & np.isfinite(norm))))} is 0, NaN or infinite")
    # Activations are divided by the norms, so that no normalised copy of the rows is needed.
    rows = np.repeat(np.arange(len(u)), np.diff(indptr))
    weights = csr_array((a / norm[rows], concepts, indptr), shape=(len(u), width)).T.tocsr()
    squared_sum, total = np.zeros(width), 0.0
    for start in range(0, u.shape[1], COLUMNS):
        part = u[:, start : start + COLUMNS].astype(np.float64)
        squared_sum += ((weights @ part) ** 2).sum(1)
        total += float(((part.T @ (1 / norm)) ** 2).sum())
    own = np.bincount(concepts, a**2, minlength=width)
    pairs = np.bincount(concepts, a, minlength=width) ** 2 - own
    images = np.bincount(concepts, minlength=width)
    score = np.full(width, np.nan)
    np.divide(squared_sum - own, pairs, out=score, where=(images >= 2) & (pairs > 0))
    n = len(u)
    return Monosemanticity(score, images, (total - n) / (n * (n - 1)) if n > 1 else float("nan"))


STATISTIC = Statistic(
    name="monosemanticity",
    version="2",
    tables={},
    inner={"concept_monosemanticity": CONCEPTS},
    adds=("null_summaries",),
    make=make,
)
