"""The net total of opposite unimodal concepts without a matrix of concepts: its value, its jackknife and its null."""

import numpy as np
import pytest
from bridges_case import CLASS_LIST, case, pairs_of
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis.class_totals as room
from analysis.bridges import figures
from analysis.class_totals import opposite_total
from analysis.coactivation import Similarity

NET = "covariance_opposite_total"


def net(pairs, D, min_pairs=1):
    (summary,) = figures(pairs, Similarity(D), [None], CLASS_LIST, min_pairs)
    return summary[NET]


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_total_and_jackknife_are_those_of_the_matrix(seed):
    z_I, z_T, owner, D = case(seed)
    pairs, groups = pairs_of(z_I, z_T, owner), np.random.default_rng(seed).integers(0, 20, len(z_I))
    found = opposite_total(pairs, D, CLASS_LIST, groups, 2, 0)
    assert found.total == pytest.approx(net(pairs, D), abs=1e-6)
    assert set(found.without) == set(groups[owner])
    for group, value in list(found.without.items())[:3]:
        kept = groups[owner] != group
        assert value == pytest.approx(net(pairs_of(z_I, z_T[kept], owner[kept]), D), abs=1e-6)


def test_draws_of_several_blocks_are_distributed_as_permutations_of_all_images(monkeypatch):
    # 40 images in blocks of 15 are permuted among all images: the mean is 0 and the sd that of plain permutations.
    monkeypatch.setattr(room, "IMAGES", 15)
    z_I, z_T, owner, D = case(5)
    pairs, groups = pairs_of(z_I, z_T, owner), np.zeros(len(z_I), int)
    drawn = np.concatenate([opposite_total(pairs, D, CLASS_LIST, groups, 20, seed).draws for seed in range(40)])
    random = np.random.default_rng(0)
    plain = [net(pairs.with_images(random.permutation(len(z_I))), D) for _ in range(400)]
    assert abs(drawn.mean()) < 4 * np.std(plain) / np.sqrt(200)  # draws of one seed are not quite independent
    assert np.mean(plain) == pytest.approx(0, abs=4 * np.std(plain) / 20)
    assert drawn.std() == pytest.approx(np.std(plain), rel=0.12)


@pytest.mark.parametrize("counts", ["equal", "one or five", "all different"])
def test_the_null_stays_at_nothing_where_codes_follow_the_number_of_captions(counts):
    # The codes of an image and of its captions both grow with its number of captions. Permuting only among images of
    # equal counts would keep this dependence in every draw.
    random = np.random.default_rng(1)
    number = {"equal": np.full(40, 2), "one or five": np.repeat([1, 5], 20), "all different": np.arange(1, 41)}[counts]
    owner = np.repeat(np.arange(40), number)
    strength = (number + random.random(40))[:, None].astype(np.float32)
    z_I, z_T = strength * [[1, 0]], (strength * [[0, 1]])[owner]
    D = np.array([[1.0, 0], [0.8, 0.6]])
    found = opposite_total(pairs_of(z_I, z_T, owner), D, ["image", "text"], np.zeros(40, int), 200, 0)
    assert abs(found.draws.mean()) < 4 * found.draws.std() / np.sqrt(200)
    if counts != "equal":
        assert found.total > np.quantile(found.draws, 0.975)


def test_a_class_without_concepts_has_a_total_of_nothing():
    z_I, z_T, owner, D = case(3)
    found = opposite_total(pairs_of(z_I, z_T, owner), D, ["image"] * 6, np.arange(40) % 20, 3, 0)
    assert found.total == 0
    assert (found.draws == 0).all()
