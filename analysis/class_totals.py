"""Net totals of the covariance bridges between opposite unimodal concepts: the total, its jackknife, and permutations.

The covariance bridges of the image concepts i of a class A with the text concepts j of a class B sum to a covariance of
projected rows: sum of cov(z_i, z_j) <D_i, D_j> = E_P <x_A, y_B> - <E_P x_A, E_P y_B>, where x_A = sum over i in A of
z_i D_i for the image of a pair, and y_B = sum over j in B of z_j D_j for its caption. So a total needs no matrix of
concepts by concepts, and 200 permutations of the images cost about as much as three of the matrix.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from analysis.coactivation import Codes, PairedCodes
from analysis.workers import cores, in_order

GROUPS = 20  # groups of images that the jackknife leaves out one by one
IMAGES = 256  # images per block; within a block, every image is paired with the captions of every image
PERMUTED = 17  # spawn key of this module's random stream; each module has a different key


class NetTotal(NamedTuple):
    """The net total of the covariance bridges between unimodal concepts of opposite modality, in either role."""

    total: float
    without: dict[int, float]  # {jackknife group: the total over the pairs of all other groups}
    draws: np.ndarray  # [draws] the total with the images permuted


class _Sums(NamedTuple):
    """Sums over the images of a block; the axis of width R d has the roles side by side."""

    products: np.ndarray  # [GROUPS] sum of <x, y> per group, where y is the sum over an image's captions, centred
    x: np.ndarray  # [GROUPS, R d] sum of x over the pairs of a group
    y: np.ndarray  # [GROUPS, R d] sum of y
    draws: np.ndarray  # [draws] sum of <x of another image, y>


class _Side(NamedTuple):
    """What projects the rows of one modality: for each role, the codes of the role's concepts."""

    codes: list[csr_array]
    D: np.ndarray  # [C, d] float32

    def rows(self, items: np.ndarray) -> np.ndarray:
        """The projected rows of the given items, [n, R d] float32."""
        return np.concatenate([codes[items] @ self.D for codes in self.codes], axis=1)


def opposite_total(
    pairs: PairedCodes, D: np.ndarray, classes: list[str], groups: np.ndarray, draws: int, seed: int
) -> NetTotal:
    """The net total between concepts of the classes `image` and `text`, which may have either role in a pair.

    D: [C, d], unit rows. classes: class of each concept. groups: jackknife group of each image, [n]. A draw permutes
    whole images, each with all its codes, among all images, and has marginal means of its own, so its expectation is 0.
    A draw is a random order of all images, shared by all draws, followed by permutations within blocks of IMAGES images
    of this order, which differ between draws. Each draw alone is thus uniform over all permutations; two draws of more
    than IMAGES images have a correlation of about 1 / IMAGES. Source: docs/definitions.md, "Nulls of bridges".
    """
    names = np.array(classes)
    roles = [(names == "image", names == "text"), (names == "text", names == "image")]
    D32 = np.asarray(D, np.float32)
    image = _Side([_only(_matrix(pairs.image, pairs.width), of_image) for of_image, _ in roles], D32)
    per_image = _summed(pairs)
    text = _Side([_only(per_image, of_text) for _, of_text in roles], D32)
    means = np.concatenate([(pairs.moments_text.mean * of_text) @ D for _, of_text in roles]).astype(np.float32)
    count = len(pairs.image.indptr) - 1
    counts = np.bincount(pairs.pair_image, minlength=count)
    shuffled = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PERMUTED,))).permutation(count)
    blocks = np.array_split(np.arange(count), -(-count // IMAGES))

    def of_block(number: int) -> _Sums:
        own = blocks[number]
        y = text.rows(own) - counts[own, None].astype(np.float32) * means
        random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PERMUTED, number)))
        return _Sums(*_by_group(image.rows(own), y, counts[own], groups[own]), _drawn(image, shuffled[own], y, random))

    def _drawn(image: _Side, others: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
        products = y @ image.rows(others).T
        places = np.arange(len(others))
        orders = random.permuted(np.broadcast_to(places, (draws, len(places))), axis=1)
        return products[places, orders].sum(1, dtype=np.float64)

    with threadpool_limits(1):  # the blocks use the cores
        whole = _added(list(in_order(of_block, range(len(blocks)), cores())))
    return _total(whole, np.bincount(groups, counts, GROUPS))


def _by_group(
    x: np.ndarray, y: np.ndarray, counts: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sums per group of <x, y>, of x over pairs, and of y, for the images of one block."""
    products = np.einsum("nd,nd->n", x, y, dtype=np.float64)
    indicator = csr_array((np.ones(len(groups)), (groups, np.arange(len(groups)))), shape=(GROUPS, len(groups)))
    return indicator @ products, indicator @ (counts[:, None] * x.astype(np.float64)), indicator @ y.astype(np.float64)


def _added(parts: list[_Sums]) -> _Sums:
    """The sums of all blocks, added in the order of the blocks."""
    return _Sums(*(np.sum(np.stack(same), axis=0) for same in zip(*parts, strict=True)))


def _total(sums: _Sums, pairs: np.ndarray) -> NetTotal:
    """The net total, from the sums per group. pairs: [GROUPS] number of pairs per group."""

    def covariance(kept: np.ndarray) -> float:
        n = pairs[kept].sum()
        means = sums.x[kept].sum(0) / n, sums.y[kept].sum(0) / n
        return float(sums.products[kept].sum() / n - means[0] @ means[1])

    every = np.arange(GROUPS)
    filled = np.flatnonzero(pairs)
    without = {int(group): covariance(every != group) for group in filled} if len(filled) > 1 else {}
    return NetTotal(covariance(every >= 0), without, sums.draws / pairs.sum())


def _matrix(codes: Codes, width: int) -> csr_array:
    """Codes as a sparse matrix [n, C]."""
    return csr_array((codes.values, codes.concepts, codes.indptr), shape=(len(codes.indptr) - 1, width))


def _summed(pairs: PairedCodes) -> csr_array:
    """For each image, the sum of the codes of its captions, [n_I, C]."""
    start, captions = pairs.index.pair_start, pairs.index.pair_captions
    shape = (len(start) - 1, len(pairs.text.indptr) - 1)
    return csr_array((np.ones(len(captions), np.float32), captions, start), shape=shape) @ _matrix(
        pairs.text, pairs.width
    )


def _only(codes: csr_array, wanted: np.ndarray) -> csr_array:
    """The codes of the wanted concepts; all others become 0."""
    keep = wanted[codes.indices]
    indptr = np.concatenate([[0], np.cumsum(keep)])[codes.indptr]
    return csr_array((codes.data[keep], codes.indices[keep], indptr), shape=codes.shape)
