"""The four families of transformers: encoders equal its own forward, work offline, and are never loaded in part."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import CAPTIONS, build, hub_cache

import vlm
from vlm import hub
from vlm.encoder import Encoder
from vlm.hf import pooled
from vlm.spec import Spec
from vlm.zoo import ZOO

FAMILIES = ("clip", "siglip", "siglip2", "naflex", "aimv2")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXTS = [*CAPTIONS, "", "A Cat SLEEPS, on a red sofa!", "wet grass " * 60, "élan über naïve"]
RANDOM = np.random.default_rng(0)
IMAGES = [Image.fromarray(RANDOM.integers(0, 255, (30 + 9 * i, 50, 3), dtype=np.uint8)) for i in range(7)]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {family: build(family, folder / family) for family in FAMILIES}


@pytest.fixture(scope="session")
def encoders(checkpoints: dict[str, Path]) -> dict[str, Encoder]:
    return {family: vlm.load(f"hf:local-dir:{folder}") for family, folder in checkpoints.items()}


@pytest.fixture(scope="session")
def expected(checkpoints: dict[str, Path]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {family: by_the_library(folder, family) for family, folder in checkpoints.items()}


def by_the_library(folder: Path, family: str) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings by transformers' own classes, one item at a time, as the documentation of each family shows.

    AIMv2's captions are encoded in one batch. A single caption has no padding, and without padding transformers does
    not mask later tokens in this causal tower.
    """
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder).eval()
    processor, tokenizer = AutoImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    padding = {"padding": True} if family in ("clip", "aimv2") else {"padding": "max_length", "max_length": 64}
    lower = family in ("siglip2", "naflex")  # trained on lower-cased text; with transformers 4 the caller lower-cases
    with torch.inference_mode():
        image = [pooled(model.get_image_features(**processor(images=i, return_tensors="pt"))) for i in IMAGES]
        texts = [text.lower() if lower else text for text in TEXTS]
        calls = [texts] if family == "aimv2" else [[text] for text in texts]
        tokens = [tokenizer(call, truncation=True, return_tensors="pt", **padding) for call in calls]
        text = [pooled(model.get_text_features(**inputs)) for inputs in tokens]
    rows = [torch.nn.functional.normalize(torch.cat(part), dim=1).numpy() for part in (image, text)]
    return rows[0], rows[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_equal_the_librarys_own_forward(family: str, encoders, expected) -> None:
    image, text = expected[family]
    np.testing.assert_allclose(encoders[family].encode_images(IMAGES), image, atol=1e-5)
    np.testing.assert_allclose(encoders[family].encode_texts(TEXTS), text, atol=1e-5)
    assert np.linalg.norm(image[0] - image[1]) > 0.01  # the weights are large enough to affect the output
    assert np.linalg.norm(text[0] - text[1]) > 0.01


@settings(max_examples=12, deadline=None)
@given(st.data())
@pytest.mark.parametrize("family", FAMILIES)
def test_batch_size_and_order_make_no_difference(family: str, encoders, expected, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 64), label="batch size")
    rows = data.draw(st.lists(st.integers(0, len(TEXTS) - 1), min_size=size, max_size=size), label="captions")
    np.testing.assert_allclose(
        encoders[family].encode_texts([TEXTS[i] for i in rows]), expected[family][1][rows], atol=1e-5
    )
    shown = [row % len(IMAGES) for row in rows]
    np.testing.assert_allclose(
        encoders[family].encode_images([IMAGES[i] for i in shown]), expected[family][0][shown], atol=1e-5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_captions_beyond_the_context_are_cut_and_counted(family: str, encoders) -> None:
    tokens = encoders[family].tokenize(TEXTS)
    assert tokens.truncated.tolist() == [text.startswith("wet grass wet") for text in TEXTS]
    assert max(values.shape[1] for values in tokens.inputs.values()) == (77 if family in ("clip", "aimv2") else 64)


def test_causal_towers_are_trimmed_and_siglip_is_padded_in_full(encoders) -> None:
    for family, encoder in encoders.items():
        tokens = encoder.tokenize(["a cat", "two dogs run"])
        width = tokens.batch(torch.tensor([0]))["input_ids"].shape[1]
        assert (width < 77) if family in ("clip", "aimv2") else (width == 64)


@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_of_transformers_4_are_taken_too(family: str, encoders, expected, monkeypatch) -> None:
    encoder = encoders[family]
    for name in ("get_image_features", "get_text_features"):
        now = getattr(encoder.model, name)
        monkeypatch.setattr(encoder.model, name, lambda now=now, **inputs: pooled(now(**inputs)))
    np.testing.assert_allclose(encoder.encode_images(IMAGES), expected[family][0], atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected[family][1], atol=1e-5)


def test_bfloat16_casts_the_weights(checkpoints, expected) -> None:
    encoder = vlm.load(f"hf:local-dir:{checkpoints['clip']}", dtype="bfloat16")
    assert {weights.dtype for weights in encoder.model.parameters()} == {torch.bfloat16}
    assert encoder.identity["dtype"] == "bfloat16"
    rows = encoder.encode_texts(TEXTS)
    assert rows.dtype == np.float32
    assert (rows * expected["clip"][1]).sum(1).min() > 0.98


def test_a_short_name_comes_from_the_hubs_cache_at_its_commit(checkpoints, expected, tmp_path, monkeypatch) -> None:
    repository = ZOO["siglip2"].spec.removeprefix("hf:")
    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_CACHE", hub_cache(tmp_path, repository, checkpoints["siglip2"], COMMIT)
    )
    assert hub.resolve(Spec.parse("siglip2")) == COMMIT
    for spec in ("siglip2", f"hf:{repository}", f"hf:{repository}@{COMMIT}"):
        encoder = vlm.load(spec)
        assert (encoder.identity["repository"], encoder.identity["revision"]) == (repository, COMMIT)
        assert str(tmp_path) not in json.dumps(encoder.identity)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected["siglip2"][1], atol=1e-5)


