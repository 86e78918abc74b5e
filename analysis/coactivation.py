"""Co-activation of image and text concepts over aligned pairs, and the scores of bridges, block by block.

Each thread computes one block of image concepts at a time, so the matrix of the scores of all concepts is never in
memory as a whole. Sums within a block and over blocks are added in a fixed order, so any number of threads gives equal
bytes.
"""

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from analysis.coactivation_kernels import by_item_, coactivate_, partners_, score_, summarize_
from analysis.workers import cores, in_order

CLASSES = ("image", "text", "bimodal", "silent")
KINDS = ("raw", "covariance")
BLOCK = 128  # image concepts per block, up to 8,192 concepts
CELLS = 2**20  # most cells per block: a float64 block takes 8 MB, and a thread holds four of them and its scores
KEPT = 2**27  # most cosines that are kept: 1 GB, of a dictionary of 11,585 concepts
ROUNDING = 1e-14  # a variance below this share of the squared mean is a rounding error, and counts as 0
Block = TypeVar("Block")
Result = TypeVar("Result")


class Codes(NamedTuple):
    """Sparse codes of n items, one row per item (CSR). Stored values are above 0, and each counts as a firing."""

    indptr: np.ndarray  # [n+1] int64: entries of item r are indptr[r] .. indptr[r+1]-1
    concepts: np.ndarray  # [nnz] int32
    values: np.ndarray  # [nnz] float32


class _Index(NamedTuple):
    """Image codes sorted by concept, pairs sorted by image, text codes sorted by caption, as the kernel reads them."""

    concept_start: np.ndarray
    concept_items: np.ndarray
    concept_values: np.ndarray
    pair_start: np.ndarray
    pair_captions: np.ndarray
    text: Codes


class Moments(NamedTuple):
    """Mean and deviation of every concept's code over the pairs, zeros included."""

    mean: np.ndarray  # [C] E_P[z]
    deviation: np.ndarray  # [C] standard deviation


class Scores(NamedTuple):
    """The bridges of one block of image concepts."""

    concepts: np.ndarray  # [N, 2] int32: image and text concept of each cell with enough pairs, in ascending order
    pairs: np.ndarray  # [N] int64
    cosine: np.ndarray  # [N] float64
    rows: np.ndarray  # [N, 4] float64: coactivation, bridge, covariance bridge, correlation bridge
    totals: np.ndarray  # [kind, self, sign, class of i, class of j]: sums over all cells (i, j) of the block


class Summary(NamedTuple):
    """What is kept of the bridges of some image concepts with all text concepts."""

    totals: np.ndarray  # [kind, self, sign, class of i, class of j], as in `Scores`
    top: (
        np.ndarray
    )  # [kind, n]: the highest scores of cells with enough pairs, in any order; -inf where there are fewer
    correlation: float  # the highest correlation bridge of these cells; -inf where there is none


def joined_summary(a: Summary, b: Summary) -> Summary:
    """The summary of the image concepts of both."""
    n = a.top.shape[1]
    both = np.concatenate([a.top, b.top], axis=1)
    top = np.partition(both, both.shape[1] - n, axis=1)[:, both.shape[1] - n :]
    return Summary(a.totals + b.totals, top, max(a.correlation, b.correlation))


