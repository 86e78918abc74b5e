"""Gradients of the dense and the sparse training path, compared with a plain float64 reference and with each other."""

import numpy as np
import pytest
import torch

import sae
from sae import selection_kernels, step_kernels
from sae.architectures import ARCHITECTURES
from sae.gathered_step import gathered_gradients_, is_gathering_better
from sae.rows import training_rows
from sae.settings import Settings
from sae.sparse_step import is_sparse_better
from sae.sparsity import batch_topk, topk
from sae.step import Weights, forward, product
from sae.trainer import Trainer

SPARSE = [name for name, row in ARCHITECTURES.items() if row.selection]
PENALTY = 0.05


def setting(architecture, **changes) -> Settings:
    defaults = {"width": 40, "k": 3, "epochs": 2, "batch_size": 64, "learning_rate": 3e-3, "k_aux": 5}
    return Settings(architecture=architecture, **(defaults | changes))


def rows():
    random = np.random.default_rng(3)
    return training_rows(*(random.standard_normal((90, 12)) + 0.4 for _ in range(2)), 0.5, "cpu")


def start(settings, sparse, shaken=True) -> tuple[Trainer, torch.Tensor]:
    """Return a trainer and a batch. If `shaken`, the weights get noise, since many weights start equal or 0."""
    trainer = Trainer(rows(), settings, 0, sparse)
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        if shaken:
            trainer.weights.encoder.add_(0.1 * torch.randn(40, 12, generator=random))
            trainer.weights.encoder_bias.add_(0.1 * torch.randn(40, generator=random))
        if trainer.sparse:
            trainer.sparse.refold_()
    return trainer, trainer.rows.take(np.concatenate([np.arange(0, 30), np.arange(100, 134)]))


def pursued(row, dictionary, k):
    """Return the codes [C] of one row by k rounds of non-negative matching pursuit."""
    codes, residual = torch.zeros(len(dictionary)).double(), row
    for _ in range(k):
        products = dictionary @ residual
        best = int(products.argmax())
        codes = codes + torch.eye(len(dictionary)).double()[best] * products[best].clamp_min(0)
        residual = row - codes @ dictionary
    return codes


def reference(x, weights, settings, variance, dead):
    """Return the loss and the kept codes, computed by the papers' formulas without any shortcut."""
    pre = (x - weights.bias) @ weights.encoder.T + weights.encoder_bias
    order = pre.flatten().argsort(descending=True)
    kept = torch.zeros(pre.numel(), dtype=torch.bool)
    kept[order[: settings.k * len(x)]] = True
    kept = kept.view_as(pre)
    if settings.architecture == "relu":
        kept = pre > 0
    elif settings.architecture == "topk":
        kept = pre >= pre.sort(descending=True).values[:, settings.k - 1 : settings.k]
    elif settings.architecture == "jumprelu":
        kept = pre > weights.theta
    kept &= pre > 0
    codes = torch.where(kept, pre, torch.zeros(()).double())
    if settings.architecture == "mp":
        codes = torch.stack([pursued(row, weights.dictionary, settings.k) for row in x - weights.bias])
    loss = torch.zeros(()).double()
    for width in settings.nested_widths():
        x_hat = weights.bias + sum(codes[:, c : c + 1] * weights.dictionary[c] for c in range(width))
        loss = loss + (x - x_hat).square().sum() / len(x) / variance
    if settings.architecture == "relu":
        loss = loss + PENALTY * codes.sum() / len(x)
    if dead is not None:
        residual = (x - x_hat).detach()
        wrong = -residual
        if settings.architecture == "mp":
            pre = residual @ weights.dictionary.T
        for c in dead.nonzero().flatten():
            better = (pre[:, dead] > pre[:, c : c + 1]).sum(1)
            use = (better < settings.k_aux) & (pre[:, c] > 0)
            wrong = wrong + torch.where(use, pre[:, c], torch.zeros(()).double())[:, None] * weights.dictionary[c]
        loss = loss + settings.auxk * wrong.square().sum() / (residual - residual.mean(0)).square().sum()
    return loss, codes


