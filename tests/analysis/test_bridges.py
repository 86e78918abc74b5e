"""Bridge figures, their values by chance (nulls), terms of matched similarity, and shares of unimodal concepts."""

import numpy as np
import pytest
from bridges_case import CLASS_LIST, case, pairs_of
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import coactivation
from analysis.bridges import (
    NULLS,
    bridge_nulls,
    bridges_of,
    figures,
    matched_similarity,
)
from analysis.coactivation import CLASSES, Similarity
from analysis.inputs import Biases
from analysis.usage import shuffled_shares, unimodal_shares


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_figures_agree_with_dense_numpy(seed):
    z_I, z_T, owner, D = case(seed)
    (summary,) = figures(pairs_of(z_I, z_T, owner), Similarity(D), [None], CLASS_LIST, 3)
    I, T = z_I[owner].astype(float), z_T.astype(float)  # noqa: E741
    G, cosine = I.T @ T / len(owner), D @ D.T
    scores = {"raw": G * cosine, "covariance": (G - np.outer(I.mean(0), T.mean(0))) * cosine}
    enough = (I > 0).T.astype(int) @ (T > 0) >= 3
    names = np.array(CLASS_LIST)
    opposite = np.outer(names == "image", names == "text") | np.outer(names == "text", names == "image")
    for kind, B in scores.items():
        positive = B.clip(0)
        assert summary[f"{kind}_total"] == pytest.approx(B.sum(), abs=1e-12)
        assert summary[f"{kind}_positive"] == pytest.approx(positive.sum(), abs=1e-12)
        assert summary[f"{kind}_self_share"] == pytest.approx(np.trace(positive) / positive.sum())
        assert summary[f"{kind}_opposite_share"] == pytest.approx(positive[opposite].sum() / positive.sum())
        assert summary[f"{kind}_opposite_total"] == pytest.approx(B[opposite].sum(), abs=1e-12)
        assert summary[f"{kind}_opposite_positive"] == pytest.approx(positive[opposite].sum(), abs=1e-12)
        top = np.sort(B[enough])[::-1][:10].clip(0).sum()
        assert summary[f"{kind}_top_10_share"] == pytest.approx(top / positive.sum())
    assert summary["top_bridge"] == pytest.approx(scores["raw"][enough].max())
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = scores["covariance"] / np.outer(I.std(0), T.std(0))
    assert summary["top_correlation_bridge"] == pytest.approx(np.nanmax(correlation[enough]))


@pytest.mark.parametrize("kept", [0, 10_000])
def test_figures_of_several_orders_are_those_of_permuted_dictionaries(kept, monkeypatch):
    monkeypatch.setattr(coactivation, "KEPT", kept)  # with 0, no cosine is kept, and two orders are taken at a time
    z_I, z_T, owner, D = case(6)
    pairs = pairs_of(z_I, z_T, owner)
    orders = [None, *(np.random.default_rng(seed).permutation(6) for seed in range(4))]
    all_rows = bridges_of(pairs, D, CLASS_LIST, 1).rows
    least = int(all_rows["pairs"][all_rows["bridge"].argmax()])  # the strongest bridge just has enough pairs
    found = figures(pairs, Similarity(D), orders, CLASS_LIST, least)
    for one, order in zip(found, orders, strict=True):
        bridges = bridges_of(pairs, D if order is None else D[order], CLASS_LIST, least)
        rows = bridges.rows
        positive = sum(row["positive"] for row in bridges.totals if row["kind"] == "covariance")
        assert one["covariance_positive"] == pytest.approx(positive, abs=1e-12)
        assert one["raw_total"] == pytest.approx(
            sum(r["total"] for r in bridges.totals if r["kind"] == "raw"), abs=1e-12
        )
        highest = np.sort(rows["covariance_bridge"])[::-1][:10].clip(0).sum()
        assert one["covariance_top_10_share"] == pytest.approx(highest / positive)
        assert one["top_bridge"] == pytest.approx(rows["bridge"].max())
        assert one["top_correlation_bridge"] == pytest.approx(np.nanmax(rows["correlation_bridge"]))


