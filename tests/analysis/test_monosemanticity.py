"""The monosemanticity score: worked numbers, a dense reference over all pairs, and what must not change it."""

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_case import given_of, study_of

from analysis import monosemanticity as room
from analysis.coactivation import Codes
from analysis.monosemanticity import monosemanticity
from flows.jobs.analyze import parts_of_saes
from flows.jobs.job import STEPS
from storage.rows import Rows
from storage.runs import Key, last_run
from tasks.stage import Runtime


def csr(dense) -> Codes:
    dense = np.asarray(dense, np.float32)
    rows, concepts = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
    return Codes(indptr.astype(np.int64), concepts.astype(np.int32), dense[rows, concepts])


def random_case(seed, images=14, width=6, dim=5):
    """Sparse codes and embeddings of any norm. The last concept is dead, the last but one fires on one image."""
    random = np.random.default_rng(seed)
    z = np.where(random.random((images, width)) < 0.4, random.exponential(1, (images, width)), 0).astype(np.float32)
    z[:, -2:] = 0
    z[3, -2] = 1
    return z, random.standard_normal((images, dim)) * random.uniform(0.5, 2, (images, 1))


def test_worked_example():
    u = np.array([[1.0, 0], [0, 1], [0.6, 0.8]])  # cosines: 0 for images 0 and 1, .6 for 0 and 2, .8 for 1 and 2
    z = [[1, 1, 1, 0, 0], [2, 0, 1, 0, 0], [0, 3, 2, 1, 0]]
    result = monosemanticity(csr(z), u, 5)
    # The score is the mean cosine of all pairs of images, weighted by the products of their activations. Concept 0
    # fires only on images 0 and 1, whose cosine is 0. Concept 1 fires only on images 0 and 2, whose cosine is .6.
    # Concept 2 has the score (1*1*0 + 1*2*.6 + 1*2*.8) / (1 + 2 + 2) = 2.8 / 5. Concept 3 fires once and concept 4
    # never, so they have no score.
    assert result.score[:3] == pytest.approx([0, 0.6, 0.56], abs=1e-7)
    assert np.isnan(result.score[3:]).all()
    assert result.images.tolist() == [2, 2, 3, 1, 0]
    assert result.baseline == pytest.approx((0 + 0.6 + 0.8) / 3)