def reference_gradients(x, trainer, settings, dead):
    weights = Weights(*(weight.detach().double().requires_grad_() for weight in trainer.weights))
    loss, codes = reference(x.double(), weights, settings, trainer.variance, dead)
    names = [name for name in trainer.learned if name != "theta"]
    gradients = torch.autograd.grad(loss, [getattr(weights, name) for name in names])
    return float(loss.detach()), codes.detach(), dict(zip(names, gradients, strict=True))


@pytest.mark.parametrize("with_dead", [False, True])
@pytest.mark.parametrize("decoder_bias", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dense_gradients_are_those_of_the_reference(architecture, decoder_bias, with_dead):
    settings = setting(architecture, decoder_bias=decoder_bias)
    trainer, x = start(settings, sparse=False)
    dead = torch.arange(40) % 3 == 0 if with_dead else None
    if dead is not None and architecture == "mp":
        x = x[:8]  # so few rows that some concepts are taken by no round
        # The product of an atom that the last round took with the last residual is 0, but for rounding, and AuxK has no
        # derivative there. Concepts that are dead are taken by no round.
        dead &= (forward(x, trainer.weights, settings, trainer.variance, torch.tensor(0.0), None).codes == 0).all(0)
        assert dead.any()
    result = forward(x, trainer.weights, settings, trainer.variance, torch.tensor(PENALTY), dead)
    loss, _, expected = reference_gradients(x, trainer, settings, dead)
    if architecture == "jumprelu":
        loss += PENALTY * float((result.codes > 0).sum()) / len(x)
    assert result.loss.item() == pytest.approx(loss, rel=1e-5)
    gradients = torch.autograd.grad(result.loss, [trainer.learned[name] for name in expected])
    for name, gradient in zip(expected, gradients, strict=True):
        np.testing.assert_allclose(gradient.numpy(), expected[name].numpy(), atol=2e-6, err_msg=name)


@pytest.mark.parametrize("with_dead", [False, True])
@pytest.mark.parametrize("decoder_bias", [True, False])
@pytest.mark.parametrize("architecture", SPARSE)
def test_sparse_gradients_are_those_of_the_reference(architecture, decoder_bias, with_dead):
    settings = setting(architecture, decoder_bias=decoder_bias)
    trainer, x = start(settings, sparse=True)
    dead = torch.arange(40) % 3 == 0 if with_dead else None
    loss, codes, expected = reference_gradients(x, trainer, settings, dead)
    atoms = trainer.weights.dictionary.detach().double().clone()
    along = (expected["dictionary"] * atoms).sum(1, keepdim=True)
    expected["dictionary"] = expected["dictionary"] - along * atoms  # the step removes the part along each atom
    done = trainer.sparse.step_(x, trainer.variance, 0.0, 1, dead, trainer.born_C)
    assert done.loss == pytest.approx(loss, rel=1e-5)
    assert done.kept == int((codes > 0).sum()) == 3 * len(x)
    assert torch.equal(done.fired, (codes > 0).any(0))
    for name, gradient in expected.items():
        actual = getattr(trainer.sparse.to, name).detach().numpy()
        np.testing.assert_allclose(actual, gradient.numpy(), atol=2e-6, err_msg=name)


@pytest.mark.parametrize("decoder_bias", [True, False])
@pytest.mark.parametrize("architecture", SPARSE)
def test_gathered_gradients_are_those_of_the_reference(architecture, decoder_bias):
    settings = setting(architecture, decoder_bias=decoder_bias)
    trainer, x = start(settings, sparse=False)
    loss, codes, expected = reference_gradients(x, trainer, settings, None)
    result = gathered_gradients_(x, trainer.weights, settings, trainer.variance)
    assert result.loss.item() == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(result.codes.numpy(), codes.numpy(), atol=1e-6)
    for name, gradient in expected.items():
        np.testing.assert_allclose(
            getattr(trainer.weights, name).grad.numpy(), gradient.numpy(), atol=2e-6, err_msg=name
        )


@pytest.mark.parametrize("other", ["sparse", "gathered"])
@pytest.mark.parametrize("architecture", SPARSE)
def test_paths_agree_after_a_restart(architecture, other):
    # The rows that concepts are restarted from depend on rounding, so both trainers go on from one restart.
    first, second = (start(setting(architecture, auxk=0.0), way)[0] for way in (False, other == "sparse"))
    second.gathers = other == "gathered"
    tensors, numbers = first.state()
    first.restore_(tensors, numbers | {"t": 2000})
    for step in range(12):
        if step in (2, 4):
            first.silent_C[step : step + 3] = first.window
            first.restart_dead_(first.rows.take(np.arange(0, 180, 3)))
            second.restore_(*first.state())
        for trainer in (first, second):
            trainer.step_(trainer.rows.take(np.arange(step % 3, 180, 3)), 3e-3)
    assert set(first.born_C.tolist()) == {0, 2002, 2004}
    for name, one, two in zip(Weights._fields, first.weights, second.weights, strict=True):
        np.testing.assert_allclose(one.detach().numpy(), two.detach().numpy(), atol=2e-5, err_msg=name)


def test_a_trainer_that_gathers_agrees_with_one_that_does_not():
    trainers = [start(setting("batchtopk"), sparse=False)[0] for _ in range(2)]
    trainers[1].gathers = True
    for trainer in trainers:
        for step in range(6):
            trainer.any_dead = step > 3  # switches on AuxK, and steps with AuxK take the dense path
            trainer.silent_C[:4] = trainer.window
            trainer.step_(trainer.rows.take(np.arange(step, 180, 3)), 3e-3)
    for first, second in zip(trainers[0].weights, trainers[1].weights, strict=True):
        np.testing.assert_allclose(first.detach().numpy(), second.detach().numpy(), atol=2e-5)


def test_gradient_of_the_jump_is_the_pseudo_gradient_of_the_whole_loss():
    # theta_i is the threshold of concept i, z_i its code, and B the number of rows in the batch. d loss / d theta_i is
    # -1/bandwidth times the sum of theta_i * d loss / d z_i + penalty / B over the rows whose pre-activation lies
    # within bandwidth / 2 of theta_i.
    settings = setting("jumprelu", auxk=0.0)
    trainer, x = start(settings, sparse=False)
    result = forward(x, trainer.weights, settings, trainer.variance, torch.tensor(PENALTY), None)
    (gradient,) = torch.autograd.grad(result.loss, [trainer.weights.theta])
    with torch.no_grad():
        pre = trainer.weights.pre_activations(x)
        residual = x - trainer.weights.bias - result.codes @ trainer.weights.dictionary
        to_codes = -2 * residual @ trainer.weights.dictionary.T / (len(x) * trainer.variance)
        bandwidth = trainer.weights.bandwidth
        near = (pre - trainer.weights.theta).abs() < bandwidth / 2
        expected = -(near * (trainer.weights.theta * to_codes + PENALTY / len(x))).sum(0) / bandwidth
    assert int(near.sum()) > 20
    np.testing.assert_allclose(gradient.numpy(), expected.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("encoder_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", SPARSE)
def test_paths_agree_after_several_steps(architecture, encoder_dtype):
    settings = setting(architecture, encoder_dtype=encoder_dtype)
    trainers = [start(settings, sparse)[0] for sparse in (False, True)]
    for trainer in trainers:
        trainer.silent_C[:6], trainer.any_dead = trainer.window, True
        for step in range(12):
            index = np.sort(np.random.default_rng(step).choice(180, 64, replace=False))
            trainer.step_(trainer.rows.take(index), 3e-3)
    dense, sparse = trainers
    if encoder_dtype == "float32":
        assert torch.equal(dense.silent_C, sparse.silent_C)
    for name, first, second in zip(Weights._fields, dense.weights, sparse.weights, strict=True):
        if encoder_dtype == "float32":
            np.testing.assert_allclose(first.detach().numpy(), second.detach().numpy(), atol=2e-5, err_msg=name)
        else:  # autograd also rounds the encoder's gradient to bfloat16, so borderline codes may differ between paths
            assert float((first - second).norm()) <= 0.01 * float(second.norm()), name


@pytest.mark.parametrize("with_dead", [False, True])
@pytest.mark.parametrize("architecture", SPARSE)
def test_paths_agree_in_bfloat16(architecture, with_dead, monkeypatch):
    # The patch pretends that the CPU multiplies bfloat16 natively. Both paths then multiply the same rounded numbers,
    # so they keep the same codes.
    for module in (sae.step, sae.sparse_step):
        monkeypatch.setattr(module, "has_bfloat16", lambda device: True)
    settings = setting(architecture, encoder_dtype="bfloat16")
    (dense, x), (sparse, _) = (start(settings, way) for way in (False, True))
    assert sparse.sparse.native
    dead = torch.arange(40) % 3 == 0 if with_dead else None
    result = forward(x, dense.weights, settings, dense.variance, torch.tensor(PENALTY), dead)
    expected = dict(zip(dense.learned, torch.autograd.grad(result.loss, list(dense.learned.values())), strict=True))
    atoms = dense.weights.dictionary.detach()
    expected["dictionary"] = expected["dictionary"] - (expected["dictionary"] * atoms).sum(1, keepdim=True) * atoms
    done = sparse.sparse.step_(x, sparse.variance, 0.0, 1, dead, sparse.born_C)
    assert done.kept == int((result.codes > 0).sum())
    assert torch.equal(done.fired, (result.codes > 0).any(0))
    assert done.loss == pytest.approx(float(result.loss.detach()), rel=1e-3)
    for name, gradient in expected.items():
        apart = float((getattr(sparse.sparse.to, name) - gradient).norm())
        assert apart <= 0.01 * float(gradient.norm()), name


def test_the_rounded_encoder_follows_the_encoder(monkeypatch):
    monkeypatch.setattr(sae.sparse_step, "has_bfloat16", lambda device: True)
    trainer, x = start(setting("batchtopk", encoder_dtype="bfloat16"), sparse=True)
    at_first = trainer.weights.encoder.detach().clone()
    for _ in range(3):
        trainer.step_(x, 3e-3)
        assert torch.equal(trainer.sparse.rounded, trainer.weights.encoder.bfloat16())
    trainer.silent_C[:6] = trainer.window
    trainer.restart_dead_(x)
    assert torch.equal(trainer.sparse.rounded, trainer.weights.encoder.bfloat16())
    assert not torch.equal(at_first[:6], trainer.weights.encoder[:6])


def test_rounding_is_to_the_nearest_and_of_two_to_the_even():
    random = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    random[:1000] = (random[:1000] & 0xFFFF0000) | 0x8000  # half-way between two bfloat16 numbers
    numbers = random.view(np.float32)[np.isfinite(random.view(np.float32))].copy()
    rounded = np.empty(len(numbers), np.uint16)
    step_kernels._round(numbers, rounded)
    assert np.array_equal(rounded, torch.from_numpy(numbers).bfloat16().view(torch.uint16).numpy())


@pytest.mark.parametrize("k", [1, 5, 39, 40])
@pytest.mark.parametrize("grid", [0.0, 0.5])
def test_auxk_takes_the_strongest_of_the_dead(k, grid):
    # With values that are multiples of .5, ties are frequent. Any of several equal values may be kept, but the number
    # of kept values is fixed. The last 14 rows have few or no positive values.
    random = np.random.default_rng(2)
    pre = random.standard_normal((64, 90)).astype(np.float32)
    pre = np.round(pre / grid) * np.float32(grid) if grid else pre
    pre[50:] -= np.arange(14, dtype=np.float32)[:, None] / 3
    concepts = np.sort(random.choice(90, 40, replace=False))
    shift = np.zeros(90, np.float32)
    codes = np.empty((64, 40), np.float32)
    selection_kernels.strongest_(0, 64, pre, shift, concepts, k, codes)
    expected = np.sort(pre[:, concepts])[:, ::-1][:, :k].clip(0)
    np.testing.assert_array_equal(np.sort(codes)[:, ::-1][:, :k], expected)
    assert ((codes == 0) | (codes == pre[:, concepts])).all()
    assert ((codes > 0).sum(1) == (expected > 0).sum(1)).all()
    rounded = torch.from_numpy(pre).bfloat16()
    again = np.empty((64, 40), np.float32)
    selection_kernels.strongest_of_bfloat16_(0, 64, rounded.view(torch.uint16).numpy(), shift, concepts, k, again)
    selection_kernels.strongest_(0, 64, rounded.float().numpy(), shift, concepts, k, codes)
    np.testing.assert_array_equal(again, codes)


def test_rule_chooses_the_sparse_path_above_ten_concepts_a_code_on_a_cpu():
    cpu = torch.device("cpu")
    assert is_sparse_better(setting("batchtopk", k=3), cpu)
    assert not is_sparse_better(setting("batchtopk", k=4), cpu)
    assert not is_sparse_better(setting("relu", k=3), cpu)
    assert not is_sparse_better(setting("batchtopk", k=3), torch.device("cuda"))
    wide = setting("batchtopk", k=3, width=451)
    assert is_gathering_better(wide, torch.device("cuda"))
    assert not is_gathering_better(setting("batchtopk", k=3, width=450), torch.device("cuda"))
    assert not is_gathering_better(wide, cpu)


@pytest.mark.parametrize("cut", [0.0, 0.3, 5.0])
@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_selection_is_exact_whatever_the_guess(architecture, cut):
    # `cut` is the guess: only pre-activations above `cut` are candidates. The selection must notice when no
    # pre-activation is above `cut`. The pre-activations are multiples of .1, so ties are frequent.
    trainer, _ = start(setting(architecture), sparse=True)
    step = trainer.sparse
    random = np.random.default_rng(1)
    pre = torch.from_numpy(random.integers(-20, 20, (64, 40)).astype(np.float32) / 10)
    step.product.copy_(pre)
    step.shift.zero_()
    step.cut = cut
    kept = step._select(64)
    rule = topk if architecture == "topk" else batch_topk
    codes = np.zeros((64, 40), np.float32)
    for r in range(64):
        for p in range(kept.row_start[r], kept.row_start[r + 1]):
            codes[r, kept.concepts[p]] = kept.codes[p]
    assert len(kept.codes) == 3 * 64
    assert sorted(codes[codes > 0]) == sorted(rule(pre, 3)[rule(pre, 3) > 0].tolist())
    assert np.array_equal(codes[codes > 0], pre.numpy()[codes > 0])
    if architecture == "topk":
        assert ((codes > 0).sum(1) == 3).all()
    order = np.concatenate([np.flatnonzero(codes[:, c]) for c in range(40)])
    assert np.array_equal(kept.rows, order)  # sorted by concept, then by row
    assert np.array_equal(kept.codes[kept.places], codes[kept.rows, kept.concepts[kept.places]])


def test_fewer_positive_than_k_are_all_kept():
    trainer, _ = start(setting("batchtopk"), sparse=True)
    trainer.sparse.product.fill_(-1.0)
    trainer.sparse.product[5, 7] = 2.0
    trainer.sparse.shift.zero_()
    kept = trainer.sparse._select(64)
    assert (kept.concepts.tolist(), kept.codes.tolist(), kept.rows.tolist()) == ([7], [2.0], [5])


def test_pre_activation_that_is_no_number_is_not_overlooked():
    row = np.array([[0.0, np.nan, 1.0]], np.float32)
    index, value, counts = np.zeros((1, 3), np.int32), np.zeros((1, 3), np.float32), np.zeros(1, np.int64)
    selection_kernels.candidates_(0, 1, row, np.zeros(3, np.float32), np.float32(0.5), 0, index, value, counts)
    assert counts[0] == 2
    assert np.isnan(value[0, 0])


def test_bits_of_bfloat16_are_read_as_its_numbers():
    pre = torch.tensor([[0.5, -2.0, 3.0]]).bfloat16()
    index, value, counts = np.zeros((1, 3), np.int32), np.zeros((1, 3), np.float32), np.zeros(1, np.int64)
    bits, shift = pre.view(torch.uint16).numpy(), np.array([0.25, 0, 0], np.float32)
    selection_kernels.candidates_of_bfloat16_(0, 1, bits, shift, np.float32(0), 0, index, value, counts)
    assert (value[0, : counts[0]].tolist(), index[0, : counts[0]].tolist()) == ([0.75, 3.0], [0, 2])


def test_bfloat16_rounds_rows_and_weights_first():
    # 1 + 2^-9 rounds to 1 in bfloat16, which has 8 significant bits. So the product is 3, not 3 + 3 * 2^-9.
    x, w = torch.tensor([[1 + 2.0**-9]]), torch.tensor([[3.0]])
    assert product(x, w, torch.bfloat16) == 3
    assert product(x, w, torch.float32) > 3


@pytest.mark.parametrize("architecture", SPARSE)
def test_two_threads_give_what_one_gives(architecture):
    results = []
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        try:
            trainer, x = start(setting(architecture), sparse=True)
            assert trainer.sparse.workers.threads == count
            for _ in range(5):
                trainer.step_(x, 3e-3)
        finally:
            torch.set_num_threads(threads)
        results.append(trainer.weights)
    for first, second in zip(*results, strict=True):
        np.testing.assert_allclose(first.detach().numpy(), second.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("changes", [{}, {"decoder_bias": False, "auxk": 0.0}, {"encoder_dtype": "bfloat16"}])
def test_every_architecture_trains_saves_and_loads(architecture, changes, tmp_path):
    random = np.random.default_rng(0)
    image, text = (random.standard_normal((200, 12)).astype(np.float16) for _ in range(2))
    trained = sae.train(image, text, setting(architecture, epochs=6, **changes), seed=1)
    assert trained.curve[-1]["r2"] > trained.curve[0]["r2"]
    trained.sae.save(tmp_path)
    again = sae.SAE.load(tmp_path)
    assert torch.equal(again.encode(image), trained.sae.encode(image))
    assert again.config.encoder_dtype == changes.get("encoder_dtype", "float32")


def test_centring_removes_the_gap_and_r2_is_in_the_original_space():
    # Images lie about +m and texts about -m. This gap is two thirds of the variance of the uncentred rows. Centring
    # removes the gap. The R2 of the curve must still count the gap, and must equal the R2 of the decoded rows.
    random = np.random.default_rng(0)
    m = np.full(12, 0.5, np.float32)
    image, text = (0.25 * random.standard_normal((400, 12)).astype(np.float32) + s * m for s in (1, -1))
    trained = sae.train(image, text, setting("batchtopk", epochs=8, centring=True, calibration_share=0.0), seed=0)
    net = trained.sae
    x = {
        name: torch.nn.functional.normalize(torch.from_numpy(v), dim=1)
        for name, v in (("image", image), ("text", text))
    }
    for name in x:
        mean = getattr(net, f"mean_{name}")
        np.testing.assert_allclose(mean.numpy(), x[name].mean(0).numpy(), atol=1e-6)
    x_hat = {name: net.decode(net.encode(rows, name), name) for name, rows in x.items()}
    error = sum((x[name] - x_hat[name]).square().sum() for name in x)
    middle = sum(rows.mean(0) for rows in x.values()) / 2
    r2 = 1 - error / sum((rows - middle).square().sum() for rows in x.values())
    assert trained.curve[-1]["r2"] == pytest.approx(float(r2), abs=0.02)
    assert float(r2) > 0.85  # the gap explains two thirds, and the three codes of a row explain more


@pytest.mark.parametrize("architecture", ["relu", "jumprelu"])
def test_penalty_is_steered_until_l0_is_k(architecture):
    random = np.random.default_rng(0)
    atoms = random.standard_normal((30, 16))
    image, text = (
        (random.random((600, 30)) < 0.1) @ atoms + 1e-3 * random.standard_normal((600, 16)) for _ in range(2)
    )
    trained = sae.train(image, text, setting(architecture, k=4, epochs=40, width=32), seed=0)
    l0 = np.mean([float((trained.sae.encode(part) > 0).sum(1).double().mean()) for part in (image, text)])
    assert l0 == pytest.approx(4, rel=0.15)


def test_a_given_penalty_stays(tmp_path):
    trainer, x = start(setting("relu", penalty=0.2), sparse=False)
    for _ in range(3):
        trainer.step_(x, 3e-3)
    assert float(trainer.penalty) == pytest.approx(0.2)