class Similarity:
    """The cosines between all rows of a dictionary, computed once where they fit in memory."""

    def __init__(self, D: np.ndarray) -> None:
        """D: [C, d], unit rows. Of more than KEPT cosines, rows are computed when they are asked for."""
        self.D = np.asarray(D, np.float64)
        self.kept = self.D @ self.D.T if len(D) ** 2 <= KEPT else None

    def rows(self, concepts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cosines [N, C] with all concepts, and the row of each of the given concepts among them.

        concepts: ids, in an array of any shape, which is the shape of the second result.
        """
        if self.kept is not None:
            return self.kept, concepts
        return self.D[concepts.ravel()] @ self.D.T, np.arange(concepts.size).reshape(concepts.shape)


class PairedCodes:
    """The codes of the images and captions of pairs, checked and indexed once for all bridges and their nulls."""

    def __init__(self, image: Codes, text: Codes, pair_image: np.ndarray, pair_text: np.ndarray, width: int) -> None:
        """pair_image, pair_text [P]: for each pair, its row of `image` and its row of `text`. width: number of
        concepts.

        Raises ValueError where there are no pairs, or a row or a concept is out of range.
        """
        if len(pair_image) == 0:
            raise ValueError("no pairs: bridges are means over pairs")
        self.image, self.text, self.width = image, text, width
        self.pair_image, self.pair_text = np.asarray(pair_image, np.int64), np.asarray(pair_text, np.int64)
        self.index = _index(image, text, self.pair_image, self.pair_text, width)
        self.moments_image = moments(image, np.bincount(self.pair_image, minlength=len(image.indptr) - 1), width)
        self.moments_text = moments(text, np.bincount(self.pair_text, minlength=len(text.indptr) - 1), width)

    def with_images(self, image_of: np.ndarray) -> "PairedCodes":
        """The same pairs with image r replaced by image image_of[r].

        image_of: a permutation of all images. The moments of the image codes are those of the new pairs, since an image
        may take the place of one with more or fewer captions.
        """
        other = copy.copy(self)
        images = len(self.image.indptr) - 1
        other.pair_image = np.asarray(image_of, np.int64)[self.pair_image]
        start, captions = _captions_of(other.pair_image, self.pair_text, images)
        other.index = self.index._replace(pair_start=start, pair_captions=captions)
        other.moments_image = moments(self.image, np.bincount(other.pair_image, minlength=images), self.width)
        return other

    def scores(
        self,
        D: np.ndarray,
        orders: Sequence[np.ndarray | None],
        classes: list[str],
        min_pairs: int,
        of: Callable[[Scores], Result],
    ) -> Iterator[list[Result]]:
        """Yield one list per block of image concepts: of(scores) with the rows of D in each of the given orders.

        D: the dictionary [C, d] (float64, unit rows). orders: permutations [C] of its rows, or None for D itself. `of`
        is called in the thread that computed the scores, so that only its results are kept. A permuted dictionary is
        never in memory: its cosines are those of D, permuted.
        """  # fmt: skip
        code_of = np.array([CLASSES.index(name) for name in classes], np.int8)

        def of_block(start: int) -> list[Result]:
            rows = slice(start, min(start + block_rows(self.width), self.width))
            sums, counts = _coactivated(self.index, start, rows.stop, self.width)
            results = []
            for order in orders:
                cosine = D[rows] @ D.T if order is None else np.take(D[order[rows]] @ D.T, order, axis=1)
                results.append(of(self._scored(start, sums, counts, cosine, code_of, min_pairs)))
            return results

        yield from _in_order(of_block, self.width)

    def summaries(
        self, similarity: "Similarity", orders: Sequence[np.ndarray | None], classes: list[str], min_pairs: int, n: int
    ) -> list["Summary"]:
        """Totals and highest cells of all bridges, one summary per order of the rows of the dictionary.

        They are those of `scores`. orders: permutations [C] of the rows, or None for the dictionary itself. n: number
        of highest cells. One row of scores per thread is in memory.
        """  # fmt: skip
        of_orders = np.stack([np.arange(self.width) if order is None else order for order in orders]).astype(np.int64)
        together = len(of_orders) if similarity.kept is not None else 2
        return [
            summary
            for first in range(0, len(of_orders), together)
            for summary in self._summaries(similarity, of_orders[first : first + together], classes, min_pairs, n)
        ]

    def _summaries(
        self, similarity: "Similarity", orders: np.ndarray, classes: list[str], min_pairs: int, n: int
    ) -> list["Summary"]:
        code_of = np.array([CLASSES.index(name) for name in classes], np.int8)
        image, text = self.moments_image, self.moments_text
        moments_of = (image.mean, text.mean, image.deviation, text.deviation)

        def of_block(start: int) -> list[Summary]:
            stop = min(start + block_rows(self.width), self.width)
            totals = np.zeros((len(orders), len(KINDS), 2, 2, len(CLASSES), len(CLASSES)))
            top, correlation = np.full((len(orders), len(KINDS), n), -np.inf), np.full(len(orders), -np.inf)
            summarize_(
                *(start, stop, len(self.pair_image), *self.index[:-1], *self.index.text),
                *(*similarity.rows(orders[:, start:stop]), orders, *moments_of),
                *(code_of, max(min_pairs, 0), totals, top, correlation),
            )
            return [Summary(*each) for each in zip(totals, top, correlation, strict=True)]

        return functools.reduce(lambda a, b: list(map(joined_summary, a, b)), _in_order(of_block, self.width))

    def correlations(self) -> np.ndarray:
        """Pearson correlation [C, C] float32 of each two codes over the pairs; NaN where one of them is constant.

        Row i, column j: concept i of the first codes with concept j of the second.
        """
        correlations = np.empty((self.width, self.width), np.float32)

        def of_block(start: int) -> None:
            stop = min(start + block_rows(self.width), self.width)
            correlations[start:stop] = self._correlated(start, stop)

        list(_in_order(of_block, self.width))
        return correlations

    def correlation_rows(self, concepts: np.ndarray) -> np.ndarray:
        """The rows [N, C] float32 of `correlations` of some concepts [N], in their order."""
        found = np.empty((len(concepts), self.width), np.float32)

        def of_part(places: np.ndarray) -> None:
            for place in places:
                found[place] = self._correlated(concepts[place], concepts[place] + 1)

        list(in_order(of_part, np.array_split(np.arange(len(concepts)), cores()), cores()))
        return found

    def _correlated(self, start: int, stop: int) -> np.ndarray:
        """The rows start..stop-1 of `correlations`, in float64."""
        first, second = self.moments_image, self.moments_text
        sums, _ = _coactivated(self.index, start, stop, self.width)
        covariance = sums / len(self.pair_image) - np.outer(first.mean[start:stop], second.mean)
        deviations = np.outer(first.deviation[start:stop], second.deviation)
        deviations[deviations == 0] = np.nan
        return np.asarray(covariance / deviations)

    def best_correlations(self, chosen: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The largest and the second largest correlation [C] float64 of concepts of the first codes.

        They are those of the rows of `correlations`, found without most of its cells. NaN where there are none, and for
        concepts that are not chosen. chosen: ids of concepts, each once; all by default.
        """
        best, second = np.full(self.width, np.nan), np.full(self.width, np.nan)
        ids = np.arange(self.width) if chosen is None else np.asarray(chosen, np.int64)
        a, b = self.moments_image, self.moments_text
        moments_of = (a.mean, b.mean, a.deviation, b.deviation)
        codes = (*self.index[:-1], *self.index.text)

        def of_part(part: np.ndarray) -> None:
            partners_(part, len(self.pair_image), *codes, *moments_of, best, second)

        list(in_order(of_part, np.array_split(ids, 4 * cores()), cores()))
        return best, second

    def _scored(
        self, start: int, sums: np.ndarray, counts: np.ndarray, cosine: np.ndarray, code_of: np.ndarray, min_pairs: int
    ) -> Scores:
        enough = counts >= max(min_pairs, 0)
        cells = int(enough.sum())
        concepts, rows = np.empty((cells, 2), np.int32), np.empty((cells, 4))
        totals = np.zeros((len(KINDS), 2, 2, len(CLASSES), len(CLASSES)))
        pairs, image, text = len(self.pair_image), self.moments_image, self.moments_text
        score_(
            *(start, pairs, sums, counts, cosine, image.mean, text.mean, image.deviation, text.deviation),
            *(code_of, max(min_pairs, 0), concepts, rows, totals),
        )
        return Scores(concepts, counts[enough], cosine[enough], rows, totals)


def coactivation(
    image: Codes, text: Codes, pair_image: np.ndarray, pair_text: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Co-activation G [C, C] float64 of each two concepts i, j, and number of pairs [C, C] int64 on which both fire.

    G_ij is the mean over the pairs of z_i z_j, where z_i is the code of the pair's image and z_j of its caption.
    pair_image, pair_text [P]: for each pair, its row of `image` and its row of `text`; one image may be in several
    pairs. width: C. Raises ValueError where a row or a concept is out of range.
    """
    index = _index(image, text, pair_image, pair_text, width)
    G, pairs = np.zeros((width, width)), np.zeros((width, width), np.int64)

    def of_block(start: int) -> None:
        stop = min(start + block_rows(width), width)
        coactivate_(start, stop, *index[:-1], *index.text, G[start:stop], pairs[start:stop])

    list(_in_order(of_block, width))
    G /= max(len(pair_image), 1)
    return G, pairs


def codes_by_item(position: np.ndarray, concept: np.ndarray, value: np.ndarray, items: int) -> Codes:
    """Sort firings by item into codes of `items` rows.

    In the input, the concepts of one item must ascend; the items may be in any order. position [nnz] int64: the row of
    each firing, negative where the item is not counted.
    """
    counts = np.bincount(position[position >= 0], minlength=items)
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    concepts, values = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
    by_item_(position, concept, value, start, concepts, values)
    return Codes(start, concepts, values)


def block_rows(width: int) -> int:
    """Image concepts per block: BLOCK, or fewer where a block would have more than CELLS cells."""
    return max(1, min(BLOCK, CELLS // width))


def _in_order(of_block: Callable[[int], Block], width: int) -> Iterator[Block]:
    """Yield `of_block(start)` for every block of image concepts, in the order of the blocks, on one thread per core."""
    yield from in_order(of_block, range(0, width, block_rows(width)), cores())


def _coactivated(index: _Index, start: int, stop: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums and pair counts [stop - start, C] of one block."""
    sums, counts = np.zeros((stop - start, width)), np.zeros((stop - start, width), np.int64)
    coactivate_(start, stop, *index[:-1], *index.text, sums, counts)
    return sums, counts


def _index(image: Codes, text: Codes, pair_image: np.ndarray, pair_text: np.ndarray, width: int) -> _Index:
    image, text = _checked(image, "image", width), _checked(text, "text", width)
    images, texts = len(image.indptr) - 1, len(text.indptr) - 1
    pair_image, pair_text = np.asarray(pair_image, np.int64), np.asarray(pair_text, np.int64)
    if len(pair_image) != len(pair_text):
        raise ValueError(f"pair_image has {len(pair_image)} entries and pair_text {len(pair_text)}")
    for name, rows, count in (("pair_image", pair_image, images), ("pair_text", pair_text, texts)):
        if len(rows) and not (rows.min() >= 0 and rows.max() < count):
            raise ValueError(f"{name} points outside the {count} rows of codes")
    start = _starts(image.concepts, width)
    items = np.repeat(np.arange(images, dtype=np.int64), np.diff(image.indptr))
    sorted_items, sorted_values = np.empty_like(items), np.empty_like(image.values)
    by_item_(image.concepts, items, image.values, start, sorted_items, sorted_values)  # sorts by concept
    return _Index(start, sorted_items, sorted_values, *_captions_of(pair_image, pair_text, images), text)


def _captions_of(pair_image: np.ndarray, pair_text: np.ndarray, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort pairs by image. Returns the position of each image's first pair [images + 1] and each pair's caption [P]."""
    return _starts(pair_image, images), pair_text[np.argsort(pair_image, kind="stable")]


def _starts(keys: np.ndarray, count: int) -> np.ndarray:
    """For each key from 0 to `count`, the position [count+1] int64 in the sorted keys at which the key starts."""
    return np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=count))]).astype(np.int64)


def _checked(codes: Codes, name: str, width: int) -> Codes:
    """Convert codes to the array types of the kernel, and raise ValueError if the codes are invalid.

    The check is needed because the kernel reads without bounds checks.
    """
    indptr = np.ascontiguousarray(codes.indptr, np.int64)
    concepts = np.ascontiguousarray(codes.concepts, np.int32)
    values = np.ascontiguousarray(codes.values, np.float32)
    if len(indptr) == 0 or indptr[0] != 0 or indptr[-1] != len(concepts) or (np.diff(indptr) < 0).any():
        raise ValueError(f"{name} codes: indptr does not rise from 0 to the {len(concepts)} entries")
    if len(values) != len(concepts):
        raise ValueError(f"{name} codes: {len(concepts)} concepts and {len(values)} values")
    if len(concepts) and not (concepts.min() >= 0 and concepts.max() < width):
        raise ValueError(f"{name} codes: a concept lies outside 0..{width - 1}")
    if not (values > 0).all():
        raise ValueError(f"{name} codes: stored values must be above 0, for every stored entry counts as firing")
    return Codes(indptr, concepts, values)


def moments(codes: Codes, pairs_of_item: np.ndarray, width: int) -> Moments:
    """Mean and standard deviation of each concept's code over the pairs.

    pairs_of_item [n]: the number of pairs that contain each item.
    """
    total = int(pairs_of_item.sum())
    weight = np.repeat(pairs_of_item, np.diff(codes.indptr)).astype(np.float64)
    z = np.asarray(codes.values, np.float64)
    mean = np.bincount(codes.concepts, weight * z, minlength=width) / total
    squares = np.bincount(codes.concepts, weight * (z - mean[codes.concepts]) ** 2, minlength=width)
    silent = total - np.bincount(codes.concepts, weight, minlength=width)
    variance = (squares + silent * mean**2) / total
    # The computed variance of a code that is equal on every pair is a rounding error. It is set to 0.
    variance[variance < ROUNDING * mean**2] = 0
    return Moments(mean, np.sqrt(variance))
