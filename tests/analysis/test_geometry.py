"""Directions as classifiers of the modality, and their values by chance: worked numbers, brute force, closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from analysis import geometry as room
from analysis.geometry import (
    alignment_null,
    direction_accuracy,
    matched_directions,
    modality,
    random_directions,
    summary,
)
from analysis.subspaces import Modalities, Subspace, modalities, subspaces


def column(*values):
    return np.array(values, np.float32)[:, None]


def brute_force(v, train, heldout):
    """Return the best training accuracy of direction v, and the held-out accuracies of all classifiers that reach it.

    A classifier takes the rows above a threshold as images, or the rows below it. The threshold lies midway between two
    neighbouring projections, or below all projections.
    """
    images, texts = (x @ v for x in train)
    values = np.unique(np.concatenate([images, texts]).astype(float))
    cuts = [-np.inf, *((values[1:] + values[:-1]) / 2)]

    def accuracy_of(s, t, rows):
        return ((s * (rows[0] - t) > 0).mean() + 1 - (s * (rows[1] - t) > 0).mean()) / 2

    tried = [(accuracy_of(s, t, (images, texts)), s, t) for s in (1, -1) for t in cuts]
    best = max(score for score, _, _ in tried)
    chosen = [(s, t) for score, s, t in tried if score > best - 1e-12]
    return best, {round(accuracy_of(s, t, [x @ v for x in heldout]), 9) for s, t in chosen}


def test_worked_example():
    train = Modalities(column(1, 2, 5), column(0, 2))
    heldout = Modalities(column(0.4, 0.6, 3, 9), column(0, 1, 0.5))
    # There are 3 images and 2 captions. A threshold with c captions and i images below it scores 3 c - 2 i. The score
    # is 3 just above 0, 1 just above 1, and 2 just above 2. So the best threshold is midway between 0 and 1: images lie
    # above it. The accuracy is .5 + 3 / (2 * 3 * 2) = .75: all images and one of two captions are classified correctly.
    accuracy = direction_accuracy([[1.0]], train, heldout)
    assert accuracy.train.tolist() == [0.75]
    assert accuracy.threshold.tolist() == [0.5]
    assert accuracy.orientation.tolist() == [1]
    # Held out: three of four images lie above .5, and two of three captions do not (.5 itself is not above).
    assert accuracy.heldout == pytest.approx([(3 / 4 + 2 / 3) / 2])
    # The opposite direction is the same classifier. Again 0.5 lies on the threshold and is not classified as an image.
    back = direction_accuracy([[-1.0]], train, heldout)
    assert (back.train[0], back.threshold[0], back.orientation[0]) == (0.75, -0.5, -1)
    assert back.heldout == pytest.approx(accuracy.heldout)


def test_direction_that_separates_nothing():
    # All projections are equal: no threshold separates them, and every row is classified as an image.
    rows = Modalities(np.eye(2, dtype=np.float32)[[0, 0, 0]], np.eye(2, dtype=np.float32)[[0, 0]])
    accuracy = direction_accuracy([[0.0, 1.0], [1.0, 0.0]], rows, rows)
    assert accuracy.heldout.tolist() == accuracy.train.tolist() == [0.5, 0.5]
    assert accuracy.threshold.tolist() == [-np.inf, -np.inf]


rows = st.lists(st.integers(-4, 4), min_size=1, max_size=9).map(lambda values: column(*values))


@given(rows, rows, rows, rows)
@settings(max_examples=200, deadline=None)
def test_no_threshold_is_better_with_ties(image, text, heldout_image, heldout_text):
    train, heldout = Modalities(image, text), Modalities(heldout_image, heldout_text)
    best, possible = brute_force(np.array([1.0]), train, heldout)
    accuracy = direction_accuracy([[1.0]], train, heldout)
    assert accuracy.train[0] == pytest.approx(best, abs=1e-12)
    assert round(accuracy.heldout[0], 9) in possible  # several thresholds may be equally good


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_many_directions_agree_with_brute_force_and_with_swapped_modalities(seed, images, texts):
    random = np.random.default_rng(seed)
    train = Modalities(*(random.standard_normal((n, 3)).astype(np.float32) for n in (images, texts)))
    heldout = Modalities(*(random.standard_normal((n, 3)).astype(np.float32) for n in (texts, images)))
    v = random.standard_normal((4, 3)).astype(np.float32)
    accuracy = direction_accuracy(v, train, heldout)
    for i in range(4):
        best, possible = brute_force(v[i], train, heldout)
        assert accuracy.train[i] == pytest.approx(best, abs=1e-12)
        assert round(accuracy.heldout[i], 9) in possible
    swapped = direction_accuracy(v, Modalities(*train[::-1]), Modalities(*heldout[::-1]))
    np.testing.assert_array_equal(swapped.threshold, accuracy.threshold)
    np.testing.assert_allclose(swapped.heldout, accuracy.heldout, atol=1e-12)
    assert (swapped.orientation == -accuracy.orientation).all()


def test_thresholds_lie_between_neighbouring_float32_numbers():
    low = np.float32(1)
    high = np.nextafter(low, np.float32(2))
    train = Modalities(np.array([[high]]), np.array([[low]]))
    accuracy = direction_accuracy([[1.0]], train, train)
    assert accuracy.heldout.tolist() == [1.0]
    assert low < accuracy.threshold[0] < high


def test_blocks_do_not_matter(monkeypatch):
    random = np.random.default_rng(0)
    rows = Modalities(*(random.standard_normal((n, 5)).astype(np.float32) for n in (30, 20)))
    v = random_directions(5, 11, seed=0)
    whole = direction_accuracy(v, rows, rows)
    monkeypatch.setattr(room, "BLOCK", 4)
    for one, other in zip(direction_accuracy(v, rows, rows), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize(
    ("v", "message"),
    [([[np.nan, 0]], "NaN"), ([[1.0]], "do not fit rows of width 2"), ([1.0, 0], "do not fit")],
)
def test_directions_that_cannot_be_used(v, message):
    rows = Modalities(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    with pytest.raises(ValueError, match=message):
        direction_accuracy(v, rows, rows)


def test_rows_that_hold_nan_are_not_counted_as_captions():
    rows = Modalities(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    with pytest.raises(ValueError, match="held-out rows: 1 image rows hold NaN"):
        direction_accuracy(np.eye(2), rows, rows._replace(image=np.array([[np.nan, 0]], np.float32)))


def test_null_of_alignment_in_three_dimensions():
    # A coordinate of a random unit vector v in three dimensions is uniform on [-1, 1] (Archimedes). So |U v|, the
    # length of its projection on a subspace of rank 1, is uniform on [0, 1].
    one = alignment_null(1, 3)
    assert one[:4] == pytest.approx((1 / 2, 1 / 12**0.5, 0.025, 0.975))
    # For rank 2, |U v| is sqrt(1 - u^2) with u uniform on [0, 1]. Its mean is the area of a quarter circle, pi / 4.
    # |U v| is below q where u is above sqrt(1 - q^2), so the 2.5 % quantile of |U v| is sqrt(1 - .975^2).
    two = alignment_null(2, 3)
    assert two.mean == pytest.approx(np.pi / 4)
    assert two.q025 == pytest.approx((1 - 0.975**2) ** 0.5)
    # In two dimensions |U v| for rank 1 is |cos| of a uniform angle, which has the mean 2 / pi.
    assert alignment_null(1, 2).mean == pytest.approx(2 / np.pi)
    assert alignment_null(3, 3) == (1, 0, 1, 1, 0)
    assert alignment_null(0, 3) == (0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="rank 4 in 3 dimensions"):
        alignment_null(4, 3)


@pytest.mark.parametrize(("rank", "dim"), [(1, 512), (5, 40), (32, 768)])
def test_null_of_alignment_is_that_of_drawn_vectors(rank, dim):
    draws = np.linalg.norm(random_directions(dim, 4000, seed=3)[:, :rank], axis=1)
    known, drawn = alignment_null(rank, dim), summary(draws)
    assert drawn.mean == pytest.approx(known.mean, abs=3 * known.sd / 4000**0.5)
    assert drawn.sd == pytest.approx(known.sd, rel=0.05)
    assert (draws < known.q025).mean() == pytest.approx(0.025, abs=0.008)
    assert (draws > known.q975).mean() == pytest.approx(0.025, abs=0.008)


def test_summary_of_three_draws():
    # The mean is 2, the standard deviation sqrt((1 + 0 + 1) / 2) = 1. The draws range over 2, and 2.5 % of 2 is .05. So
    # the 2.5 % quantile is 1 + .05 and the 97.5 % quantile is 3 - .05.
    assert summary(np.array([1.0, 2.0, 3.0])) == pytest.approx((2, 1, 1.05, 2.95, 3))


def gaussian_clouds(seed, gap, rows=2000, dim=16):
    random = np.random.default_rng(seed)
    shift = gap / 2 * np.eye(dim)[0]
    return modalities(*(random.standard_normal((rows, dim)) + sign * shift for sign in (1, -1)), "rows")


def test_null_of_direction_accuracy_where_it_is_known():
    # The modalities are unit Gaussians at distance g on the first axis. Along v their distance is g |v_1|, so the best
    # accuracy is Phi(g |v_1| / 2).
    v = random_directions(16, 400, seed=0)
    accuracy = direction_accuracy(v, gaussian_clouds(1, 4.0), gaussian_clouds(2, 4.0))
    known = norm.cdf(4.0 * np.abs(v[:, 0]) / 2)
    assert accuracy.heldout.mean() == pytest.approx(known.mean(), abs=0.01)
    np.testing.assert_allclose(accuracy.heldout, known, atol=0.05)
    assert known.mean() > 0.64  # the gap alone gives random directions this accuracy


def test_matched_directions_share_the_mean_and_spread_of_the_dictionary():
    random = np.random.default_rng(0)
    scale = np.array([0.3, 0.1, 0.1, 0.0])
    D = np.eye(4)[0] * 2 + random.standard_normal((3000, 4)) * scale
    drawn = matched_directions(D, 3000, seed=1)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1)
    # After normalisation the second coordinate has a standard deviation of about .1 / 2. The last coordinate stays 0,
    # since no row of D varies there.
    assert drawn[:, 1].std() == pytest.approx(0.05, rel=0.1)
    assert np.abs(drawn[:, 3]).max() < 1e-6
    assert np.array_equal(drawn, matched_directions(D, 3000, seed=1))


def test_modality_of_a_dictionary():
    train, heldout = gaussian_clouds(1, 6.0), gaussian_clouds(2, 6.0)
    spaces = subspaces(train, heldout)
    # Concept 0 points to the images, 1 to the captions, 2 to neither. The other five point at random.
    D = np.concatenate([np.eye(16)[[0]], -np.eye(16)[[0]], np.eye(16)[[5]], random_directions(16, 5, seed=9)])
    result = modality(D.astype(np.float32), spaces, train, heldout, seed=0)
    for name in ("mean_gap", "logistic", "lda"):
        assert result.alignment[name][:3] == pytest.approx([1, -1, 0], abs=0.06)
    assert result.alignment["inlp"][:2] == pytest.approx([1, 1], abs=0.01)
    # Phi(3) = .9987. Concept 1 (captions) is as accurate as concept 0 (images), with the orientation -1.
    assert result.accuracy.heldout[:3] == pytest.approx([0.9987, 0.9987, 0.5], abs=0.03)
    assert result.accuracy.orientation[:2].tolist() == [1, -1]
    assert {len(part) for part in result.accuracy} == {8}
    nulls = {(statistic, null): figures for statistic, null, figures in result.nulls}
    assert len(nulls) == len(result.nulls) == 2 * 5
    for name in spaces:
        assert nulls[f"align_{name}", "floor_random"] == alignment_null(spaces[name].rank, 16)
        assert nulls[f"align_{name}", "floor_matched"].draws == room.DRAWS
    # Rows drawn like those of D lie nearer to the first axis than random directions, so both statistics are higher.
    for statistic in ("align_mean_gap", "direction_accuracy"):
        assert nulls[statistic, "floor_matched"].mean > nulls[statistic, "floor_random"].mean + 0.05
    again = modality(D.astype(np.float32), spaces, train, heldout, seed=0)
    assert again.nulls == result.nulls


def test_dictionary_must_have_unit_rows_of_the_right_width():
    rows = gaussian_clouds(0, 2.0, rows=20, dim=3)
    spaces = {"inlp": Subspace("inlp", np.eye(3)[:1], 1, 0.5)}
    with pytest.raises(ValueError, match="row 1 of the dictionary is not of unit norm"):
        modality(np.array([[1.0, 0, 0], [np.nan, 0, 0]]), spaces, rows, rows, 0)
    with pytest.raises(ValueError, match=r"shape \(2, 2\) does not fit rows of width 3"):
        modality(np.eye(2), spaces, rows, rows, 0)
