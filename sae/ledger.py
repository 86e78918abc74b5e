"""The pair ledger: the similarity of one image and one caption as a sum over pairs of concepts and named terms.

The sum is exact: codes, biases, means and what the SAE leaves out are all in it. Computed in float64.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from sae.model import MEANS, SAE

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
MODALITIES = ("image", "text")


class Split(NamedTuple):
    """One item as its SAE splits it: x = codes @ dictionary[concepts] + bias + mean + residual."""

    x: Floats  #: [d] the row as the SAE reads it: of norm 1, unless the SAE does not normalise rows
    concepts: Ints  #: [k] the concepts that fire, ascending
    codes: Floats  #: [k] their activations, above 0
    residual: Floats  #: [d] what the SAE leaves out, x - x_hat


class Ledger(NamedTuple):
    """The rows and the terms of one pair. Their sum is the similarity."""

    similarity: float  #: <x_I, x_T>: the cosine, unless the SAE does not normalise rows
    image_concept: Ints  #: [n] concept i of the image's code
    text_concept: Ints  #: [n] concept j of the caption's code
    contribution: Floats  #: [n] z_i(x_I) z_j(x_T) <D_i, D_j>; the largest absolute value first
    terms: dict[str, float]  #: the terms that belong to no pair of concepts, as `pair_ledger` lists them

    @property
    def total(self) -> float:
        """The sum of all rows and terms, which is the similarity but for rounding."""
        return float(self.contribution.sum()) + sum(self.terms.values())


def split(sae: SAE, x: np.ndarray, modality: str) -> Split:
    """Split one embedding x [d] (any float type, any norm above 0) of a modality, "image" or "text".

    Raises ValueError for a modality, a shape or values that the SAE does not take, and for a row of norm 0 where the
    SAE normalises rows.
    """
    if modality not in MEANS:
        raise ValueError(f'modality is {modality!r}; "image" or "text" is allowed')
    row = np.asarray(x, np.float64)
    codes = sae.encode(row[None], modality)[0].cpu().numpy().astype(np.float64)
    if sae.config.preprocessing == "l2":
        norm = np.linalg.norm(row)
        if norm == 0:
            raise ValueError(f"the {modality} embedding has norm 0; a direction is needed")
        row = row / norm
    concepts = np.flatnonzero(codes)
    rebuilt = codes[concepts] @ atoms(sae)[concepts] + sum(offsets(sae, modality))
    return Split(row, concepts, codes[concepts], row - rebuilt)


def atoms(sae: SAE) -> Floats:
    """The dictionary D of an SAE, [C, d], in float64."""
    return np.asarray(sae.dictionary.cpu().numpy(), np.float64)


def offsets(sae: SAE, modality: str) -> tuple[Floats, Floats]:
    """The decoder bias b and the mean m of a modality, each [d], in float64. Without centring, m is 0."""
    bias = np.asarray(sae.bias.cpu().numpy(), np.float64)
    mean = getattr(sae, MEANS[modality])
    return bias, np.zeros_like(bias) if mean is None else np.asarray(mean.cpu().numpy(), np.float64)


def pair_ledger(sae: SAE, image: np.ndarray, text: np.ndarray) -> Ledger:
    """Split the similarity of an image embedding and a caption embedding, each [d], of any norm.

    With x_hat = s + b + m, where s = sum z_i D_i, b is the decoder bias and m the mean of the modality, and with the
    residual e = x - x_hat, the terms beside the pairs of concepts are:
    `text_on_bias` <b, s_T>, `image_on_bias` <s_I, b>, `bias` |b|^2; with per-modality centring also `text_on_mean`
    <m_I, s_T>, `image_on_mean` <s_I, m_T>, `bias_on_means` <b, m_T> + <m_I, b>, `means` <m_I, m_T>; and
    `image_residual` <e_I, x_hat_T>, `text_residual` <x_hat_I, e_T>, `residuals` <e_I, e_T>.
    Raises ValueError as `split` does. Definition: docs/definitions.md, "Pair ledger".
    """
    return ledger_of(sae, split(sae, image, "image"), split(sae, text, "text"))


def ledger_of(sae: SAE, image: Split, text: Split) -> Ledger:
    """`pair_ledger` of items that are split already."""
    D = atoms(sae)
    D_image, D_text = D[image.concepts], D[text.concepts]
    products = image.codes[:, None] * text.codes * (D_image @ D_text.T)
    order = np.argsort(-np.abs(products), axis=None, kind="stable")
    row, column = np.unravel_index(order, products.shape)
    b, m_image = offsets(sae, "image")
    _, m_text = offsets(sae, "text")
    s_image, s_text = image.codes @ D_image, text.codes @ D_text
    terms = {"text_on_bias": b @ s_text, "image_on_bias": s_image @ b, "bias": b @ b}
    if sae.config.centring:
        terms |= {
            "text_on_mean": m_image @ s_text, "image_on_mean": s_image @ m_text,
            "bias_on_means": b @ m_text + m_image @ b, "means": m_image @ m_text,
        }  # fmt: skip
    hat_image, hat_text = s_image + b + m_image, s_text + b + m_text
    terms |= {
        "image_residual": image.residual @ hat_text, "text_residual": hat_image @ text.residual,
        "residuals": image.residual @ text.residual,
    }  # fmt: skip
    return Ledger(
        float(image.x @ text.x), image.concepts[row], text.concepts[column], products.ravel()[order],
        {name: float(value) for name, value in terms.items()},
    )  # fmt: skip


def without(sae: SAE, item: Split, concepts: Collection[int]) -> Floats:
    """The row [d] of an item from which concepts are left out: x - sum of z_i D_i over them. It is not normalised.

    Its bias, mean and residual stay, so that leaving out nothing gives x.
    """
    out = np.isin(item.concepts, list(concepts))
    return np.asarray(item.x - item.codes[out] @ atoms(sae)[item.concepts[out]])


def reduced(sae: SAE, item: Split, concepts: Collection[int]) -> Split:
    """An item split from which concepts are left out: its row is that of `without`, its residual stays.

    The ledger of two such items sums to the inner product of what is left.
    """
    kept = ~np.isin(item.concepts, list(concepts))
    return Split(without(sae, item, concepts), item.concepts[kept], item.codes[kept], item.residual)


def energy_in(item: Split, concepts: Collection[int]) -> float:
    """The sum of the activations of some concepts in an item."""
    return float(item.codes[np.isin(item.concepts, list(concepts))].sum())


def random_sets(image: Split, text: Split, concepts: Collection[int], draws: int, seed: int = 0) -> list[set[int]]:
    """Random sets of concepts that hold about as much energy of the two items as the given concepts do.

    The energy of a concept is its activation in the image plus that in the caption. Concepts that fire on either item
    are taken in random order, each one if its energy does not exceed what is left. The given concepts may be drawn.
    """
    random = np.random.default_rng(seed)
    firing = np.union1d(image.concepts, text.concepts)
    energy = {int(i): energy_in(image, [i]) + energy_in(text, [i]) for i in firing}
    sets = []
    for _ in range(draws):
        left, drawn = sum(energy.get(int(i), 0.0) for i in set(concepts)), set[int]()
        for i in random.permutation(firing):
            if energy[int(i)] <= left + 1e-9:  # sums in another order round otherwise
                drawn.add(int(i))
                left -= energy[int(i)]
        sets.append(drawn)
    return sets
