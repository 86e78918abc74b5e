"""Partners of concepts by their codes: a worked example, laws, and a planted map that is found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_case import given_of, study_of

from analysis import partners
from analysis.coactivation import Codes, PairedCodes
from analysis.partners import ALL, Items, Run, compared, same_items
from flows.jobs.analyze import correspondences
from storage.runs import Entry, Key, last_run
from tasks.stage import Runtime


def codes(z: np.ndarray[Any, Any]) -> Codes:
    """Sparse codes of dense ones [n, C]."""
    item, concept = np.nonzero(z)
    start = np.concatenate([[0], np.cumsum((z > 0).sum(1))])
    return Codes(start.astype(np.int64), concept.astype(np.int32), z[item, concept].astype(np.float32))


def run(image: np.ndarray[Any, Any], text: np.ndarray[Any, Any]) -> Run:
    return Run(Entry.model_construct(), image.shape[1], {"image": codes(image), "text": codes(text)})


def random_codes(random: np.random.Generator, items: int, width: int, rate: float = 0.2) -> np.ndarray[Any, Any]:
    return np.where(random.random((items, width)) < rate, random.exponential(1, (items, width)), 0)


def rows_of(table: pl.DataFrame, *sides: str) -> pl.DataFrame:
    return table.filter((pl.col("modality_a") == sides[0]) & (pl.col("modality_b") == sides[1]))


def correlation(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The correlations of all columns of x with all columns of y."""
    return np.corrcoef(x.T, y.T)[: x.shape[1], x.shape[1] :]


def test_partners_of_three_concepts() -> None:
    # Four images with one caption each. Concept 0 of a has the codes of concept 1 of b, and concept 1 of a fires where
    # concept 0 of b fires, on image 1, but also on image 2. Concept 2 of a is silent, and concept 2 of b is constant.
    a = np.array([[2, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]], float)
    b = np.array([[0, 4, 1], [3, 0, 1], [0, 0, 1], [0, 0, 1]], float)
    one, items = np.ones((4, 3)), Items(4, np.arange(4))
    (found, draws), (back, _) = compared(run(a, one), run(b, one), items, (("image", "image"),))
    # r(a0, b0) = (0 - 2/4 * 3/4) / (sd sd): both fire on one of four images, so it is -1/3. r(a1, b0) = 1/sqrt(3):
    # covariance 3/4 - 2/4 * 3/4 = 3/8, deviations 1/2 and 3 sqrt(3)/4. r(a1, b1) = -1/sqrt(3) in the same way.
    assert found["concept_b"].to_list() == [1, 0, None]
    assert found["correlation"].to_list()[:2] == pytest.approx([1, 3**-0.5])
    assert found["match_confidence"].to_list()[:2] == pytest.approx([1 + 1 / 3, 2 * 3**-0.5])
    assert found["correlation"][2] is None
    assert found["assigned"].to_list() == [1, 0, None]
    assert found["assigned_correlation"].to_list()[:2] == pytest.approx([1, 3**-0.5])
    assert found["sampled_correlation"].to_list()[:2] == pytest.approx([1, 3**-0.5])
    assert back["concept_b"].to_list() == [1, 0, None]
    assert back["correlation"].to_list()[:2] == pytest.approx([3**-0.5, 1])
    assert draws["draw"].to_list() == list(range(20))
    # A permuted image of a0 is that of b1 (r = 1), of b0 (r = 1), or of neither (r = -1/3 with both).
    assert all(-1 / 3 - 1e-6 <= value <= 1 + 1e-6 for value in found["floor"].to_list()[:2])


def test_items_that_are_compared() -> None:
    items = Items(3, np.array([0, 0, 1, 2, 2, 2]))  # images with two, one and three captions
    order = np.array([2, 0, 1])  # run b sees image 2 in the place of image 0, 0 in that of 1, 1 in that of 2
    as_lists = {sides: [each.tolist() for each in same_items(items, *sides, order)] for sides in ALL}
    assert as_lists["image", "image"] == [[0, 1, 2], [2, 0, 1]]
    assert as_lists["text", "image"] == [[0, 1, 2, 3, 4, 5], [2, 2, 0, 1, 1, 1]]
    assert as_lists["image", "text"] == [[1, 1, 2, 0, 0, 0], [0, 1, 2, 3, 4, 5]]
    assert as_lists["text", "text"] == [[0, 1, 2, 3, 4, 5], [3, 4, 0, 2, 2, 2]]
    for sides in ALL:
        of_a, of_b = same_items(items, *sides)
        image = {"image": np.arange(3), "text": items.owner}
        assert (image[sides[0]][of_a] == image[sides[1]][of_b]).all()


