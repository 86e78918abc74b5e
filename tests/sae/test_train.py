"""Training: order of rows, gradients, threshold, determinism, and recovery of a small planted dictionary."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

import sae
from analysis.stability import match
from sae.initial import geometric_median
from sae.rows import TrainingRows, batches, training_rows, walk
from sae.settings import Settings
from sae.sparsity import batch_topk
from sae.step import aux_loss
from sae.trainer import LONGEST, Trainer, learning_rate_at, silence
from sae.training import Plan, TrainingDiverged


def quick(**changes) -> Settings:
    return Settings(**({"width": 24, "k": 3, "epochs": 4, "batch_size": 32, "learning_rate": 3e-3} | changes))


def sparse_rows(rows, dim=12, atoms=16, fires=2, seed=0):
    """Return (rows [rows, dim], atoms [atoms, dim]). Each row is a sum of a few atoms."""
    random = np.random.default_rng(seed)
    D = np.linalg.qr(random.standard_normal((dim, dim)))[0]
    D = np.concatenate([D, random.standard_normal((atoms - dim, dim))])
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    codes = np.zeros((rows, atoms))
    for row in codes:
        row[random.choice(atoms, fires, replace=False)] = random.uniform(0.8, 1.2, fires)
    return (codes @ D).astype(np.float32), D.astype(np.float32)


def every(rows):
    """All rows of some training rows, as one tensor [n, d]."""
    return torch.cat([x for _, x in rows.chunks()])


@pytest.fixture(scope="module")
def data():
    return sparse_rows(300)[0], sparse_rows(500, seed=1)[0]


@pytest.fixture(scope="module")
def trained(data):
    return sae.train(*data, quick(), seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, r"k\n  Input should be greater than or equal to 1"),
        ({"k": 25}, "k is 25, more than the width 24"),
        ({"width": 0}, r"width\n  Input should be greater than or equal to 2"),
        ({"epochs": 0}, r"epochs.*\n  Input should be greater than or equal to 1"),
        ({"batch_size": 0}, r"batch_size.*\n  Input should be greater than or equal to 2"),
        ({"learning_rate": 0.0}, r"learning_rate.*\n  Input should be greater than 0"),
        ({"learning_rate": math.nan}, r"learning_rate.*\n  Input should be less than or equal to 1"),
        ({"image_share": 1.5}, r"image_share.*\n  Input should be less than or equal to 1"),
        ({"image_share": "half"}, r"image_share.*\n  Input should be 'natural'"),
        ({"auxk": -1.0}, r"auxk\n  Input should be greater than or equal to 0"),
        ({"dead_after_epochs": 10.0}, r"dead_after_epochs\n  Input should be less than or equal to 1"),
        ({"k_aux": 0}, r"k_aux\n  Input should be greater than or equal to 1"),
        ({"encoder_dtype": "float16"}, r"encoder_dtype\n  Input should be 'float32' or 'bfloat16'"),
        ({"penalty": 0.1}, "penalty is for relu and jumprelu"),
        ({"architecture": "relu", "penalty": -1.0}, r"penalty\n  Input should be greater than or equal to 0"),
        ({"prefixes": (8, 24)}, "prefixes are for matryoshka"),
        ({"architecture": "matryoshka", "prefixes": (8, 4, 24)}, r"prefixes is \[8, 4, 24\]; rising widths"),
        ({"architecture": "matryoshka", "prefixes": (8, 16)}, "rising widths that end with the width, 24"),
        ({"architecture": "matryoshka", "prefixes": ()}, "rising widths"),
        (
            {"architecture": "dense"},
            r"architecture\n  Input should be 'relu', 'topk', 'batchtopk', 'jumprelu', 'matryoshka' or 'mp'",
        ),
    ],
)
def test_settings_name_the_field_and_what_is_allowed(change, message):
    with pytest.raises(ValueError, match=message):
        quick(**change)


@given(st.integers(0, 99), st.integers(1, 9), st.integers(0, 30), st.integers(0, 30))
@examples(max_examples=50, deadline=None)
def test_walk_is_one_sequence_however_it_is_cut(seed, rows, start, length):
    whole = walk(seed, 0, rows, 0, start + length)
    assert (walk(seed, 0, rows, start, start + length) == whole[start:]).all()
    for p in range(len(whole) // rows):  # the walk is made of permutations, each with every row once
        assert sorted(whole[p * rows : (p + 1) * rows]) == list(range(rows))


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0, 1), st.integers(1, 16))
@examples(max_examples=60, deadline=None)
def test_batches_hold_their_share_of_images(images, texts, share, batch_size):
    rows = images + texts
    drawn = drawn_images = 0
    for epoch in range(3):
        sizes = []
        for index in batches(7, epoch, images, texts, share, batch_size):
            sizes.append(len(index))
            drawn, drawn_images = drawn + len(index), drawn_images + int((index < images).sum())
            assert abs(drawn_images - drawn * share) <= 0.5 + 1e-6  # rounding errors do not accumulate
            assert index.min() >= 0
            assert index.max() < rows
        assert sum(sizes) == rows  # an epoch draws n_I + n_T rows at every image share
        assert set(sizes[:-1]) <= {batch_size}


def test_natural_order_visits_every_row_once_an_epoch():
    order = np.concatenate(list(batches(0, 3, 10, 30, 0.25, 7)))
    assert sorted(order) == list(range(40))


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        return np.concatenate(list(batches(seed, epoch, 50, 50, 0.5, 16))).tolist()

    assert order(1, 4) == order(1, 4)
    assert order(1, 4) != order(1, 5)
    assert order(1, 4) != order(2, 4)


def test_weights_follow_the_mixture():
    # With an image share of .5, the one image weighs .5 and each of the four texts .125.
    rows = TrainingRows((torch.eye(5)[:1], torch.eye(5)[1:]), 0.5)
    assert rows.weights().tolist() == [0.5, 0.125, 0.125, 0.125, 0.125]


def test_geometric_median_resists_an_outlier():
    # Three points lie at 0 and one at 100. With equal weights the median is 0 (the mean is 25). With the weight .7 on
    # the point at 100 the median is 100.
    x = torch.tensor([[0.0], [0.0], [0.0], [100.0]])
    assert abs(float(geometric_median(x, torch.full((4,), 0.25, dtype=torch.float64)))) < 1e-3
    heavy = torch.tensor([0.1, 0.1, 0.1, 0.7], dtype=torch.float64)
    assert abs(float(geometric_median(x, heavy)) - 100) < 1e-3


def test_learning_rate_warms_up_holds_and_falls():
    # The first 5 of 100 steps warm up (1/5, 2/5, ...). The rate is constant to step 80. Then the rate falls
    # (20/20, 19/20, ...) to 1/20 at the last step.
    rates = [learning_rate_at(step, 100, 1.0) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    assert rates[5:81] == pytest.approx([1] * 76)
    assert rates[81] == pytest.approx(0.95)
    assert rates[99] == pytest.approx(0.05)


def test_aux_loss_of_worked_example():
    # Concepts 1 and 2 are dead, with the atoms (0,1) and (1,0); k_aux is 1. In row 0 the strongest dead concept is 1
    # with pre-activation 2, which gives (0,2). In row 1 no dead concept has a positive pre-activation, which gives
    # (0,0). The residuals are (0,2) and (2,0), so the squared errors are 0 and 4. The residuals have the sum of squares
    # 4 about their mean (1,1). The loss is (0 + 4) / 4.
    D = torch.tensor([[1.0, 0], [0, 1], [1, 0]])
    pre = torch.tensor([[9.0, 2, 1], [9, -1, -2]])
    dead = torch.tensor([False, True, True])
    assert aux_loss(pre, torch.tensor([[0.0, 2], [2, 0]]), dead, D, 1) == 1


def test_aux_gradient_reaches_the_encoder_of_dead_concepts_only():
    rows = training_rows(*(sparse_rows(40, seed=s)[0] for s in (0, 1)), 0.5, "cpu")
    trainer = Trainer(rows, quick(), 0)
    weights, dead = trainer.weights, torch.arange(24) < 5
    residual = torch.randn(80, 12, generator=torch.Generator().manual_seed(0), requires_grad=True)
    aux_loss(weights.pre_activations(every(rows)), residual, dead, weights.dictionary, 4).backward()
    for tensor in (weights.encoder, weights.dictionary):
        touched = tensor.grad.abs().sum(1) > 0
        assert bool(touched[:5].all())
        assert not bool(touched[5:].any())
    assert residual.grad is None  # the residual is detached, so living concepts get no gradient from the auxiliary loss


@pytest.mark.parametrize("sparse", [False, True])
def test_aux_loss_revives_dead_concepts(data, sparse):
    # Lower encoder biases silence most of concepts 0 to 11. With AuxK fewer of them are dead after 200 steps.
    def dead_after(auxk):
        rows = training_rows(*data, 0.5, "cpu")
        x, trainer = every(rows), Trainer(rows, quick(auxk=auxk), 0, sparse)
        with torch.no_grad():
            trainer.weights.encoder_bias[:12] -= 0.6 * trainer.weights.encoder[:12].norm(dim=1)
        if sparse:
            trainer.sparse.refold_()
        trainer.silent_C[:12], trainer.any_dead = trainer.window, True
        for _ in range(200):
            trainer.step_(x, 3e-3)
        return int(trainer.dead()[:12].sum())

    assert dead_after(1.0) < dead_after(0.0)


@pytest.mark.parametrize("sparse", [False, True])
def test_atoms_stay_on_the_sphere_and_their_gradient_tangent(data, sparse):
    rows = training_rows(*data, 0.5, "cpu")
    trainer = Trainer(rows, quick(), 0, sparse)
    before = trainer.weights.dictionary.detach().clone()
    trainer.step_(every(rows), 1e-2)
    gradient = trainer.sparse.to.dictionary if sparse else trainer.weights.dictionary.grad
    assert float((gradient * before).sum(1).abs().max()) < 1e-6
    assert float(gradient.norm()) > 1e-3
    assert torch.allclose(trainer.weights.dictionary.norm(dim=1), torch.ones(24), atol=1e-6)


def test_threshold_reproduces_the_training_l0(data):
    # The image share is .5, so the mean L0 of both modalities is k = 3. Without a calibrated threshold all
    # concepts would fire. No rows are held back, so the threshold is calibrated on the rows that are encoded here.
    trained = sae.train(*data, quick(calibration_share=0.0), seed=0)
    l0 = np.mean([float((trained.sae.encode(part) > 0).sum(1).double().mean()) for part in data])
    assert l0 == pytest.approx(3, rel=0.02)


def test_equal_inputs_give_equal_bits_and_another_seed_does_not(data, trained, tmp_path):
    sae.train(*data, quick(), seed=0).sae.save(tmp_path / "a")
    trained.sae.save(tmp_path / "b")
    assert (tmp_path / "a" / "sae.safetensors").read_bytes() == (tmp_path / "b" / "sae.safetensors").read_bytes()
    assert not torch.equal(sae.train(*data, quick(), seed=1).sae.dictionary, trained.sae.dictionary)


def test_curve_and_progress(data):
    calls = []
    curve = sae.train(*data, quick(), seed=0, on_step=lambda step, steps, stats: calls.append((step, steps))).curve
    # 800 rows in batches of 32 are 25 steps per epoch, 100 in total.
    assert calls == [(step, 100) for step in range(1, 101)]
    assert len(curve) == 50
    assert curve[-1]["step"] == 100
    assert curve[-1]["epoch"] == 4
    assert set(curve[0]) == {"step", "epoch", "loss", "r2", "l0", "dead_fraction", "rows_per_second"}
    assert all(point["l0"] == pytest.approx(3, abs=1e-6) for point in curve)
    assert curve[-1]["r2"] > curve[0]["r2"]


def test_config_records_the_training(trained):
    config = trained.sae.config
    assert (config.dim, config.width, config.k, config.seed, config.rows_seen) == (12, 24, 3, 0, 3200)
    assert config.preprocessing == "l2"


def test_without_decoder_bias_it_stays_zero(data):
    assert not sae.train(*data, quick(decoder_bias=False, epochs=1), seed=0).sae.bias.any()


def test_rows_may_be_float16_and_are_normalised_as_they_are_taken(data):
    rows = training_rows(data[0].astype(np.float16), torch.from_numpy(3 * data[1]), 0.5, "cpu")
    assert rows.parts[0].dtype == torch.float16  # rows are not converted to float32
    x = rows.take(np.array([2, 0, 300, 799]))
    expected = np.concatenate([data[0][[2, 0]].astype(np.float16).astype(np.float32), data[1][[0, 499]]])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(rows.pick(np.array([300, 2, 799, 0])).numpy(), x[[2, 0, 3, 1]].numpy())


def test_memory_mapped_rows_give_the_same_sae_as_those_in_memory(data, trained, tmp_path):
    for name, part in zip(("image", "text"), data, strict=True):
        np.save(tmp_path / f"{name}.npy", part)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("image", "text")]
    assert torch.equal(sae.train(*mapped, quick(), seed=0).sae.dictionary, trained.sae.dictionary)


def test_mixture_of_worked_example():
    # The image (1, 0) weighs 1/2, the texts (0, 1) and (0, -1) weigh 1/4 each, so the mean is (1/2, 0). The squared
    # distances from it are 1/4, 5/4 and 5/4, so the variance is 1/8 + 5/16 + 5/16 = 3/4.
    rows = training_rows(np.array([[2.0, 0]]), np.array([[0, 1.0], [0, -3.0]]), 0.5, "cpu")
    mean, variance = rows.mixture()
    assert mean.tolist() == [0.5, 0]
    assert variance == pytest.approx(0.75)


def test_equal_rows_are_refused():
    with pytest.raises(ValueError, match="all training rows are equal"):
        sae.train(np.ones((4, 3)), np.ones((4, 3)), quick(), seed=0)


@pytest.mark.parametrize("share", [0, 1, "natural"])
def test_one_modality_alone_or_all_rows_alike(data, share):
    assert sae.train(*data, quick(image_share=share, epochs=1), seed=0).sae.threshold > 0


def test_last_batch_may_be_a_single_row():
    x = sparse_rows(33)[0]
    assert len(sae.train(x, x[:32], quick(epochs=1), seed=0).curve) == 3


def test_unusable_rows_are_named(data):
    image = data[0].copy()
    image[[5, 9]] = np.nan
    with pytest.raises(ValueError, match=r"image: 2 rows .* row 5"):
        sae.train(image, data[1], quick(), 0)
    with pytest.raises(ValueError, match="there are 0 image"):
        sae.train(image[:0], data[1], quick(), 0)
    with pytest.raises(ValueError, match="12 dimensions and text rows 3"):
        sae.train(data[0], data[1][:, :3], quick(), 0)


@pytest.mark.parametrize("width", [24, 40], ids=["dense", "sparse"])
def test_divergence_names_the_step(data, width):
    with pytest.raises(TrainingDiverged, match=r"step \d+ of 100"):
        sae.train(*data, quick(width=width).model_copy(update={"learning_rate": 1e38}), seed=0)


def test_recovers_a_planted_dictionary():
    # Each row is a sum of two to six of 64 atoms in 48 dimensions. SAEs of two seeds, with 64 concepts each, must match
    # the atoms and each other.
    random = np.random.default_rng(0)
    D = random.standard_normal((64, 48))
    D = (D / np.linalg.norm(D, axis=1, keepdims=True)).astype(np.float32)
    fires = random.random((6000, 64)).argsort(1) < random.integers(2, 7, 6000)[:, None]
    x = (np.where(fires, random.uniform(0.8, 1.2, fires.shape), 0) @ D).astype(np.float32)
    setting = Settings(width=64, k=4, epochs=20, batch_size=128, learning_rate=4e-3, decoder_bias=False)
    runs = [sae.train(x[:3000], x[3000:], setting, seed).sae.dictionary.numpy() for seed in (0, 1)]
    assert match(D, runs[0]).cosines.mean() > 0.9
    assert match(runs[0], runs[1]).cosines.mean() > 0.9


def test_a_dead_concept_is_pointed_at_what_the_batch_lacks_and_the_living_are_left_alone(data):
    rows = training_rows(*data, 0.5, "cpu")
    trainer = Trainer(rows, quick(), 0)
    x = every(rows)
    trainer.step_(x, 1e-2)
    trainer.silent_C[:] = 0
    trainer.silent_C[3] = trainer.window
    before = [tensor.detach().clone() for tensor in trainer.weights]
    with torch.no_grad():
        codes = batch_topk(trainer.weights.pre_activations(x), trainer.settings.k)
        residual = x - codes @ trainer.weights.dictionary - trainer.weights.bias
    trainer.restart_dead_(x)
    atom, encoder = trainer.weights.dictionary[3], trainer.weights.encoder[3]
    assert (encoder @ atom / encoder.norm()).item() > 1 - 1e-5
    assert 1 - 1e-5 < encoder.norm().item() < LONGEST + 1e-5
    assert (torch.nn.functional.normalize(residual, dim=1) @ atom).max().item() > 1 - 1e-5
    assert trainer.weights.encoder_bias[3] == 0
    assert not trainer.optimiser.state[trainer.weights.encoder]["exp_avg_sq"][3].any()
    living = torch.arange(24) != 3
    assert torch.equal(trainer.weights.encoder[living], before[0][living])
    assert torch.equal(trainer.weights.dictionary[living], before[2][living])
    assert bool(trainer.optimiser.state[trainer.weights.encoder]["exp_avg_sq"][living].any())


def test_dead_concepts_are_not_restarted_as_twins_and_are_kept_on_their_row():
    # The reconstructions of all images lack one direction, those of all texts another. So at most two of the 20 dead
    # concepts can be restarted in different directions.
    torch.manual_seed(0)
    axes = torch.eye(16)
    image, text = (axes[i] + 0.01 * torch.randn(64, 16) for i in (0, 1))
    rows = training_rows(image.numpy(), text.numpy(), 0.5, "cpu")
    trainer = Trainer(rows, quick(decoder_bias=False), 0)
    with torch.no_grad():
        trainer.weights.dictionary[:] = torch.nn.functional.normalize(axes[2:].repeat(2, 1)[:24], dim=1)
        trainer.weights.encoder[:] = trainer.weights.dictionary
    if trainer.sparse is not None:
        trainer.sparse.refold_()
    trainer.silent_C[:] = 0
    trainer.silent_C[:20] = trainer.window
    before = trainer.weights.dictionary.detach().clone()
    x = every(rows)
    trainer.restart_dead_(x)
    changed = (trainer.weights.dictionary != before).any(1)
    assert changed.sum() == 2
    assert not changed[20:].any()
    first, second = trainer.weights.dictionary[changed]
    assert abs((first @ second).item()) < 0.5
    kept = batch_topk(trainer.weights.pre_activations(x), trainer.settings.k)[:, changed] > 0
    assert kept.any(0).all()


def test_a_restarted_concept_is_kept_where_two_merged_ones_left_too_little():
    # Images are e0 and texts e1. One concept is (e0 + e1) / sqrt 2, with the code 1 / sqrt 2 on both. The residual of
    # e0 is (e0 - e1) / 2. A unit concept in this direction has the pre-activation 1 / sqrt 2 on e0. This is not more
    # than the weakest code, so the concept might never be selected. Therefore the encoder row of a restarted concept
    # gets the norm 1.2.
    axes = torch.eye(4)
    rows = training_rows(axes[:1].repeat(32, 1).numpy(), axes[1:2].repeat(32, 1).numpy(), 0.5, "cpu")
    trainer = Trainer(rows, quick(decoder_bias=False, width=24, k=1), 0)
    with torch.no_grad():
        trainer.weights.dictionary[:] = axes[3]
        trainer.weights.dictionary[5] = (axes[0] + axes[1]) / 2**0.5
        trainer.weights.encoder[:] = trainer.weights.dictionary
    trainer.sparse.refold_()
    trainer.silent_C[:] = 0
    trainer.silent_C[3] = trainer.window
    trainer.restart_dead_(every(rows))
    assert (trainer.weights.dictionary[3] @ axes[0]).abs().item() == pytest.approx(0.5**0.5, abs=1e-5)
    assert trainer.weights.encoder[3].norm().item() == pytest.approx(1.2, abs=1e-5)


def test_restarts_wait_until_the_training_has_settled_and_end_before_it_anneals():
    settings = Settings(width=8, k=2, epochs=10, batch_size=10, learning_rate=1e-3)
    rows = training_rows(torch.eye(8)[:4].repeat(25, 1), torch.eye(8)[4:].repeat(25, 1), 0.5, "cpu")
    plan = Plan.of(rows, settings)  # 20 steps per epoch, 200 in total, 10 (half an epoch) between restarts
    assert [step for step in range(1, 201) if plan.restarts(step)] == [100, 110, 120, 130, 140, 150]


def test_a_training_too_short_to_settle_restarts_nothing(data, monkeypatch):
    def restarted(*_):
        raise AssertionError("a concept was restarted")

    monkeypatch.setattr(Trainer, "restart_dead_", restarted)
    curve = sae.train(*data, quick(width=400, k=1, epochs=3), seed=0).curve  # 75 steps are too few for restarts
    assert max(point["dead_fraction"] for point in curve) > 0  # some concepts were dead


def test_all_dead_concepts_are_restarted_whatever_the_batch(data):
    # 20 of 24 concepts are dead and the batch has 32 rows: 48 rows more are drawn from the training rows, since each
    # concept is drawn from four rows. Of rows with similar residuals one is used, so a few concepts may have to wait.
    rows = training_rows(*data, 0.5, "cpu")
    trainer = Trainer(rows, quick(), 0)
    trainer.silent_C[:] = 0
    trainer.silent_C[:20] = trainer.window
    before = trainer.weights.dictionary.detach().clone()
    trainer.restart_dead_(rows.take(np.arange(284, 316)))
    changed = (trainer.weights.dictionary != before).any(1)
    assert changed[:20].sum() > 8  # as many as a sixteenth of the batch would be two
    assert not changed[20:].any()


def test_rows_are_drawn_from_the_mixture(data):
    rows = training_rows(*data, 0.25, "cpu")
    x, every_row = rows.draw(200, torch.Generator().manual_seed(0)), every(rows)
    distance, number = torch.cdist(x, every_row, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    assert float(distance.max()) < 1e-6
    assert int((number < 300).sum()) == 50
    assert len(number.unique()) > 150
    alone = training_rows(data[0], data[1][:0], 1, "cpu")
    assert alone.draw(7, torch.Generator()).shape == (7, 12)


@pytest.mark.parametrize("path", ["sparse", "dense", "gathered"])
def test_the_first_steps_of_a_restarted_concept_are_as_long_as_those_of_a_new_one(data, path):
    # Adam's first step moves every weight by the learning rate, since its moments are corrected for having begun at 0.
    # With the corrections of step 5,001, which are nearly 1, the first step of moments that begin at 0 would be
    # .1 / sqrt(.001) = 3.2 times as long, and a later one up to 6.6 times.
    rows = training_rows(*data, 0.5, "cpu")
    trainer = Trainer(rows, quick(auxk=0.0), 0, path == "sparse")
    trainer.gathers = path == "gathered"
    x = every(rows)
    trainer.step_(x, 1e-3)
    tensors, numbers = trainer.state()
    trainer.restore_(tensors, numbers | {"t": 5000})
    trainer.silent_C[:] = 0
    trainer.silent_C[3] = trainer.window
    trainer.restart_dead_(x)
    encoder, bias = (weight[3].detach().clone() for weight in trainer.weights[:2])
    trainer.step_(x, 1e-3)
    moved = (trainer.weights.encoder[3] - encoder).abs()
    np.testing.assert_allclose(moved.detach(), 1e-3, rtol=1e-2)
    assert abs(trainer.weights.encoder_bias[3] - bias).item() == pytest.approx(1e-3, rel=1e-2)
    for _ in range(40):
        encoder = trainer.weights.encoder[3].detach().clone()
        trainer.step_(x, 1e-3)
        assert (trainer.weights.encoder[3].detach() - encoder).abs().max() < 1.5e-3


def test_a_concept_that_fires_once_a_window_becomes_dead_and_one_that_fires_often_does_not():
    # A window of 80,000 rows: a firing takes off 8,000. Concept 0 fires on every 16th batch of 1,000 rows, and gains
    # 16,000 - 8,000 each time: after ten times it is at 80,000. Concept 1 fires on every 8th batch: it gains nothing.
    silent = torch.zeros(3)
    for batch in range(1, 161):
        fired = torch.tensor([batch % 16 == 8, batch % 8 == 4, False])
        silent = silence(silent, fired, 1000, 80_000.0)
    assert silent.tolist() == [80_000, 4000, 80_000]
    # Concept 2 was silent for 160,000 rows and has the window at most: one firing makes it a living one for 8,000 rows.
    assert silence(silent, torch.tensor([False, False, True]), 0, 80_000.0).tolist() == [80_000, 4000, 72_000]


def test_in_a_short_window_one_firing_is_enough():
    silent = torch.tensor([3950.0, 3950.0])
    assert silence(silent, torch.tensor([True, False]), 50, 4000.0).tolist() == [0, 4000]


@given(st.integers(1, 100_000), st.floats(1, 1e6))
def test_a_concept_that_fires_on_every_batch_is_never_dead(rows, window):
    silent = torch.zeros(1)
    for _ in range(5):
        silent = silence(silent, torch.tensor([True]), rows, window)
        assert silent.item() == 0


def test_with_few_batches_per_window_a_living_concept_fires_on_half_of_them():
    # A window of 50,000 rows has about six batches of 8,192, and a firing takes off 16,384. Concept 0 fires on every
    # second batch and gains nothing; concept 1 fires on every sixth and gains 49,152 - 16,384 each time.
    silent = torch.zeros(2)
    for batch in range(60):
        silent = silence(silent, torch.tensor([batch % 2 == 1, batch % 6 == 5]), 8192, 50_000.0)
    assert silent.tolist() == [0, 50_000 - 8192]
    assert silence(silent, torch.tensor([False, False]), 8192, 50_000.0)[1] == 50_000


def test_a_restart_after_a_short_batch_draws_whole_batches_of_both_modalities(data, monkeypatch):
    """Batches as long as a last batch of one row would hold nothing but images."""
    rows = training_rows(*data, 0.5, "cpu")
    trainer = Trainer(rows, quick(), 0)
    trainer.silent_C[:] = 0
    trainer.silent_C[:20] = trainer.window
    drawn = []
    draw = rows.draw
    monkeypatch.setattr(rows, "draw", lambda count, generator: drawn.append(count) or draw(count, generator))
    residuals = []
    monkeypatch.setattr(trainer, "_residual", lambda x: residuals.append(x) or Trainer._residual(trainer, x))
    trainer.restart_dead_(rows.take(np.arange(1)))
    assert drawn == [32, 32, 32]  # 80 rows are needed, four for each dead concept, and one is there
    assert [len(each) for each in residuals] == [1, 32, 32, 32]


def test_a_restart_draws_no_more_rows_at_a_time_than_there_are(data, monkeypatch):
    rows = training_rows(*data, 0.5, "cpu")
    trainer = Trainer(rows, quick(batch_size=2**20), 0)
    trainer.silent_C[:] = trainer.window
    drawn = []
    draw = rows.draw
    monkeypatch.setattr(rows, "draw", lambda count, generator: drawn.append(count) or draw(count, generator))
    trainer.restart_dead_(rows.take(np.arange(8)))
    assert drawn == [rows.count]


def test_restart_without_a_dead_concept_changes_nothing(data):
    rows = training_rows(*data, 0.5, "cpu")
    trainer = Trainer(rows, quick(), 0)
    x = every(rows)
    trainer.step_(x, 1e-2)
    trainer.silent_C[:] = 0
    before = [tensor.detach().clone() for tensor in trainer.weights]
    trainer.restart_dead_(x)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.weights, strict=True))
