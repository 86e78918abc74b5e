"""The benches of dead concepts and of modality scores: what is wrong with a score, firings, and the held-out rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from bench import dead_concepts, modality_errors
from bench.modality_errors import decomposed, settled, thinned
from bench.quality_cases import Truth, vlm_like
from bench.variants import halves, told, train_variant
from sae.budget import budget
from sae.frontier import Pair

ROWS = 40


def codes(*columns: int) -> sparse.csr_array:
    """Codes [ROWS, columns] of 1 on the first rows: so many a column."""
    dense = np.zeros((ROWS, len(columns)), np.float32)
    for column, count in enumerate(columns):
        dense[:count, column] = 1
    return sparse.csr_array(dense)


def test_a_score_is_taken_apart_into_false_and_missed_firings():
    # Atom 0 fires on 40 images; atom 1 on 20 images and 20 captions. Concept 0 also fires on 10 captions: its score is
    # 40 / 50, and false firings alone are to blame. Concept 1 fires on 10 of the 20 captions: its score is 20 / 30,
    # and misses alone are to blame.
    truth = Truth(np.eye(2, dtype=np.float32), codes(40, 20), codes(0, 20))
    shares, left, right = decomposed(np.eye(2, dtype=np.float32), truth, (codes(40, 20), codes(10, 10)))
    assert (left.tolist(), right.tolist()) == ([0, 1], [0, 1])
    assert (shares["within"], shares["no false"], shares["no misses"]) == (0, 0.5, 0.5)
    assert shares["recall"] == pytest.approx((1 + 30 / 40) / 2)
    assert shares["precision"] == pytest.approx((40 / 50 + 1) / 2)
    assert (shares["unimodal of all"], shares["rare of all"]) == (0.5, 1)


def test_the_atoms_own_codes_have_no_error():
    truth = Truth(np.eye(2, dtype=np.float32), codes(40, 20), codes(0, 20))
    shares, _, _ = decomposed(np.eye(2, dtype=np.float32), truth, (truth.image, truth.text))
    assert [shares[name] for name in ("within", "no false", "no misses", "by chance", "recall", "precision")] == [1] * 6


def test_firings_are_thinned_by_the_share_of_their_column():
    pair = (codes(40, 40), codes(40, 40))
    for part in thinned(pair, np.array([0.0, 1.0]), np.random.default_rng(0)):
        assert np.asarray((part > 0).sum(0)).tolist() == [0, 40]
    assert pair[0].nnz == 80  # the codes that were given stay


def test_a_short_training_states_its_numbers():
    case = vlm_like(200, 32, 64, 6, heldout=40)
    plain = settled(modality_errors.VARIANTS["as is"], case).settings
    large = settled(modality_errors.VARIANTS["batch 128"], case).settings
    assert (plain["epochs"], large["epochs"]) == (2, 2)
    assert (plain["batch_size"], large["batch_size"]) == (32, 128)
    assert large["learning_rate"] == budget(400, case.width, 2, 128).learning_rate
    twice = settled(modality_errors.VARIANTS["learning rate x 2"], case).settings
    assert twice["learning_rate"] == pytest.approx(2 * plain["learning_rate"])


def test_held_out_pairs_are_divided_and_the_rows_of_training_stay():
    case = vlm_like(100, 32, 64, 6, heldout=120)
    first, other = halves(case, 40)
    assert (len(first.heldout.image), len(other.heldout.text)) == (40, 80)
    assert first.truth.image.shape[0] == 40
    assert np.array_equal(first.train.image, case.train.image)
    assert np.array_equal(np.concatenate([first.heldout.text, other.heldout.text]), case.heldout.text)


def test_rows_on_which_a_concept_fires_are_counted_in_both_modalities():
    class Positive:
        def encode(self, x):
            return x.relu()

    rows = Pair(np.array([[1, 0], [1, -1]], np.float32), np.array([[1, 1], [-1, -2]], np.float32))
    assert dead_concepts.firings(Positive(), rows).tolist() == [3, 1]


def test_a_variant_trains_within_its_changes_and_leaves_them(monkeypatch):
    seen = []

    def trained(image, text, settings, seed):
        seen.append((settings.auxk, dead_concepts.trainer.FIRINGS, seed))
        return None

    monkeypatch.setattr("bench.variants.training.train", trained)
    threads = torch.get_num_threads()
    train_variant(dead_concepts.VARIANTS["one firing, AuxK 1/2"], vlm_like(64, 32, 64, 6, heldout=40), "jumprelu", 5)
    torch.set_num_threads(threads)
    assert seen == [(0.5, 1, 5)]
    assert dead_concepts.trainer.FIRINGS == 10


def test_a_cell_shows_the_mean_and_the_range():
    assert told([0.25, 0.75]) == "0.5000 (0.2500 to 0.7500)"