@given(seed=st.integers(0, 10**6))
def test_best_correlations_are_those_of_the_matrix(seed: int) -> None:
    random = np.random.default_rng(seed)
    rate = random.choice([0.02, 0.2, 0.9])
    z, w = random_codes(random, 40, 9, rate), random_codes(random, 60, 9, rate)
    owner = np.concatenate([np.arange(40), random.integers(0, 40, 20)])
    pairs = PairedCodes(codes(z), codes(w), owner, np.arange(60), 9)
    S, (best, second) = pairs.correlations(), pairs.best_correlations()
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(S, correlation(z[owner], w), atol=1e-5)
    sorted_rows = np.sort(np.nan_to_num(S, nan=-np.inf), axis=1)
    for place, values in ((-1, best), (-2, second)):
        expected = np.where(np.isfinite(sorted_rows[:, place]), sorted_rows[:, place], np.nan)
        np.testing.assert_allclose(values, expected, atol=1e-6)


def test_permuting_concepts_permutes_partners() -> None:
    random = np.random.default_rng(0)
    owner = np.sort(random.integers(0, 80, 160))
    a, b = ([random_codes(random, n, 12) for n in (80, 160)] for _ in range(2))
    order = random.permutation(12)
    items = Items(80, owner)
    (before, floors), _ = compared(run(*a), run(*b), items, ALL)
    (after, floors_after), _ = compared(run(*a), run(*(z[:, order] for z in b)), items, ALL)
    for name in ("concept_b", "assigned"):
        # column c of the permuted codes is column order[c] of those before
        assert order[after[name].to_numpy()].tolist() == before[name].to_list()
    for name in ("correlation", "match_confidence", "assigned_correlation", "sampled_correlation", "floor"):
        np.testing.assert_allclose(after[name].to_numpy(), before[name].to_numpy(), atol=1e-5)
    np.testing.assert_allclose(floors_after["value"].to_numpy(), floors["value"].to_numpy(), atol=1e-6)


def test_identical_runs_reach_the_ceiling() -> None:
    random = np.random.default_rng(1)
    owner = np.sort(np.concatenate([np.arange(80), random.integers(0, 80, 80)]))
    a = run(random_codes(random, 80, 12), random_codes(random, 160, 12))
    (there, drawn), (back, _) = compared(a, a, Items(80, owner), ALL)
    for side in ("image", "text"):
        own = rows_of(there, side, side)
        assert own["concept_b"].to_list() == own["concept_a"].to_list() == own["assigned"].to_list()
        assert own["correlation"].to_list() == pytest.approx([1] * 12)
        assert own["match_confidence"].min() > 0
        assert (own["floor"] < own["sampled_correlation"]).all()
        assert rows_of(drawn, side, side)["value"].max() < 0.9
    assert rows_of(there, "image", "text")["correlation"].to_list() == pytest.approx(
        rows_of(back, "image", "text")["correlation"].to_list()
    )


def test_a_planted_map_between_models_is_found() -> None:
    random = np.random.default_rng(2)
    width, images = 128, 2000
    z = random_codes(random, images, width, 0.05)
    order = random.permutation(width)
    # Model B has the codes of model A in another order and of another scale, with noise in a third of the firings, a
    # tenth of them lost, and as many false ones.
    noisy = z * np.where(random.random(z.shape) < 1 / 3, random.exponential(1, z.shape), 1)
    noisy = np.where(random.random(z.shape) < 0.1, 0, noisy) + random_codes(random, images, width, 0.005)
    b = 3 * noisy[:, order]
    items = Items(images, np.arange(images))
    (found, drawn), _ = compared(run(z, z), run(b, b), items, (("image", "image"), ("text", "text")))
    planted = np.argsort(order)  # concept c of A is concept planted[c] of B
    for name in ("concept_b", "assigned"):
        right = [row[name] == planted[row["concept_a"]] for row in found.iter_rows(named=True)]
        assert np.mean(right) >= 0.95
    assert found["correlation"].mean() > drawn["value"].max() + 0.3
    # Runs that share nothing reach their floor.
    unrelated = random_codes(random, images, width, 0.05)
    (chance, _), _ = compared(run(z, z), run(unrelated, unrelated), items, (("image", "image"),))
    assert chance["correlation"].mean() == pytest.approx(chance["floor"].mean(), abs=0.01)


