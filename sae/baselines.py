"""Baselines for SAEs: seven older methods that represent a row as a sum of a few directions, with an SAE's interface.

`fit` reads rows in blocks, so that they may be memory-mapped. Only `encode` depends on k and on the encoder.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sae.pursuit import matching_pursuit
from sae.rows import Matrix

BLOCK = 4096  # rows read at a time
ICA_ROWS = 20_000  # rows given to FastICA, which holds them in memory; at 768 dimensions it needs .5 GB
NMF_DRAWS = 100_000  # rows given to minibatch NMF; its codes are dense, so one row costs 2 x 2d x C operations
KMEANS_PASSES = 10


class Baseline(ABC):
    """A baseline method. `fit` sets the float32 tensors `dictionary` [C, d], whose rows have norm 1, and `bias` [d].

    width: number of directions; PCA and ICA have at most d. k: codes per row.
    Codes are coefficients of unit directions, so that "the k largest" means the same for every method. Codes of PCA's
    and ICA's own encoders are signed. Codes found by matching pursuit, for which the bias is subtracted from the rows,
    are not.
    """

    signed = False  # whether its own encoder gives codes below 0
    encoders: tuple[str, ...] = ("pursuit",)  # those that it has
    encoder = "pursuit"  # the one in use
    dictionary: Tensor
    bias: Tensor

    def __init__(self, width: int, k: int, seed: int = 0) -> None:
        if not 1 <= k <= width:
            raise ValueError(f"k is {k}; 1 to the width, {width}, is allowed")
        self.width, self.k, self.seed = width, k, seed

    def fit(self, image: Matrix, text: Matrix) -> Self:
        """Learn from image rows [n_I, d] and text rows [n_T, d]; both modalities weigh the same, however many rows.

        Raises ValueError where a modality has no rows, or the two differ in d.
        """
        if len(image) == 0 or len(text) == 0 or image.shape[1] != text.shape[1]:
            raise ValueError(f"image rows {tuple(image.shape)} and text rows {tuple(text.shape)} do not go together")
        self.bias = sum(_mean(part) for part in (image, text)).div(2).float()  # type: ignore[union-attr]
        directions, self.bias = self._fit(image, text)
        self.dictionary = normalize(directions.float(), dim=1)
        return self

    @abstractmethod
    def _fit(self, image: Matrix, text: Matrix) -> tuple[Tensor, Tensor]:
        """Return the directions [C, d] and the bias [d]. On entry `self.bias` is the mean of both modality means."""

    def encode(self, x: Matrix) -> Tensor:
        """Codes [N, C] of rows x [N, d], at most k of them non-zero in a row. The rows are L2-normalised first."""
        return matching_pursuit(self._centred(x), self.dictionary, self.k)

    def decode(self, codes: Matrix) -> Tensor:
        """Reconstructions [N, d]: codes @ dictionary + bias."""
        return torch.addmm(self.bias, torch.as_tensor(codes).float(), self.dictionary)

    def encoding(self, encoder: str, k: int | None = None) -> Self:
        """The same fitted method with one of its `encoders`, and another number of codes per row, if given.

        Raises ValueError for an encoder that the method does not have.
        """
        if encoder not in self.encoders:
            raise ValueError(f"{type(self).__name__} has the encoder {' and '.join(self.encoders)}, not {encoder!r}")
        other = copy.copy(self)
        other.encoder, other.k = encoder, self.k if k is None else k
        return other

    def _centred(self, x: Matrix) -> Tensor:
        return unit(x) - self.bias


class Encoding(Baseline):
    """A baseline that also has an encoder of its own, which it uses unless `encoding` asks for pursuit."""

    encoders = ("own", "pursuit")
    encoder = "own"

    def encode(self, x: Matrix) -> Tensor:
        """Codes [N, C] of rows x [N, d] with the encoder in use. The rows are L2-normalised first."""
        return self._own_codes(x) if self.encoder == "own" else super().encode(x)

    @abstractmethod
    def _own_codes(self, x: Matrix) -> Tensor:
        """`encode` with the method's own encoder."""


