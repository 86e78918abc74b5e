"""Concepts that fire together, beside the correlation of the dense codes."""

from __future__ import annotations

import numpy as np

from report.explorer.together import NEAREST, together_of


def test_they_are_those_of_the_largest_correlation() -> None:
    random = np.random.default_rng(0)
    codes = np.maximum(random.standard_normal((200, 12)), 0)
    codes[:, 3] = codes[:, 7] * 2  # always in proportion
    codes[:, 5] = 0  # dead
    item, concept = np.nonzero(codes)
    found = together_of(item, concept, codes[item, concept], 12)
    assert found[3][0] == (7, 1.0)
    assert found[5] == []
    rows = np.unique(item)
    with np.errstate(invalid="ignore"):
        dense = np.nan_to_num(np.corrcoef(codes[rows].T))
    np.fill_diagonal(dense, 0)
    for i, others in enumerate(found):
        expected = [j for j in np.argsort(-dense[i], kind="stable")[:NEAREST] if dense[i, j] > 0]
        assert [j for j, _ in others] == expected
        assert [value for _, value in others] == [float(f"{dense[i, j]:.4g}") for j in expected]


def test_without_firings_there_are_none() -> None:
    none = np.empty(0, np.int64)
    assert together_of(none, none, np.empty(0), 3) == [[], [], []]
