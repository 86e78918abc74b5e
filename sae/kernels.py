"""Loops that numpy cannot express without huge temporaries, compiled by numba.

Plain arrays in, plain arrays out; callers check the input.
"""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def coactivate_(
    start: int,
    stop: int,
    concept_start: np.ndarray,
    concept_items: np.ndarray,
    concept_values: np.ndarray,
    pair_start: np.ndarray,
    pair_captions: np.ndarray,
    text_start: np.ndarray,
    text_concepts: np.ndarray,
    text_values: np.ndarray,
    sums: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Add to sums and counts what image concepts start..stop-1 share with every text concept, over the pairs.

    concept_start [C+1], concept_items [nnz], concept_values [nnz]: image codes by concept. pair_start [n_I+1],
    pair_captions [P]: the captions of each image. text_start [n_T+1], text_concepts, text_values: text codes.
    sums [stop-start, C] float64: sum of z_i z_j. counts [stop-start, C] int64: pairs on which both fire.
    A float32 accumulator is off by 2.7e-5 at 600,000 pairs, so each row of sums is float64.
    """
    for i in range(start, stop):
        row_sums = sums[i - start]
        row_counts = counts[i - start]
        for q in range(concept_start[i], concept_start[i + 1]):
            item = concept_items[q]
            value = np.float64(concept_values[q])
            for p in range(pair_start[item], pair_start[item + 1]):
                caption = pair_captions[p]
                for s in range(text_start[caption], text_start[caption + 1]):
                    concept = text_concepts[s]
                    row_sums[concept] += value * text_values[s]
                    row_counts[concept] += 1