def test_with_images_is_the_same_as_permuting_from_the_start():
    z_I, z_T, owner, D = case(2)
    image_of = np.random.default_rng(3).permutation(len(z_I))  # also between images of different numbers of captions
    bridges = bridges_of(pairs_of(z_I, z_T, owner).with_images(image_of), D, CLASS_LIST, 1)
    expected = bridges_of(pairs_of(z_I, z_T, image_of[owner]), D, CLASS_LIST, 1)
    for name, column in expected.rows.items():
        np.testing.assert_allclose(bridges.rows[name], column, rtol=1e-12)
    assert bridges.totals == expected.totals


def test_nulls_are_repeatable_and_leave_alone_what_they_do_not_permute():
    z_I, z_T, owner, D = case(4)
    pairs = pairs_of(z_I, z_T, owner)
    nulls = bridge_nulls(pairs, D, CLASS_LIST, 1, draws=5, seed=7)
    assert list(nulls) == list(NULLS)
    assert all(len(draws) == 5 for draws in nulls.values())
    assert nulls == bridge_nulls(pairs, D, CLASS_LIST, 1, draws=5, seed=7)
    (real,) = figures(pairs, Similarity(D), [None], CLASS_LIST, 1)
    # The bridge of a concept with itself is the same with a permuted dictionary, since its cosine |D_i|^2 is always 1.
    own = [one["raw_self_share"] * one["raw_positive"] for one in nulls["dictionary_permuted"]]
    assert own == pytest.approx([real["raw_self_share"] * real["raw_positive"]] * 5)
    assert len({one["raw_total"] for one in nulls["dictionary_permuted"]}) == 5


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_terms_add_up_to_matched_similarity(seed):
    z_I, z_T, owner, D = case(seed)
    random = np.random.default_rng(seed)
    b_I, b_T = random.standard_normal((2, 4))
    pairs = pairs_of(z_I, z_T, owner)
    terms = matched_similarity(pairs, D, Biases(b_I, b_T))
    x_I, x_T = z_I[owner].astype(float) @ D + b_I, z_T.astype(float) @ D + b_T
    assert terms["matched"] == pytest.approx((x_I * x_T).sum(1).mean())
    assert terms["shuffled"] == pytest.approx(x_I.mean(0) @ x_T.mean(0))
    parts = terms["bridges"] + terms["text_on_bias"] + terms["image_on_bias"] + terms["bias"]
    assert parts == pytest.approx(terms["matched"])
    (summary,) = figures(pairs, Similarity(D), [None], ["bimodal"] * 6, 1)
    assert summary["raw_total"] == pytest.approx(terms["bridges"])
    assert summary["covariance_total"] == pytest.approx(terms["matched"] - terms["shuffled"])


def test_unimodal_shares():
    # Concept 3 fires too rarely and concept 4 has no score, so concepts 0 to 2 count. Concepts 0 and 1 are unimodal and
    # hold 3/6 of the energy.
    shares = unimodal_shares(
        np.array([0.95, 0.05, 0.5, 1.0, np.nan]), np.array([1.0, 2, 3, 9, 9]), np.array([10, 99, 99, 9, 50])
    )
    assert shares == pytest.approx({"unimodal_share": 2 / 3, "unimodal_energy_share": 1 / 2})
    assert np.isnan(unimodal_shares(np.array([1.0]), np.array([1.0]), np.array([9]))["unimodal_share"])


def test_shuffled_modality_leaves_few_unimodal_concepts_but_not_none():
    # There are as many images as captions, so a shuffled firing falls on an image with probability 1/2. A concept with
    # 30 firings is unimodal (score below .1 or above .9) if at most 2 firings fall on one of the modalities. The
    # probability of this is 2 (1 + 30 + 435) / 2^30 = 8.7e-7. A concept with 11 firings is unimodal if at most 1 firing
    # falls on one of the modalities. The probability of this is 2 (1 + 11) / 2^11 = .0117.
    many, few = (
        np.mean([s["unimodal_share"] for s in shuffled_shares(np.ones(5000), np.full(5000, f), 10**6, 10**6, 20, 0)])
        for f in (30, 11)
    )
    assert many < 1e-4
    assert few == pytest.approx(24 / 2**11, abs=0.001)


def test_classes_are_those_of_the_totals():
    assert set(CLASS_LIST) == set(CLASSES)
