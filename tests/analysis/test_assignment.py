"""Assignments are optimal, in memory and in blocks. One that ends early says how far from optimal it can be."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from analysis import assignment, stability
from analysis.assignment import assign
from analysis.stability import floor_matched, floor_random


@pytest.fixture(params=["in memory", "in blocks"])
def _path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in blocks":
        monkeypatch.setattr(assignment, "KEPT", 1)
        monkeypatch.setattr(assignment, "RECOMPUTED", assignment.Candidates(16, 4, 8))
        monkeypatch.setattr(assignment, "BLOCK", 7)
    else:
        monkeypatch.setattr(assignment, "IN_MEMORY", assignment.Candidates(8, 3, 10))


def unit(random: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    D = random.standard_normal((rows, dim))
    return (D / np.linalg.norm(D, axis=1, keepdims=True)).astype(np.float32)


def best_mean(D_a: np.ndarray, D_b: np.ndarray) -> float:
    cosines = (D_a @ D_b.T).astype(np.float64)
    return float(cosines[linear_sum_assignment(cosines, maximize=True)].mean())


@pytest.mark.usefixtures("_path")
@pytest.mark.parametrize("dim", [2, 3, 24])
@pytest.mark.parametrize("related", [False, True])
def test_few_candidates_give_the_optimum(dim: int, related: bool) -> None:
    random = np.random.default_rng(dim)
    D_a, D_b = unit(random, 120, dim), unit(random, 120, dim)
    if related:
        D_b = D_a + 0.2 * D_b
        D_b /= np.linalg.norm(D_b, axis=1, keepdims=True)
    found = assign(D_a, D_b)
    assert sorted(found.permutation) == list(range(120))
    assert found.cosines == pytest.approx((D_a * D_b[found.permutation]).sum(1), abs=1e-6)
    assert found.cosines.mean(dtype=np.float64) == pytest.approx(best_mean(D_a, D_b), abs=1e-7)
    assert found.gap < 1e-11


@given(st.integers(0, 1000), st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_the_gap_bounds_the_distance_to_the_optimum(seed: int, work: int) -> None:
    # Rounded rows have many equal cosines, so that the auction runs out of work in one of its later phases.
    random = np.random.default_rng(seed)
    D_a, D_b = np.round(unit(random, 40, 3) * 2) / 2, np.round(unit(random, 40, 3) * 2) / 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "KEPT", 1)
        patch.setattr(assignment, "RECOMPUTED", assignment.Candidates(8, 3, 6))
        patch.setattr(assignment, "WORK", work)
        found = assign(D_a, D_b)
    missing = best_mean(D_a, D_b) - found.cosines.mean(dtype=np.float64)
    assert -1e-7 < missing <= found.gap + 1e-7
    assert sorted(found.permutation) == list(range(40))


def test_an_auction_that_ends_early_is_said_beyond_memory_and_replaced_within(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    random = np.random.default_rng(0)
    D_a, D_b = unit(random, 50, 8), unit(random, 50, 8)
    monkeypatch.setattr(assignment, "WORK", 0)
    in_memory = assign(D_a, D_b)
    assert in_memory.gap == 0
    assert in_memory.cosines.mean(dtype=np.float64) == pytest.approx(best_mean(D_a, D_b), abs=1e-7)
    monkeypatch.setattr(assignment, "KEPT", 1)
    with caplog.at_level(logging.WARNING, "bridgescope"):
        in_blocks = assign(D_a, D_b)
    # The first phase ends with every row at most .01 below its best profit.
    assert 1e-6 < in_blocks.gap <= 0.01 + 1e-7
    assert "50 concepts are matched within" in caplog.text


@pytest.mark.usefixtures("_path")
def test_equal_rows_are_assigned_too() -> None:
    D_a = np.repeat(unit(np.random.default_rng(0), 3, 5), 20, axis=0)
    found = assign(D_a, D_a[::-1].copy())
    assert sorted(found.permutation) == list(range(60))
    assert found.cosines == pytest.approx(np.ones(60), abs=1e-6)


def test_a_single_concept() -> None:
    found = assign(np.array([[1, 0]], np.float32), np.array([[0.6, 0.8]], np.float32))
    assert (found.permutation.tolist(), found.cosines.tolist()) == ([0], [pytest.approx(0.6)])


def test_another_device_gives_the_same_assignment() -> None:
    # torch's own device name for the CPU with an index takes the path of accelerators.
    random = np.random.default_rng(0)
    D_a, D_b = unit(random, 300, 16), unit(random, 300, 16)
    here, there = assign(D_a, D_b), assign(D_a, D_b, "cpu:0")
    assert (here.permutation == there.permutation).all()
    assert there.cosines == pytest.approx(here.cosines, abs=1e-6)


@pytest.mark.parametrize("floor", [floor_random, floor_matched])
def test_threads_do_not_change_a_floor(floor: object, monkeypatch: pytest.MonkeyPatch) -> None:
    D = unit(np.random.default_rng(0), 90, 12)
    monkeypatch.setattr(stability, "cores", lambda: 1)
    alone = floor(D, 5, 3)  # type: ignore[operator]
    monkeypatch.setattr(stability, "cores", lambda: 4)
    assert np.array_equal(alone, floor(D, 5, 3))  # type: ignore[operator]
    # Draws are those of one stream, one after the other: fewer draws are the first ones.
    assert np.array_equal(alone[:2], floor(D, 2, 3))  # type: ignore[operator]


def test_a_floor_is_the_exact_assignment_of_its_draws() -> None:
    D = unit(np.random.default_rng(0), 60, 6)
    random = np.random.default_rng(np.random.SeedSequence(2, spawn_key=(stability.FLOOR,)))
    for cosines in floor_random(D, 3, 2):
        rows = random.standard_normal(D.shape)
        rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        assert cosines.mean(dtype=np.float64) == pytest.approx(best_mean(D, rows), abs=1e-7)
