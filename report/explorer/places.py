"""Compute places in the plane for the items of a study: images and captions on one map. Reads and writes no files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from report.explorer.layout import FEWEST, MIN_DISTANCE, NEIGHBOURS, SEED, in_square, principal

NDArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
OWN = NEIGHBOURS // 2  # neighbours of an item in its own modality; the rest are of the other modality
FITTED = 20_000  # most items that UMAP is fitted on: on one core it takes about a minute for these
ANCHORS = 5  # fitted items from whose places that of another item is interpolated
EPOCHS = 200  # of the layout's optimisation
BATCH = 2048  # items placed at a time: their similarities to the fitted items take 160 MB
TINY = 1e-6  # added to distances, which may be 0


class Placed(NamedTuple):
    """The places of N items."""

    places: NDArray  #: float64 [N, 2] in [-1, 1], both axes on one scale
    layout: str  #: "umap", "umap-sample" (UMAP of a sample, the other items interpolated) or "pca"
    fitted: int  #: number of items that the layout was fitted on


Blocks = Callable[[], Iterable[tuple[Ints, NDArray]]]


def place_blocks(blocks: Blocks, images: int, captions: int, most: int = FITTED) -> Placed:
    """Places of images and captions by their embeddings, which are read in blocks: all at once may not fit in memory.

    blocks: each call yields all embeddings again, as (numbers [b] of items, rows [b, d]) of one modality. The images
    have the first numbers, then come the captions. Two or three calls are made. most: as in `place`.

    Because of the modality gap, the nearest neighbours of an image are images, and a plain UMAP shows two clouds that
    say nothing of each other. So the mean of each modality is subtracted, the rows are normalised again, and each item
    gets neighbours of both modalities (see `both_modalities`).
    """
    count, means = images + captions, _means(blocks, images, captions)

    def centred(numbers: Ints, rows: NDArray) -> NDArray:
        found = (np.asarray(rows, np.float32) - means[_side(numbers, images)]).astype(np.float32)
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return found

    def gathered(wanted: Ints) -> NDArray:
        """The centred rows of some items, whose numbers ascend."""
        found = np.empty((len(wanted), means.shape[1]), np.float32)
        for numbers, rows in blocks():
            here = np.isin(numbers, wanted)
            found[np.searchsorted(wanted, numbers[here])] = centred(numbers[here], rows[here])
        return found

    if count <= most:
        return place(gathered(np.arange(count)), most, images)
    chosen = _sample(count, most)
    fitted = gathered(chosen)
    anchors = _umap(fitted, int(np.searchsorted(chosen, images)))
    places = np.empty((count, 2))
    places[chosen] = anchors
    for numbers, rows in blocks():
        others = np.flatnonzero(~np.isin(numbers, chosen))
        for start in range(0, len(others), BATCH):
            part = others[start : start + BATCH]
            places[numbers[part]] = interpolated(centred(numbers[part], rows[part]) @ fitted.T, anchors)
    return Placed(in_square(places), "umap-sample", most)


def _side(numbers: Ints, images: int) -> int:
    """0 for a block of images, 1 for one of captions."""
    return int(len(numbers) > 0 and numbers[0] >= images)


def _means(blocks: Blocks, images: int, captions: int) -> NDArray:
    """The mean rows [2, d] float64 of the images and of the captions; 0 where there are none."""
    sums: list[Any] = [0.0, 0.0]
    for numbers, rows in blocks():
        sums[_side(numbers, images)] += np.asarray(rows, np.float64).sum(0)
    image, text = np.broadcast_arrays(*sums)
    return np.stack([image / max(images, 1), text / max(captions, 1)])


def place_codes(codes: sparse.csr_matrix, most: int = FITTED) -> Placed:
    """Places of N items by their codes [N, C], as they are: items that use the same concepts are neighbours."""
    lengths = np.sqrt(np.asarray(codes.multiply(codes).sum(axis=1), np.float64)).ravel()
    return place((sparse.diags(1 / np.where(lengths > 0, lengths, 1)) @ codes).tocsr().astype(np.float32), most)


def place(rows: Any, most: int = FITTED, images: int = 0) -> Placed:
    """Places of N unit rows [N, d], a NumPy array or a sparse matrix in CSR form.

    UMAP with cosine distances, one thread and a fixed seed, of all items up to `most`. Of more items, UMAP is fitted on
    a random sample of `most`, and each other item is placed at the mean of its five nearest fitted items, weighted by
    the inverse of their distances. Fewer than 64 items are projected onto their first two principal axes. images: where
    the captions begin, to give each item neighbours of both modalities; 0: its nearest neighbours whatever they are.
    """
    count = rows.shape[0]
    if count < FEWEST:
        dense = rows.toarray() if sparse.issparse(rows) else rows
        return Placed(in_square(principal(dense)), "pca", count)
    if count <= most:
        return Placed(in_square(_umap(rows, images)), "umap", count)
    chosen = _sample(count, most)
    anchors = _umap(rows[chosen], int(np.searchsorted(chosen, images)))
    places = np.empty((count, 2))
    places[chosen] = anchors
    others = np.setdiff1d(np.arange(count), chosen, assume_unique=True)
    similar = _similarities(rows, rows[chosen])
    for start in range(0, len(others), BATCH):
        part = others[start : start + BATCH]
        places[part] = interpolated(similar(part), anchors)
    return Placed(in_square(places), "umap-sample", most)


def _sample(count: int, most: int) -> Ints:
    """The numbers of the items that UMAP is fitted on, where there are more items than `most`. They ascend."""
    return np.sort(np.random.default_rng(SEED).choice(count, most, replace=False))


def interpolated(similarity: NDArray, anchors: NDArray) -> NDArray:
    """Places [b, 2] of b items with these cosines [b, a] to a placed items [a, 2]."""
    count = min(ANCHORS, similarity.shape[1])
    nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    cosine = np.take_along_axis(similarity, nearest, axis=1).astype(np.float64)
    weight = 1 / (np.maximum(1 - cosine, 0) + TINY)
    return np.asarray((anchors[nearest] * weight[..., None]).sum(1) / weight.sum(1, keepdims=True))


def _similarities(rows: Any, anchors: Any) -> Callable[[Any], NDArray]:
    """A function that returns the cosines of some rows, given by number, to all anchors."""
    if sparse.issparse(rows):
        turned = anchors.T.tocsr()
        return lambda part: np.asarray((rows[part] @ turned).toarray())
    return lambda part: np.asarray(rows[part] @ anchors.T)


def both_modalities(rows: NDArray, images: int) -> tuple[Ints, NDArray]:
    """Neighbours of n images and m captions, unit rows [n + m, d] with the images first, and their distances.

    Both are [n + m, NEIGHBOURS], by distance: the item itself, its OWN nearest items of its modality, and its nearest
    items of the other modality. Distances are one minus the cosine. Those to the other modality are larger for every
    item, by the gap. They are reduced by one number per item, so that the nearest item of the other modality is as far
    as the nearest of its own.
    """
    count = len(rows)
    found, far = np.empty((count, NEIGHBOURS), np.int64), np.empty((count, NEIGHBOURS))
    sides = (slice(0, images), slice(images, count))
    for own, other in (sides, sides[::-1]):
        for start in range(own.start, own.stop, BATCH):
            part = np.arange(start, min(start + BATCH, own.stop))
            near, near_far = _nearest(rows, part, own, OWN + 1)
            is_self = near == part[:, None]
            near_far[is_self] = -1  # the item itself comes first
            order = np.argsort(near_far, axis=1, kind="stable")
            near, near_far = np.take_along_axis(near, order, 1), np.take_along_axis(near_far, order, 1)
            near[:, 0], near_far[:, 0] = part, 0
            across, across_far = _nearest(rows, part, other, NEIGHBOURS - OWN - 1)
            across_far += near_far[:, 1:2] - across_far[:, :1]
            both, both_far = np.hstack([near, across]), np.hstack([near_far, across_far])
            order = np.argsort(both_far[:, 1:], axis=1, kind="stable") + 1
            found[part, 0], far[part, 0] = part, 0
            found[part, 1:] = np.take_along_axis(both, order, 1)
            far[part, 1:] = np.take_along_axis(both_far, order, 1)
    return found, far


def _nearest(rows: NDArray, part: Ints, among: slice, count: int) -> tuple[Ints, NDArray]:
    """The `count` nearest items of a range for some items, and their distances, both by distance."""
    distance = np.maximum(1 - np.asarray(rows[part] @ rows[among].T, np.float64), 0)
    near, far = _lowest(distance, count)
    return near + among.start, far


def _lowest(distance: NDArray, count: int) -> tuple[Ints, NDArray]:
    """The places of the `count` lowest numbers of each row, and the numbers, in ascending order."""
    near = np.argpartition(distance, count - 1, axis=1)[:, :count]
    near = np.take_along_axis(near, np.argsort(np.take_along_axis(distance, near, 1), axis=1, kind="stable"), 1)
    return near, np.take_along_axis(distance, near, 1)


def nearest_of_all(rows: Any) -> tuple[Ints, NDArray]:
    """Neighbours [N, NEIGHBOURS] of unit rows [N, d], dense or sparse, and their distances; the item itself is first.

    The distance of two rows without a common entry, such as the codes of items that share no concept, is infinite.
    """
    count = rows.shape[0]
    found, far = np.empty((count, NEIGHBOURS), np.int64), np.empty((count, NEIGHBOURS))
    similar = _similarities(rows, rows)
    for start in range(0, count, BATCH):
        part = np.arange(start, min(start + BATCH, count))
        distance = np.maximum(1 - np.asarray(similar(part), np.float64), 0)
        distance[np.arange(len(part)), part] = -1
        found[part], far[part] = _lowest(distance, NEIGHBOURS)
    if sparse.issparse(rows):
        far[far >= 1] = np.inf
    return found, np.maximum(far, 0)


def _start(rows: Any) -> NDArray:
    """Where UMAP begins: the first two principal axes of rows [N, d]. Its own start differs between two processes."""
    if min(rows.shape) <= 2:
        axes = principal(rows.toarray() if sparse.issparse(rows) else rows)
    else:
        left, length, _ = svds(rows.astype(np.float64), k=2, v0=np.ones(min(rows.shape)))
        axes = left * length
        axes -= axes.mean(0)
    return np.asarray(10 * axes / max(np.abs(axes).max(), TINY), np.float32)


def _keep_compiled() -> None:
    """Let numba keep on disk what it compiles for UMAP, which otherwise takes each process ten seconds of a core.

    A version of UMAP in which a function has another name compiles this function anew.
    """
    from umap import layouts, umap_

    names = ("smooth_knn_dist", "compute_membership_strengths", "_nb_optimize_layout_euclidean_single_epoch")
    for name in names:
        compiled: Any = getattr(layouts if name.startswith("_nb") else umap_, name, None)
        if hasattr(compiled, "enable_caching") and not compiled.signatures:  # none is compiled yet in this process
            compiled.enable_caching()


def _umap(rows: Any, images: int = 0) -> NDArray:
    import umap
    from threadpoolctl import threadpool_limits

    _keep_compiled()

    fixed: dict[str, Any] = {"n_neighbors": NEIGHBOURS, "min_dist": MIN_DISTANCE, "random_state": SEED, "n_jobs": 1}
    # Exact neighbours, in place of an approximate search whose sparse form takes longer to compile than to run.
    both = min(images, rows.shape[0] - images) > NEIGHBOURS
    fixed["precomputed_knn"] = both_modalities(rows, images) if both else nearest_of_all(rows)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="precomputed_knn")  # without an index, new items cannot be added
        warnings.filterwarnings("ignore", message=".*disconnected")  # items without codes have no neighbours
        umapped = umap.UMAP(
            metric="cosine", n_epochs=EPOCHS, init=_start(rows), force_approximation_algorithm=True, **fixed
        )
        places = umapped.fit_transform(rows)
    return np.nan_to_num(np.asarray(places, np.float64))  # an item without neighbours, as without codes, has no place