def test_a_sample_of_the_images_lowers_neither_figure_nor_floor_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    a, b = (run(random_codes(random, 400, 20), random_codes(random, 400, 20)) for _ in range(2))
    monkeypatch.setattr(partners, "FLOOR_IMAGES", 50)
    (found, drawn), _ = compared(a, b, Items(400, np.arange(400)), (("image", "image"),))
    # Unrelated runs reach on 50 images what chance reaches on 50 images, which is more than what they reach on 400.
    assert found["sampled_correlation"].mean() == pytest.approx(drawn["value"].mean(), abs=0.05)
    assert found["sampled_correlation"].mean() > found["correlation"].mean() + 0.1


def test_runs_of_unequal_widths() -> None:
    random = np.random.default_rng(4)
    z = random_codes(random, 100, 6)
    (there, _), (back, _) = compared(
        run(z, z), run(z[:, :4], z[:, :4]), Items(100, np.arange(100)), (("image", "image"),)
    )
    assert there["concept_a"].to_list() == list(range(6))
    assert back["concept_b"].to_list() == back["concept_a"].to_list() == [0, 1, 2, 3]
    assert there["assigned"].to_list()[:4] == [0, 1, 2, 3]
    assert there["assigned"].null_count() == 2


def test_correspondence_of_two_models(store: Path, study: str) -> None:
    # The second model has the SAEs and codes of the first, so that every concept corresponds to itself.
    entries = last_run(store, study).entries
    copies = [entry.model_copy(update={"model": "other"}) for entry in entries if entry.model is not None]
    models = [{"name": name, "spec": "embeddings:vectors"} for name in ("planted", "other")]
    case = given_of(store, [*entries, *copies], study_of([0, 1], models=models))
    jobs = correspondences(case)
    assert [job.key for job in jobs] == [Key("correspondence", None, "main", seed) for seed in (0, 1)]
    for job in jobs:
        dataset = job.stage.make(Runtime(store=store), **job.arguments())
        made = pl.read_parquet(store / dataset.path / "correspondence.parquet")
        assert set(made.select("model_a", "model_b", "modality_a", "modality_b").iter_rows()) == {
            (*pair, side, side) for pair in (("planted", "other"), ("other", "planted")) for side in ("image", "text")
        }
        known = made.drop_nulls("correlation")
        assert known["concept_b"].to_list() == known["concept_a"].to_list()
        assert known["correlation"].min() == pytest.approx(1, abs=1e-5)
        assert set(made["split"]) == {"heldout"}
        assert set(made["seed"]) == {job.key.seed}
    assert correspondences(given_of(store, entries, study_of([0, 1]))) == []


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_more_concepts_than_are_kept_have_the_same_partners(seed: int) -> None:
    """Their correlations are computed again where they are needed, so that no matrix of all is in memory."""
    random = np.random.default_rng(seed)
    z, w = random_codes(random, 60, 14), random_codes(random, 60, 11)
    z[:, 3], w[:, :2] = 0, 1  # a silent concept, and two constant ones
    a, b, items = run(z, z), run(w, w), Items(60, np.arange(60))
    kept = compared(a, b, items, (("image", "text"),))

    def whole(pairs: PairedCodes) -> Any:
        raise MemoryError(f"{pairs.width} x {pairs.width} correlations")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partners, "KEPT", 1)
        patch.setattr(partners, "BLOCK", 4)
        patch.setattr(PairedCodes, "correlations", whole)
        blocks = compared(a, b, items, (("image", "text"),))
    for (rows, floors), (rows_kept, floors_kept) in zip(blocks, kept, strict=True):
        assert rows.equals(rows_kept)
        assert floors.equals(floors_kept)


def test_an_assignment_beyond_memory_says_its_bound(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    random = np.random.default_rng(5)
    a, b = (run(random_codes(random, 50, 12), random_codes(random, 50, 12)) for _ in range(2))
    monkeypatch.setattr(partners, "KEPT", 1)
    monkeypatch.setattr(partners, "EXACT", 1)
    with caplog.at_level("INFO", "bridgescope"):
        (found, _), _ = compared(a, b, Items(50, np.arange(50)), (("image", "image"),))
    (bound,) = (float(record.getMessage().split()[5]) for record in caplog.records)
    assert bound <= 1e-4
    assert found["assigned"].drop_nulls().is_unique().all()