class PCA(Encoding):
    """Principal components about the mean of the two modality means. Codes: the k coefficients largest by magnitude."""

    signed = True

    def _fit(self, image: Matrix, text: Matrix) -> tuple[Tensor, Tensor]:
        second = sum(_scatter(part, self.bias) for part in (image, text))
        values, vectors = torch.linalg.eigh(second)
        top = values.argsort(descending=True)[: self.width]
        return vectors.T[top], self.bias

    def _own_codes(self, x: Matrix) -> Tensor:
        return largest(self._centred(x) @ self.dictionary.T, self.k)


class ICA(Encoding):
    """FastICA (Hyvarinen 1999) of a sample of rows, half of each modality.

    Codes: each source times the norm of its direction; the k largest by magnitude are kept.
    """

    signed = True
    unmixing: Tensor  # [C, d]: maps a centred row to its codes

    def _fit(self, image: Matrix, text: Matrix) -> tuple[Tensor, Tensor]:
        from sklearn.decomposition import FastICA

        x = torch.cat(sample(image, text, ICA_ROWS, self.seed)) - self.bias
        count = min(self.width, x.shape[1], len(x))
        fitted = FastICA(count, whiten="unit-variance", random_state=self.seed, max_iter=500, tol=1e-3).fit(x.numpy())
        directions = torch.from_numpy(fitted.mixing_.T.copy())
        self.unmixing = (torch.from_numpy(fitted.components_) * directions.norm(dim=1, keepdim=True)).float()
        return directions, self.bias + torch.from_numpy(fitted.mean_).float()

    def _own_codes(self, x: Matrix) -> Tensor:
        return largest(self._centred(x) @ self.unmixing.T, self.k)


class RandomDirections(Baseline):
    """Directions drawn uniformly on the sphere, to show what pursuit reaches without a learned dictionary."""

    def _fit(self, image: Matrix, text: Matrix) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(self.width, image.shape[1], generator=generator), self.bias


class DataSample(Baseline):
    """A sample of training rows minus the mean, half of each modality."""

    def _fit(self, image: Matrix, text: Matrix) -> tuple[Tensor, Tensor]:
        return torch.cat(sample(image, text, self.width, self.seed)) - self.bias, self.bias


class SphericalKMeans(Baseline):
    """Centres of spherical k-means (Dhillon & Modha 2001) on rows minus the mean, after KMEANS_PASSES passes."""

    def _fit(self, image: Matrix, text: Matrix) -> tuple[Tensor, Tensor]:
        centres = normalize(torch.cat(sample(image, text, self.width, self.seed)) - self.bias, dim=1)
        for _ in range(KMEANS_PASSES):
            sums = torch.zeros_like(centres)
            for part in (image, text):
                for x in blocks(part):
                    directions = normalize(x - self.bias, dim=1)
                    sums.index_add_(0, (directions @ centres.T).argmax(1), directions / len(part))
            empty = sums.norm(dim=1) == 0
            centres = torch.where(empty[:, None], centres, normalize(sums, dim=1))
        return centres, self.bias


class NMF(Baseline):
    """Non-negative factors of rows x (minus the mean) that are split by sign: [max(x, 0), max(-x, 0)].

    A direction is a factor's positive half minus its negative half. Codes are found by pursuit: NMF's own codes are
    dense, and the k largest of them reconstruct rows worse.
    Sources: Lefevre, Bach & Fevotte 2011 (minibatch NMF); Ding, Li & Jordan 2010 (data of mixed signs).
    """

    def _fit(self, image: Matrix, text: Matrix) -> tuple[Tensor, Tensor]:
        from sklearn.decomposition import MiniBatchNMF

        batch = min(1024, len(image) + len(text))
        width = min(self.width, len(image) + len(text))
        model = MiniBatchNMF(width, init="random", batch_size=batch, random_state=self.seed)
        draws = 0
        while draws < NMF_DRAWS:
            for x in mixed(image, text, batch, self.seed + draws):
                centred = x - self.bias
                model.partial_fit(torch.cat([centred.relu(), (-centred).relu()], dim=1).numpy())
                draws += len(x)
                if draws >= NMF_DRAWS:
                    break
        positive, negative = torch.from_numpy(model.components_).chunk(2, dim=1)
        directions = positive - negative
        directions[directions.norm(dim=1) == 0, 0] = 1.0  # a factor that NMF set to 0 gets an arbitrary direction
        return directions, self.bias


