"""Baselines: small cases worked by hand, and laws that hold for all of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae.architectures import encoders_of
from sae.baselines import BASELINES, ICA, PCA, DataSample, KMeans, SphericalKMeans, largest, sample, unit
from sae.metrics import Reconstruction, combine
from sae.pursuit import matching_pursuit


def planted(rows, seed):
    """Sparse non-negative sums of 40 directions in 24 dimensions, off centre."""
    atoms = np.random.default_rng(0).standard_normal((40, 24))
    random = np.random.default_rng(seed)
    codes = (random.random((rows, 40)) < 0.08) * random.uniform(0.5, 1.5, (rows, 40))
    return (codes @ atoms + 0.1 * random.standard_normal((rows, 24)) + 1.0).astype(np.float32)


@pytest.fixture(scope="module")
def rows():
    return planted(900, 1), planted(1300, 2)


@pytest.fixture(scope="module")
def fitted(rows):
    return {name: method(40, 4, seed=3).fit(*rows) for name, method in BASELINES.items()}


def r2(method, *parts):
    sums = []
    for x in parts:
        sums.append(Reconstruction())
        codes = method.encode(x)
        sums[-1].update(unit(x), method.decode(codes), codes)
    return combine(*sums)


def test_matching_pursuit_worked_by_hand():
    # The atoms are a = (1, 0) and b = (.6, .8). Row (1, 1) has the products 1 with a and 1.4 with b, so b is taken
    # first with code 1.4. The residual (1, 1) - 1.4 b = (.16, -.12) has the products .16 with a and 0 with b, so a gets
    # .16.
    atoms = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    x = torch.tensor([[1.0, 1.0], [-1.0, 0.0]])
    torch.testing.assert_close(matching_pursuit(x, atoms, 1), torch.tensor([[0.0, 1.4], [0.0, 0.0]]))
    # Row (-1, 0) has the products -1 and -.6. Neither is positive, so non-negative pursuit takes no atom.
    torch.testing.assert_close(matching_pursuit(x, atoms, 2), torch.tensor([[0.16, 1.4], [0.0, 0.0]]))
    # After two steps row (1, 1) has the residual (0, -.12), with the products 0 and -.096. No third atom is taken.
    torch.testing.assert_close(matching_pursuit(x, atoms, 9), torch.tensor([[0.16, 1.4], [0.0, 0.0]]))


@given(seed=st.integers(0, 1000), k=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_each_pursuit_step_takes_its_code_squared_off_the_error(seed, k):
    # A step subtracts the projection of the residual r on a unit atom a. So |r|^2 falls by (r . a)^2, and never rises.
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(12, 5, generator=generator), dim=1)
    x = torch.randn(7, 5, generator=generator)
    before, after = ((x - matching_pursuit(x, atoms, n) @ atoms).square().sum(1) for n in (k, k + 1))
    assert (after <= before + 1e-5).all()


def test_largest_goes_by_magnitude_and_keeps_the_sign():
    x = torch.tensor([[1.0, -3.0, 2.0]])
    assert largest(x, 2).tolist() == [[0.0, -3.0, 2.0]]


def test_pca_worked_by_hand():
    # The images are (.8, +-.6), the texts (-.8, +-.6), all of norm 1. Their mean is 0. The second moment is .64 along
    # the first axis and .36 along the second. So with k = 1 the code of a row is its first coordinate.
    image, text = np.array([[0.8, 0.6], [0.8, -0.6]]), np.array([[-0.8, 0.6], [-0.8, -0.6]])
    pca = PCA(2, 1).fit(image, text)
    torch.testing.assert_close(pca.bias, torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(pca.dictionary.abs(), torch.eye(2), atol=1e-6, rtol=0)
    codes = pca.encode(np.concatenate([image, text]))
    torch.testing.assert_close(pca.decode(codes)[:, 0], torch.tensor([0.8, 0.8, -0.8, -0.8]))
    assert (codes != 0).sum(1).tolist() == [1, 1, 1, 1]
    assert codes.min() < 0  # signed codes, used on the frontier only


def test_k_means_finds_two_bunches_and_codes_their_norm():
    # All images are (1, 0) and all texts (.6, .8). So there are two centres of norm 1, and the residual is 0.
    image, text = np.tile([[1.0, 0.0]], (5, 1)), np.tile([[0.6, 0.8]], (5, 1))
    kmeans = KMeans(2, seed=1).fit(image, text)
    codes = kmeans.encode(np.concatenate([image, text]))
    torch.testing.assert_close(kmeans.decode(codes), torch.tensor([[1.0, 0.0]] * 5 + [[0.6, 0.8]] * 5))
    torch.testing.assert_close(codes.sum(1), torch.ones(10))
    assert kmeans.encoding("own", 3).encode(image).count_nonzero(1).max() == 1


@pytest.mark.parametrize("name", BASELINES)
def test_every_method_has_the_interface_of_an_sae(fitted, name):
    method, x = fitted[name], planted(300, 9)
    codes = method.encode(x)
    width = 24 if name in ("pca", "ica") else 40  # no more components than dimensions
    assert codes.shape == (300, width)
    assert method.dictionary.shape == (width, 24)
    torch.testing.assert_close(method.dictionary.norm(dim=1), torch.ones(width))
    torch.testing.assert_close(method.decode(codes), codes @ method.dictionary + method.bias, atol=1e-5, rtol=0)
    assert codes.count_nonzero(1).max() <= (1 if name == "kmeans" else 4)
    assert method.signed or codes.min() >= 0
    # This is R2 on held-out rows. The best constant has R2 0, since both modalities have the same mean in this data.
    assert r2(method, x[:150], x[150:])["r2"] > 0.2


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "kmeans"])
def test_more_codes_rebuild_more(fitted, name):
    x = planted(300, 9)
    errors = [
        float((unit(x) - m.decode(m.encode(x))).square().sum())
        for m in (fitted[name].encoding(fitted[name].encoder, k) for k in (2, 4, 8))
    ]
    assert errors[0] > errors[1] > errors[2]
    assert fitted[name].k == 4  # `encoding` changed a copy, not this object


@pytest.mark.parametrize("name", BASELINES)
def test_pursuit_encodes_with_the_dictionary_of_every_method(fitted, name):
    method, x = fitted[name].encoding("pursuit", 3), planted(50, 9)
    codes = method.encode(x)
    assert torch.equal(codes, matching_pursuit(unit(x) - method.bias, method.dictionary, 3))
    assert encoders_of(name) == (("own", "pursuit") if name in ("pca", "ica", "kmeans") else ("pursuit",))
    assert fitted[name].encoders == encoders_of(name)
    if "own" in encoders_of(name):
        assert not torch.equal(fitted[name].encoding("own").encode(x), codes)
    else:
        with pytest.raises(ValueError, match="has the encoder pursuit, not 'own'"):
            fitted[name].encoding("own")


def test_pca_with_every_component_is_exact(rows):
    assert r2(PCA(24, 24).fit(*rows), *rows)["r2"] == pytest.approx(1, abs=1e-6)


def test_both_modalities_weigh_the_same_however_many_rows_each_has(rows):
    image, text = rows
    once, thrice = PCA(24, 4).fit(image, text), PCA(24, 4).fit(image, np.tile(text, (3, 1)))
    torch.testing.assert_close(once.bias, thrice.bias)
    torch.testing.assert_close((once.dictionary @ thrice.dictionary.T).abs(), torch.eye(24), atol=1e-3, rtol=0)


def test_ica_finds_sources_that_pca_mixes():
    # The 24 sources are independent and uniform. The norms of rows are then nearly equal, so normalising changes a row
    # little. The directions are random, so the principal components of the rows differ from them.
    random = np.random.default_rng(0)
    true = np.linalg.qr(random.standard_normal((24, 24)))[0] + 0.1 * random.standard_normal((24, 24))
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    x = random.uniform(-1, 1, (6000, 24)) @ true
    worst = {}
    for method in (ICA, PCA):
        cosines = method(24, 2).fit(x[:3000], x[3000:]).dictionary.double() @ torch.from_numpy(true).T
        worst[method] = float(cosines.abs().max(0).values.min())
    assert worst[ICA] > 0.95
    assert worst[PCA] < 0.8


def test_learned_directions_beat_drawn_ones(fitted):
    x = planted(400, 9)
    scores = {name: r2(method, x[:200], x[200:])["r2"] for name, method in fitted.items()}
    assert scores["spherical"] > scores["sample"] > scores["random"]
    assert scores["nmf"] > scores["random"]


def test_a_data_sample_holds_training_rows_of_both_modalities(rows):
    image, text = rows
    sampled = DataSample(10, 2, seed=5).fit(image, text)
    for part, directions in ((image, sampled.dictionary[:5]), (text, sampled.dictionary[5:])):
        cosines = directions @ torch.nn.functional.normalize(unit(part) - sampled.bias, dim=1).T
        assert cosines.max(1).values.tolist() == pytest.approx([1.0] * 5, abs=1e-5)


def test_a_sample_takes_from_the_larger_modality_what_the_smaller_lacks(rows):
    image, text = rows
    assert [len(part) for part in sample(image[:3], text, 20, 0)] == [3, 17]
    assert [len(part) for part in sample(image[:3], text[:4], 20, 0)] == [3, 4]


def test_rows_may_lie_in_a_memory_map(rows, tmp_path, fitted):
    mapped = []
    for name, part in zip(("image", "text"), rows, strict=True):
        np.save(tmp_path / f"{name}.npy", part)
        mapped.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    for method in (SphericalKMeans(40, 4, seed=3), PCA(40, 4, seed=3)):
        twin = fitted["spherical" if isinstance(method, SphericalKMeans) else "pca"]
        assert torch.equal(method.fit(*mapped).dictionary, twin.dictionary)


def test_a_seed_gives_the_same_bits_and_another_seed_others(rows):
    for name in ("nmf", "kmeans", "ica", "random"):
        one, same, other = (BASELINES[name](24, 2, seed=s).fit(*rows).dictionary for s in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_unusable_input_is_named(rows):
    with pytest.raises(ValueError, match=r"k is 9; 1 to the width, 8"):
        PCA(8, 9)
    with pytest.raises(ValueError, match=r"image rows \(0, 24\)"):
        PCA(8, 2).fit(rows[0][:0], rows[1])
