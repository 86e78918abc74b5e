"""Compute places in the plane for the items of a study: images and captions on one map. Reads and writes no files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from report.explorer.layout import FEWEST, MIN_DISTANCE, NEIGHBOURS, SEED, in_square, principal

NDArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
FITTED = 20_000  # most items that UMAP is fitted on: on one core it takes about a minute for these
ANCHORS = 5  # fitted items from whose places that of another item is interpolated
BATCH = 2048  # items placed at a time: their similarities to the fitted items take 160 MB
TINY = 1e-6  # added to distances, which may be 0


class Placed(NamedTuple):
    """The places of N items."""

    places: NDArray  #: float64 [N, 2] in [-1, 1], both axes on one scale
    layout: str  #: "umap", "umap-sample" (UMAP of a sample, the other items interpolated) or "pca"
    fitted: int  #: number of items that the layout was fitted on


def place_embeddings(image: NDArray, text: NDArray, most: int = FITTED) -> Placed:
    """Places of n images and m captions by their embeddings [n, d] and [m, d]: the images first.

    The mean of each modality is subtracted and the rows are normalised again. Without this, the modality gap would put
    all images on one side and all captions on the other. What still separates the modalities on the map is not the
    difference of their means. `most`: as in `place`.
    """
    parts = [np.asarray(rows, np.float32) - np.asarray(rows, np.float64).mean(0) for rows in (image, text) if len(rows)]
    rows = np.concatenate(parts).astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return place(rows, most)


def place_codes(codes: sparse.csr_matrix, most: int = FITTED) -> Placed:
    """Places of N items by their codes [N, C], as they are: items that use the same concepts are neighbours."""
    lengths = np.sqrt(np.asarray(codes.multiply(codes).sum(axis=1), np.float64)).ravel()
    return place((sparse.diags(1 / np.where(lengths > 0, lengths, 1)) @ codes).tocsr().astype(np.float32), most)


def place(rows: Any, most: int = FITTED) -> Placed:
    """Places of N unit rows [N, d], a NumPy array or a sparse matrix in CSR form.

    UMAP with cosine distances, one thread and a fixed seed, of all items up to `most`. Of more items, UMAP is fitted on
    a random sample of `most`, and each other item is placed at the mean of its five nearest fitted items, weighted by
    the inverse of their distances. Fewer than 64 items are projected onto their first two principal axes.
    """
    count = rows.shape[0]
    if count < FEWEST:
        dense = rows.toarray() if sparse.issparse(rows) else rows
        return Placed(in_square(principal(dense)), "pca", count)
    if count <= most:
        return Placed(in_square(_umap(rows)), "umap", count)
    chosen = np.sort(np.random.default_rng(SEED).choice(count, most, replace=False))
    anchors = _umap(rows[chosen])
    places = np.empty((count, 2))
    places[chosen] = anchors
    others = np.setdiff1d(np.arange(count), chosen, assume_unique=True)
    similar = _similarities(rows, rows[chosen])
    for start in range(0, len(others), BATCH):
        part = others[start : start + BATCH]
        places[part] = interpolated(similar(part), anchors)
    return Placed(in_square(places), "umap-sample", most)


def interpolated(similarity: NDArray, anchors: NDArray) -> NDArray:
    """Places [b, 2] of b items with these cosines [b, a] to a placed items [a, 2]."""
    count = min(ANCHORS, similarity.shape[1])
    nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    cosine = np.take_along_axis(similarity, nearest, axis=1).astype(np.float64)
    weight = 1 / (np.maximum(1 - cosine, 0) + TINY)
    return np.asarray((anchors[nearest] * weight[..., None]).sum(1) / weight.sum(1, keepdims=True))


def _similarities(rows: Any, anchors: Any) -> Callable[[Any], NDArray]:
    """A function that returns the cosines of some rows, given by number, to all anchors."""
    if sparse.issparse(rows):
        turned = anchors.T.tocsr()
        return lambda part: np.asarray((rows[part] @ turned).toarray())
    return lambda part: np.asarray(rows[part] @ anchors.T)


def _umap(rows: Any) -> NDArray:
    import umap
    from threadpoolctl import threadpool_limits

    reducer = umap.UMAP(n_neighbors=NEIGHBOURS, min_dist=MIN_DISTANCE, metric="cosine", random_state=SEED, n_jobs=1)
    with threadpool_limits(1):
        places = np.asarray(reducer.fit_transform(rows), np.float64)
    return np.nan_to_num(places)  # UMAP gives an item without neighbours, such as one without codes, no place
