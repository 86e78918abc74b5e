"""Modality subspaces: worked numbers, scikit-learn and plain numpy as references, and the laws of the definitions."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from analysis import subspaces as room
from analysis.subspaces import Modalities, Subspace, alignment, modalities, smallest, subspaces


def clouds(seed, images=300, texts=200, dim=8, gap=(0.8, 0.5)) -> Modalities:
    """Unit rows of two Gaussian clouds of unequal size and spread, separated along the first axes by `gap`."""
    random = np.random.default_rng(seed)
    shift = np.array([*gap, *[0.0] * (dim - len(gap))]) / 2
    scale = np.linspace(1, 0.3, dim) / 2
    image = random.standard_normal((images, dim)) * scale + shift
    text = random.standard_normal((texts, dim)) * scale[::-1] - shift
    return Modalities(*(x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text)))


def fitted(rows: Modalities, U=None):
    """Fit scikit-learn's logistic regression with the same loss, after projecting the span of U out of the rows.

    Both classes weigh 1/2.
    """
    X = np.concatenate(rows).astype(float)
    X = X if U is None or len(U) == 0 else X - X @ U.T @ U
    y = np.repeat([1, 0], [len(rows.image), len(rows.text)])
    # scikit-learn minimises C * (sum of losses) + |w|^2 / 2. This project minimises (mean of losses) + 1e-3 |w|^2 / 2.
    # For n rows both have the same minimum if C is 1 / (1e-3 n).
    model = LogisticRegression(C=1 / (1e-3 * len(X)), class_weight="balanced", tol=1e-10, max_iter=10_000)
    return model.fit(X, y)


def normal(model):
    return model.coef_[0] / np.linalg.norm(model.coef_)


def balanced(model, rows: Modalities):
    w, c = model.coef_[0], model.intercept_[0]
    return ((rows.image @ w + c > 0).mean() + (rows.text @ w + c <= 0).mean()) / 2


def test_mean_gap_worked():
    train = modalities([[1, 0], [0.8, 0.6]], [[0, 1], [-0.6, 0.8]], "training rows")
    heldout = modalities([[1, 0], [0.6, 0.8], [0, 1]], [[-1, 0]], "held-out rows")
    # The means are (.9, .3) and (-.3, .9). The gap (1.2, -.6) has the direction (2, -1) / sqrt 5. Midway, at (.3, .6),
    # 2x - y is 0.
    subspace = subspaces(train, heldout)["mean_gap"]
    np.testing.assert_allclose(subspace.basis, [[2 / 5**0.5, -1 / 5**0.5]], atol=1e-7)
    # 2x - y is 2, .4 and -1 for the images and -2 for the caption. So two of three images and the one caption are
    # right.
    assert subspace.heldout_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert subspace.rank == 1
    # Alignment is the product of each direction with (2, -1) / sqrt 5. It is positive towards the images.
    np.testing.assert_allclose(
        alignment(subspace, [[1, 0], [0, 1], [-1, 0]]), np.array([2, -1, -2]) / 5**0.5, atol=1e-7
    )


@given(st.integers(0, 1000), st.integers(20, 300), st.integers(20, 300))
@settings(max_examples=15, deadline=None)
def test_logistic_is_that_of_scikit_learn(seed, images, texts):
    train, heldout = clouds(seed, images, texts), clouds(seed + 1)
    subspace, reference = subspaces(train, heldout)["logistic"], fitted(train)
    np.testing.assert_allclose(subspace.basis[0], normal(reference), atol=1e-3)
    assert subspace.heldout_accuracy == pytest.approx(balanced(reference, heldout), abs=1e-12)


def ledoit_wolf_by_formula(x):
    """Return the covariance estimate (1 - s) S + s mu I of Ledoit and Wolf 2004, with mu = tr S / d.

    s = min(b^2, D^2) / D^2, where D^2 is |S - mu I|^2 / d, and b^2 is the mean of |x x^T - S|^2 / d over the n rows,
    divided by n.
    """
    x = x.astype(float) - x.mean(0, dtype=float)
    n, d = x.shape
    S = x.T @ x / n
    mu = np.trace(S) / d
    distance = ((S - mu * np.eye(d)) ** 2).sum() / d
    noise = sum(((np.outer(row, row) - S) ** 2).sum() for row in x) / d / n**2
    s = min(noise, distance) / distance
    return (1 - s) * S + s * mu * np.eye(d)


@given(st.integers(0, 1000), st.integers(5, 60))
@settings(max_examples=15, deadline=None)
def test_lda_is_that_of_the_formula_also_with_few_rows(seed, rows):
    train, heldout = clouds(seed, rows, 2 * rows), clouds(seed + 1)
    within = sum(ledoit_wolf_by_formula(x) for x in train) / 2
    means = [x.mean(0, dtype=float) for x in train]
    w = np.linalg.solve(within, means[0] - means[1])
    w /= np.linalg.norm(w)
    subspace = subspaces(train, heldout)["lda"]
    np.testing.assert_allclose(subspace.basis[0], w, atol=1e-3)
    middle = w @ (means[0] + means[1]) / 2
    accuracy = ((heldout.image @ w > middle).mean() + (heldout.text @ w <= middle).mean()) / 2
    assert subspace.heldout_accuracy == pytest.approx(accuracy, abs=0.004)  # the ridge may reclassify a row


def test_inlp_is_that_of_projecting_rows_and_fitting_again():
    train, heldout = clouds(0, 2000, 1500, gap=(0.9, 0.6, 0.4)), clouds(1, 2000, 1500, gap=(0.9, 0.6, 0.4))
    U, accuracies = np.empty((0, 8)), []
    while True:
        model = fitted(train, U)
        accuracies.append(balanced(model, heldout))
        if abs(accuracies[-1] - 0.5) <= 0.02:
            break
        U = np.concatenate([U, normal(model)[None]])
    subspace = subspaces(train, heldout)["inlp"]
    assert subspace.rank == len(U) >= 2
    np.testing.assert_allclose(subspace.basis, U, atol=1e-3)
    assert subspace.heldout_accuracy == pytest.approx(accuracies[-1], abs=0.002)
    # The first normal is the subspace `logistic`.
    np.testing.assert_allclose(subspace.basis[0], subspaces(train, heldout)["logistic"].basis[0], atol=1e-9)


def test_inlp_stops_at_its_largest_rank_and_says_what_was_left(monkeypatch):
    monkeypatch.setattr(room, "RANK", 1)
    train, heldout = clouds(0, gap=(0.9, 0.9)), clouds(1, gap=(0.9, 0.9))
    subspace = subspaces(train, heldout)["inlp"]
    assert subspace.rank == 1
    assert subspace.heldout_accuracy == pytest.approx(balanced(fitted(train, subspace.basis), heldout), abs=1e-9)
    assert subspace.heldout_accuracy > 0.52


def test_inlp_of_modalities_that_held_out_rows_do_not_tell_apart_is_empty():
    x = clouds(1).image
    subspace = subspaces(clouds(0), Modalities(x, x))["inlp"]  # for equal rows half of the decisions are right
    assert subspace.rank == 0
    assert subspace.basis.shape == (0, 8)
    assert subspace.heldout_accuracy == 0.5
    assert alignment(subspace, np.eye(8)).tolist() == [0.0] * 8


def test_inlp_ends_where_no_direction_is_left():
    # The rows have one dimension. When it is removed no direction is left, and the accuracy is that of chance.
    train = modalities([[1.0], [2.0]], [[-1.0], [-2.0]], "rows")
    spaces = subspaces(train, train)
    assert [spaces[name].basis.tolist() for name in room.SUBSPACES] == [[[1.0]]] * 4
    assert (spaces["inlp"].rank, spaces["inlp"].heldout_accuracy) == (1, 0.5)
    assert spaces["logistic"].heldout_accuracy == 1.0


def test_rows_of_a_modality_that_are_all_equal():
    # No variance within the classes: the discriminant is the gap.
    spaces = subspaces(*[modalities([[1.0, 0]] * 2, [[0, 1.0]] * 3, "rows")] * 2)
    np.testing.assert_allclose(spaces["lda"].basis, [[0.5**0.5, -(0.5**0.5)]], atol=1e-9)


@given(st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_bases_are_orthonormal_and_turn_with_the_space(seed):
    train, heldout = clouds(seed), clouds(seed + 1)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed + 2).standard_normal((8, 8)))
    turned = subspaces(*(Modalities(*(x @ rotation for x in rows)) for rows in (train, heldout)))
    for name, subspace in subspaces(train, heldout).items():
        np.testing.assert_allclose(subspace.basis @ subspace.basis.T, np.eye(subspace.rank), atol=1e-9)
        assert subspace.rank == turned[name].rank
        np.testing.assert_allclose(subspace.basis @ rotation, turned[name].basis, atol=1e-3)


@given(st.integers(0, 1000))
@example(710)  # a held-out accuracy of .52, the border, but for its last bit
@settings(max_examples=8, deadline=None)
def test_swapping_the_modalities_turns_every_normal_around(seed):
    train, heldout = clouds(seed), clouds(seed + 1)
    swapped = subspaces(Modalities(*train[::-1]), Modalities(*heldout[::-1]))
    D = np.eye(8)
    for name, subspace in subspaces(train, heldout).items():
        sign = 1 if name == "inlp" else -1
        np.testing.assert_allclose(alignment(swapped[name], D), sign * alignment(subspace, D), atol=1e-5)
        assert swapped[name].heldout_accuracy == pytest.approx(subspace.heldout_accuracy, abs=1e-9)


@given(st.integers(0, 1000), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_alignment_with_a_subspace_does_not_depend_on_its_basis(seed, rank):
    random = np.random.default_rng(seed)
    U = np.linalg.qr(random.standard_normal((8, rank)))[0].T
    rotation = np.linalg.qr(random.standard_normal((rank, rank)))[0]
    D = random.standard_normal((5, 8))
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    one, other = (alignment(Subspace("inlp", basis, rank, 0.5), D) for basis in (U, rotation @ U))
    np.testing.assert_allclose(one, other, atol=1e-12)
    # The expected value is the length of the projection of each atom D_i on the subspace.
    np.testing.assert_allclose(one, np.linalg.norm(D @ U.T @ U, axis=1), atol=1e-12)


def test_the_classes_weigh_the_same_however_many_rows_each_has():
    train, heldout = clouds(0), clouds(1)
    repeated = Modalities(train.image, np.concatenate([train.text] * 3))
    once, thrice = subspaces(train, heldout), subspaces(repeated, heldout)
    for name in ("mean_gap", "logistic", "inlp"):
        np.testing.assert_allclose(once[name].basis, thrice[name].basis, atol=1e-5)


def test_rows_are_those_of_the_smallest_split_u():
    split_u = np.array([0.3, 0.1, 0.2, 0.1])
    assert smallest(split_u, 3).tolist() == [1, 3, 2]  # the two values .1 in input order, then .2
    assert smallest(split_u).tolist() == [1, 3, 2, 0]


@given(st.permutations(range(12)), st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_rows_chosen_do_not_depend_on_their_order(order, limit):
    split_u = np.linspace(0, 0.9, 12)
    assert sorted(np.array(order)[smallest(split_u[list(order)], limit)]) == list(range(limit))


@pytest.mark.parametrize(
    ("image", "text", "message"),
    [
        (np.empty((0, 2)), np.eye(2), "training rows of clip: no image rows"),
        (np.eye(2), np.empty((0, 2)), "no text rows"),
        (np.eye(2), [[1, 0], [np.nan, 0]], "1 text rows hold NaN or infinity, the first is 1"),
        (np.eye(2), np.eye(3), "image rows of width 2, text rows of 3"),
        (np.ones(2), np.eye(2), "as rows"),
    ],
)
def test_rows_that_no_geometry_can_use(image, text, message):
    with pytest.raises(ValueError, match=message):
        modalities(image, text, "training rows of clip")


def test_modalities_of_one_mean_have_no_subspace():
    rows = modalities([[1, 0], [-1, 0]], [[0, 1], [0, -1]], "rows")
    with pytest.raises(ValueError, match="the same mean"):
        subspaces(rows, rows)
    with pytest.raises(ValueError, match="one training row"):
        subspaces(rows._replace(text=rows.text[:1]), rows)
    with pytest.raises(ValueError, match="training rows of width 8, held-out rows of 2"):
        subspaces(clouds(0), rows)
    with pytest.raises(ValueError, match="held-out rows: 1 text rows hold NaN"):
        subspaces(rows, rows._replace(text=np.array([[0, np.nan]])))
