"""The consensus SAE: which atoms are shared, their merged directions, and the SAE that is made of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

import sae
from sae.consensus import NoConsensus, consensus, shared_atoms

DIM = 10
TRAINED = {}


def match(D_a, D_b):
    """The exact assignment, by another solver than the project's own."""
    S = D_a @ D_b.T
    rows, columns = linear_sum_assignment(-S)
    return columns, S[rows, columns]


def at(*degrees):
    """Unit vectors in a plane."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_three_small_dictionaries_by_hand():
    # Matched angles: a-b 10, 60, 20; a-c 20, 5, 80; b-c 30, 65, 60. Sums of cosines: a has the largest.
    a, b, c = at(0, 120, 240), at(10, 180, 260), at(340, 125, 320)[[1, 0, 2]]
    shared = shared_atoms([b, a, c], match)
    assert shared.medoid == 1
    # Concept 0 of a: b at 10, c at 20 degrees. Concept 1: only c, at 5 degrees. Concept 2: only b, at 20 degrees.
    np.testing.assert_array_equal(shared.concepts, [[0, 0, 1], [-1, 1, 0], [2, 2, -1]])
    np.testing.assert_array_equal(shared.seeds, [3, 2, 2])
    # The mean of unit vectors at 10, 0 and -20 degrees points to atan((sin 10 - sin 20) / (cos 10 + 1 + cos 20)).
    mean = np.degrees(np.arctan2(0.173648 - 0.342020, 0.984808 + 1 + 0.939693))
    np.testing.assert_allclose(shared.atoms, at(mean, 122.5, 250), atol=1e-6)
    cosines = [[10 - mean, mean, 20 + mean], [np.nan, 2.5, 2.5], [10, 10, np.nan]]
    np.testing.assert_allclose(shared.cosines, np.cos(np.radians(cosines)), atol=1e-6)


def test_an_atom_that_one_seed_of_two_or_of_three_holds_is_left_out():
    a, b = at(0, 90), at(0, 0)  # the assigned cosines are 1 and 0
    assert len(shared_atoms([a, b], match).atoms) == 1  # half of two seeds is one, which the medoid always is
    assert len(shared_atoms([a, b, b], match).atoms) == 2
    assert len(shared_atoms([at(0, 90), at(0, 180), at(0, 270)], match).atoms) == 1
    with pytest.raises(ValueError, match="two or more of one shape"):
        shared_atoms([a], match)


def test_half_of_four_seeds_are_two():
    # Concept 1 of the first seed is held by the second, and by neither of the others.
    dictionaries = [at(0, 90), at(0, 90), at(0, 180), at(0, 270)]
    np.testing.assert_array_equal(shared_atoms(dictionaries, match).seeds, [4, 2])


def noisy(random, seeds=3, width=12, noise=0.35):
    """Dictionaries of seeds that share noisy atoms, each in its own order."""
    truth = random.standard_normal((width, DIM))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    found = [truth + noise * random.standard_normal(truth.shape) * random.random((width, 1)) for _ in range(seeds)]
    return [(D / np.linalg.norm(D, axis=1, keepdims=True))[random.permutation(width)].astype(np.float32) for D in found]


def in_order(shared, concepts):
    """Merged atoms, numbers of seeds, and concepts of the seeds, in the order of the atoms' first coordinates."""
    order = np.argsort(shared.atoms[:, 0])
    return shared.atoms[order], shared.seeds[order], concepts[order]


@given(st.integers(0, 10**6), st.integers(3, 5))
@limits(max_examples=25, deadline=None)
def test_the_order_of_seeds_and_of_their_atoms_changes_the_order_of_the_result_alone(number, seeds):
    random = np.random.default_rng(number)
    D = noisy(random, seeds)
    shared = shared_atoms(D, match)
    order, own = random.permutation(seeds), [random.permutation(len(each)) for each in D]
    moved = shared_atoms([D[seed][own[seed]] for seed in order], match)
    assert order[moved.medoid] == shared.medoid
    back = np.full_like(moved.concepts, -1)
    for place, seed in enumerate(order):
        there = moved.concepts[:, place] >= 0
        back[there, seed] = own[seed][moved.concepts[there, place]]
    for before, after in zip(in_order(shared, shared.concepts), in_order(moved, back), strict=True):
        np.testing.assert_allclose(before, after, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(shared.atoms, axis=1), 1, atol=1e-6)
    assert shared.seeds.min() >= max(2, seeds / 2)


@given(st.integers(0, 10**6))
@limits(max_examples=15, deadline=None)
def test_equal_seeds_share_every_atom_as_it_is(number):
    (D,) = noisy(np.random.default_rng(number), 1)
    shared = shared_atoms([D, D[::-1], D], match)
    np.testing.assert_allclose(in_order(shared, shared.concepts)[0], D[np.argsort(D[:, 0])], atol=1e-6)
    np.testing.assert_array_equal(shared.seeds, 3)
    np.testing.assert_allclose(shared.cosines, 1, atol=1e-6)


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(0)
    atoms = random.standard_normal((16, DIM))
    codes = [random.random((200, 16)) * (random.random((200, 16)) < 0.15) for _ in range(2)]
    return tuple((z @ atoms + sign * 0.3).astype(np.float32) for z, sign in zip(codes, (1, -1), strict=True))


