"""Loops over sparse codes and labels, compiled by numba.

The functions read and fill plain arrays; callers check the input.
"""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def rank_excess_(start: np.ndarray, values: np.ndarray, items: int, excess: np.ndarray) -> None:
    """Fill excess [nnz] int64: twice the midrank of each firing less twice the midrank of an item that does not fire.

    start [C+1], values [nnz]: the activations of each concept among `items` items, sorted by concept. Equal activations
    share the mean of their ranks (midrank), and so do all items on which the concept does not fire. Twice a midrank is
    an integer, so that all sums of it are exact.
    """
    for concept in range(len(start) - 1):
        first, stop = start[concept], start[concept + 1]
        order = np.argsort(values[first:stop])
        silent = items - (stop - first)
        a = 0
        while a < len(order):
            b = a + 1
            while b < len(order) and values[first + order[b]] == values[first + order[a]]:
                b += 1
            for q in range(a, b):
                excess[first + order[q]] = silent + a + b
            a = b


@numba.njit(cache=True, nogil=True)
def sum_by_label_(
    start: np.ndarray,
    images: np.ndarray,
    excess: np.ndarray,
    order: np.ndarray,
    label_start: np.ndarray,
    labels: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Add up the excess of each concept over the images of every label.

    start [C+1], images [nnz], excess [nnz]: the images of each concept, sorted by concept. order [n]: the image whose
    labels each image takes. label_start [n+1], labels: the labels of every image. sums [C, L] int64: added to.
    """
    for concept in range(len(start) - 1):
        row = sums[concept]
        for q in range(start[concept], start[concept + 1]):
            image = order[images[q]]
            for p in range(label_start[image], label_start[image + 1]):
                row[labels[p]] += excess[q]
