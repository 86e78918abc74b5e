"""Probes: their solvers, the choice of concepts, the draw of items, and the accuracy on held-out items."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_case import study
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression
from sql_case import KEYS

from analysis import probing
from analysis.embedding_probing import baselines, components
from analysis.probes import Items, all_features, balanced_accuracy, few_features, lbfgs, mean_differences, newton
from analysis.probing import SIZES, best_penalty, drawn_items, of_sae


def test_worked_probe_of_one_feature() -> None:
    # The feature is 1 on three of four positive items and on one of four negative ones. Without a penalty, the log odds
    # are log(3 / 1) where it is 1 and log(1 / 3) where it is 0; so the constant is -log 3 and the weight is 2 log 3.
    x = np.array([1.0, 1, 1, 0, 1, 0, 0, 0])[:, None]
    has = np.array([True] * 4 + [False] * 4)
    assert newton(x, has, 1e-9) == pytest.approx([2 * math.log(3), -math.log(3)], abs=1e-3)
    # Half as many negative items, with the same shares, change nothing: both classes have the same weight.
    seldom = np.array([0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7])
    assert newton(x[seldom], has[seldom], 1e-9) == pytest.approx([2 * math.log(3), -math.log(3)], abs=1e-3)


def test_worked_balanced_accuracy() -> None:
    # Two of three positive items are found, and one of two negative ones is refused: (2/3 + 1/2) / 2.
    scores = np.array([[1.0], [0.5], [-1], [2], [0]])
    has = np.array([[True], [True], [True], [False], [False]])
    assert balanced_accuracy(scores, has) == pytest.approx([7 / 12])
    assert np.isnan(balanced_accuracy(scores[:3], has[:3])).all()


@given(st.integers(0, 10_000), st.sampled_from([1.0, 0.1, 0.01]))
@settings(max_examples=25, deadline=None)
def test_both_solvers_find_the_same_probe(seed: int, penalty: float) -> None:
    random = np.random.default_rng(seed)
    x = random.exponential(1, (60, 3)) * (random.random((60, 3)) < 0.4)
    has = x @ random.standard_normal(3) + random.standard_normal(60) > 0.5
    has[:2] = [True, False]
    weights = newton(x, has, penalty)
    weight = np.where(has, 0.5 / has.sum(), 0.5 / (~has).sum())

    def loss(at):
        margin = np.where(has, 1, -1) * (x @ at[:-1] + at[-1])
        return weight @ np.logaddexp(0, -margin) + penalty / 2 * at[:-1] @ at[:-1]

    # Both end near the minimum. Where the loss is flat, weights may differ while it does not.
    other = lbfgs(csr_array(x.astype(np.float32)), has[:, None], penalty)[:, 0].astype(float)
    assert loss(weights) - 1e-6 <= loss(other) <= loss(weights) + 1e-3
    # At the minimum, the gradient of the loss is 0.
    error = weight * (1 / (1 + np.exp(-(x @ weights[:-1] + weights[-1]))) - has)
    assert np.abs(x.T @ error + penalty * weights[:-1]).max() < 1e-3
    assert abs(error.sum()) < 1e-3


def test_the_probe_is_that_of_scikit_learn_with_balanced_classes() -> None:
    random = np.random.default_rng(8)
    x = random.exponential(1, (200, 4)) * (random.random((200, 4)) < 0.3)
    has = x @ np.array([2.0, -1, 0.5, 0]) + random.standard_normal(200) > 1
    # The peer minimises C * sum of the losses + |weights|^2 / 2, with weights of items that have the mean 1.
    peer = LogisticRegression(C=1 / (0.05 * 200), class_weight="balanced", tol=1e-8).fit(x, has)
    assert newton(x, has, 0.05) == pytest.approx([*peer.coef_[0], *peer.intercept_], abs=1e-3)


def test_the_features_of_largest_mean_difference_are_chosen() -> None:
    x = np.array([[0.0, 3, 1], [0, 1, 1], [4, 0, 1], [2, 0, 1]])
    has = np.array([[True], [True], [False], [False]])
    items = Items(csr_array(x), has)
    assert mean_differences(items)[:, 0] == pytest.approx([3, 2, 0])
    # The first feature alone tells the classes apart: 0 with the label, above 0 without.
    assert few_features(items, items, [1, 2], 0.01) == pytest.approx(np.ones((2, 1)))
    assert few_features(Items(x, has), Items(x, has), [1], 0.01) == pytest.approx(np.ones((1, 1)))


def test_planted_labels_are_predicted_by_their_concept() -> None:
    con = study(np.random.default_rng(0), planted=True)
    con.execute("UPDATE codes SET activation = 2")  # a probe is linear: it would miss small activations of wide spread
    rows = of_sae(con, KEYS, 6)
    few = rows.filter(pl.col("probe") == "concepts")
    assert set(few["features"]) == {1, 2, 4}  # the SAE has six concepts
    assert set(few["label"]) == {"label 0", "label 1", "label 2"}  # a label of one image does not count
    # A concept fires on 97 % of the items with its label and on 3 % of the others, so that it is right on 97 %.
    assert few.filter(pl.col("features") == 1)["balanced_accuracy"].min() >= 0.95
    assert few.group_by("modality").len()["len"].to_list() == [9, 9]
    assert rows.filter(pl.col("probe") == "all_concepts")["balanced_accuracy"].min() >= 0.95


def test_labels_without_meaning_are_predicted_at_chance() -> None:
    rows = of_sae(study(np.random.default_rng(1), planted=False), KEYS, 6)
    means = rows.group_by("modality", "probe", "features").agg(pl.col("balanced_accuracy").mean())
    # About 240 held-out images, a third of them positive: the accuracy of one label has a sd of about .03.
    assert means["balanced_accuracy"].to_numpy() == pytest.approx(np.full(means.height, 0.5), abs=0.07)


def test_a_study_without_labels_has_no_rows() -> None:
    con = study(np.random.default_rng(2), planted=False)
    con.execute("DELETE FROM labels")
    assert of_sae(con, KEYS, 6).height == 0


def test_the_draw_is_fixed_and_keeps_items_beside_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    con = study(np.random.default_rng(3), planted=True)
    monkeypatch.setattr(probing, "ITEMS", 150)
    first, again = list(drawn_items(con)), list(drawn_items(con))
    for drawn, same in zip(first, again, strict=True):
        assert (len(drawn.train.items), len(drawn.heldout.items)) == (150, 150)
        for side, name in ((drawn.train, "train"), (drawn.heldout, "heldout")):
            view, key = ("images", "image_id") if drawn.modality == "image" else ("pairs", "pair_id")
            of_view = dict(con.execute(f"SELECT {key}, image_id FROM {view} WHERE split = '{name}'").fetchall())
            assert [of_view[item] for item in side.items] == side.image.tolist()
            labels = dict(con.execute("SELECT image_id, label FROM labels WHERE label <> 'rare'").fetchall())
            held = [drawn.kinds[0].labels[i] for i in side.has.argmax(1)]
            assert held == [labels[image] for image in side.image]
        assert (drawn.train.items == same.train.items).all()
    assert len(first) == 2


def test_the_most_frequent_labels_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "LABELS", 2)
    drawn = next(drawn_items(study(np.random.default_rng(4), planted=True)))
    monkeypatch.setattr(probing, "LABELS", 3)
    every = next(drawn_items(study(np.random.default_rng(4), planted=True)))
    fewest = every.kinds[0].labels[every.train.has.sum(0).argmin()]
    assert drawn.kinds[0].labels == [label for label in every.kinds[0].labels if label != fewest]


def test_the_penalty_is_chosen_on_a_fifth_of_the_training_images() -> None:
    random = np.random.default_rng(5)
    group = np.repeat(np.arange(20), 5)
    has = random.random((100, 1)) < 0.5
    # With as many features of noise as items, a large penalty generalises best to the images that are left out.
    x = random.standard_normal((100, 100)) + 0.4 * has
    assert best_penalty(Items(x, has), group) == 1.0
    scores = [all_features(Items(x, has).of(group >= 4), Items(x, has).of(group < 4), p)[0] for p in (1.0, 0.1, 0.01)]
    assert scores[0] == max(scores)
    assert best_penalty(Items(x, has), np.full(100, 7)) == 1.0  # no item is left to choose by


def test_baselines_of_embeddings_find_what_lies_in_them() -> None:
    con = study(np.random.default_rng(6), planted=True)
    drawn = next(drawn_items(con))
    has = np.concatenate([drawn.train.has, drawn.heldout.has])
    random = np.random.default_rng(7)
    # Labels lie in three directions of little variance; eight others have more. So the first eight components say
    # nothing, and chosen ones say all.
    x = np.concatenate([has.astype(float), 3 * random.standard_normal((len(has), 8))], axis=1)
    x += 0.05 * random.standard_normal(x.shape)
    found = {(one.probe, one.features): one.accuracy.mean() for one in baselines(con, drawn, x.astype(np.float32))}
    assert set(found) == {("embedding", 11), *((name, s) for name in ("pca", "pca_chosen") for s in SIZES if s < 11)}
    assert found["embedding", 11] > 0.99
    assert found["pca", 8] < 0.6
    assert found["pca_chosen", 2] > 0.99
    scores = components(x, len(drawn.train.items))[: len(drawn.train.items)]
    covariance = np.cov(scores.T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-2)
    assert (np.diff(np.diag(covariance)) <= 1e-6).all()
