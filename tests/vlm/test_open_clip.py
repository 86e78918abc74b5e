"""The open_clip encoder, on tiny models with random weights and on the demo's checkpoint."""

import json
import pickle
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import build_open_clip

import vlm
from storage.errors import BadInput
from tasks.weights import check_weights
from vlm.encoder import DTYPES, unit_rows
from vlm.open_clip import OpenClipEncoder, exact_text_length
from vlm.spec import Spec

TEXTS = ["a cat", "a photograph of a small brown dog that runs over wet grass", "", "seven red apples", "a cat"]


def tiny(custom_text: bool = False, **text_cfg) -> OpenClipEncoder:
    """A model of open_clip's CLIP classes with a few thousand parameters, and with CLIP's own tokenizer."""
    from open_clip import SimpleTokenizer
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.transform import PreprocessCfg, image_transform_v2

    torch.manual_seed(0)
    model = (CustomTextCLIP if custom_text else CLIP)(
        embed_dim=16,
        vision_cfg={"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
        text_cfg={"width": 32, "heads": 2, "layers": 2, **text_cfg},
    )
    tower = getattr(model, "text", model)
    torch.nn.init.normal_(tower.positional_embedding, std=0.5)
    return OpenClipEncoder(model, image_transform_v2(PreprocessCfg(size=32), False), SimpleTokenizer(), {})


def padded_to_the_full(encoder: OpenClipEncoder, texts: list[str]) -> np.ndarray:
    encoder.text_length = None
    return encoder.encode_texts(texts)


@pytest.mark.parametrize("custom_text", [False, True])
def test_cutting_the_padding_is_exact_for_causal_towers(custom_text: bool) -> None:
    encoder = tiny(custom_text)
    assert encoder.text_length is not None
    short = encoder.encode_texts(TEXTS)
    np.testing.assert_allclose(short, padded_to_the_full(encoder, TEXTS), atol=1e-6)


def test_towers_that_attend_to_their_padding_are_padded_in_full() -> None:
    encoder = tiny(custom_text=True, no_causal_mask=True, pool_type="last")
    assert encoder.text_length is None
    assert encoder.encode_texts(TEXTS).shape == (5, 16)


def test_cutting_the_padding_is_exact_for_masked_mean_pooling(built) -> None:
    encoder = vlm.load(f"open_clip:local-dir:{built.folder}")
    assert exact_text_length(encoder.model)(encoder.tokenizer(["cat", ""])).tolist() == [3, 2]
    short = encoder.encode_texts(TEXTS)
    np.testing.assert_allclose(short, padded_to_the_full(encoder, TEXTS), atol=1e-6)


def test_other_captions_in_the_list_make_no_difference() -> None:
    encoder = tiny()
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    many = encoder.encode_texts(TEXTS * 30)
    np.testing.assert_allclose(many, np.tile(alone, (30, 1)), atol=1e-6)


def test_captions_that_do_not_fit_are_cut_and_counted(built) -> None:
    # CLIP's context of 77 tokens holds the start, 75 words of one token each, and the end. The demo's checkpoint, with
    # MiniLM, has the same context length.
    texts = ["a cat", "cat " * 75, "cat " * 76, ""]
    for encoder in (tiny(), vlm.load(f"open_clip:local-dir:{built.folder}")):
        assert encoder.tokenize(texts).truncated.tolist() == [False, False, True, False]


def test_embeddings_are_float32_of_norm_1_in_every_dtype() -> None:
    images = [Image.effect_noise((40, 30), 80).convert("RGB") for _ in range(3)]
    for dtype in DTYPES:
        built_model = tiny()
        encoder = OpenClipEncoder(built_model.model, built_model.transform, built_model.tokenizer, {}, dtype=dtype)
        assert encoder.identity["dtype"] == dtype
        for rows in (encoder.encode_images(images), encoder.encode_texts(TEXTS)):
            assert rows.dtype == np.float32
            assert rows.shape[1] == encoder.dim == 16
            np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_nothing_in_nothing_out() -> None:
    encoder = tiny()
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, 16)


def test_an_embedding_without_a_direction_is_an_error() -> None:
    with pytest.raises(FloatingPointError, match="no finite embedding for 2 of 3 captions"):
        unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0], [float("nan"), 1.0]]), "captions")


def test_preprocessing_may_run_in_threads() -> None:
    encoder = tiny()
    images = [Image.effect_noise((40 + i, 50), 80).convert("RGB") for i in range(16)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(encoder.preprocess, images))
    assert all(torch.equal(a, encoder.preprocess(b)) for a, b in zip(together, images, strict=True))


