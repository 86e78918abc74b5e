"""Encoding, decoding and the files of a trained SAE."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import sae
from sae.model import SAE, Config, SAEFormatError

CONFIG = Config("batchtopk", 2, 3, 1, True, 0.5, 0, 1, 4, 1e-3, 1 / 32, 0.5, 8)


def small(**changes) -> SAE:
    dictionary = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    parts = {
        "encoder": 2 * dictionary,
        "encoder_bias": torch.tensor([0.0, 0.0, -1.0]),
        "dictionary": dictionary,
        "bias": torch.tensor([0.1, 0.0]),
        "threshold": torch.tensor(0.5),
    }
    return SAE(**(parts | changes), config=CONFIG)


@pytest.fixture
def folder(tmp_path):
    small().save(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, torch.float32])
def test_encode_normalises_rows_then_applies_threshold(kind):
    # (3, 4) / 5 = (.6, .8); minus b: (.5, .8); times 2 D: 1.0, 1.6, 2 (.3 + .64) = 1.88; plus bias: .88 for the last.
    # (1, 0): (.9, 0) -> 1.8, 0, 1.08 - 1 = .08: only the first is above .5.
    x = [[3.0, 4.0], [1.0, 0.0]]
    x = torch.tensor(x, dtype=kind) if isinstance(kind, torch.dtype) else np.array(x, kind)
    expected = [[1.0, 1.6, 0.88], [1.8, 0, 0]]
    np.testing.assert_allclose(small().encode(x).numpy(), expected, atol=1e-3 if kind is np.float16 else 1e-6)


def test_decode_adds_the_bias():
    # 2 (1, 0) + 1 (.6, .8) + (.1, 0) = (2.7, .8); no codes: the bias itself.
    x_hat = small().decode(np.array([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(x_hat.numpy(), [[2.7, 0.8], [0.1, 0.0]], atol=1e-6)


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
    assert list(entries) == sorted(field.name for field in dataclasses.fields(Config))


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


def test_package_offers_the_function_train_whatever_was_imported_first():
    from sae.train import Settings

    assert callable(sae.train)
    assert sae.Settings is Settings
    assert sae.SAE is SAE
