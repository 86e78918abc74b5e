"""The map of a dictionary: UMAP of its concepts into the plane. Knows nothing of files."""

from __future__ import annotations

from typing import Any

import numpy as np

NDArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
NEIGHBOURS, MIN_DISTANCE, SEED = 15, 0.1, 0  # UMAP's own defaults, and its random_state
FEWEST = 4  # concepts that UMAP's spectral start can place: with fewer there is nothing to lay out


def concept_map(dictionary: NDArray) -> NDArray:
    """Places of C concepts in the plane from their directions [C, d]: float64 [C, 2] in [-1, 1], aspect kept.

    UMAP (McInnes, Healy and Melville 2018, arXiv 1802.03426) with cosine distances, one thread and a fixed seed: equal
    dictionaries give equal places. Distances on the map mean nothing beyond who is near whom. Fewer than four concepts
    are put on a line, in their order.
    """
    count = len(dictionary)
    if count < FEWEST:
        return np.stack([np.linspace(-1, 1, count) if count > 1 else np.zeros(count), np.zeros(count)], axis=1)
    import umap
    from threadpoolctl import threadpool_limits

    reducer = umap.UMAP(
        n_neighbors=min(NEIGHBOURS, count - 1), min_dist=MIN_DISTANCE, metric="cosine", random_state=SEED, n_jobs=1
    )
    with threadpool_limits(1):
        places = np.asarray(reducer.fit_transform(np.asarray(dictionary, np.float32)), np.float64)
    return in_square(places)


def in_square(places: NDArray) -> NDArray:
    """Places [C, 2] moved and scaled into [-1, 1] x [-1, 1], both axes alike. All in one place: the middle."""
    low, high = places.min(axis=0), places.max(axis=0)
    half = (high - low).max() / 2
    moved = places - (low + high) / 2
    return moved / half if half > 0 else moved