def test_a_moved_checkpoint_loads_without_the_network_as_the_same_model(
    built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args, **kwargs):
        raise AssertionError("asked for the network")

    here = vlm.load(f"open_clip:local-dir:{built.folder}")
    shutil.copytree(built.folder, tmp_path / "other" / "place")
    (tmp_path / "other" / "place" / "manifest.json").write_text("{}")  # the store's file, not the model's
    monkeypatch.chdir(tmp_path / "other")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    there = vlm.load("open_clip:local-dir:place")
    assert there.identity == here.identity
    np.testing.assert_array_equal(there.encode_texts(TEXTS), here.encode_texts(TEXTS))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_open_clip(tmp_path_factory.mktemp("models") / "tiny")


def trained(checkpoint: Path, folder: Path, prefix: str = "", **more: torch.Tensor) -> Path:
    """A folder with a file as open_clip's training writes it, epoch_7.pt, in place of safetensors."""
    folder.mkdir()
    shutil.copy(checkpoint / "open_clip_config.json", folder)
    state = load_file(checkpoint / "open_clip_model.safetensors") | more
    state = {prefix + name: values for name, values in state.items()}
    torch.save({"epoch": 7, "name": "run", "state_dict": state, "optimizer": {"state": {}}}, folder / "epoch_7.pt")
    return folder


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_of_open_clips_training_is_loaded(checkpoint: Path, tmp_path: Path, prefix: str) -> None:
    expected = vlm.load(f"open_clip:local-dir:{checkpoint}").encode_texts(TEXTS)
    encoder = vlm.load(f"open_clip:local-dir:{trained(checkpoint, tmp_path / 'run', prefix)}")
    np.testing.assert_array_equal(encoder.encode_texts(TEXTS), expected)
    assert set(encoder.identity["files"]) == {"open_clip_config.json", "epoch_7.pt"}


def test_a_folder_of_several_epochs_does_not_say_which_is_meant(checkpoint: Path, tmp_path: Path) -> None:
    folder = trained(checkpoint, tmp_path / "run")
    shutil.copy(folder / "epoch_7.pt", folder / "epoch_8.pt")
    spec = Spec.of_folder("open_clip", folder)
    with pytest.raises(
        vlm.SpecError, match=r"holds epoch_7\.pt, epoch_8\.pt: rename the wanted file to open_clip_model\.safetensors"
    ):
        vlm.load(str(spec))
    with pytest.raises(BadInput, match="it is unclear which weights are meant"):
        check_weights(spec)


def test_weights_of_which_not_all_are_loaded_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    more = trained(checkpoint, tmp_path / "more", **{"visual.adapter.weight": torch.ones(3)})
    with pytest.raises(vlm.SpecError, match=r"open_clip cannot load it: .*Unexpected key.*visual\.adapter\.weight"):
        vlm.load(f"open_clip:local-dir:{more}")
    less = shutil.copytree(checkpoint, tmp_path / "less")
    weights = load_file(less / "open_clip_model.safetensors")
    del weights["visual.proj"]
    save_file(weights, less / "open_clip_model.safetensors")
    with pytest.raises(vlm.SpecError, match=r"open_clip cannot load it: .*Missing key.*visual\.proj"):
        vlm.load(f"open_clip:local-dir:{less}")


def test_a_pickle_of_open_clip_runs_no_code(checkpoint: Path, tmp_path: Path) -> None:
    folder = trained(checkpoint, tmp_path / "run")
    (folder / "epoch_7.pt").write_bytes(pickle.dumps(print, protocol=2))
    with pytest.raises(vlm.SpecError, match="open_clip cannot load it: Weights only load failed"):
        vlm.load(f"open_clip:local-dir:{folder}")


def test_a_folder_of_transformers_is_told_what_to_write(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(vlm.SpecError, match=rf"holds no open_clip_config\.json: write hf:local-dir:{tmp_path}$"):
        vlm.load(f"open_clip:local-dir:{tmp_path}")


def test_identity_is_json_and_holds_no_path(built) -> None:
    identity = vlm.load(f"open_clip:local-dir:{built.folder}").identity
    text = json.dumps(identity)
    assert json.loads(text) == identity
    assert "/" not in text
    assert set(identity["files"]) >= {"open_clip_model.safetensors", "tokenizer.json"}
    assert identity["preprocess"]["interpolation"] == "bicubic"
    assert identity["tokenizer"]["context_length"] == 77
