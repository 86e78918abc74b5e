"""Modality of the concepts' directions: alignment with the modality subspaces, accuracy as classifiers, and nulls.

These results depend on the dictionary and the embeddings, not on activations. The modality of a concept's activations
(energies, scores, AUC) is computed in SQL.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import duckdb
import numba
import numpy as np
import polars as pl
from scipy.stats import beta

from analysis.inputs import Analysis, Keys, keys_of
from analysis.statistic import Statistic, Table
from analysis.subspaces import Modalities, Subspace, alignment, both_sides, check, fitted_subspaces
from analysis.tables import NULL_SUMMARIES, SAE_KEYS, Null, Schema, empty, null_row, table, table_of_rows
from sae import SAE

CONCEPT_GEOMETRY: Schema = {
    **SAE_KEYS, "concept_id": pl.Int32, "direction_accuracy": pl.Float64, "align_mean_gap": pl.Float64,
    "align_logistic": pl.Float64, "align_lda": pl.Float64, "align_inlp": pl.Float64,
}  # fmt: skip
DRAWS = 1000  # directions per null
BLOCK = 256  # directions per block: 80 MB of float32 projections at 20,000 rows per modality and split
MODALITY = 2  # spawn key of this module's random stream; each module has a different key


class Accuracy(NamedTuple):
    """Accuracy of each direction D_i as a classifier of modality; see `direction_accuracy`.

    A row x is classified as an image if orientation * (<x, D_i> - threshold) > 0.
    """

    heldout: np.ndarray  # [C] float64, balanced accuracy on held-out rows
    train: np.ndarray  # [C] float64, balanced accuracy on training rows, at the best threshold; at least .5
    orientation: np.ndarray  # [C] int8, s: 1 where images lie above the threshold, -1 where captions do
    threshold: np.ndarray  # [C] float64, t: midway between two projections; -inf where no threshold is better than .5


class Concepts(NamedTuple):
    """Modality of every concept of one SAE; see `modality`."""

    alignment: dict[str, np.ndarray]  # subspace name -> [C] float64
    accuracy: Accuracy  # of arrays [C]
    nulls: list[tuple[str, str, Null]]  # name of the statistic, name of the null, summary of the null


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The two tables of this statistic. Both are empty where no subspace of the model could be fitted."""
    entry, net = analysis.sae
    fitted = fitted_subspaces(con, net.config.dim)
    if not fitted:
        return {"concept_geometry": empty(CONCEPT_GEOMETRY), "null_summaries": empty(NULL_SUMMARIES)}
    concepts, nulls = of_sae(keys_of(entry), net, fitted, *both_sides(analysis))
    return {"concept_geometry": concepts, "null_summaries": nulls}


