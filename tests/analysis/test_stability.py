"""Matching of dictionaries, and the two floors of stability. A floor is the stability that chance reaches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from analysis.stability import floor_matched, floor_random, match


def unit(random, rows, dim):
    D = random.standard_normal((rows, dim)).astype(np.float32)
    return D / np.linalg.norm(D, axis=1, keepdims=True)


def test_assignment_is_exact_not_greedy():
    # The cosines are [[.8, .6], [1, 0]]. Greedy matching gives row 0 its best, .8, and leaves 0 for row 1. The best
    # total is .6 + 1.
    D_a, D_b = np.array([[0.8, 0.6], [1, 0]]), np.array([[1.0, 0], [0, 1]])
    permutation, cosines, *_ = match(D_a, D_b)
    assert permutation.tolist() == [1, 0]
    assert cosines == pytest.approx([0.6, 1.0])


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_permuted_dictionary_has_stability_one(seed):
    random = np.random.default_rng(seed)
    D, order = unit(random, 30, 8), random.permutation(30)
    permutation, cosines, *_ = match(D, D[order])
    assert (order[permutation] == np.arange(30)).all()
    assert cosines.mean() == pytest.approx(1, abs=1e-6)


@given(st.integers(0, 1000), st.sampled_from([2, 7, 40]), st.booleans())
@settings(max_examples=30, deadline=None)
def test_optimum_is_that_of_scipy(seed, rows, rounded):
    # Rounded rows give equal cosines, and a repeated row of a dictionary gives equal columns of cosines. So several
    # matchings are optimal.
    random = np.random.default_rng(seed)
    D_a, D_b = unit(random, rows, 3), unit(random, rows, 3)
    if rounded:
        D_a, D_b = np.round(D_a), np.round(D_b)
        D_b[rows // 2] = D_b[0]
    cosines = D_a @ D_b.T
    best = cosines[linear_sum_assignment(cosines, maximize=True)].sum(dtype=np.float64)
    matching = match(D_a, D_b)
    assert sorted(matching.permutation) == list(range(rows))
    assert matching.cosines.sum(dtype=np.float64) == pytest.approx(best, abs=1e-5)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(2, 2\)"):
        match(np.eye(3, 2), np.eye(2))


def test_a_dictionary_with_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        match(np.eye(2), np.array([[1, 0], [0, np.nan]]))


def test_floor_random_agrees_with_unrelated_dictionaries():
    # At C = 4096, d = 512 the mean is known to be .154, but this size is too slow for every run. Here C is 256 and d is
    # 32, and the reference is drawn.
    D = unit(np.random.default_rng(0), 256, 32)
    floor = floor_random(D, 4, seed=1)
    reference = [match(unit(np.random.default_rng(s), 256, 32), D).cosines.mean() for s in range(10, 14)]
    assert floor.shape == (4, 256)
    assert floor.mean() == pytest.approx(np.mean(reference), abs=0.004)
    assert np.array_equal(floor, floor_random(D, 4, seed=1))


def test_floor_random_does_not_depend_on_the_dictionary():
    # Random rows prefer no direction, so a rotated dictionary has the same floor.
    D = unit(np.random.default_rng(0), 64, 16)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((16, 16)))
    assert floor_random(D, 20, 0).mean() == pytest.approx(floor_random(D @ rotation, 20, 0).mean(), abs=0.006)


def test_floor_matched_sees_what_dictionaries_share():
    # All rows of D lie near one axis. Unrelated rows with the same mean are nearly parallel to them, random rows are
    # not.
    random = np.random.default_rng(0)
    D = np.array([1.0, *[0.0] * 15]) + 0.05 * random.standard_normal((64, 16))
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    matched, uniform = floor_matched(D, 3, 0), floor_random(D, 3, 0)
    assert matched.shape == (3, 64)
    assert matched.mean() > 0.95
    # The mean cosine of random rows with rows near one axis is the mean of a coordinate of a random unit vector: 0.
    assert abs(uniform.mean()) < 0.2


def test_floor_matched_of_isotropic_rows_is_the_random_floor():
    D = unit(np.random.default_rng(0), 512, 16)
    assert floor_matched(D, 3, 0).mean() == pytest.approx(floor_random(D, 3, 0).mean(), abs=0.01)
