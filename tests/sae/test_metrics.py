"""Reconstruction and sparsity, with numbers worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae.metrics import Reconstruction, combine


def filled(x, x_hat, codes, cuts=()):
    accumulator = Reconstruction()
    for part in zip(*(np.split(np.asarray(a, float), cuts) for a in (x, x_hat, codes)), strict=True):
        accumulator.update(*part)
    return accumulator


def worked():
    # Image: rows (1,0), (0,1), mean (.5,.5), spread 4 * .25 = 1; x_hat (1,0), (0,.5): error .25.
    image = filled([[1, 0], [0, 1]], [[1, 0], [0, 0.5]], [[1, 0, 0, 0], [1, 1, 1, 1]])
    # Text: rows (1,0), (-1,0), mean (0,0), spread 2; x_hat (.5,0), (-.5,0): error .5.
    text = filled([[1, 0], [-1, 0]], [[0.5, 0], [-0.5, 0]], [[3, 4, 0, 0], [0, 0, 0, 0]])
    return image, text


def test_one_modality():
    image, text = worked()
    # r2: 1 - .25/1 and 1 - .5/2. l0: (1 + 4)/2 and (2 + 0)/2. cosine: all reconstructions are parallel.
    # hoyer, C=4: one code (2 - 1)/1 = 1; four equal (2 - 4/2)/1 = 0; mean .5.
    assert image.result() == pytest.approx({"rows": 2, "r2": 0.75, "cosine": 1, "l0": 2.5, "hoyer": 0.5})
    # (3, 4): |z|_1 / |z|_2 = 7/5, (2 - 1.4)/1 = .6; the row without codes has no Hoyer sparsity.
    assert text.result() == pytest.approx({"rows": 2, "r2": 0.75, "cosine": 1, "l0": 1, "hoyer": 0.6})


def test_both_modalities():
    result = combine(*worked())
    # m = (.25, .25). E_I|x - m|^2 = 1/2 + |(.25,.25)|^2 = .625; E_T = 2/2 + .125 = 1.125; sum 1.75.
    # Errors: .25/2 + .5/2 = .375. r2 = 1 - .375/1.75.
    # One scalar mean: .25 in both dimensions, here the same point as m.
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
    # Unit rows whose mean vector has norm .7: predicting the mean leaves 1 - .49 of |x|^2 = 1. About the mean vector
    # that is R2 0; about one number (here 0, the mean vector's entries cancel) it is .49.
    mean = np.array([0.7, -0.7, 0, 0]) / math.sqrt(2)
    side = math.sqrt(0.51)
    x = mean + np.array([[0, 0, side, 0], [0, 0, -side, 0]])
    part = filled(x, np.stack([mean, mean]), np.ones((2, 3)))
    result = combine(part, part)
    assert result["r2"] == pytest.approx(0)
    assert result["r2_scalar_mean"] == pytest.approx(0.49)


def test_r2_is_not_a_mean_of_ratios():
    # Batches of errors 0 and 2 on spreads 8 and 2 about the overall mean 0: 1 - 2/10; the mean of ratios says .5.
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
    x = random.standard_normal((30, 4)) + 100  # far from 0, where differences of large sums lose digits
    x_hat, codes = x + 0.1 * random.standard_normal((30, 4)), random.random((30, 6)).round()
    whole, parts = filled(x, x_hat, codes), filled(x, x_hat, codes, sorted(cuts))
    assert parts.result() == pytest.approx(whole.result(), rel=1e-12)
    spread = ((x - x.mean(0)) ** 2).sum()
    assert whole.result()["r2"] == pytest.approx(1 - ((x - x_hat) ** 2).sum() / spread, rel=1e-12)
