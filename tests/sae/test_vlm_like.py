"""The data of bench/plant_vlm_like.py have the properties that they are made for, and recovery is measured right."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from bench.check_vlm_like import recovery
from bench.plant_vlm_like import PARTNER_COSINE, plant, write
from bench.planted_codes import planted_codes
from bench.recovery import agreement, matched, modality_scores, score_errors

DIM, ATOMS = 48, 96


@pytest.fixture(scope="module")
def truth():
    return plant(pairs=5000, dim=DIM, atoms=ATOMS, l0=6, seed=1)


def csr(rows):
    return sparse.csr_array(np.array(rows, float))


def test_rows_are_codes_times_atoms_plus_a_mean_and_noise(truth):
    for rows, codes in ((truth.image, truth.codes_image), (truth.text, truth.codes_text)):
        x = rows.astype(np.float32)
        assert np.linalg.norm(x, axis=1) == pytest.approx(np.ones(len(x)), abs=2e-3)
        rest = x - codes @ truth.atoms
        # Row i is (signal + mean + noise) / norm, so (rest times norm) is the same mean for every row, plus noise.
        assert np.corrcoef(rest.mean(0), x.mean(0))[0, 1] > 0.5
        assert 4.5 < codes.nnz / len(x) < 7


def test_rows_have_a_gap_a_cone_and_more_atoms_than_dimensions(truth):
    image, text = (rows.astype(np.float32).mean(0) for rows in (truth.image, truth.text))
    assert np.linalg.norm(image - text) > 0.4
    assert image @ text > 0.1
    assert len(truth.atoms) == 2 * truth.image.shape[1]
    amplitude = truth.codes_image.data
    assert np.quantile(amplitude, 0.95) > 2 * np.median(amplitude)
    rates = np.sort(np.bincount(truth.codes_image.indices, minlength=ATOMS))[::-1]
    assert rates[0] > 5 * np.median(rates[rates > 0])


def test_atoms_have_the_modality_that_was_planted(truth):
    score = modality_scores(truth.codes_image, truth.codes_text)
    assert (score[truth.kinds == "image"] == 1).all()
    assert (score[truth.kinds == "text"] == 0).all()
    both = score[truth.kinds == "bimodal"]
    assert both[len(both) // 2 :] == pytest.approx(np.full(len(both) - len(both) // 2, 0.5), abs=0.1)
    assert ((both > 0.1) & (both < 0.9)).all()


def test_captions_share_a_part_of_what_fires_in_their_image(truth):
    firings = np.bincount(truth.codes_image.indices, minlength=ATOMS)
    atom = int(np.argmax(np.where(truth.kinds == "bimodal", firings, 0)))
    image, text = (codes[:, [atom]].toarray()[:, 0] > 0 for codes in (truth.codes_image, truth.codes_text))
    assert 0.5 < np.corrcoef(image, text)[0, 1] < 0.95
    partners = truth.bridges[truth.bridges[:, 0] != truth.bridges[:, 1]]
    cosines = (truth.atoms[partners[:, 0]] * truth.atoms[partners[:, 1]]).sum(1)
    assert cosines == pytest.approx(np.full(len(partners), PARTNER_COSINE), abs=1e-4)
    left, right = partners[np.argmax(firings[partners[:, 0]])]
    fires = (codes[:, [a]].toarray()[:, 0] > 0 for codes, a in ((truth.codes_image, left), (truth.codes_text, right)))
    assert np.corrcoef(*fires)[0, 1] > 0.5


def test_more_pairs_begin_with_the_same_rows(truth):
    fewer = plant(pairs=300, dim=DIM, atoms=ATOMS, l0=6, seed=1)
    assert np.array_equal(fewer.image, truth.image[:300])
    assert (fewer.codes_text != truth.codes_text[:300]).nnz == 0
    assert not np.array_equal(plant(pairs=300, dim=DIM, atoms=ATOMS, l0=6, seed=2).image, fewer.image)


def test_too_few_atoms_are_refused():
    with pytest.raises(ValueError, match="8 atoms"):
        plant(atoms=8)


def test_written_files_join_up(tmp_path):
    small = plant(pairs=40, dim=DIM, atoms=ATOMS, seed=3)
    write(small, tmp_path)
    assert np.array_equal(np.load(tmp_path / "text.npy"), small.text)
    metadata = pl.read_parquet(tmp_path / "metadata.parquet")
    fires = np.flatnonzero((small.codes_image[[7]] + small.codes_text[[7]]).toarray()[0])
    assert metadata["caption"][7] == "atoms " + " ".join(map(str, fires))
    items = {"image": np.array([5, 8]), "text": np.arange(40)}
    back = planted_codes(tmp_path, ATOMS, items)
    assert np.array_equal(back["image"].toarray(), small.codes_image.toarray()[[5, 8]])
    assert np.array_equal(back["text"].toarray(), small.codes_text.toarray())


def test_agreement_of_codes_by_hand():
    # Column 0 of the truth is column 1 found, doubled: correlation 1, F1 1. Column 1 of the truth fires in rows 2 and
    # 3, column 0 found in rows 1 and 3, of 8: covariance 1/8 - 1/16, variances 3/16, correlation 1/3; F1 2 * 1 / 4.
    # Column 2 of the truth never fires.
    planted = csr([[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 1, 0], *[[0, 0, 0]] * 4])
    found = csr([[0, 2], [1, 0], [0, 0], [1, 0], *[[0, 0]] * 4])
    agreed = agreement(planted, found)
    assert agreed.atoms == 2
    assert agreed.mcc == pytest.approx((1 + 1 / 3) / 2)
    assert agreed.f1 == pytest.approx((1 + 1 / 2) / 2)
    # The second atom's concept fires on one of its 2 rows and on one of the 6 others. Of the 12 pairs of a row with and
    # a row without the atom, the firing row wins 5 and ties with 1, the silent one ties with 5 and loses 1: 5 + 6 / 2.
    assert agreed.auc == pytest.approx((1 + 8 / 12) / 2)


def test_atoms_without_a_concept_count_zero():
    agreed = agreement(csr([[1, 0], [0, 1], [0, 0]]), csr([[1], [0], [0]]))
    assert (agreed.mcc, agreed.f1, agreed.auc) == pytest.approx((0.5, 0.5, 0.75))
    with pytest.raises(ValueError, match="no planted atom fires"):
        agreement(csr([[0, 0]]), csr([[1, 0]]))
    with pytest.raises(ValueError, match="3 rows"):
        agreement(csr([[1], [0], [0]]), csr([[1]]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.lists(st.floats(0.1, 10), min_size=6, max_size=6), st.permutations(range(6)))
def test_agreement_is_whole_for_the_truth_in_another_order_and_scale(seed, scales, order):
    random = np.random.default_rng(seed)
    codes = (random.random((60, 6)) < 0.3) * random.uniform(0.5, 1.5, (60, 6))
    codes[:2] = [[1] * 6, [0] * 6]  # every column fires, and none is constant
    agreed = agreement(csr(codes), csr((codes * scales)[:, order]))
    assert (agreed.mcc, agreed.f1, agreed.auc) == pytest.approx((1, 1, 1))


def test_modality_scores_and_their_errors_by_hand():
    # Energies 1 and 3 over modalities of one and two rows: 1 / (1 + 3).
    scores = modality_scores(csr([[1, 0]]), csr([[2, 0], [4, 0]]))
    assert scores[0] == pytest.approx(0.25)
    assert np.isnan(scores[1])
    atoms = np.eye(3)
    dictionary = np.array([[0, 1, 0], [1, 0, 0], [0, 0.6, 0.8]])
    left, right, cosines = matched(atoms, dictionary)
    assert (left.tolist(), right.tolist()) == ([0, 1, 2], [1, 0, 2])
    assert cosines == pytest.approx([1, 1, 0.8])
    asked = np.array([True, True, False])
    errors = score_errors(atoms, np.array([0.3, 0.9, 0.1]), dictionary, np.array([np.nan, 0.25, 0]), asked)
    assert errors == pytest.approx([0.05, 0.4])


def test_the_check_passes_the_truth_and_fails_scores_of_the_other_modality(truth):
    codes = {"image": truth.codes_image, "text": truth.codes_text}
    rows = recovery(truth.atoms, truth.kinds, codes, truth.atoms, codes)
    assert all(row["holds"] for row in rows)
    swapped = {"image": truth.codes_text, "text": truth.codes_image}
    wrong = recovery(truth.atoms, truth.kinds, codes, truth.atoms, swapped)
    assert {row["name"] for row in wrong if not row["holds"]} >= {"share of image atoms found as image", "MCC of codes"}