def of_sae(
    keys: Keys, net: SAE, fitted: dict[str, Subspace], train: Modalities, heldout: Modalities
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The columns that this statistic gives to `concepts`, for one SAE, and the nulls of these columns.

    The SAE's seed is also the seed of the draws.
    """
    concepts = modality(net.dictionary.numpy(), fitted, train, heldout, keys["seed"] or 0)
    columns: dict[str, Any] = {**keys, "concept_id": np.arange(net.config.width)}
    columns |= {f"align_{name}": values for name, values in concepts.alignment.items()}
    columns["direction_accuracy"] = concepts.accuracy.heldout
    nulls = [null_row(keys, *null) for null in concepts.nulls]
    return table(columns, CONCEPT_GEOMETRY), table_of_rows(nulls, NULL_SUMMARIES)


def modality(
    D: np.ndarray, subspaces: dict[str, Subspace], train: Modalities, heldout: Modalities, seed: int
) -> Concepts:
    """For each unit row of D [C, d]: alignment with every subspace, accuracy as a classifier of modality, and nulls.

    The statistics are direction_accuracy and, for each subspace with basis U, align_<subspace>. `nulls` holds two nulls
    of each statistic, in which a random direction v replaces a concept: in floor_random, v is uniform on the sphere; in
    floor_matched, v has the mean and covariance of D's rows. The null of an alignment is the distribution of |U v|.
    Each null is computed from DRAWS directions v, except floor_random of an alignment, which has a closed form.
    Raises ValueError where widths differ or D has a row that is not of unit norm.
    """
    D = _unit_rows(D, train.image.shape[1])
    matched = matched_directions(D, DRAWS, seed)
    drawn = {"floor_random": random_directions(D.shape[1], DRAWS, seed), "floor_matched": matched}
    nulls = []
    for name, subspace in subspaces.items():
        nulls.append((f"align_{name}", "floor_random", alignment_null(subspace.rank, D.shape[1])))
        nulls.append((f"align_{name}", "floor_matched", summary(np.abs(alignment(subspace, matched)))))
    accuracy = direction_accuracy(np.concatenate([D, *drawn.values()]), train, heldout)
    for i, null in enumerate(drawn):
        start = len(D) + i * DRAWS
        nulls.append(("direction_accuracy", null, summary(accuracy.heldout[start : start + DRAWS])))
    alignments = {name: alignment(subspace, D) for name, subspace in subspaces.items()}
    return Concepts(alignments, Accuracy(*(part[: len(D)] for part in accuracy)), nulls)


def direction_accuracy(directions: np.ndarray, train: Modalities, heldout: Modalities) -> Accuracy:
    """Balanced accuracy of each row v of directions [C, d] as a classifier of modality.

    A row x is classified as an image if s (<x, v> - t) > 0. The orientation s (1 or -1) and the threshold t maximise
    the balanced accuracy on the training rows, exactly over all thresholds. The maximum is .5 + KS / 2, where KS is the
    Kolmogorov-Smirnov distance between the projections of the two modalities. If several thresholds are equally good,
    the lowest is taken. Projections are float32. Raises ValueError where widths differ or a number is not finite.
    """
    check(train, "training rows")
    check(heldout, "held-out rows")
    v = np.ascontiguousarray(directions, np.float32)
    if v.ndim != 2 or {v.shape[1]} != {x.shape[1] for x in (*train, *heldout)}:
        raise ValueError(f"directions of shape {v.shape} do not fit rows of width {train.image.shape[1]}")
    workers = os.cpu_count() or 1
    parts = []
    # A matrix product uses all cores. The compiled functions use one core and release the GIL, so the directions are
    # divided among threads.
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(v), BLOCK):
            products = [v[start : start + BLOCK] @ x.T for x in (*train, *heldout)]
            shares = zip(*(np.array_split(product, workers) for product in products), strict=True)
            parts += list(pool.map(_classified, shares))
    return Accuracy(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _classified(projections: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]) -> Accuracy:
    """Accuracy of B directions.

    projections: four arrays [B, n], of training images, training captions, held-out images and held-out captions, each
    with its number of rows n.
    """
    images, texts, *heldout = projections
    for part in (images, texts):
        part.sort(axis=1)
        # Sorting moves NaN to the end. `_best_thresholds_` would not terminate on NaN, which does not equal itself.
        if not np.isfinite(part[:, [0, -1]]).all():
            raise ValueError("a direction holds NaN or infinity")
    gap, threshold = np.empty(len(images), np.int64), np.empty(len(images))
    _best_thresholds_(images, texts, gap, threshold)
    orientation = np.where(gap < 0, -1, 1).astype(np.int8)
    image_share, text_share = (_share_called_image(part, orientation, threshold) for part in heldout)
    best = 0.5 + np.abs(gap) / (2 * images.shape[1] * texts.shape[1])
    return Accuracy((image_share + 1 - text_share) / 2, best, orientation, threshold)


def alignment_null(rank: int, dim: int) -> Null:
    """The null of |U v| in closed form, where v is a random unit vector in d = `dim` dimensions.

    U has r = `rank` orthonormal rows. |U v|^2 ~ Beta(r/2, (d-r)/2), and the mean of |U v| is
    G((r+1)/2) G(d/2) / (G(r/2) G((d+1)/2)), where G is the gamma function. Raises ValueError unless 0 <= rank <= dim.
    """
    if not 0 <= rank <= dim or dim < 1:
        raise ValueError(f"a subspace of rank {rank} in {dim} dimensions; 0 to {dim} is possible")
    if rank in (0, dim):  # the subspace holds no part of v, or all of v
        length = float(rank == dim)
        return Null(length, 0.0, length, length, 0)
    G = math.lgamma
    mean = math.exp(G((rank + 1) / 2) + G(dim / 2) - G(rank / 2) - G((dim + 1) / 2))
    low, high = np.sqrt(beta.ppf([0.025, 0.975], rank / 2, (dim - rank) / 2))
    return Null(mean, math.sqrt(max(rank / dim - mean**2, 0.0)), float(low), float(high), 0)


def summary(values: np.ndarray) -> Null:
    """Mean, standard deviation (divisor draws - 1) and 95 % range of drawn values [draws]; draws must be at least 2."""
    low, high = np.quantile(values, [0.025, 0.975])
    return Null(float(values.mean()), float(values.std(ddof=1)), float(low), float(high), len(values))


def random_directions(dim: int, draws: int, seed: int) -> np.ndarray:
    """Unit vectors [draws, dim] float64, uniform on the sphere."""
    return _normalised(_random(seed, 0).standard_normal((draws, dim)))


def matched_directions(D: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Normalised rows [draws, d] float64 of a Gaussian with the mean and covariance of the rows of D [C, d]."""
    D = np.asarray(D, np.float64)
    values, vectors = np.linalg.eigh(np.cov(D.T, bias=True).reshape(D.shape[1], D.shape[1]))
    # eigh, not Cholesky: the covariance is singular when there are fewer concepts than dimensions.
    scaled = _random(seed, 1).standard_normal((draws, D.shape[1])) * np.sqrt(values.clip(0))
    return _normalised(D.mean(0) + scaled @ vectors.T)


@numba.njit(cache=True, nogil=True)
def _best_thresholds_(images: np.ndarray, texts: np.ndarray, gap: np.ndarray, threshold: np.ndarray) -> None:
    """Find the best threshold of each of B directions by a merge of its projections of images and of captions.

    images [B, n_I], texts [B, n_T]: the projections, ascending in each row. The best threshold t maximises |gap(t)|,
    where gap(t) = n_I * (captions below t) - n_T * (images below t) is an exact integer. Fills gap [B] int64 with
    gap(t), whose sign is the orientation, and threshold [B] with t, or with -inf where gap(t) is 0.
    """
    for row in range(len(images)):
        x, y = images[row], texts[row]
        i = j = 0
        best, best_threshold = 0, -np.inf
        while i < len(x) and j < len(y):
            value = min(x[i], y[j])
            while i < len(x) and x[i] == value:
                i += 1
            while j < len(y) and y[j] == value:
                j += 1
            difference = len(x) * j - len(y) * i
            if abs(difference) > abs(best):
                following = x[i] if j == len(y) or (i < len(x) and x[i] < y[j]) else y[j]
                # In float64 the midpoint of two neighbouring float32 numbers differs from both.
                best, best_threshold = difference, (np.float64(value) + np.float64(following)) / 2
        gap[row], threshold[row] = best, best_threshold


@numba.njit(cache=True, nogil=True)
def _share_called_image(projections: np.ndarray, orientation: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Share [B] of the projections [B, n] that lie on the image side of their direction's threshold."""
    share = np.empty(len(projections))
    for row in range(len(projections)):
        called = 0
        for value in projections[row]:
            called += value > threshold[row] if orientation[row] > 0 else value < threshold[row]
        share[row] = called / projections.shape[1]
    return share


def _unit_rows(D: np.ndarray, dim: int) -> np.ndarray:
    D = np.asarray(D, np.float64)
    if D.ndim != 2 or D.shape[1] != dim:
        raise ValueError(f"a dictionary of shape {D.shape} does not fit rows of width {dim}")
    off = np.abs(np.linalg.norm(D, axis=1) - 1)
    if not (off < 1e-3).all():
        raise ValueError(f"row {int(np.argmax(~(off < 1e-3)))} of the dictionary is not of unit norm")
    return D


def _normalised(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _random(seed: int, null: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(MODALITY, null)))


STATISTIC = Statistic(
    name="geometry",
    version="1",
    needs=("geometry", "subspace_normals"),
    tables={},
    inner={"concept_geometry": CONCEPT_GEOMETRY},
    adds=("null_summaries",),
    make=make,
)
