"""The data of bench/planted.py: the planted truth agrees with the vectors, and planted bridges are the strongest."""

import importlib.util
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import sae
from analysis.bridges import bridges as score_bridges
from analysis.coactivation import Codes

SOURCE = Path(__file__).parents[2] / "bench" / "planted.py"
spec = importlib.util.spec_from_file_location("planted", SOURCE)
planted = importlib.util.module_from_spec(spec)
spec.loader.exec_module(planted)


def csr(dense) -> Codes:
    rows, concepts = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
    return Codes(indptr, concepts.astype(np.int32), dense[rows, concepts])


@pytest.fixture(scope="module")
def truth():
    return planted.plant(pairs=8000)


@pytest.fixture(scope="module")
def bridges(truth):
    rows = np.arange(len(truth.image))
    codes = csr(truth.codes_image), csr(truth.codes_text)
    return score_bridges(*codes, rows, rows, truth.atoms, ["bimodal"] * len(truth.atoms), 10).rows


def test_codes_times_atoms_are_the_normalised_rows(truth):
    for x, codes in ((truth.image, truth.codes_image), (truth.text, truth.codes_text)):
        assert np.abs(codes @ truth.atoms - x.astype(np.float32)).max() < 1e-3  # `x` is rounded to float16
        assert np.linalg.norm(x.astype(np.float32), axis=1) == pytest.approx(np.ones(len(x)), abs=2e-3)
        assert 5.5 < (codes > 0).sum(1).mean() < 7.5


def test_unimodal_atoms_fire_on_one_side_and_all_fire_often(truth):
    assert not truth.codes_image[:, truth.kinds == "text"].any()
    assert not truth.codes_text[:, truth.kinds == "image"].any()
    assert ((truth.codes_image > 0).sum(0) + (truth.codes_text > 0).sum(0)).min() > 150


def test_atoms_are_spread_but_partners_point_partly_the_same_way(truth):
    cosines = np.abs(truth.atoms @ truth.atoms.T - np.eye(len(truth.atoms)))
    cross = truth.bridges[truth.bridges[:, 0] != truth.bridges[:, 1]]
    assert len(cross) >= 60
    assert cosines[cross[:, 0], cross[:, 1]] == pytest.approx(np.full(len(cross), planted.PARTNER_COSINE), abs=1e-4)
    cosines[cross[:, 0], cross[:, 1]] = cosines[cross[:, 1], cross[:, 0]] = 0
    assert cosines.max() < 0.35


@pytest.mark.parametrize("others_only", [False, True])
def test_top_fifty_bridges_of_the_true_dictionary_were_planted(truth, bridges, others_only):
    known = set(map(tuple, truth.bridges.tolist()))
    order = np.argsort(-bridges["bridge"])
    pairs = list(zip(bridges["image_concept"][order].tolist(), bridges["text_concept"][order].tolist(), strict=True))
    top = [(i, j) for i, j in pairs if i != j or not others_only][:50]
    assert set(top) <= known


def test_only_planted_pairs_are_correlated(truth, bridges):
    # The correlation bridge is the correlation of two codes times the cosine of their atoms. So bridge / cosine is the
    # correlation. A planted partner fires on 90 % of the rows of its image atom. For each modality, amplitudes are
    # drawn and rows are normalised separately. So the codes of partners correlate above .6, but not at 1. Other codes
    # hardly correlate.
    known = set(map(tuple, truth.bridges.tolist()))
    pairs = zip(bridges["image_concept"].tolist(), bridges["text_concept"].tolist(), strict=True)
    is_known = np.array([pair in known for pair in pairs])
    steady = np.abs(bridges["cosine"]) > 1e-3  # division by a cosine near 0 is inaccurate
    correlation = bridges["correlation_bridge"][steady] / bridges["cosine"][steady]
    cross = is_known[steady] & (bridges["image_concept"] != bridges["text_concept"])[steady]
    assert correlation[cross].min() > 0.6
    assert np.abs(correlation[~is_known[steady]]).max() < 0.1  # nine standard deviations of 1/sqrt(8000) = .011


def test_written_files_join_up(tmp_path):
    small = planted.plant(pairs=50, dim=32, atoms=64, seed=1)
    planted.write(small, tmp_path)
    metadata = pq.read_table(tmp_path / "metadata.parquet").to_pydict()
    assert metadata["key"][1] == "planted-000001"
    assert len(set(metadata["key"])) == 50
    fires = np.flatnonzero((small.codes_image[7] > 0) | (small.codes_text[7] > 0))
    assert metadata["caption"][7] == "atoms " + " ".join(map(str, fires))
    assert np.array_equal(np.load(tmp_path / "image.npy"), small.image)
    atoms = pq.read_table(tmp_path / "truth" / "atoms.parquet").to_pydict()
    # The modality score by its definition: energy_image / (energy_image + energy_text).
    image, text = small.codes_image.mean(0), small.codes_text.mean(0)
    np.testing.assert_allclose(atoms["modality_score"], image / (image + text), rtol=1e-5)
    assert atoms["fires_image"] == (small.codes_image > 0).sum(0).tolist()
    codes = pq.read_table(tmp_path / "truth" / "codes.parquet").to_pydict()
    assert sum(codes["activation"]) == pytest.approx(small.codes_image.sum() + small.codes_text.sum(), rel=1e-5)
    assert np.array_equal(np.load(tmp_path / "truth" / "atoms.npy"), small.atoms)


def test_same_seed_same_data():
    first, second = (planted.plant(pairs=20, dim=32, atoms=64, seed=3) for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert not np.array_equal(first.image, planted.plant(pairs=20, dim=32, atoms=64, seed=4).image)


def test_too_few_atoms_are_refused():
    with pytest.raises(ValueError, match="8 atoms"):
        planted.plant(atoms=8)


@pytest.fixture(scope="module")
def few():
    return planted.plant(pairs=4000, dim=64, atoms=96)


@pytest.mark.parametrize("architecture", ["relu", "topk", "batchtopk", "jumprelu", "matryoshka"])
def test_every_architecture_keeps_its_l0_on_held_out_rows_and_its_concepts_alive(few, architecture):
    settings = sae.Settings(
        width=96, k=6, epochs=25, batch_size=128, learning_rate=3e-3, architecture=architecture, decoder_bias=False
    )
    net = sae.train(few.image[:3200], few.text[:3200], settings, seed=0).sae
    codes = [net.encode(part) for part in (few.image, few.text)]
    l0 = np.mean([float((part[3200:] > 0).sum(1).double().mean()) for part in codes])
    assert l0 == pytest.approx(6, rel=0.1)
    alive = sum((part[:3200] > 0).sum(0) for part in codes) > 0
    assert float((~alive).double().mean()) <= 0.05
    # Every atom has a concept that is nearly parallel to it. The bound is lower for relu, whose penalty shrinks codes.
    cosines = np.abs(few.atoms @ net.dictionary.numpy().T).max(1)
    assert cosines.mean() > (0.8 if architecture == "relu" else 0.9)
