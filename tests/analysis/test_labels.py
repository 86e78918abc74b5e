"""AUC of concepts and labels, the choice of the best label, its null, and the precision of bridges."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_case import study
from scipy.sparse import csr_array
from sql_case import KEYS

from analysis.coactivation import Codes
from analysis.label_auc import Labelled, label_auc, ranked
from analysis.labels import of_sae
from storage.statements import SQL


def codes(z: np.ndarray) -> Codes:
    rows = csr_array(z)
    return Codes(rows.indptr.astype(np.int64), rows.indices.astype(np.int32), rows.data.astype(np.float32))


def labelled(has: np.ndarray) -> Labelled:
    """has [n, L] bool: whether an image has a label."""
    start = np.concatenate([[0], np.cumsum(has.sum(1))]).astype(np.int64)
    return Labelled(start, np.nonzero(has)[1].astype(np.int32), has.shape[1])


def brute_force(z: np.ndarray, positive: np.ndarray) -> float:
    """(wins + ties / 2) / pairs of a positive and a negative item; NaN without such a pair."""
    one, other = z[positive][:, None], z[~positive][None]
    return float(((one > other) + (one == other) / 2).mean()) if one.size and other.size else float("nan")


def test_worked_auc_with_ties() -> None:
    # Positive items have the activations 2, 1 and 0, the negative items 1 and 0. 2 wins twice; 1 ties with 1 and wins
    # over 0; 0 loses to 1 and ties with 0. That is 2 + 1.5 + .5 = 4 of 6. The second concept never fires.
    z = np.array([[2.0, 0], [1, 0], [0, 0], [1, 0], [0, 0]])
    has = np.array([[True], [True], [True], [False], [False]])
    auc = label_auc(ranked(codes(z), np.arange(5), 5, np.arange(2), 2), labelled(has))
    assert auc[:, 0] == pytest.approx([4 / 6, 0.5])


@given(st.integers(0, 100_000))
@settings(max_examples=40, deadline=None)
def test_auc_equals_brute_force_under_any_permutation(seed: int) -> None:
    random = np.random.default_rng(seed)
    images, items, width, labels = 12, 30, 4, 3
    owner = random.integers(0, images, items)  # some images have several captions, others none
    z = np.where(random.random((items, width)) < 0.5, random.integers(1, 4, (items, width)), 0).astype(np.float32)
    has = random.random((images, labels)) < 0.4
    order = random.permutation(images)
    chosen = np.array([1, 3])
    auc = label_auc(ranked(codes(z), owner, images, chosen, width), labelled(has), order)
    wanted = [[brute_force(z[:, i], has[order][owner, j]) for j in range(labels)] for i in chosen]
    np.testing.assert_allclose(auc, wanted, atol=1e-12)


def test_planted_labels_are_recovered() -> None:
    concepts, draws = of_sae(study(np.random.default_rng(0), planted=True), KEYS, 6, draws=40)
    assert concepts["label"].to_list() == [f"label {i % 3}" for i in range(6)]  # a label of one image does not count
    assert concepts["modality"].to_list() == ["image"] * 3 + ["text"] * 3
    assert concepts["auc"].min() >= 0.95
    assert concepts["above_null"].all()
    assert concepts["null_mean"].to_numpy() == pytest.approx(np.full(6, 0.5), abs=0.02)
    assert set(draws["statistic"]) == {"label_auc_kind"}
    assert draws["value"].max() < 0.6


def test_labels_without_meaning_have_the_auc_of_the_null() -> None:
    concepts, _ = of_sae(study(np.random.default_rng(1), planted=False), KEYS, 6, draws=40)
    assert concepts["auc"].mean() == pytest.approx(0.5, abs=0.03)
    # The largest of three AUCs on the items that choose it is above .5 although the labels mean nothing.
    assert concepts["training_auc"].mean() > concepts["null_mean"].mean() + 0.01
    assert concepts["above_null"].sum() <= 1


def test_a_study_without_labels_has_no_rows() -> None:
    con = study(np.random.default_rng(2), planted=False)
    con.execute("DROP TABLE labels")
    concepts, draws = of_sae(con, KEYS, 6, draws=2)
    assert (concepts.height, draws.height) == (0, 0)


def test_worked_precision_of_bridges() -> None:
    con = duckdb.connect()
    con.execute("""CREATE TABLE bridges AS FROM (VALUES
        ('m', 's', 0, 0, 0, 9.0, 9.0, 9.0), ('m', 's', 0, 0, 1, 5.0, 1.0, NULL), ('m', 's', 0, 2, 1, 4.0, 2.0, NULL),
        ('m', 's', 0, 2, 3, 3.0, 3.0, NULL), ('m', 's', 0, 0, 3, 2.0, 4.0, NULL)
    ) AS t(model, sae, seed, image_concept, text_concept, bridge, covariance_bridge, correlation_bridge)""")
    con.execute("""CREATE TABLE concept_labels AS FROM (VALUES
        ('m', 's', 0, 0, 'kind', 'cat', true), ('m', 's', 0, 1, 'kind', 'cat', true),
        ('m', 's', 0, 2, 'kind', 'dog', true), ('m', 's', 0, 3, 'kind', 'dog', false)
    ) AS t(model, sae, seed, concept_id, name, label, above_null)""")
    con.execute((SQL / "macros" / "bridge_precision.sql").read_text())
    found = con.execute("FROM bridge_precision('m', 's', 3)").fetchall()
    # The self bridge of concept 0 is left out. The three highest raw bridges are (0, 1), (2, 1) and (2, 3); only the
    # first joins two concepts of one label, since the label of concept 3 is not above its null. At random, one image
    # concept and two text concepts are cats: 1 * 2 of 9 pairs agree.
    raw = next(row for row in found if row[2] == "bridge")
    assert raw[:4] == (0, "kind", "bridge", 3)
    assert raw[4:] == pytest.approx((1 / 3, 2 / 9, 2 / 3))
    # By covariance they are (0, 3), (2, 3) and (2, 1): none agrees; one image concept and one text concept are cats.
    covariance = next(row for row in found if row[2] == "covariance_bridge")
    assert covariance[4:] == pytest.approx((0, 1 / 9, 1 / 3))
    assert {row[2] for row in found} == {"bridge", "covariance_bridge"}
