"""AUC of sparse codes as classifiers of labels: exact, with ties, for all concepts and labels at once.

Only the items on which a concept fires are ranked; all others tie at 0. The sum of the ranks of a label's items, and
with it the AUC, then needs one addition for each firing and label of its item. `wins_of` is the reverse: the AUC of
dense scores as classifiers of the items on which a concept fires.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from analysis.coactivation import Codes
from analysis.label_kernels import count_wins_, rank_excess_, sum_by_label_

Ints = np.ndarray


class Labelled(NamedTuple):
    """The labels of n images, in compressed rows. Labels are numbered from 0."""

    start: Ints  # [n+1] int64: the labels of image r are labels[start[r]] .. labels[start[r+1]-1], without repeats
    labels: Ints  # int32
    total: int  # L, number of labels

    def positives(self, items: Ints, order: Ints) -> Ints:
        """Number of items [L] int64 that have each label. items [n]: number of items of each image.

        order [n]: the image whose labels each image takes.
        """
        taken = np.empty(len(order))
        taken[order] = items
        weight = np.repeat(taken, np.diff(self.start))
        return np.rint(np.bincount(self.labels, weight, minlength=self.total)).astype(np.int64)


class Ranked(NamedTuple):
    """The firings of C concepts on the items of n images, ranked within each concept and added up over an image."""

    start: Ints  # [C+1] int64
    images: Ints  # [nnz] int64: image of each entry
    excess: Ints  # [nnz] int64: see rank_excess_, summed over the items of the image
    silent: Ints  # [C] int64: number of items on which the concept does not fire
    items: Ints  # [n] int64: number of items of each image


def ranked(codes: Codes, image: Ints, images: int, concepts: Ints, width: int) -> Ranked:
    """Rank the firings of some concepts.

    codes: codes of the items, one row per item. image [items]: for each item, its image, from 0 to `images` - 1.
    concepts: the concepts to rank, ascending; the result has them in this order. Raises ValueError where the numbers of
    codes and of images differ.
    """
    items = len(codes.indptr) - 1
    if len(image) != items:
        raise ValueError(f"codes of {items} items and the images of {len(image)}")
    place = np.full(width, -1, np.int64)
    place[concepts] = np.arange(len(concepts))
    of = place[codes.concepts]
    kept = np.flatnonzero(of >= 0)
    kept = kept[np.argsort(of[kept], kind="stable")]
    firings = np.bincount(of[kept], minlength=len(concepts))
    start = np.concatenate([[0], np.cumsum(firings)]).astype(np.int64)
    excess = np.empty(len(kept), np.int64)
    rank_excess_(start, np.ascontiguousarray(codes.values[kept]), items, excess)
    item_image = np.asarray(image, np.int64)
    of_entry = np.repeat(item_image, np.diff(codes.indptr))[kept]
    summed = csr_array((excess, of_entry, start), shape=(len(concepts), images))
    summed.sum_duplicates()
    counts = np.bincount(item_image, minlength=images).astype(np.int64)
    rows = summed.indptr.astype(np.int64), summed.indices.astype(np.int64), summed.data
    return Ranked(*rows, items - firings, counts)


def label_auc(ranks: Ranked, labelled: Labelled, order: Ints | None = None) -> np.ndarray:
    """AUC [C, L] float64 of each concept's activation as a classifier of each label.

    It is (wins + ties / 2) / (positives * negatives) over all pairs of an item with the label and one without; NaN
    where a label has no positive or no negative items. order [n]: a permutation, image r takes the labels of image
    order[r].
    Source: docs/definitions.md, "Labels of concepts"; the rank sum is that of Mann and Whitney.
    """
    if order is None:
        order = np.arange(len(labelled.start) - 1)
    sums = np.zeros((len(ranks.start) - 1, labelled.total), np.int64)
    sum_by_label_(*ranks[:3], np.asarray(order, np.int64), labelled.start, labelled.labels, sums)
    positives = labelled.positives(ranks.items, order)
    negatives = int(ranks.items.sum()) - positives
    # Twice the rank sum is positives * (silent + 1) + sums, and 2 U = 2 R - positives * (positives + 1).
    twice_wins = sums + positives * (ranks.silent[:, None] - positives)
    possible = 2.0 * positives * negatives
    return np.divide(twice_wins, possible, out=np.full(sums.shape, np.nan), where=possible > 0)


class Wins(NamedTuple):
    """Twice the wins of N classifiers, by group of items: a win is a positive item above a negative one, a tie half.

    All arrays are int64 [N, G].
    """

    of_positives: Ints  # wins of the positives of a group over all negatives
    over_negatives: Ints  # wins of all positives over the negatives of a group
    within: Ints  # wins of the positives of a group over its negatives
    positives: Ints  # number of positives in each group
    negatives: Ints

    def auc(self) -> np.ndarray:
        """AUC [N] of all items; NaN without positives or without negatives."""
        return _auc(self.of_positives.sum(1), self.positives.sum(1), self.negatives.sum(1))

    def without(self, group: int) -> np.ndarray:
        """AUC [N] of the items outside a group."""
        lost = self.of_positives[:, group] + self.over_negatives[:, group] - self.within[:, group]
        left = (counts.sum(1) - counts[:, group] for counts in (self.positives, self.negatives))
        return _auc(self.of_positives.sum(1) - lost, *left)


def _auc(twice_wins: Ints, positives: Ints, negatives: Ints) -> np.ndarray:
    possible = 2.0 * positives * negatives
    return np.divide(twice_wins, possible, out=np.full(len(twice_wins), np.nan), where=possible > 0)


def wins_of(scores: np.ndarray, start: Ints, positive: Ints, groups: Ints, total: int) -> Wins:
    """Count the wins of N rows of scores of n items as classifiers of the positive items.

    scores [N, n] float32. start [N+1]: the positive items of row i are positive[start[i]] .. positive[start[i+1]-1].
    groups [n]: group of each item, below `total`; with a total of 1, all items are in one group.
    Source: docs/definitions.md, "Names of concepts".
    """
    groups = groups if total > 1 else np.zeros_like(groups)
    wins = np.zeros((3, len(scores), total), np.int64)
    count_wins_(np.ascontiguousarray(scores), start, positive, groups, *wins)
    row = np.repeat(np.arange(len(scores)), np.diff(start))
    of = groups[positive[start[0] : start[-1]]]
    positives = np.bincount(row * total + of, minlength=len(scores) * total).reshape(len(scores), total)
    return Wins(wins[0], wins[1], wins[2], positives, np.bincount(groups, minlength=total) - positives)
