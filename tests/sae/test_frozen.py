"""SAEs of which a part is never learned: what stays, what still learns, restarts, resumed trainings."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

import sae
from sae.checkpoint import Checkpoint
from sae.gathered_step import gathered_gradients_
from sae.initial import initial_weights
from sae.rows import training_rows
from sae.settings import FROZEN, Settings, freezable
from sae.trainer import LEAST_COSINE, Trainer

WIDTH, DIM = 40, 12


def setting(**changes) -> Settings:
    defaults = {"width": WIDTH, "k": 3, "epochs": 4, "batch_size": 32, "learning_rate": 3e-2, "calibration_share": 0}
    return Settings(**(defaults | changes))


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    return tuple((random.standard_normal((200, DIM)) + 0.5).astype(np.float32) for _ in range(2))


def first_weights(data, settings):
    return initial_weights(training_rows(*data, 0.5, "cpu"), settings, 0)


def trained(data, settings):
    return sae.train(*data, settings, 0).sae


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka", "topk", "jumprelu", "relu"])
@pytest.mark.parametrize("init", ["within", "random"])
def test_frozen_parts_are_bit_equal_to_their_start_and_the_others_are_not(data, architecture, init):
    settings = setting(architecture=architecture, init=init)
    start = first_weights(data, settings)
    decoder, encoder = (trained(data, settings.model_copy(update={"frozen": part})) for part in FROZEN[::2])
    assert torch.equal(decoder.dictionary, start.dictionary)
    assert not torch.allclose(decoder.encoder, start.encoder, atol=1e-2)
    assert torch.equal(encoder.encoder, start.encoder)
    assert torch.equal(encoder.encoder_bias, start.encoder_bias)
    assert not torch.allclose(encoder.dictionary, start.dictionary, atol=1e-2)
    for each in (decoder, encoder):
        assert not torch.allclose(each.bias, start.bias, atol=1e-3)


@pytest.mark.parametrize("architecture", ["batchtopk", "jumprelu", "mp"])
def test_softly_frozen_atoms_keep_a_cosine_of_at_least_the_bound(data, architecture):
    settings = setting(architecture=architecture)
    start = first_weights(data, settings).dictionary
    free = (trained(data, settings).dictionary * start).sum(1)
    soft = (trained(data, settings.model_copy(update={"frozen": "soft_frozen_decoder"})).dictionary * start).sum(1)
    assert float(free.min()) < LEAST_COSINE  # else the test could not fail
    assert float(soft.min()) >= LEAST_COSINE - 1e-6
    assert float(soft.mean()) < 0.999


@given(st.integers(0, 10**6))
@limits(max_examples=20, deadline=None)
def test_an_atom_is_put_back_to_the_nearest_unit_vector_with_the_cosine(number):
    rows = training_rows(*(np.random.default_rng(1).standard_normal((20, DIM)) for _ in range(2)), 0.5, "cpu")
    trainer = Trainer(rows, setting(frozen="soft_frozen_decoder"), 0)
    start, random = trainer.start, torch.Generator().manual_seed(number)
    moved = torch.nn.functional.normalize(start + 0.3 * torch.randn(WIDTH, DIM, generator=random), dim=1)
    with torch.no_grad():
        trainer.weights.dictionary.copy_(moved)
    trainer._hold_atoms_()
    held = trainer.weights.dictionary.detach()
    before, after = ((atoms * start).sum(1) for atoms in (moved, held))
    inside = before >= LEAST_COSINE
    assert torch.equal(held[inside], moved[inside])
    torch.testing.assert_close(held.norm(dim=1), torch.ones(WIDTH))
    torch.testing.assert_close(after[~inside], torch.full_like(after[~inside], LEAST_COSINE))
    # The angle between atom and held atom is the difference of their angles to the start: no unit vector is nearer.
    angle = torch.arccos(before.double()) - torch.arccos(after.double())
    torch.testing.assert_close((held * moved).sum(1)[~inside].double(), torch.cos(angle)[~inside], atol=1e-5, rtol=0)


@pytest.mark.parametrize("frozen", FROZEN)
@pytest.mark.parametrize("architecture", ["batchtopk", "topk", "matryoshka"])
def test_the_sparse_step_equals_the_dense_one(data, frozen, architecture):
    settings = setting(architecture=architecture, frozen=frozen, learning_rate=1e-3)
    trainers = [Trainer(training_rows(*data, 0.5, "cpu"), settings, 0, sparse) for sparse in (False, True)]
    assert [trainer.sparse is None for trainer in trainers] == [True, False]
    for step in range(5):
        for trainer in trainers:
            trainer.step_(trainer.rows.take(np.arange(30 * step, 30 * step + 30)), 1e-3)
    for name in ("encoder", "encoder_bias", "dictionary", "bias"):
        dense, sparse = (getattr(trainer.weights, name) for trainer in trainers)
        torch.testing.assert_close(dense, sparse, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("frozen", ["frozen_decoder", "frozen_encoder"])
@pytest.mark.parametrize("path", ["dense", "sparse", "gathered"])
def test_gradients_of_the_parts_that_learn_are_those_of_a_training_that_freezes_nothing(data, frozen, path):
    free, held = (
        Trainer(training_rows(*data, 0.5, "cpu"), setting(frozen=part), 0, path == "sparse") for part in (None, frozen)
    )
    x_BD = free.rows.take(np.arange(30))
    for trainer in (free, held):
        if path == "gathered":
            gathered_gradients_(x_BD, trainer.weights, trainer.settings, trainer.variance)
        else:
            trainer._adam_ = lambda rate: None
            trainer.step_(x_BD, 1e-3)
    lost = {"dictionary"} if frozen == "frozen_decoder" else {"encoder", "encoder_bias"}
    assert set(free.learned) - set(held.learned) == lost
    of = (lambda trainer, name: getattr(trainer.sparse.to, name)) if path == "sparse" else None
    scales = []
    for name in held.learned:
        pair = [of(t, name) if of else t.weights._asdict()[name].grad for t in (free, held)]
        # Clipping scales all gradients of one training by one factor, which depends on the parts that learn.
        ratio = pair[1].norm() / pair[0].norm()
        torch.testing.assert_close(pair[1], pair[0] * ratio, atol=1e-6, rtol=1e-4)
        scales.append(float(ratio))
    assert scales == pytest.approx([scales[0]] * len(scales), rel=1e-4)
    assert scales[0] >= 1 - 1e-5


@pytest.mark.parametrize("frozen", FROZEN)
@pytest.mark.parametrize("sparse", [False, True])
def test_a_restart_moves_no_frozen_part(data, frozen, sparse):
    trainer = Trainer(training_rows(*data, 0.5, "cpu"), setting(frozen=frozen, learning_rate=1e-2), 0, sparse)
    x_BD = trainer.rows.take(np.arange(0, 400, 8))
    trainer.step_(x_BD, 1e-2)
    trainer.silent_C[:7] = trainer.window
    before = {name: weight.detach().clone() for name, weight in trainer._named()}
    trainer.restart_dead_(x_BD)
    if frozen == "frozen_encoder":
        assert all(torch.equal(before[name], weight) for name, weight in trainer._named())
        return
    atoms, encoder = trainer.weights.dictionary.detach(), trainer.weights.encoder.detach()
    assert torch.equal(atoms[:7], trainer.start[:7])
    assert torch.equal(atoms[7:], before["dictionary"][7:])
    torch.testing.assert_close(torch.nn.functional.normalize(encoder[:7], dim=1), atoms[:7])
    assert not torch.allclose(encoder[:7], before["encoder"][:7])
    fires = (trainer.weights.pre_activations(x_BD)[:, :7] > 0).any(0)
    assert bool(fires.all())


@pytest.mark.parametrize("frozen", FROZEN)
@pytest.mark.parametrize("width", [WIDTH, 20])  # the sparse and the dense step
def test_a_resumed_training_equals_an_uninterrupted_one(data, tmp_path, frozen, width):
    settings = setting(frozen=frozen, width=width, epochs=20, dead_after_epochs=0.1, k=2)

    def stop(step, *_):
        if step == 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sae.train(*data, settings, 0, on_step=stop, checkpoint=Checkpoint(tmp_path, steps=10))
    resumed = sae.train(*data, settings, 0, checkpoint=Checkpoint(tmp_path)).sae
    assert resumed.difference(trained(data, settings)) is None


def test_the_file_of_a_frozen_sae_says_so_and_that_of_a_trained_one_does_not(data, tmp_path):
    for frozen in (None, "frozen_encoder"):
        folder = tmp_path / str(frozen)
        folder.mkdir()
        trained(data, setting(frozen=frozen, epochs=1)).save(folder)
        assert ('"frozen"' in (folder / "config.json").read_text()) == (frozen is not None)
        assert sae.SAE.load(folder).config.frozen == frozen


def test_pursuit_has_no_encoder_that_could_be_frozen():
    assert freezable("mp") == ("soft_frozen_decoder",)
    with pytest.raises(ValueError, match="mp encodes with its dictionary and has no encoder, so soft_"):
        setting(architecture="mp", frozen="frozen_encoder")
