"""Encoding, decoding and the files of a trained SAE."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sae.model import SAE, Config, SAEFormatError

CONFIG = Config(
    architecture="batchtopk", dim=2, width=3, k=1, decoder_bias=True, image_share=0.5, seed=0, epochs=1, batch_size=4,
    learning_rate=1e-3, auxk=1 / 32, dead_after_epochs=0.5, rows_seen=8,
)  # fmt: skip


def small(config=CONFIG, **changes) -> SAE:
    dictionary = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    parts = {
        "encoder": 2 * dictionary,
        "encoder_bias": torch.tensor([0.0, 0.0, -1.0]),
        "dictionary": dictionary,
        "bias": torch.tensor([0.1, 0.0]),
        "threshold": torch.tensor(0.5),
    }
    return SAE(**(parts | changes), config=config)


@pytest.fixture
def folder(tmp_path):
    small().save(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, torch.float32])
def test_encode_normalises_rows_then_applies_threshold(kind):
    # Row (3, 4) is normalised to (.6, .8). Less b = (.1, 0) the row is (.5, .8). The encoder 2 D gives 1.0, 1.6 and
    # 2 (.3 + .64) = 1.88, and the encoder bias -1 makes the last .88. All exceed the threshold .5.
    # Row (1, 0) less b is (.9, 0): 1.8, 0 and 1.08 - 1 = .08. Only the first exceeds the threshold.
    x = [[3.0, 4.0], [1.0, 0.0]]
    x = torch.tensor(x, dtype=kind) if isinstance(kind, torch.dtype) else np.array(x, kind)
    expected = [[1.0, 1.6, 0.88], [1.8, 0, 0]]
    np.testing.assert_allclose(small().encode(x).numpy(), expected, atol=1e-3 if kind is np.float16 else 1e-6)


def test_decode_adds_the_bias():
    # The first row decodes to 2 (1, 0) + 1 (.6, .8) + b = (2.7, .8), with b = (.1, 0). A row without codes gives b.
    x_hat = small().decode(np.array([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(x_hat.numpy(), [[2.7, 0.8], [0.1, 0.0]], atol=1e-6)


def test_topk_keeps_the_k_largest_of_each_row_whatever_the_threshold():
    # The pre-activations are (1.0, 1.6, .88) and (1.8, 0, .08). TopK keeps k = 2 per row and ignores the threshold .5.
    net = small(CONFIG.model_copy(update={"architecture": "topk", "k": 2}))
    expected = [[1.0, 1.6, 0], [1.8, 0, 0.08]]
    np.testing.assert_allclose(net.encode(np.array([[3.0, 4], [1, 0]])).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("architecture", ["relu", "batchtopk", "jumprelu", "matryoshka"])
def test_every_other_architecture_has_a_threshold_which_may_be_one_a_concept(architecture):
    # The pre-activations are (1.0, 1.6, .88). The first is below its threshold 1.5, the last is above its threshold .8.
    net = small(CONFIG.model_copy(update={"architecture": architecture}), threshold=torch.tensor([1.5, 0.0, 0.8]))
    np.testing.assert_allclose(net.encode(np.array([[3.0, 4]])).numpy(), [[0, 1.6, 0.88]], atol=1e-6)


def centred() -> SAE:
    means = {"mean_image": torch.tensor([0.1, 0.3]), "mean_text": torch.tensor([-0.4, 0.8])}
    return small(CONFIG.model_copy(update={"centring": True}), **means)


def test_centring_takes_the_mean_of_the_modality_off_and_adds_it_again(tmp_path):
    # Row (3, 4) is normalised to (.6, .8). As an image, less its mean (.1, .3) and b = (.1, 0), it is (.4, .5). The
    # encoder 2 D with the bias -1 for the last gives .8, 1.0 and 2 (.24 + .4) - 1 = .28, which is below .5.
    # As a text, less its mean (-.4, .8) and b, it is (.9, 0): 1.8, 0 and 1.08 - 1 = .08.
    centred().save(tmp_path)
    for net in (centred(), SAE.load(tmp_path)):
        x = np.array([[3.0, 4.0]])
        np.testing.assert_allclose(net.encode(x, "image").numpy(), [[0.8, 1.0, 0]], atol=1e-6)
        np.testing.assert_allclose(net.encode(x, "text").numpy(), [[1.8, 0, 0]], atol=1e-6)
        # Decoding adds b and the mean of images: .8 (1, 0) + 1.0 (0, 1) + (.1, 0) + (.1, .3) = (1.0, 1.3).
        np.testing.assert_allclose(net.decode(net.encode(x, "image"), "image").numpy(), [[1.0, 1.3]], atol=1e-6)


def test_centring_needs_the_modality():
    with pytest.raises(ValueError, match='"image" or "text"'):
        centred().encode(np.ones((1, 2)))
    with pytest.raises(ValueError, match='"image" or "text"'):
        centred().decode(np.ones((1, 3)))
    with pytest.raises(ValueError, match="modality is 'audio'"):
        small().encode(np.ones((1, 2)), "audio")


def test_means_belong_to_centring_and_to_nothing_else():
    with pytest.raises(SAEFormatError, match="missing tensor mean_text"):
        small(CONFIG.model_copy(update={"centring": True}), mean_image=torch.zeros(2))
    with pytest.raises(SAEFormatError, match="centring = false"):
        small(mean_image=torch.zeros(2), mean_text=torch.zeros(2))


def test_files_without_the_newer_keys_are_read(folder):
    path = folder / "config.json"
    entries = json.loads(path.read_text())
    for key in ("centring", "penalty", "prefixes", "encoder_dtype", "preprocessing"):
        del entries[key]
    path.write_text(json.dumps(entries))
    assert SAE.load(folder).config == CONFIG


def test_prefixes_are_read_as_they_were_written(tmp_path):
    config = CONFIG.model_copy(update={"architecture": "matryoshka", "prefixes": (1, 3)})
    small(config).save(tmp_path)
    assert SAE.load(tmp_path).config == config


@pytest.mark.parametrize("x", [np.zeros((2, 3)), np.zeros(2), np.array([[np.nan, 1.0]])])
def test_encode_refuses_rows_it_cannot_read(x):
    with pytest.raises(ValueError, match="x "):
        small().encode(x)


def test_save_and_load_give_the_same_codes(folder):
    x = np.random.default_rng(0).standard_normal((50, 2))
    assert torch.equal(SAE.load(folder).encode(x), small().encode(x))
    assert SAE.load(folder).config == CONFIG


def test_equal_saes_have_equal_bytes(folder, tmp_path):
    small().save(tmp_path / "again")
    for name in ("sae.safetensors", "config.json"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    entries = json.loads((folder / "config.json").read_text())
    # These are left out at their defaults.
    later = {"k_aux", "encoder", "init", "calibration_share", "frozen", "bandwidth", "rescale", "consensus_of", "noise"}
    assert list(entries) == sorted(set(Config.model_fields) - later)


def test_threshold_is_stored_with_the_weights(folder):
    assert load_file(folder / "sae.safetensors")["threshold"] == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("threshold"), "missing tensor threshold"),
        (lambda t: t.update(encoder=torch.zeros(3, 5)), r"encoder has shape \(3, 5\)"),
        (lambda t: t.update(dictionary=t["dictionary"] * 1.001), "unit atoms"),
        (lambda t: t.update(bias=t["bias"].double()), "float64"),
        (lambda t: t.update(bias=t["bias"] * torch.nan), "bias holds NaN"),
        (lambda t: t.update(threshold=torch.tensor(-1.0)), "never calibrated"),
        (lambda t: t.update(threshold=torch.tensor([0.1, 0.1, -0.1])), "never calibrated"),
        (lambda t: t.update(threshold=torch.zeros(2)), r"threshold has shape \(2,\); the config says \(\) or \(3,\)"),
    ],
)
def test_load_names_the_file_and_the_fault_of_weights(folder, change, message):
    path = folder / "sae.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(SAEFormatError, match=message) as caught:
        SAE.load(folder)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("k"), "missing key k"),
        (lambda c: c.update(colour=1), "unknown key colour"),
        (lambda c: c.update(width="wide"), "width is 'wide'"),
        (lambda c: c.update(preprocessing="zca"), "preprocessing"),
        (lambda c: c.update(architecture="dense"), "architecture is 'dense'; known are relu, topk"),
        (lambda c: c.update(architecture="topk", k=0), "k is 0; topk needs"),
        (lambda c: c.update(encoder_dtype="int8"), "encoder_dtype is 'int8'"),
        (lambda c: c.update(centring="both"), "centring is 'both'"),
        (lambda c: c.update(prefixes=[1, "all"]), "prefixes"),
        (lambda c: c.update(noise="auto"), "noise is 'auto'; a number from 0 to 1 is needed"),
        (lambda c: c.update(calibration_share=0.9), "calibration_share is 0.9; a number from 0 to 0.5"),
    ],
)
def test_load_names_the_file_and_the_fault_of_the_config(folder, change, message):
    path = folder / "config.json"
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))
    with pytest.raises(SAEFormatError, match=message) as caught:
        SAE.load(folder)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["sae.safetensors", "config.json"])
def test_load_names_a_missing_or_broken_file(folder, name):
    (folder / name).write_text("not this")
    with pytest.raises(SAEFormatError, match=name):
        SAE.load(folder)
    (folder / name).unlink()
    with pytest.raises(SAEFormatError, match=f"{name}: no such file"):
        SAE.load(folder)
