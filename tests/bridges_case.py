"""Random codes of images and captions with a dictionary, for tests of bridges and of class totals."""

from __future__ import annotations

import numpy as np

from analysis.coactivation import Codes, PairedCodes

#: The class of each of the six concepts.
CLASS_LIST = ["image", "image", "text", "bimodal", "silent", "text"]


def csr(dense) -> Codes:
    dense = np.asarray(dense, np.float32)
    rows, concepts = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
    return Codes(indptr.astype(np.int64), concepts.astype(np.int32), dense[rows, concepts])


def case(seed, images=40, width=6):
    """Dense codes, the image of each caption, and a dictionary. An image may have no caption or several."""
    random = np.random.default_rng(seed)
    owner = np.sort(random.integers(0, images, 2 * images))
    z_I, z_T = (
        np.where(random.random((n, width)) < 0.4, random.exponential(1, (n, width)), 0).astype(np.float32)
        for n in (images, len(owner))
    )
    z_I[:, 4] = z_T[:, 4] = 0
    D = random.standard_normal((width, 4))
    return z_I, z_T, owner, D / np.linalg.norm(D, axis=1, keepdims=True)


def pairs_of(z_I, z_T, owner) -> PairedCodes:
    return PairedCodes(csr(z_I), csr(z_T), owner, np.arange(len(owner)), z_I.shape[1])
