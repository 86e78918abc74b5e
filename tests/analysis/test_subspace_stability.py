"""Projections of concepts on spans of another dictionary's atoms: worked numbers, laws and floors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.subspace_floors import floor
from analysis.subspace_stability import ATOMS, projections


def unit(random: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    D = random.standard_normal((rows, dim))
    return (D / np.linalg.norm(D, axis=1, keepdims=True)).astype(np.float32)


def test_a_rotated_pair_of_atoms_spans_the_same_plane() -> None:
    # The first two atoms of b lie in the plane of the first two of a, turned by 45 degrees. Both have a cosine of
    # 1/sqrt(2) with the first, and together hold it wholly. The second has a cosine of -1/sqrt(2) with one of them, so
    # that its two most similar atoms are the other one and the third.
    a = np.eye(3, dtype=np.float32)
    half = np.float32(2**-0.5)
    b = np.array([[half, half, 0], [half, -half, 0], [0, 0, 1]], np.float32)
    found = projections(a, b, (1, 2, 3))
    np.testing.assert_allclose(found, [[2**-0.5, 1, 1], [2**-0.5, 2**-0.5, 1], [1, 1, 1]], atol=1e-6)


@given(seed=st.integers(0, 10**6))
def test_projections_rise_with_atoms_and_are_those_of_least_squares(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = unit(random, 6, 20), unit(random, 30, 20)
    found = projections(a, b)
    assert (np.diff(found, axis=1) >= -1e-6).all()
    np.testing.assert_allclose(found[:, 0], np.abs((a @ b.T).max(1)), atol=1e-6)
    for i, row in enumerate(a):
        for place, m in enumerate(ATOMS):
            nearest = b[np.argsort(-(b @ row))[:m]].astype(np.float64)
            fitted = nearest.T @ np.linalg.lstsq(nearest.T, row, rcond=None)[0]
            assert found[i, place] == pytest.approx(np.linalg.norm(fitted), abs=1e-5)
    # Neither the order of b's atoms nor a rotation of the space changes anything.
    turn = np.linalg.qr(random.standard_normal((20, 20)))[0].astype(np.float32)
    np.testing.assert_allclose(projections(a @ turn, b[::-1] @ turn), found, atol=1e-5)


def test_equal_atoms_add_nothing_and_few_atoms_are_all() -> None:
    a = np.array([[0.6, 0.8, 0]], np.float32)
    b = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0]], np.float32)
    np.testing.assert_allclose(projections(a, b), [[0.6] * len(ATOMS)], atol=1e-6)


def test_floors_rise_with_the_atoms_and_lie_below_equal_dictionaries() -> None:
    random = np.random.default_rng(0)
    D = unit(random, 40, 32)
    means = floor(D, np.ones(40), lambda normal: normal, seed=0)
    assert means.shape == (20, len(ATOMS))
    assert (np.diff(means, axis=1) > 0).all()
    assert means[:, :4].max() < 1
    np.testing.assert_allclose(projections(D, D)[:, 0], 1, atol=1e-6)
    assert np.isnan(floor(D, np.zeros(40), lambda normal: normal, seed=0)).all()


def test_a_floor_of_a_sample_has_the_weighted_mean_as_its_expectation(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    D = unit(random, 60, 16)
    D[:10, 0] += 2  # energetic concepts lie near one direction, which the random atoms have too
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    energies = np.where(np.arange(60) < 10, 20.0, 1.0)
    shift = np.eye(16)[0] * 2
    whole = floor(D, energies, lambda normal: normal + shift, seed=0).mean(0)
    monkeypatch.setattr("analysis.subspace_floors.SAMPLE", 30)
    sampled = floor(D, energies, lambda normal: normal + shift, seed=0, draws=100).mean(0)
    np.testing.assert_allclose(sampled, whole, atol=0.02)