def test_nothing_cached_and_no_network_names_model_cache_and_variables(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for spec in (*ZOO, "hf:somebody/model", "open_clip:ViT-B-32/laion2b_s34b_b79k"):
        with pytest.raises(vlm.SpecError) as caught:
            vlm.load(spec)
        assert caught.value.exit_code == 2
        message = str(caught.value)
        assert ZOO[spec].spec in message if spec in ZOO else spec in message
        assert all(part in message for part in (str(tmp_path), "HF_HOME", "HF_HUB_OFFLINE"))


def test_a_hub_that_does_not_answer_is_distinguished_from_offline_mode(tmp_path: Path) -> None:
    code = "import vlm\ntry: vlm.load('hf:somebody/model')\nexcept vlm.SpecError as error: print(error)"
    there = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "PYTHONPATH": ":".join(sys.path)}
    output = subprocess.run([sys.executable, "-c", code], env=there, capture_output=True, text=True, check=True).stdout
    assert "the hub did not answer" in output
    assert str(tmp_path) in output


def test_aimv2_without_a_text_tower_says_which_one_has_it(tmp_path: Path) -> None:
    from transformers import Aimv2VisionConfig, Aimv2VisionModel

    config = Aimv2VisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    Aimv2VisionModel(config).save_pretrained(tmp_path)
    with pytest.raises(vlm.SpecError, match=r"no text tower .*aimv2-large-patch14-224-lit has one"):
        vlm.load(f"hf:{tmp_path}")


def test_folders_that_are_no_dual_encoder(checkpoints, tmp_path: Path) -> None:
    with pytest.raises(vlm.SpecError, match="there is no such folder"):
        vlm.load(f"hf:local-dir:{tmp_path}/missing")
    with pytest.raises(vlm.SpecError, match=r"holds no config\.json"):
        vlm.load(f"hf:local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(vlm.SpecError, match="'bert': allowed are clip, siglip, siglip2, aimv2"):
        vlm.load(f"hf:local-dir:{tmp_path}")
    shutil.copy(checkpoints["clip"] / "config.json", tmp_path)
    with pytest.raises(vlm.SpecError, match="holds no weights"):
        vlm.load(f"hf:local-dir:{tmp_path}")


def test_weights_that_are_not_all_there_are_refused(checkpoints, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints["aimv2"], tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(vlm.SpecError, match=r"lack 1 tensors, among them visual_projection\.weight"):
        vlm.load(f"hf:local-dir:{folder}")


def test_weights_for_which_the_model_has_no_place_are_refused_but_not_positions(checkpoints, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints["clip"], tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(77)[None]  # as the first CLIP checkpoints have them
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert vlm.load(f"hf:local-dir:{folder}").dim == 16
    weights["text_model.encoder.layers.2.layer_norm1.weight"] = torch.ones(32)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(vlm.SpecError, match=r"no place for 1 tensors of the weights, among them text_model\.encoder\."):
        vlm.load(f"hf:local-dir:{folder}")


def test_weights_beside_those_that_transformers_reads_are_left_alone(checkpoints, expected, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints["clip"], tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "open_clip_model.safetensors")
    (folder / "notes.pt").write_bytes(b"no weights")
    encoder = vlm.load(f"hf:local-dir:{folder}")
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected["clip"][1], atol=1e-5)
    assert "pytorch_model.bin" in encoder.identity["files"]
    assert not {"open_clip_model.safetensors", "notes.pt"} & set(encoder.identity["files"])
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(
        vlm.SpecError, match=r"notes\.pt, open_clip_model\.safetensors: rename the wanted file to model\.safetensors"
    ):
        vlm.load(f"hf:local-dir:{folder}")


def test_shards_of_a_folder_must_all_be_there(checkpoints, expected, tmp_path: Path) -> None:
    from transformers import CLIPModel

    folder = shutil.copytree(checkpoints["clip"], tmp_path / "model")
    (folder / "model.safetensors").unlink()
    CLIPModel.from_pretrained(checkpoints["clip"]).save_pretrained(folder, max_shard_size="60KB")
    encoder = vlm.load(f"hf:local-dir:{folder}")
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected["clip"][1], atol=1e-5)
    assert set(encoder.identity["files"]) >= {path.name for path in folder.glob("model*")}
    next(folder.glob("model-00002-*")).unlink()
    with pytest.raises(vlm.SpecError, match=r"lacks 1 of \d shards of weights: model-00002-of-"):
        vlm.load(f"hf:local-dir:{folder}")


class Trap:
    """A pickled object that writes a file when it is loaded unsafely."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


def test_pickles_and_remote_code_are_not_run(checkpoints, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    folder = shutil.copytree(checkpoints["clip"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "trap.Trap"}}))
    (folder / "trap.py").write_text(f"open({str(mark)!r}, 'w')")
    assert vlm.load(f"hf:local-dir:{folder}").dim == 16
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(mark), protocol=2))
    with pytest.raises(vlm.SpecError, match=r"cannot load it: (Weights only load failed|Unable to load weights)"):
        vlm.load(f"hf:local-dir:{folder}")
    assert not mark.exists()


def test_old_weights_are_read_with_weights_only(checkpoints, expected, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints["clip"], tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    rows = vlm.load(f"hf:local-dir:{folder}").encode_texts(TEXTS)
    np.testing.assert_allclose(rows, expected["clip"][1], atol=1e-5)
