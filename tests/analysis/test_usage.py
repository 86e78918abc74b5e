"""SQL of concepts, groups of concepts and AUC, against worked numbers and against dense numpy on random studies."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sql_case import Case, catalog, random_case

from analysis.statistic import create_inner
from analysis.tables import fill
from analysis.usage import CountedSAE, fill_concepts
from storage.catalog import frame


def concepts_of(case: Case, split: str = "heldout") -> pl.DataFrame:
    create_inner(case.con)
    fill_concepts(case.con, [CountedSAE("m", "s", 0, case.z_image.shape[1])], split)
    fill(case.con, "concepts")
    return frame(case.con, "FROM concepts")


def test_worked_concepts() -> None:
    # Images 0 and 1 (u = .1, .2) with captions 0, 1 and 2 are held out; image 2 with caption 3 is a training row.
    z_image = np.array([[2.0, 0], [0, 0], [5, 1]])
    z_text = np.array([[1.0, 0], [0, 0], [1, 0], [0, 0]])
    con = catalog(z_image, z_text, [0, 0, 1, 2], [0.1, 0.2, 0.9])
    create_inner(con)
    fill_concepts(con, [CountedSAE("m", "s", 0, 3)], "heldout")
    fill(con, "concepts")
    first, second, third = frame(con, "FROM concepts").to_dicts()
    # The energy of a concept is its mean activation. Concept 0 has the energy (2 + 0) / 2 = 1 on images and
    # (1 + 0 + 1) / 3 = 2/3 on captions. The mean squares are 4 / 2 and 2 / 3, the firing rates 1/2 and 2/3.
    assert first["energy_image"] == pytest.approx(1)
    assert first["energy_text"] == pytest.approx(2 / 3)
    assert first["energy"] == pytest.approx(5 / 6)
    assert first["energy_squared_image"] == pytest.approx(2)
    assert first["energy_squared_text"] == pytest.approx(2 / 3)
    assert (first["rate_image"], first["rate_text"]) == pytest.approx((1 / 2, 2 / 3))
    assert first["firings"] == 3
    assert first["modality_score"] == pytest.approx(3 / 5)
    # The AUC compares all 6 pairs of an image and a caption. The image at 2.0 beats 1, 0 and 1. The image at 0 loses to
    # 1 twice and ties with 0, which counts 1/2. That is 3.5 of 6.
    assert first["modality_auc"] == pytest.approx(3.5 / 6)
    # Concept 1 fires on a training row only, so it is silent on held-out rows but not dead. Concept 2 is dead.
    # All pairs of concept 2 tie, so its AUC is .5.
    assert (second["firings"], second["modality_score"], second["dead"]) == (0, None, False)
    assert (third["dead"], third["modality_auc"]) == (True, 0.5)
    # The jackknife leaves out one group of images at a time; u = .1 and .2 fall into two groups. Without image 0 and
    # its captions 0 and 1 the image energy is 0, without image 1 it is 2: sd^2 = 1/2 ((0 - 1)^2 + (2 - 1)^2) = 1. The
    # scores are 0/(0 + 1) = 0 and 2/(2 + .5) = .8: sd^2 = 1/2 (.4^2 + .4^2) = .16.
    groups = frame(con, "SELECT * FROM group_sizes WHERE images + texts > 0")
    assert sorted(zip(groups["images"], groups["texts"], strict=True)) == [(1, 1), (1, 2)]
    assert first["energy_image_sd"] == pytest.approx(1)
    assert first["modality_score_sd"] == pytest.approx(0.4)
    assert second["modality_score_sd"] is None


@pytest.mark.parametrize("split", ["heldout", "all"])
@given(st.integers(0, 10_000))
@settings(max_examples=6, deadline=None)
def test_concepts_agree_with_dense_numpy(split: str, seed: int) -> None:
    case = random_case(seed)
    concepts = concepts_of(case, split)
    kept = case.heldout if split == "heldout" else np.ones(len(case.heldout), bool)
    image, text = case.z_image[kept].astype(float), case.z_text[kept[case.owner]].astype(float)
    energy = image.mean(0), text.mean(0)
    both = energy[0] + energy[1]
    np.testing.assert_allclose(concepts["energy_image"], energy[0], rtol=1e-9)
    np.testing.assert_allclose(concepts["energy_text"], energy[1], rtol=1e-9)
    np.testing.assert_allclose(concepts["energy_squared_text"], (text**2).mean(0), rtol=1e-9)
    np.testing.assert_allclose(concepts["rate_image"], (image > 0).mean(0), rtol=1e-9)
    assert concepts["firings"].to_list() == ((image > 0).sum(0) + (text > 0).sum(0)).tolist()
    score = np.divide(energy[0], both, out=np.full(len(both), np.nan), where=both > 0)
    np.testing.assert_allclose(concepts["modality_score"].fill_null(np.nan), score, rtol=1e-9)
    wins = (image[:, None] > text[None]).mean((0, 1)) + (image[:, None] == text[None]).mean((0, 1)) / 2
    np.testing.assert_allclose(concepts["modality_auc"], wins, rtol=1e-12)
    train = ~case.heldout
    dead = ~(case.z_image[train] > 0).any(0) & ~(case.z_text[train[case.owner]] > 0).any(0)
    assert concepts["dead"].to_list() == dead.tolist()


@given(st.integers(0, 10_000))
@settings(max_examples=5, deadline=None)
def test_jackknife_agrees_with_leaving_groups_out(seed: int) -> None:
    case = random_case(seed)
    concepts = concepts_of(case)
    group = np.array([int(u * 2**40) % 20 for u in case.split_u])
    scores = []
    for left_out in sorted(set(group[case.heldout])):
        kept = case.heldout & (group != left_out)
        image, text = case.z_image[kept].astype(float), case.z_text[kept[case.owner]].astype(float)
        energy = np.array([image.mean(0), text.mean(0)])
        with np.errstate(invalid="ignore"):
            scores.append([*energy, energy[0] / energy.sum(0)])
    spread = np.sqrt((len(scores) - 1) / len(scores) * ((scores - np.mean(scores, 0)) ** 2).sum(0))
    for name, expected in zip(("energy_image_sd", "energy_text_sd", "modality_score_sd"), spread, strict=True):
        np.testing.assert_allclose(concepts[name].fill_null(np.nan), expected, rtol=1e-7, atol=1e-12)


def test_groups_add_up_to_the_whole_and_ignore_the_other_split() -> None:
    case = random_case(3)
    concepts_of(case)
    sums = frame(case.con, "SELECT concept_id, sum(image) AS image, sum(training_firings)::BIGINT AS training "
                 "FROM concept_groups GROUP BY concept_id ORDER BY concept_id")  # fmt: skip
    np.testing.assert_allclose(sums["image"], case.z_image[case.heldout].sum(0, dtype=float), rtol=1e-9)
    train = ~case.heldout
    fired = (case.z_image[train] > 0).sum(0) + (case.z_text[train[case.owner]] > 0).sum(0)
    assert sums["training"].to_list() == fired.tolist()


def test_a_second_run_gives_equal_numbers_to_the_last_bit() -> None:
    def once() -> pl.DataFrame:
        return concepts_of(random_case(5, images=400))

    assert once().equals(once())