class KMeans(Encoding):
    """Minibatch k-means (Sculley 2010). A row is rebuilt as its nearest centre; its only code is the centre's norm."""

    norms: Tensor  # [C]

    def __init__(self, width: int, k: int = 1, seed: int = 0) -> None:
        super().__init__(width, 1, seed)

    def _fit(self, image: Matrix, text: Matrix) -> tuple[Tensor, Tensor]:
        from sklearn.cluster import MiniBatchKMeans

        batch = max(BLOCK, self.width + 1)  # the first minibatch must hold all centres
        width = min(self.width, len(image) + len(text))
        model = MiniBatchKMeans(width, batch_size=batch, random_state=self.seed, n_init=1)
        for number in range(KMEANS_PASSES):
            for x in mixed(image, text, batch, self.seed + number):
                model.partial_fit(x.numpy())
        centres = torch.from_numpy(model.cluster_centers_).float()
        self.norms = centres.norm(dim=1)
        return centres, torch.zeros_like(self.bias)

    def _own_codes(self, x: Matrix) -> Tensor:
        rows = unit(x)
        distance = self.norms.square() - 2 * rows @ (self.dictionary * self.norms[:, None]).T
        nearest = distance.argmin(1)
        codes = torch.zeros(len(rows), len(self.norms))
        codes[torch.arange(len(rows)), nearest] = self.norms[nearest]
        return codes


#: Name in `sae.architectures` -> class.
BASELINES: dict[str, type[Baseline]] = {
    "pca": PCA,
    "ica": ICA,
    "nmf": NMF,
    "kmeans": KMeans,
    "spherical": SphericalKMeans,
    "random": RandomDirections,
    "sample": DataSample,
}


def unit(x: Matrix) -> Tensor:
    """Rows as float32 of norm 1."""
    return normalize(torch.from_numpy(np.array(x, np.float32)), dim=1)


def blocks(x: Matrix) -> Iterator[Tensor]:
    """Unit rows in order, BLOCK at a time."""
    for start in range(0, len(x), BLOCK):
        yield unit(x[start : start + BLOCK])


def mixed(image: Matrix, text: Matrix, batch: int, seed: int) -> Iterator[Tensor]:
    """Batches of unit rows, half of each modality: one pass over the larger modality, while the smaller is repeated."""
    random = np.random.default_rng(seed)
    most = max(len(image), len(text))
    orders = [np.resize(random.permutation(len(part)), most) for part in (image, text)]
    half = max(1, batch // 2)
    for start in range(0, most, half):
        index = [np.sort(order[start : start + half]) for order in orders]  # ascending: a memory map reads faster
        yield torch.cat([unit(part[at]) for part, at in zip((image, text), index, strict=True)])


def sample(image: Matrix, text: Matrix, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """A sample of `count` unit rows: half of each modality, or more of one where the other has too few."""
    random = np.random.default_rng(seed)
    images = min(len(image), max(count - count // 2, count - len(text)))
    wanted = (images, min(count - images, len(text)))
    index = [np.sort(random.permutation(len(part))[:n]) for part, n in zip((image, text), wanted, strict=True)]
    return unit(image[index[0]]), unit(text[index[1]])


def largest(coefficients: Tensor, k: int) -> Tensor:
    """The coefficients, with all but the k largest by magnitude of each row set to 0."""
    kept = coefficients.abs().topk(min(k, coefficients.shape[1]), dim=1).indices
    return torch.zeros_like(coefficients).scatter(1, kept, coefficients.gather(1, kept))


def _mean(rows: Matrix) -> Tensor:
    return torch.stack([x.double().sum(0) for x in blocks(rows)]).sum(0) / len(rows)


def _scatter(rows: Matrix, centre: Tensor) -> Tensor:
    """Mean of (x - centre)(x - centre)^T over the rows, [d, d] float64."""
    total = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for x in blocks(rows):
        centred = x.double() - centre.double()
        total += centred.T @ centred
    return total / len(rows)
