"""Mistakes of other libraries. Each test describes a mistake in a comment, and fails if this package makes it."""

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import sae
from sae.metrics import Reconstruction
from sae.rows import training_rows
from sae.step import forward
from sae.trainer import Trainer

K = 4


def settings(**changes) -> sae.Settings:
    defaults = {"width": 64, "k": K, "epochs": 20, "batch_size": 128, "learning_rate": 4e-3}
    return sae.Settings(**(defaults | changes))


def mixtures(rows, seed, shift=0.0, dim=32):
    """Rows [rows, dim]. Each row is a sum of four of 48 atoms. All rows are shifted by `shift` times their spread."""
    atoms = np.random.default_rng(0).standard_normal((48, dim))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    random = np.random.default_rng(seed)
    fires = random.random((rows, 48)).argsort(1) < K
    x = np.where(fires, random.uniform(0.7, 1.3, fires.shape), 0) @ atoms
    spread = np.sqrt((x - x.mean(0)).var(0).sum())
    return (x + shift * spread * np.full(dim, dim**-0.5)).astype(np.float32)


@pytest.fixture(scope="module")
def data():
    return mixtures(1000, 1), mixtures(1000, 2)


@pytest.fixture(scope="module")
def heldout():
    return mixtures(1000, 3)


def l0(net, x) -> float:
    return float((net.encode(x) > 0).sum(1).double().mean())


def test_threshold_is_set_after_a_short_training_too(data, heldout):
    # In another library the threshold stays at -1 for 1,000 steps, and until then every positive pre-activation fires.
    # This training has 32 steps. With a threshold of -1 about half of its 64 concepts would fire on each row.
    trained = sae.train(*data, settings(epochs=2), seed=0)
    assert float(trained.sae.threshold) > 0
    assert l0(trained.sae, heldout) == pytest.approx(K, rel=0.1)


def test_threshold_does_not_lag_behind_the_weights(data, heldout):
    # In another library the threshold is a running mean of past thresholds, which gives L0 = 7.7 for k = 8. With the
    # high learning rate of this test such a mean would be wrong. The stored threshold must fit the final weights.
    trained = sae.train(*data, settings(learning_rate=1e-2, calibration_share=0.0), seed=0)
    both = np.concatenate(data)
    assert l0(trained.sae, both) == pytest.approx(K, rel=1e-3)
    assert l0(trained.sae, heldout) == pytest.approx(K, rel=0.1)


def test_threshold_is_part_of_the_weights_and_loading_leaves_nothing_stale(data, tmp_path):
    # In one library the state dict lacks the threshold. In another library, loading new weights does not replace the
    # dictionary that was cached for evaluation.
    net = sae.train(*data, settings(epochs=1), seed=0).sae
    net.save(tmp_path)
    before = sae.SAE.load(tmp_path)
    before.decode(np.ones((1, 64)))
    tensors = load_file(tmp_path / "sae.safetensors")
    tensors["dictionary"] = tensors["dictionary"].flip(0).contiguous()
    tensors["threshold"] = torch.tensor(0.125)
    save_file(tensors, tmp_path / "sae.safetensors")
    again = sae.SAE.load(tmp_path)
    codes = np.eye(64)[:1]
    np.testing.assert_allclose((again.decode(codes) - again.bias).numpy()[0], net.dictionary[-1].numpy(), atol=1e-6)
    assert float(again.threshold) == 0.125


def test_k_counts_codes_a_row_not_a_batch(data):
    # In another library top_k = 20 keeps 20 codes in a whole batch, not in each row, so the mean L0 is .01.
    for architecture in ("topk", "batchtopk", "matryoshka"):
        curve = sae.train(*data, settings(architecture=architecture, epochs=1), seed=0).curve
        assert curve[-1]["l0"] == pytest.approx(K)


def test_a_concept_is_dead_within_the_first_epoch_and_is_trained_at_once(data):
    # In another library a concept counts as dead after 10 million rows without firing. A training on 2,000 rows sees
    # 10 million rows only after 5,000 epochs, so AuxK has no effect.
    rows = training_rows(*data, 0.5, "cpu")
    trainer = Trainer(rows, settings(), 0)
    with torch.no_grad():
        trainer.weights.encoder_bias[:8] = -3.0
    trainer.sparse.refold_()
    first = trainer.weights.dictionary[:8].detach().clone()
    for step in range(8):  # half an epoch
        trainer.step_(rows.take(np.arange(step * 128, step * 128 + 128)), 1e-3)
    assert trainer.dead()[:8].all()
    assert torch.allclose(trainer.weights.dictionary[:8].detach(), first, atol=1e-6)  # these atoms had no gradient yet
    with torch.no_grad():
        trainer.weights.encoder_bias[:8] = -0.1  # some pre-activations are positive, none is among the strongest
    trainer.sparse.refold_()
    trainer.any_dead = True
    trainer.step_(rows.take(np.arange(1024, 1152)), 1e-3)
    assert ((trainer.weights.dictionary[:8].detach() - first).abs().sum(1) > 1e-4).any()


