"""The concepts that fire together with a concept, by the correlation of their codes. Reads and writes no files."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csc_array

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
NEAREST, BLOCK = 5, 256  # concepts per concept; concepts that are correlated with all others at a time


def together_of(item: Ints, concept: Ints, activation: Floats, width: int) -> list[list[tuple[int, float]]]:
    """For each of `width` concepts, at most NEAREST (other concept, correlation), the largest correlation first.

    item, concept, activation: one entry per firing, [firings]. The Pearson correlation of two codes runs over the items
    that occur in `item`; only correlations above 0 count. A concept that never fires, or always alike, has none.
    """
    rows, n = np.unique(item, return_inverse=True)[1], len(np.unique(item))
    codes = csc_array((activation.astype(np.float64), (rows, concept)), shape=(n, width))
    if n < 2:
        return [[] for _ in range(width)]
    mean = np.asarray(codes.sum(axis=0)) / n
    spread = np.sqrt(np.maximum(np.asarray(codes.multiply(codes).sum(axis=0)) / n - mean**2, 0))
    found: list[list[tuple[int, float]]] = []
    for start in range(0, width, BLOCK):
        own = slice(start, min(start + BLOCK, width))
        joint = (codes[:, own].T @ codes).toarray() / n - np.outer(mean[own], mean)
        scale = np.outer(spread[own], spread)
        correlation = np.divide(joint, scale, out=np.zeros_like(joint), where=scale > 1e-12)
        for row, values in enumerate(correlation):
            values[start + row] = 0
            best = np.argsort(-values, kind="stable")[:NEAREST]
            found.append([(int(j), float(f"{values[j]:.4g}")) for j in best if values[j] > 0])
    return found
