"""Monosemanticity: whether the images on which a concept fires look alike to an encoder.

Sparse throughout: the n x n matrix of similarities is never formed.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from sae.concepts.coactivation import Codes

COLUMNS = 64  # dimensions at a time: 60 MB of float64 rows at 118,000 images


class Monosemanticity(NamedTuple):
    """See `monosemanticity`."""

    score: np.ndarray  # [C] float64, in [-1, 1]; NaN where fewer than 2 images fire
    images: np.ndarray  # [C] int64, images on which the concept fires
    baseline: float  # mean cosine of random image pairs, all of them; NaN under 2 images


def monosemanticity(codes: Codes, image: np.ndarray, width: int) -> Monosemanticity:
    """Mean cosine of two images of a concept, weighted by the product of their activations, for every concept.

    (|sum_j a_j u_j|^2 - sum_j a_j^2) / ((sum_j a_j)^2 - sum_j a_j^2), a_j the activation on image j, u_j its unit
    embedding, in float64. codes: of n images. image [n, d]: their embeddings, of any norm above 0, by the model itself
    or by another encoder. baseline = (|sum_j u_j|^2 - n) / (n (n - 1)): over all pairs, nothing is drawn.
    Raises ValueError where rows and codes do not fit, an activation is not finite, or an embedding is 0 or not finite.
    Source: DEFINITIONS "monosemanticity", after arXiv 2504.02821.
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
    # Norms are folded into the activations, so that the rows need no copy of unit norm.
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
