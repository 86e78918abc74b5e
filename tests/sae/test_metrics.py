"""Reconstruction and sparsity, with numbers worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from sae.metrics import Reconstruction, combine


def filled(x, x_hat, codes, cuts=()):
    accumulator = Reconstruction()
    for part in zip(*(np.split(np.asarray(a, float), cuts) for a in (x, x_hat, codes)), strict=True):
        accumulator.update(*part)
    return accumulator


def worked():
    # Images: rows (1,0) and (0,1) have the mean (.5,.5) and the sum of squares 4 * .25 = 1 about it. The
    # reconstructions are (1,0) and (0,.5), so the squared error is .25.
    image = filled([[1, 0], [0, 1]], [[1, 0], [0, 0.5]], [[1, 0, 0, 0], [1, 1, 1, 1]])
    # Texts: rows (1,0) and (-1,0) have the mean (0,0) and the sum of squares 2 about it. The reconstructions are (.5,0)
    # and (-.5,0), so the squared error is .25 + .25 = .5.
    text = filled([[1, 0], [-1, 0]], [[0.5, 0], [-0.5, 0]], [[3, 4, 0, 0], [0, 0, 0, 0]])
    return image, text


def test_one_modality():
    image, text = worked()
    # R2 is 1 - .25/1 for images and 1 - .5/2 for texts. L0 is (1 + 4)/2 and (2 + 0)/2. The cosine is 1, since every
    # reconstruction is parallel to its row. Hoyer sparsity is (sqrt C - |z|_1/|z|_2) / (sqrt C - 1) with C = 4:
    # (2 - 1)/1 = 1 for one code, (2 - 4/2)/1 = 0 for four equal codes, .5 on average.
    assert image.result() == pytest.approx({"rows": 2, "r2": 0.75, "cosine": 1, "l0": 2.5, "hoyer": 0.5})
    # The codes (3, 4) have |z|_1/|z|_2 = 7/5, so (2 - 1.4)/1 = .6. The row whose codes are all 0 has no Hoyer sparsity.
    assert text.result() == pytest.approx({"rows": 2, "r2": 0.75, "cosine": 1, "l0": 1, "hoyer": 0.6})


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_sparse_codes_give_the_figures_of_dense_ones(seed):
    random = np.random.default_rng(seed)
    x, x_hat = random.standard_normal((2, 9, 3))
    z = np.where(random.random((9, 5)) < 0.4, random.exponential(1, (9, 5)), 0)
    z[3] = 0
    dense, sparse = filled(x, x_hat, z, [4]), Reconstruction()
    for part in (slice(0, 4), slice(4, 9)):
        sparse.update_sparse(x[part], x_hat[part], csr_array(z[part]))
    assert sparse.result() == pytest.approx(dense.result(), rel=1e-12)
    with pytest.raises(ValueError, match="codes"):
        sparse.update_sparse(x, x_hat, csr_array(z[:4]))


def test_both_modalities():
    result = combine(*worked())
    # The mean of the two modality means is m = (.25, .25). The mean of |x - m|^2 is 1/2 + |(.25,.25)|^2 = .625 for
    # images and 2/2 + .125 = 1.125 for texts; the sum is 1.75. The mean squared errors sum to .25/2 + .5/2 = .375, so
    # R2 = 1 - .375/1.75. The scalar mean of all entries is .25, the same point as m, so r2_scalar_mean is equal.
    expected = {
        "r2": 1 - 0.375 / 1.75,
        "r2_image": 0.75,
        "r2_text": 0.75,
        "r2_scalar_mean": 1 - 0.375 / 1.75,
        "cosine": 1,
        "l0": 1.75,
        "l0_image": 2.5,
        "l0_text": 1,
        "hoyer": 0.55,
    }
    assert result == pytest.approx(expected)


def test_scalar_mean_flatters_the_constant_predictor():
    # The rows have norm 1, their mean vector has norm .7. The prediction is the mean vector, whose squared error is
    # 1 - .49 = .51 per row. About the mean vector, R2 is 0. About one scalar mean (0 here, since the entries of the
    # mean vector cancel) the variance is |x|^2 = 1, so R2 is 1 - .51 = .49.
    mean = np.array([0.7, -0.7, 0, 0]) / math.sqrt(2)
    side = math.sqrt(0.51)
    x = mean + np.array([[0, 0, side, 0], [0, 0, -side, 0]])
    part = filled(x, np.stack([mean, mean]), np.ones((2, 3)))
    result = combine(part, part)
    assert result["r2"] == pytest.approx(0)
    assert result["r2_scalar_mean"] == pytest.approx(0.49)


def test_r2_is_not_a_mean_of_ratios():
    # Two batches have the squared errors 0 and 2, and the sums of squares 8 and 2 about the overall mean 0. R2 is
    # 1 - 2/10 = .8. The mean of the R2 of each batch would be (1 + 0)/2 = .5.
    x, x_hat = [[2.0], [-2.0], [1.0], [-1.0]], [[2.0], [-2.0], [0.0], [0.0]]
    assert filled(x, x_hat, np.ones((4, 2)), [2]).result()["r2"] == pytest.approx(0.8)


def test_undefined_is_nan():
    empty = Reconstruction()
    assert all(math.isnan(empty.result()[name]) for name in ("r2", "cosine", "l0", "hoyer"))
    assert math.isnan(combine(empty, worked()[1])["r2"])
    assert math.isnan(filled([[1.0, 0]], [[1.0, 0]], [[1.0]]).result()["hoyer"])


@given(st.integers(0, 1000), st.lists(st.integers(0, 30), max_size=4))
@settings(max_examples=30, deadline=None)
def test_batches_do_not_matter(seed, cuts):
    random = np.random.default_rng(seed)
    x = random.standard_normal((30, 4)) + 100  # far from 0, where a difference of two large sums loses digits
    x_hat, codes = x + 0.1 * random.standard_normal((30, 4)), random.random((30, 6)).round()
    whole, parts = filled(x, x_hat, codes), filled(x, x_hat, codes, sorted(cuts))
    assert parts.result() == pytest.approx(whole.result(), rel=1e-12)
    spread = ((x - x.mean(0)) ** 2).sum()
    assert whole.result()["r2"] == pytest.approx(1 - ((x - x_hat) ** 2).sum() / spread, rel=1e-12)
