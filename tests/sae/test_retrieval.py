"""Recall at K, with ranks worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae.concepts import retrieval
from sae.concepts.retrieval import recall


def test_worked_example():
    # Images along x and y; captions t0 = x (owner 0), t1 nearer x than y (owner 1), t2 = y (owner 1).
    image = np.array([[2.0, 0], [0, 1]])
    text = np.array([[1.0, 0], [0.8, 0.6], [0, 1]])
    result = recall(image, text, np.array([0, 1, 1]), ks=(1, 2))
    # Image 0: t0 first. Image 1: t2 first, own, although t1 is not.
    assert result["image_to_text"] == {1: 1.0, 2: 1.0}
    # t1 prefers image 0 (.8 to .6): two of three at K=1.
    assert result["text_to_image"] == {1: pytest.approx(2 / 3), 2: 1.0}


def test_collapsed_embeddings_score_nothing():
    result = recall(np.ones((20, 3)), np.ones((20, 3)), np.arange(20), ks=(1, 5, 20))
    assert result["image_to_text"] == {1: 0.0, 5: 0.0, 20: 1.0}
    assert result["text_to_image"] == {1: 0.0, 5: 0.0, 20: 1.0}


def test_images_without_captions_are_no_queries_but_stay_in_the_gallery():
    image, text = np.array([[1.0, 0], [0.6, 0.8]]), np.array([[0.7, 0.7]])
    result = recall(image, text, np.array([0]), ks=(1,))
    assert result["image_to_text"] == {1: 1.0}
    assert result["text_to_image"] == {1: 0.0}  # image 1 is nearer


def test_owner_must_exist():
    with pytest.raises(ValueError, match="owner"):
        recall(np.eye(2), np.eye(2), np.array([0, 2]))


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_blocks_agree_with_plain_sorting(seed):
    random = np.random.default_rng(seed)
    image, text = random.standard_normal((17, 5)), random.standard_normal((40, 5))
    owner = random.integers(0, 17, 40)
    unit_i, unit_t = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (image, text))
    nearest_t, nearest_i = np.argsort(-unit_i @ unit_t.T, axis=1), np.argsort(-unit_t @ unit_i.T, axis=1)
    before = retrieval.BLOCK
    retrieval.BLOCK = 6
    try:
        result = recall(image, text, owner)
    finally:
        retrieval.BLOCK = before
    for k in (1, 5, 10):
        hits = [(owner[nearest_t[i, :k]] == i).any() for i in range(17) if (owner == i).any()]
        assert result["image_to_text"][k] == pytest.approx(np.mean(hits))
        assert result["text_to_image"][k] == pytest.approx((nearest_i[:, :k] == owner[:, None]).any(1).mean())