def setting(**changes):
    defaults = {"width": 24, "k": 3, "epochs": 12, "batch_size": 50, "learning_rate": 2e-2}
    return sae.Settings(**(defaults | changes))


def seeds_of(rows, number=2, **changes):
    """SAEs of the first seeds. Equal arguments give the same SAEs, which are trained once."""
    key = number, *changes.items()
    if key not in TRAINED:
        TRAINED[key] = [sae.train(*rows, setting(**changes), seed).sae for seed in range(number)]
    return TRAINED[key]


def r2(net, rows):
    sums = [sae.metrics.Reconstruction() for _ in rows]
    for each, x, modality in zip(sums, rows, ("image", "text"), strict=True):
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        codes = net.encode(unit, modality)
        each.update(unit, net.decode(codes, modality).numpy(), codes.numpy())
    figures = sae.metrics.combine(*sums)
    return figures["r2"], figures["l0"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"architecture": "topk"},
        {"architecture": "matryoshka", "prefixes": (8, 24)},
        {"architecture": "jumprelu"},
        {"architecture": "relu"},
        {"architecture": "mp"},
        {"encoder": "pursuit"},
        {"centring": True},
        {"decoder_bias": False},
    ],
    ids=str,
)
def test_a_consensus_sae_is_an_sae_of_any_architecture(rows, changes, tmp_path):
    nets = seeds_of(rows, **changes)
    made = consensus(nets, *rows, match)
    config = made.sae.config
    assert 2 <= config.width == len(made.shared.atoms) < 24
    assert (config.consensus_of, config.frozen, config.seed, config.k) == ((0, 1), None, 0, 3)
    assert (config.architecture, config.encoder) == (nets[0].config.architecture, changes.get("encoder", "own"))
    np.testing.assert_array_equal(made.sae.dictionary, made.shared.atoms)
    made.sae.save(tmp_path)
    assert sae.SAE.load(tmp_path).difference(made.sae) is None
    assert bool(made.curve) == (changes.get("architecture") != "mp")
    assert r2(made.sae, rows)[0] > 0.2


def test_the_prefixes_of_a_matryoshka_count_the_shared_atoms_of_each_nested_dictionary(rows):
    nets = seeds_of(rows, architecture="matryoshka", prefixes=(8, 24), epochs=6)
    made = consensus(nets, *rows, match)
    own = made.shared.concepts[:, made.shared.medoid]
    assert made.sae.config.prefixes == (int((own < 8).sum()), len(own))


def test_the_encoder_of_merged_atoms_is_trained(rows):
    """The refitted encoder explains more, at the same number of codes, than the mean of the seeds' encoders."""
    nets = seeds_of(rows, 3)
    made = consensus(nets, *rows, match)
    refitted, l0 = r2(made.sae, rows)
    held = torch.from_numpy(made.shared.concepts >= 0).float()

    def mean(name):
        each = [getattr(net, name)[made.shared.concepts[:, place]] for place, net in enumerate(nets)]
        weights = held / held.sum(1, keepdim=True)
        return torch.einsum("sa...,as->a...", torch.stack(each), weights)

    encoder, encoder_bias = mean("encoder"), mean("encoder_bias")
    mean_bias = torch.stack([net.bias for net in nets]).mean(0)
    config = made.sae.config
    low, high = 0.0, 1.0
    for _ in range(30):  # the threshold at which the mean encoder has as many codes
        middle = (low + high) / 2
        merged = sae.SAE(encoder, encoder_bias, made.sae.dictionary, mean_bias, torch.tensor(middle), config)
        low, high = (middle, high) if r2(merged, rows)[1] > l0 else (low, middle)
    assert refitted > r2(merged, rows)[0] + 0.01


def test_equal_seeds_give_their_own_dictionary(rows):
    (net,) = seeds_of(rows, 1)
    made = consensus([net, net, net], *rows, match)
    torch.testing.assert_close(made.sae.dictionary, net.dictionary)
    assert r2(made.sae, rows)[0] == pytest.approx(r2(net, rows)[0], abs=0.03)


def test_a_resumed_refit_equals_an_uninterrupted_one(rows, tmp_path):
    nets = seeds_of(rows)

    def stop(step, *_):
        if step == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consensus(nets, *rows, match, on_step=stop, checkpoint=sae.Checkpoint(tmp_path, steps=20))
    resumed = consensus(nets, *rows, match, checkpoint=sae.Checkpoint(tmp_path)).sae
    assert resumed.difference(consensus(nets, *rows, match).sae) is None


def test_seeds_that_share_too_few_atoms_and_saes_of_unequal_settings_are_refused(rows):
    a, b = seeds_of(rows, epochs=1)
    apart = sae.SAE(b.encoder, b.encoder_bias, -a.dictionary, b.bias, b.threshold, b.config)
    with pytest.raises(NoConsensus, match=r"of 24 atoms are held by at least half of 2 seeds at a cosine of 0.7"):
        consensus([a, apart], *rows, lambda *_: (np.arange(24), np.full(24, -1.0)))
    (c,) = seeds_of(rows, 1, epochs=1, width=20)
    with pytest.raises(NoConsensus, match="differ in architecture, width, dimension or centring"):
        consensus([a, c], *rows, match)
