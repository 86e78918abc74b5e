"""The files of pairs hold what splits a similarity: inner products of embeddings with published directions."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import polars as pl
import pytest

from report.explorer.pairs import FULL, as_halves, packed, pairs_of
from report.explorer.release import released
from report.explorer.shares import Dictionary
from storage.rows import Rows

DIM, WIDTH = 6, 5
random = np.random.default_rng(1)
ATOMS = random.standard_normal((WIDTH, DIM))
ATOMS /= np.linalg.norm(ATOMS, axis=1, keepdims=True)
BIAS, MEAN_IMAGE, MEAN_TEXT = random.standard_normal((3, DIM)) / 5
MEANS = {"image": MEAN_IMAGE, "text": MEAN_TEXT}
DICTIONARY = Dictionary(ATOMS, {name: BIAS + mean for name, mean in MEANS.items()}, BIAS, MEANS)
IMAGE, TEXT = random.standard_normal((2, DIM)) * 3, random.standard_normal((3, DIM))
ROWS = Rows(IMAGE, TEXT, np.array([4, 9]), np.array([40, 41, 90]), np.array([0, 0, 1]), np.zeros(2))
CODES = {
    0: {
        "images": {"4": {"concept": [2, 0], "activation": [0.5, 0.25]}},
        "texts": {"40": {"concept": [3], "activation": [0.5]}, "90": {"concept": [1], "activation": [0.5]}},
    }
}
CAPTIONS = pl.DataFrame({"pair_id": [40, 41, 90], "block": [0, 0, 0], "image": [4, 4, 9]})


def unpacked(text: str) -> Any:
    return np.frombuffer(base64.b64decode(text), "<i2") / FULL


def unit(row: Any) -> Any:
    return row / np.linalg.norm(row)


def test_a_pair_holds_the_inner_products_of_both_embeddings_with_both_codes() -> None:
    halves = as_halves(DICTIONARY)
    assert halves.shape == (WIDTH + 3, DIM)
    blocks = pairs_of(halves, ROWS, CODES, CAPTIONS)
    # Caption 41 has no codes, and the image of caption 90 has none.
    assert {name: list(items) for name, items in blocks[0].items()} == {"images": ["4"], "texts": ["40"]}
    x, y = unit(IMAGE[0]), unit(TEXT[0])
    image, text = blocks[0]["images"]["4"], blocks[0]["texts"]["40"]
    assert text["similarity"] == pytest.approx(x @ y, abs=1e-6)
    near = {"abs": 1e-3}  # directions are halves, inner products have steps of 1 / 32767
    assert unpacked(image["own"]) == pytest.approx(ATOMS[[2, 0]] @ x, **near)
    assert unpacked(text["own"]) == pytest.approx(ATOMS[[3]] @ y, **near)
    assert unpacked(text["on_text"]) == pytest.approx(ATOMS[[3]] @ x, **near)
    assert unpacked(text["on_image"]) == pytest.approx(ATOMS[[2, 0]] @ y, **near)
    assert (image["bias"], image["mean"]) == pytest.approx((BIAS @ x, MEAN_TEXT @ x), **near)
    assert (text["bias"], text["mean"]) == pytest.approx((BIAS @ y, MEAN_IMAGE @ y), **near)


def test_an_inner_product_beyond_one_by_rounding_is_one() -> None:
    assert unpacked(packed(np.array([1.0001, -1.0001, 0.0]))).tolist() == [1.0, -1.0, 0.0]


def test_pairs_are_left_out_with_the_items() -> None:
    name = "data/runs/m/s/0/pairs/0.json"
    assert released(name, b"{}") == b"{}"
    assert released(name, b"{}", items=False) is None
    directions = "data/runs/m/s/0/dictionary.bin"
    assert released(directions, b"x", items=False) == b"x"