@pytest.mark.parametrize("sparse", [False, True])
def test_auxk_reaches_the_encoder_with_the_right_sign(data, sparse):
    # In other libraries AuxK's gradient does not reach the encoder, or AuxK's target has the wrong sign. Here training
    # steps must lower the AuxK loss. They must also move the encoder rows of the dead concepts that have a positive
    # pre-activation on some row.
    rows = training_rows(*data, 0.5, "cpu")
    trainer = Trainer(rows, settings(auxk=1.0), 0, sparse)
    dead, x = torch.arange(64) < 16, rows.take(np.arange(512))
    with torch.no_grad():
        trainer.weights.encoder_bias[:16] = -0.05

    def auxiliary() -> float:
        with torch.no_grad():
            both = forward(x, trainer.weights, trainer.settings, trainer.variance, trainer.penalty, dead)
            alone = forward(x, trainer.weights, trainer.settings, trainer.variance, trainer.penalty, None)
            return float(both.loss - alone.loss)

    trainer.silent_C[:16], trainer.any_dead = trainer.window, True
    if sparse:
        trainer.sparse.refold_()
    before, encoder = auxiliary(), trainer.weights.encoder[:16].detach().clone()
    for _ in range(10):
        trainer.silent_C[:16] = trainer.window
        trainer.step_(x, 1e-3)
    assert auxiliary() < before - 0.01
    assert ((trainer.weights.encoder[:16].detach() - encoder).abs().sum(1) > 0).sum() > 12


def test_training_goes_on_for_all_the_epochs_that_were_asked_for(data):
    # In another library the data loader ends after one pass, and the training ends with it, without a warning.
    steps = []
    trained = sae.train(*data, settings(epochs=3), seed=0, on_step=lambda step, *_: steps.append(step))
    assert len(steps) == 3 * 16  # 2,000 rows in batches of 128 rows make 16 steps per epoch
    assert trained.sae.config.rows_seen == 6000
    assert trained.curve[-1]["epoch"] == 3


def test_decoder_bias_at_the_median_keeps_uncentred_rows_alive():
    # In another library the decoder bias starts at 0. On rows whose mean is five times their spread, 87 % of the
    # concepts are then dead, and R2 is .15. auxk = 0 switches off AuxK and the restarts of dead concepts, so only the
    # initialisation is tested: about a tenth of the concepts die (none with AuxK).
    x = mixtures(1000, 1, shift=5.0), mixtures(1000, 2, shift=5.0)
    with_bias = sae.train(*x, settings(auxk=0.0, learning_rate=1e-3, calibration_share=0.0), seed=0).curve[-1]
    assert with_bias["dead_fraction"] < 0.15
    assert with_bias["r2"] > 0.4


def test_r2_is_about_the_mean_and_no_mean_of_ratios():
    # In one library the variance is taken about 0. Predicting the mean (5, 0) for the rows (5, 1) and (5, -1) would
    # then give R2 = 1 - 1/26 = .96. With the variance about the mean, R2 is 0.
    # In another library R2 is the mean over rows of 1 - error / square. Rows with the squares 1 and 9 and the squared
    # errors 0 and 1 would give R2 = 1 - (0 + 1/9)/2. The R2 of all rows together is 1 - (0 + 1)/(1 + 9).
    x = np.array([[5.0, 1.0], [5.0, -1.0]])
    sums = Reconstruction()
    sums.update(x, np.array([[5.0, 0.0], [5.0, 0.0]]), np.ones((2, 1)))
    assert sums.result()["r2"] == pytest.approx(0)
    sums = Reconstruction()
    sums.update(np.array([[1.0], [-1.0], [3.0], [-3.0]]), np.array([[1.0], [-1.0], [2.0], [-2.0]]), np.ones((4, 1)))
    assert sums.result()["r2"] == pytest.approx(1 - 2 / 20)


def _dictionary(job):
    torch.set_num_threads(1)
    data, seed = job
    return sae.train(*data, settings(epochs=4), seed).sae.dictionary.numpy()


@pytest.mark.slow
def test_seeds_side_by_side_give_what_each_gives_alone(data):
    # In another library several seeds run one after the other. Here each seed has its own process with one thread.
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        together = list(pool.map(_dictionary, [(data, 0), (data, 1)]))
    for seed in (0, 1):
        np.testing.assert_allclose(together[seed], _dictionary((data, seed)), atol=1e-6)
    assert not np.allclose(together[0], together[1], atol=0.1)


def test_files_say_what_an_import_needs_to_know(data, tmp_path):
    # In another library the file of weights lacks k, the rule that selects codes, and the preprocessing.
    sae.train(*data, settings(epochs=1), seed=0).sae.save(tmp_path)
    entries = json.loads((tmp_path / "config.json").read_text())
    assert (entries["architecture"], entries["k"], entries["preprocessing"]) == ("batchtopk", K, "l2")
