"""Leaving concepts out of a pair: similarity and ranks, worked by hand and against dense arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ledger_cases import DIM, WIDTH, sae_of

from sae.ledger import pair_ledger, split
from sae.model import SAE, Config
from sae.what_if import items_of, rank_of, what_if


def axes() -> SAE:
    """An SAE whose concepts are the axes of three dimensions, and which rebuilds rows without loss."""
    config = Config(
        architecture="relu", dim=3, width=3, k=3, decoder_bias=False, image_share=0.5, seed=0, epochs=1, batch_size=4,
        learning_rate=1e-3, auxk=0, dead_after_epochs=0.5, rows_seen=8,
    )  # fmt: skip
    return SAE(torch.eye(3), torch.zeros(3), torch.eye(3), torch.zeros(3), torch.tensor(0.0), config)


def test_ranks_worked_by_hand() -> None:
    net = axes()
    image, text = np.array([0.6, 0.8, 0]), np.array([0, 1.0, 0])
    # Cosines of the image with the captions: .8 (its own), .6, .8 (equal to its own), 0. Without concept 1, the image
    # is (.6, 0, 0) and its caption is 0, so that the caption (1, 0, 0) comes before it and the other two tie with it.
    texts = items_of(net, np.array([4, 5, 6, 7]), np.array([text, [1, 0, 0], text, [0, 0, 1.0]]), "text")
    images = items_of(net, np.array([1, 2]), np.array([image, [0, 1.0, 0]]), "image")
    found = what_if(net, split(net, image, "image"), split(net, text, "text"), {1}, images, texts, (1, 4), draws=3)
    assert found.energy == pytest.approx(1.8)
    assert found.before.similarity == pytest.approx(0.8)
    assert found.before.inner == pytest.approx(0.8)
    assert found.before.caption == (2, 1)  # the equal caption counts against it
    assert found.before.image == (2, 0)
    assert (found.after.inner, found.after.similarity) == (pytest.approx(0), 0)
    assert found.after.caption == (4, 2)
    assert found.after.image == (2, 1)
    # A random set holds concept 1, or else concept 0, whose energy of .6 leaves no room for it.
    assert {round(energy, 6) for energy, _ in found.drawn} <= {0.6, 1.8}


def test_what_is_left_is_the_ledger_without_the_rows_of_the_concepts() -> None:
    net, random = sae_of("relu", centring=True, seed=3), np.random.default_rng(0)
    x, y = random.standard_normal((30, DIM)), random.standard_normal((40, DIM))
    images, texts = items_of(net, np.arange(30), x, "image"), items_of(net, np.arange(40), y, "text")
    gone = {0, 3, 5}
    found = what_if(net, split(net, x[2], "image"), split(net, y[7], "text"), gone, images, texts, (2, 7))
    ledger = pair_ledger(net, x[2], y[7])
    assert found.before.inner == pytest.approx(ledger.similarity)
    D, keep = net.dictionary.double().numpy(), np.isin(np.arange(WIDTH), list(gone), invert=True)
    left = []
    for rows, modality in ((x, "image"), (y, "text")):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        rest = unit - np.where(keep, 0, net.encode(rows, modality).double().numpy()) @ D
        left.append(rest / np.linalg.norm(rest, axis=1, keepdims=True))
    cosines = left[0] @ left[1].T
    assert found.after.similarity == pytest.approx(cosines[2, 7])
    assert found.after.caption == ((cosines[2] >= cosines[2, 7]).sum(), 0)
    assert found.after.image == ((cosines[:, 7] >= cosines[2, 7]).sum(), 0)
    assert len(found.drawn) == 20
    assert all(0 <= energy <= found.energy + 1e-9 for energy, _ in found.drawn)


def test_an_item_that_is_not_in_the_gallery_is_compared_with_all_of_it() -> None:
    net = axes()
    texts = items_of(net, np.array([4, 5]), np.array([[1.0, 0, 0], [0, 1, 0]]), "text")
    assert rank_of(0.5, np.array([1.0, 0, 0]), texts.x, np.full(2, True)) == (2, 0)
    empty = items_of(net, np.empty(0, np.int64), np.empty((0, 3)), "text")
    assert rank_of(0.5, np.array([1.0, 0, 0]), empty.x, np.empty(0, bool)) == (1, 0)
