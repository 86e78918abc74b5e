"""Matching pursuit as an encoder of any SAE, and the SAE that is trained through its unrolled rounds (mp)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sae
from sae import pursuit
from sae.model import SAEFormatError
from sae.pursuit import matching_pursuit, selected_atoms, unrolled
from sae.settings import Settings


def atoms_and_rows(seed, width=12, dim=5, rows=7):
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(width, dim, generator=generator), dim=1)
    return atoms, torch.randn(rows, dim, generator=generator)


def planted(rows, seed):
    """Sparse non-negative sums of 20 directions in 12 dimensions."""
    atoms = np.random.default_rng(0).standard_normal((20, 12))
    random = np.random.default_rng(seed)
    codes = (random.random((rows, 20)) < 0.12) * random.uniform(0.5, 1.5, (rows, 20))
    return (codes @ atoms + 0.05 * random.standard_normal((rows, 12)) + 0.2).astype(np.float32)


IMAGE, TEXT = planted(400, 1), planted(500, 2)
MP = Settings(architecture="mp", width=24, k=3, epochs=6, batch_size=64, learning_rate=5e-3)


@pytest.fixture(scope="module")
def trained():
    return sae.train(IMAGE, TEXT, MP, seed=1)


def test_atoms_are_selected_alike_with_and_without_their_products(monkeypatch):
    atoms, x = atoms_and_rows(0, rows=40)
    known = matching_pursuit(x, atoms, 4)
    monkeypatch.setattr(pursuit, "GRAM_WIDTH", 0)
    torch.testing.assert_close(matching_pursuit(x, atoms, 4), known, atol=1e-5, rtol=0)


def test_a_row_has_the_same_codes_in_any_company():
    atoms, x = atoms_and_rows(3, rows=40)
    alone = torch.cat([matching_pursuit(row[None], atoms, 3) for row in x])
    torch.testing.assert_close(alone, matching_pursuit(x, atoms, 3), atol=1e-5, rtol=0)


def test_unrolled_rounds_worked_by_hand():
    # The atoms are a = (1, 0) and b = (.6, .8), and row (1, 1) selects b, then a: the codes are 1.4 and .16, and the
    # last residual is (0, -.12), of which the squared norm is .0144 (see the test of pursuit in test_baselines).
    atoms = torch.tensor([[1.0, 0.0], [0.6, 0.8]], requires_grad=True)
    x = torch.tensor([[1.0, 1.0]])
    index, added = selected_atoms(x, atoms.detach(), 2)
    values, residual = unrolled(x, atoms, index)
    assert index.tolist() == [[1, 0]]
    torch.testing.assert_close(values, torch.tensor([[1.4, 0.16]]))
    torch.testing.assert_close(values.detach(), added)
    torch.testing.assert_close(residual, torch.tensor([[0.0, -0.12]]))
    # With b = (p, q) the residual after b is (1, 1) - (p + q)(p, q). Round a takes the first entry off, so the loss is
    # (1 - (p + q) q)^2. Its derivative is -2 (1 - pq - q^2) (q, p + 2q) = .24 (.8, 2.2) = (.192, .528) at (.6, .8).
    residual.square().sum().backward()
    torch.testing.assert_close(atoms.grad[1], torch.tensor([0.192, 0.528]))


@given(seed=st.integers(0, 500), k=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_gradients_are_those_of_finite_differences(seed, k):
    atoms, x = (part.double().requires_grad_() for part in atoms_and_rows(seed))
    index, values = selected_atoms(x.detach(), atoms.detach(), k)
    if float(values.min()) < 1e-4:
        return  # a row that stops is at the corner of the function, where it has no derivative
    assert torch.autograd.gradcheck(lambda x, atoms: unrolled(x, atoms, index), (x, atoms), eps=1e-6, atol=1e-6)


@given(seed=st.integers(0, 500), k=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_unrolled_codes_are_those_of_pursuit_and_leave_its_residual(seed, k):
    atoms, x = atoms_and_rows(seed)
    index, _ = selected_atoms(x, atoms, k)
    values, residual = unrolled(x, atoms, index)
    codes = matching_pursuit(x, atoms, k)
    torch.testing.assert_close(pursuit.dense_codes(index, values, len(atoms)), codes, atol=1e-5, rtol=0)
    torch.testing.assert_close(residual, x - codes @ atoms, atol=1e-5, rtol=0)


def test_mp_encodes_by_pursuit_with_its_dictionary(trained, tmp_path):
    net = trained.sae
    x = torch.nn.functional.normalize(torch.from_numpy(IMAGE), dim=1)
    codes = net.encode(IMAGE)
    assert torch.equal(codes, matching_pursuit(x - net.bias, net.dictionary, 3))
    assert codes.count_nonzero(1).max() <= 3
    assert codes.min() >= 0
    assert torch.equal(net.encoder, net.dictionary)
    net.save(tmp_path)
    again = sae.SAE.load(tmp_path)
    assert again.difference(net) is None
    assert torch.equal(again.encode(IMAGE), codes)


def test_training_through_pursuit_rebuilds_more_than_its_start(trained):
    # The start is the same dictionary with a learning rate of nearly 0, encoded in the same way.
    start = sae.train(IMAGE, TEXT, MP.model_copy(update={"learning_rate": 1e-9, "auxk": 0.0}), seed=1)
    assert trained.curve[-1]["r2"] > start.curve[-1]["r2"] + 0.05
    assert trained.curve[-1]["l0"] == pytest.approx(3, abs=0.3)
    torch.testing.assert_close(trained.sae.dictionary.norm(dim=1), torch.ones(24))


def test_mp_resumes_exactly(trained, tmp_path):
    stops = 40

    class Stop(Exception):
        pass

    def stop(step, steps, stats):
        if step == stops:
            raise Stop

    with pytest.raises(Stop):
        sae.train(IMAGE, TEXT, MP, 1, on_step=stop, checkpoint=sae.Checkpoint(tmp_path, steps=15))
    resumed = sae.train(IMAGE, TEXT, MP, 1, checkpoint=sae.Checkpoint(tmp_path, steps=15))
    assert resumed.sae.difference(trained.sae) is None


def test_pursuit_replaces_the_encoder_of_an_sae_and_nothing_else(tmp_path):
    own = Settings(width=24, k=3, epochs=3, batch_size=64)
    nets = [
        sae.train(IMAGE, TEXT, setting, seed=0).sae for setting in (own, own.model_copy(update={"encoder": "pursuit"}))
    ]
    for name in ("encoder", "encoder_bias", "dictionary", "bias", "threshold"):
        assert torch.equal(*(getattr(net, name) for net in nets))
    assert not nets[0].pursues
    assert nets[1].pursues
    assert torch.equal(nets[0].encoding("pursuit").encode(TEXT), nets[1].encode(TEXT))
    assert not torch.equal(nets[0].encode(TEXT), nets[1].encode(TEXT))
    nets[1].save(tmp_path)
    assert torch.equal(sae.SAE.load(tmp_path).encode(TEXT), nets[1].encode(TEXT))
    with pytest.raises(SAEFormatError, match=r"k is 0; pursuit takes k steps per row, 1 to the width, 24"):
        nets[0].encoding("pursuit", 0)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"k": 3', '"k": 0'))
    with pytest.raises(SAEFormatError, match=r"config.json: k is 0; pursuit needs 1 to the width, 24"):
        sae.SAE.load(tmp_path)
    (tmp_path / "config.json").write_text(text.replace('"pursuit"', '"omp"'))
    with pytest.raises(SAEFormatError, match=r"encoder is 'omp'; \"own\", \"pursuit\" are allowed"):
        sae.SAE.load(tmp_path)


def test_the_encoder_is_a_setting_that_is_left_out_at_its_default():
    plain = Settings(width=8, k=2)
    assert "encoder" not in plain.model_dump()
    assert Settings(width=8, k=2, encoder="pursuit").model_dump() == plain.model_dump() | {"encoder": "pursuit"}


def test_the_modality_mean_is_subtracted_before_pursuit():
    setting = Settings(width=24, k=3, epochs=2, batch_size=64, centring=True, encoder="pursuit")
    net = sae.train(IMAGE, TEXT, setting, seed=0).sae
    x = torch.nn.functional.normalize(torch.from_numpy(IMAGE), dim=1) - net.mean_image - net.bias
    assert torch.equal(net.encode(IMAGE, "image"), matching_pursuit(x, net.dictionary, 3))
