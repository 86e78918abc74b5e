"""Compute positions in the plane for the concepts of a dictionary. The module reads and writes no files."""

from __future__ import annotations

from typing import Any

import numpy as np

NDArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
NEIGHBOURS, MIN_DISTANCE, SEED = 15, 0.1, 0  # UMAP's default n_neighbors and min_dist, and its random_state
FEWEST = 64  # lowest number of concepts for UMAP: among fewer, 15 neighbours are no longer local


def method_of(count: int) -> str:
    """The method that lays out a dictionary of `count` concepts: "umap" or "pca"."""
    return "umap" if count >= FEWEST else "pca"


def concept_map(dictionary: NDArray) -> NDArray:
    """Points in the plane for C concepts with directions [C, d]: float64 [C, 2] in [-1, 1], both axes on one scale.

    UMAP (McInnes, Healy and Melville 2018, arXiv 1802.03426) with cosine distances, one thread and a fixed seed: equal
    dictionaries give equal points. Neighbours on the map are meaningful; distances are not. Dictionaries of
    fewer than 64 concepts are projected onto their first two principal axes instead.
    """
    directions = np.asarray(dictionary, np.float32)
    if method_of(len(directions)) == "pca":
        return in_square(principal(directions))
    import umap
    from threadpoolctl import threadpool_limits

    reducer = umap.UMAP(n_neighbors=NEIGHBOURS, min_dist=MIN_DISTANCE, metric="cosine", random_state=SEED, n_jobs=1)
    with threadpool_limits(1):
        return in_square(np.asarray(reducer.fit_transform(directions), np.float64))


def principal(directions: NDArray) -> NDArray:
    """Coordinates [C, 2] of C directions on their first two principal axes.

    The sign of each axis is chosen such that the coordinate farthest from 0 is positive.
    """
    centred = np.asarray(directions, np.float64) - directions.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(directions), 2))
    coordinates = (left * lengths)[:, :2]
    places[:, : coordinates.shape[1]] = coordinates
    farthest = places[np.abs(places).argmax(axis=0), [0, 1]]
    return places * np.where(farthest < 0, -1.0, 1.0)


def in_square(places: NDArray) -> NDArray:
    """Places [C, 2], moved and scaled into [-1, 1] x [-1, 1], both axes by the same factor. Equal places become 0."""
    low, high = places.min(axis=0), places.max(axis=0)
    half = (high - low).max() / 2
    moved = places - (low + high) / 2
    return moved / half if half > 0 else moved