@given(st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_agrees_with_all_pairs_one_by_one(seed):
    z, image = random_case(seed)
    u = image / np.linalg.norm(image, axis=1, keepdims=True)
    cosine, pair = u @ u.T, ~np.eye(len(u), dtype=bool)
    result = monosemanticity(csr(z), image, 6)
    for concept, a in enumerate(z.T.astype(float)):
        weight = np.outer(a, a)[pair]
        expected = (weight * cosine[pair]).sum() / weight.sum() if (a > 0).sum() >= 2 else np.nan
        assert result.score[concept] == pytest.approx(expected, abs=1e-10, nan_ok=True)
    assert result.baseline == pytest.approx(cosine[pair].mean(), abs=1e-12)


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_neither_scale_nor_rotation_nor_order_matters(seed):
    z, image = random_case(seed)
    random = np.random.default_rng(seed + 1)
    order, rotation = random.permutation(len(z)), np.linalg.qr(random.standard_normal((5, 5)))[0]
    scaled = (z * np.float32(4))[order], (3 * image @ rotation)[order]
    one, other = monosemanticity(csr(z), image, 6), monosemanticity(csr(scaled[0]), scaled[1], 6)
    np.testing.assert_allclose(one.score, other.score, atol=1e-9)
    assert one.baseline == pytest.approx(other.baseline)
    assert (np.abs(one.score[~np.isnan(one.score)]) <= 1 + 1e-9).all()


def test_images_that_are_all_alike_score_one():
    z, _ = random_case(0)
    result = monosemanticity(csr(z), np.tile([0.3, 0.4], (14, 1)), 6)
    np.testing.assert_allclose(result.score[:4], 1)
    assert result.baseline == pytest.approx(1)


def test_blocks_of_dimensions_do_not_matter(monkeypatch):
    z, image = random_case(2)
    whole = monosemanticity(csr(z), image, 6)
    monkeypatch.setattr(room, "COLUMNS", 2)
    parts = monosemanticity(csr(z), image, 6)
    np.testing.assert_allclose(parts.score, whole.score, rtol=1e-12)
    assert parts.baseline == pytest.approx(whole.baseline, rel=1e-12)


def test_one_image_has_no_pair():
    result = monosemanticity(csr([[1.0, 0]]), np.ones((1, 3)), 2)
    assert np.isnan(result.score).all()
    assert np.isnan(result.baseline)


@pytest.mark.parametrize(
    ("image", "width", "change", "message"),
    [
        (np.eye(3), 2, None, r"shape \(3, 3\) and codes of 2 images"),
        (np.eye(2), 1, None, "outside 0..0"),
        (np.array([[1.0, 0], [0, 0]]), 2, None, "embedding 1 is 0"),
        (np.array([[np.nan, 0], [0, 1]]), 2, None, "embedding 0 is 0, NaN"),
        (np.eye(2), 2, np.nan, "an activation is NaN"),
    ],
)
def test_input_that_has_no_score(image, width, change, message):
    codes = csr(np.eye(2))
    if change is not None:
        codes = codes._replace(values=np.array([1.0, change], np.float32))
    with pytest.raises(ValueError, match=message):
        monosemanticity(codes, image, width)


def rows_of(images, image_id) -> Rows:
    none = np.zeros(0, np.int64)
    empty = np.zeros((0, images.shape[1]))
    return Rows(images, empty, np.array(image_id, np.int64), none, none, np.zeros(len(image_id)))


def test_the_independent_score_takes_the_other_models_embeddings_of_the_images_that_both_embedded():
    own, other = np.eye(3), np.array([[0.6, 0.8], [1.0, 0.0], [0.0, 1.0]])
    con = duckdb.connect()
    # Concept 0 fires on images 7 and 8 with activations 1, and on image 9, which the other model did not embed.
    con.execute("CREATE TABLE codes (is_image BOOLEAN, item_id BIGINT, concept_id INTEGER, activation FLOAT)")
    con.execute("INSERT INTO codes VALUES (true, 7, 0, 1), (true, 8, 0, 1), (true, 9, 0, 5), (true, 7, 1, 1)")
    judging = rows_of(other, [8, 7, 3])  # image 3 has no embedding by the SAE's own model
    keys = {"model": "m", "sae": "s", "seed": 0}
    scores, nulls = room.of_sae(con, keys, rows_of(own, [7, 8, 9]), 2, judging)
    assert scores["monosemanticity"].to_list() == [0, None]
    assert scores["monosemanticity_independent"].to_list() == [pytest.approx(0.6), None]
    baselines = dict(nulls.select("statistic", "mean").iter_rows())
    assert baselines == {"monosemanticity": 0, "monosemanticity_independent": pytest.approx(0.6)}
    alone, nulls = room.of_sae(con, keys, rows_of(own, [7, 8, 9]), 2)
    assert alone["monosemanticity_independent"].to_list() == [None, None]
    assert nulls["statistic"].to_list() == ["monosemanticity"]


def test_a_study_hands_over_the_embeddings_of_the_model_that_it_names(store, study):
    entries = last_run(store, study).entries
    # The second model has the embeddings of the first, so both scores are equal, and it has no judge but itself.
    twice = [*entries, *(e.model_copy(update={"model": "judge"}) for e in entries if e.kind == "embed")]
    models = [{"name": name, "spec": "embeddings:vectors"} for name in ("planted", "judge")]
    analyze = {"split": "heldout", "min_pairs": 2, "independent": "judge"}
    case = given_of(store, twice, study_of([0], models=models, analyze=analyze))
    for step in STEPS["analyze"]:
        for job in step(case):
            if job.key.model == "planted":
                case.state.add(job.entry(job.stage.make(Runtime(store=store), **job.arguments())))
    measures = case.state.dataset("measures", model="planted", sae="main", seed=0)
    concepts = pl.read_parquet(store / measures.path / "concepts.parquet")
    assert concepts["monosemanticity"].count() > 0
    own, independent = (concepts[f"monosemanticity{end}"].to_numpy() for end in ("", "_independent"))
    np.testing.assert_allclose(own, independent, atol=1e-6)
    # Until the second model has embedded every shard, the part waits.
    waiting = given_of(store, entries, study_of([0], models=models, analyze=analyze))
    waiting.state.add(case.state[Key("space", "planted")])
    assert [job.inputs for job in parts_of_saes(waiting)] == [None, None]
