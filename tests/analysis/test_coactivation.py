"""Co-activation and the Bridge Score: numbers worked by hand, dense numpy, and identities of the definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import coactivation as room
from analysis.bridges import bridges
from analysis.coactivation import Codes, PairedCodes, coactivation


def csr(dense) -> Codes:
    dense = np.asarray(dense, np.float32)
    rows, concepts = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
    return Codes(indptr.astype(np.int64), concepts.astype(np.int32), dense[rows, concepts])


def random_case(seed, width=7, images=12, texts=15, pairs=25):
    """Sparse codes as dense arrays, pairs in which images and captions repeat, and a dictionary."""
    random = np.random.default_rng(seed)
    z_I, z_T = (
        np.where(random.random((n, width)) < 0.4, random.exponential(1, (n, width)), 0).astype(np.float32)
        for n in (images, texts)
    )
    D = random.standard_normal((width, 4))
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    return z_I, z_T, random.integers(0, images, pairs), random.integers(0, texts, pairs), D


def total(result, kind):
    return sum(row["total"] for row in result.totals if row["kind"] == kind)


def test_worked_example():
    # Image 0 has the captions 0 and 1, image 1 has caption 2. The atoms of the two concepts have the cosine .6.
    z_I, z_T = [[2, 0], [0, 1]], [[0, 3], [1, 0], [0, 0]]
    D = np.array([[1.0, 0], [0.6, 0.8]])
    result = bridges(csr(z_I), csr(z_T), [0, 0, 1], [0, 1, 2], D, ["image", "text"], min_pairs=1)
    # The pair of image 0 and caption 0 has the product 2*3 for concepts (0,1). The pair of image 0 and caption 1 has
    # 2*1 for concepts (0,0). The third pair has no product. The means over the 3 pairs are G_00 = 2/3, G_01 = 6/3 = 2.
    # The mean codes over the pairs are (4/3, 1/3) for images and (1/3, 1) for captions.
    # The covariances are G_00 - 4/3 * 1/3 = 2/9 and G_01 - 4/3 * 1 = 2/3.
    # The standard deviations are sqrt(8/9) for image concept 0 (codes 2, 2, 0), sqrt(2/9) for text concept 0 (codes
    # 0, 1, 0) and sqrt(2) for text concept 1 (codes 3, 0, 0).
    rows = result.rows
    assert rows["image_concept"].tolist() == [0, 0]
    assert rows["text_concept"].tolist() == [0, 1]
    assert rows["pairs"].tolist() == [1, 1]
    assert rows["coactivation"] == pytest.approx([2 / 3, 2])
    assert rows["cosine"] == pytest.approx([1, 0.6])
    assert rows["bridge"] == pytest.approx([2 / 3, 1.2])
    assert rows["covariance_bridge"] == pytest.approx([2 / 9, 0.4])
    assert rows["correlation_bridge"] == pytest.approx([(2 / 9) / (4 / 9), 0.4 / (4 / 3)])
    # The totals also count concepts that never fire together and have no row. Image concept 1 fires with no text
    # concept, but its covariances with both text concepts, -1/3 * 1/3 and -1/3 * 1, are part of the totals.
    cells = {(r["class_image"], r["class_text"], r["self"]): r for r in result.totals if r["kind"] == "covariance"}
    assert cells["image", "text", False]["total"] == pytest.approx(0.4)
    assert cells["text", "image", False]["negative"] == pytest.approx(-1 / 9 * 0.6)
    assert cells["text", "text", True]["total"] == pytest.approx(-1 / 3)
    assert cells["image", "image", True]["positive"] == pytest.approx(2 / 9)


@given(st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_agrees_with_dense_numpy(seed):
    z_I, z_T, pair_I, pair_T, _ = random_case(seed)
    G, pairs = coactivation(csr(z_I), csr(z_T), pair_I, pair_T, 7)
    np.testing.assert_allclose(G, z_I[pair_I].T.astype(float) @ z_T[pair_T] / len(pair_I), rtol=1e-12)
    assert (pairs == (z_I[pair_I] > 0).T.astype(int) @ (z_T[pair_T] > 0)).all()


@given(st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_identities_hold_with_a_bias_and_repeated_captions(seed):
    z_I, z_T, pair_I, pair_T, D = random_case(seed)
    b = np.random.default_rng(seed + 1).standard_normal(4)
    result = bridges(csr(z_I), csr(z_T), pair_I, pair_T, D, ["bimodal"] * 7, min_pairs=1)
    z_I, z_T = z_I[pair_I].astype(float), z_T[pair_T].astype(float)
    x_hat_I, x_hat_T = z_I @ D + b, z_T @ D + b
    matched = (x_hat_I * x_hat_T).sum(1).mean()
    terms = total(result, "raw") + b @ (z_T @ D).mean(0) + (z_I @ D).mean(0) @ b + b @ b
    assert terms == pytest.approx(matched, rel=1e-9, abs=1e-12)
    covariance = matched - x_hat_I.mean(0) @ x_hat_T.mean(0)
    assert total(result, "covariance") == pytest.approx(covariance, rel=1e-9, abs=1e-12)


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_totals_split_by_class_and_sign_without_loss(seed):
    z_I, z_T, pair_I, pair_T, D = random_case(seed)
    classes = ["image", "text", "text", "bimodal", "silent", "image", "image"]
    result = bridges(csr(z_I), csr(z_T), pair_I, pair_T, D, classes, min_pairs=1)
    B = (z_I[pair_I].T.astype(float) @ z_T[pair_T] / len(pair_I)) * (D @ D.T)
    for row in (row for row in result.totals if row["kind"] == "raw"):
        here = np.equal.outer(np.array(classes) == row["class_image"], np.zeros(7, bool)) ^ True
        here &= np.array(classes)[None, :] == row["class_text"]
        here &= np.eye(7, dtype=bool) if row["self"] else ~np.eye(7, dtype=bool)
        assert row["positive"] == pytest.approx(B[here & (B > 0)].sum(), abs=1e-12)
        assert row["negative"] == pytest.approx(B[here & (B < 0)].sum(), abs=1e-12)
        assert row["total"] == pytest.approx(B[here].sum(), abs=1e-12)


def test_blocks_do_not_matter(monkeypatch):
    z_I, z_T, pair_I, pair_T, D = random_case(3)
    whole = bridges(csr(z_I), csr(z_T), pair_I, pair_T, D, ["bimodal"] * 7, 2)
    monkeypatch.setattr(room, "BLOCK", 3)
    parts = bridges(csr(z_I), csr(z_T), pair_I, pair_T, D, ["bimodal"] * 7, 2)
    for name, column in whole.rows.items():
        np.testing.assert_allclose(parts.rows[name], column, rtol=1e-12)
    assert min(whole.rows["pairs"]) >= 2


def test_correlation_of_a_constant_code_is_undefined():
    # Image concept 0 is .1 on every pair. Its standard deviation must count as 0, despite float rounding.
    z_I, z_T = np.full((30, 1), 0.1), np.linspace(0.1, 1, 30)[:, None]
    pairs = np.arange(30)
    result = bridges(csr(z_I), csr(z_T), pairs, pairs, np.ones((1, 1)), ["bimodal"], 1)
    assert np.isnan(result.rows["correlation_bridge"]).all()
    other = bridges(csr(z_T), csr(z_T), pairs, pairs, np.ones((1, 1)), ["bimodal"], 1)
    assert other.rows["correlation_bridge"] == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pair_image": [2]}, "pair_image points outside the 2 rows"),
        ({"pair_text": [-1]}, "pair_text points outside"),
        ({"pair_text": [0, 1]}, "pair_text 2"),
        ({"width": 1}, "a concept lies outside 0..0"),
        ({"text": Codes(np.array([0, 1, 2]), np.array([0, 1]), np.array([1.0, 0.0]))}, "above 0"),
        ({"text": Codes(np.array([0, 1]), np.array([0, 1]), np.array([1.0, 1.0]))}, "indptr"),
    ],
)
def test_input_that_the_kernel_must_not_see(change, message):
    codes = csr(np.eye(2))
    good = {"image": codes, "text": codes, "pair_image": [0], "pair_text": [1], "width": 2}
    with pytest.raises(ValueError, match=message):
        coactivation(**(good | change))


def test_rows_of_the_correlations_are_those_of_the_matrix():
    z_I, z_T, pair_image, pair_text, _ = random_case(0)
    z_I[:, 4] = 0
    pairs = PairedCodes(csr(z_I), csr(z_T), pair_image, pair_text, 7)
    wanted = np.array([6, 4, 0, 6])
    assert np.array_equal(pairs.correlation_rows(wanted), pairs.correlations()[wanted], equal_nan=True)
