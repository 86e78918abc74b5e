"""What the similarity of matched pairs is made of: bridges, and what the decoder bias adds."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from sae.concepts.coactivation import Codes, Pairs

BLOCK = 4096  # pairs decoded at a time


class Biases(NamedTuple):
    """What is added to decoded codes; the same of both modalities but where each was centred on its own mean."""

    image: np.ndarray  # [d] float64
    text: np.ndarray  # [d] float64


def matched_similarity(pairs: Pairs, D: np.ndarray, biases: Biases) -> dict[str, float]:
    """The terms of E_P <x_hat_I, x_hat_T> over the pairs, x_hat = z D + b, D [C, d] float64.

    bridges = <z_I D, z_T D> on average, the sum of all raw bridges; text_on_bias = <b, E_P z_T D>; image_on_bias =
    <E_P z_I D, b>; bias = <b, b>; matched = E_P <x_hat_I, x_hat_T>, from the decoded rows; shuffled = <E_P x_hat_I,
    E_P x_hat_T>, what pairs drawn at random would have. The first four add up to matched; matched less shuffled is the
    sum of all covariance bridges. Source: DEFINITIONS "Bridge Score", identities.
    """
    mean_I, mean_T = pairs.moments_image.mean @ D, pairs.moments_text.mean @ D
    raw = matched = 0.0
    for start in range(0, len(pairs.pair_image), BLOCK):
        rows_I = _decoded(pairs.image, pairs.pair_image[start : start + BLOCK], D)
        rows_T = _decoded(pairs.text, pairs.pair_text[start : start + BLOCK], D)
        raw += float(np.einsum("pd,pd->", rows_I, rows_T))
        matched += float(np.einsum("pd,pd->", rows_I + biases.image, rows_T + biases.text))
    count = len(pairs.pair_image)
    return {
        "bridges": raw / count,
        "text_on_bias": float(biases.image @ mean_T),
        "image_on_bias": float(mean_I @ biases.text),
        "bias": float(biases.image @ biases.text),
        "matched": matched / count,
        "shuffled": float((mean_I + biases.image) @ (mean_T + biases.text)),
    }


def _decoded(codes: Codes, rows: np.ndarray, D: np.ndarray) -> np.ndarray:
    """z D of the named rows, [N, d] float64."""
    whole = csr_array((codes.values, codes.concepts, codes.indptr), shape=(len(codes.indptr) - 1, len(D)))
    return whole[rows].astype(np.float64) @ D
