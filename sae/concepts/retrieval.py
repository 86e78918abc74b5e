"""Recall at K between images and captions, the measure of what concepts do for retrieval.

Scores are computed in blocks of rows; the full matrix is never held.
"""

from collections.abc import Sequence

import numpy as np

BLOCK = 1024


def recall(
    image: np.ndarray, text: np.ndarray, owner: np.ndarray, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, dict[int, float]]:
    """Share of queries whose own item is among the K nearest by cosine, both directions.

    image: [n, d], text: [m, d], any norm, normalised here in float32. owner: [m] row of the image a caption belongs to.
    Image to text counts a hit when any own caption is in the top K, over the images that have a caption.
    Ties count against the query: every foreign item with the same score ranks before the own one, so that
    embeddings that collapsed to one point score 0, not 1. NaN where there is no query.
    Returns {"image_to_text": {K: recall}, "text_to_image": {K: recall}}. Raises ValueError on unusable input.
    """
    owner = np.asarray(owner, np.int64)
    image, text = _unit(image, "image"), _unit(text, "text")
    if owner.shape != (len(text),) or (len(owner) and not (owner.min() >= 0 and owner.max() < len(image))):
        raise ValueError(f"owner must name one of {len(image)} image rows for each of {len(text)} captions")
    ranks = {"image_to_text": _image_ranks(image, text, owner), "text_to_image": _text_ranks(image, text, owner)}
    return {
        direction: {k: float((rank < k).mean()) if len(rank) else float("nan") for k in ks}
        for direction, rank in ranks.items()
    }


def _image_ranks(image: np.ndarray, text: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """[images with a caption]: foreign captions that score at least as high as the best own one."""
    ranks = []
    order = np.argsort(owner, kind="stable")
    sorted_owner = owner[order]
    for start in range(0, len(image), BLOCK):
        scores = image[start : start + BLOCK] @ text.T
        first, last = np.searchsorted(sorted_owner, [start, start + len(scores)])
        own, rows = order[first:last], sorted_owner[first:last] - start
        best = np.full(len(scores), -np.inf, np.float32)
        np.maximum.at(best, rows, scores[rows, own])
        scores[rows, own] = -np.inf
        asked = np.isfinite(best)
        ranks.append((scores[asked] >= best[asked, None]).sum(1))
    return np.concatenate(ranks) if ranks else np.empty(0, np.int64)


def _text_ranks(image: np.ndarray, text: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """[captions]: other images that score at least as high as the own one."""
    ranks = []
    for start in range(0, len(text), BLOCK):
        scores = text[start : start + BLOCK] @ image.T
        rows, own = np.arange(len(scores)), owner[start : start + BLOCK]
        ranks.append((scores >= scores[rows, own][:, None]).sum(1) - 1)
    return np.concatenate(ranks) if ranks else np.empty(0, np.int64)


def _unit(rows: np.ndarray, name: str) -> np.ndarray:
    rows = np.asarray(rows, np.float32)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"{name} must be finite rows [n, d]; it has shape {rows.shape}")
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
