"""Plain SQL, the numerical kernel and dense numpy give the same co-activations and bridges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sql_case import KEYS, random_case

from analysis.bridges import bridges_of, pairs_of
from analysis.inputs import counted_pairs
from analysis.tables import fill
from storage.catalog import frame
from storage.statements import SQL


@pytest.mark.parametrize("split", ["heldout", "all"])
@given(st.integers(0, 10_000))
@settings(max_examples=6, deadline=None)
def test_kernel_sql_and_numpy_agree(split: str, seed: int) -> None:
    case = random_case(seed)
    width = case.z_image.shape[1]
    sql = (SQL / "reference" / "coactivation.sql").read_text()
    reference = frame(case.con, sql, {**KEYS, "split": split})
    fill(case.con, "codes", **KEYS, split=split)
    pairs = pairs_of(case.con, counted_pairs(case.con, split), width)
    bridges = bridges_of(pairs, case.dictionary, ["bimodal"] * width, 1)
    assert reference["image_concept"].to_list() == bridges.rows["image_concept"].tolist()
    assert reference["text_concept"].to_list() == bridges.rows["text_concept"].tolist()
    assert reference["pairs"].to_list() == bridges.rows["pairs"].tolist()
    np.testing.assert_allclose(bridges.rows["coactivation"], reference["coactivation"], rtol=1e-9)
    kept = case.heldout[case.owner] if split == "heldout" else np.ones(len(case.owner), bool)
    image, text = case.z_image[case.owner][kept].astype(float), case.z_text[kept].astype(float)
    G = image.T @ text / kept.sum()
    at = bridges.rows["image_concept"], bridges.rows["text_concept"]
    np.testing.assert_allclose(bridges.rows["coactivation"], G[at], rtol=1e-9)
    cosine = case.dictionary @ case.dictionary.T
    covariance = (G - np.outer(image.mean(0), text.mean(0))) * cosine
    np.testing.assert_allclose(bridges.rows["bridge"], (G * cosine)[at], rtol=1e-9)
    np.testing.assert_allclose(bridges.rows["covariance_bridge"], covariance[at], rtol=1e-9, atol=1e-12)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = (covariance / np.outer(image.std(0), text.std(0)))[at]
    np.testing.assert_allclose(bridges.rows["correlation_bridge"], correlation, rtol=1e-7, atol=1e-12)
