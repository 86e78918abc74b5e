"""Models of the hub, on a hub that runs on loopback: what is fetched, what is refused, and what works offline."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_support import STRANGER, TOKEN, Hub, point_to, serving
from safetensors.torch import load_file, save_file
from tiny_models import CAPTIONS, OPEN_CLIP_CONFIG, build, build_open_clip

import vlm
from tasks.embed import model_identity
from vlm.spec import Spec

FIRST, SECOND = "1" * 40, "2" * 40
NAME = "owner/clip"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("clip", tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture with other weights."""
    return build("clip", tmp_path_factory.mktemp("models") / "other", seed=1)


@pytest.fixture(scope="module")
def bio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_open_clip(tmp_path_factory.mktemp("models") / "bio")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as running:
        point_to(running, tmp_path / "cache", monkeypatch)
        yield running


def rows(spec: str) -> np.ndarray:
    return vlm.load(spec).encode_texts(CAPTIONS)


def refusal(spec: str) -> str:
    with pytest.raises(vlm.SpecError) as caught:
        vlm.load(spec)
    assert caught.value.exit_code == 2
    return str(caught.value)


def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def test_a_model_is_fetched_and_equals_its_folder(hub: Hub, clip: Path) -> None:
    hub.add(NAME, clip, FIRST)
    encoder = vlm.load(f"hf:{NAME}")
    assert (encoder.identity["repository"], encoder.identity["revision"]) == (NAME, FIRST)
    np.testing.assert_array_equal(encoder.encode_texts(CAPTIONS), rows(f"hf:{clip}"))
    files = {path.name for path in clip.iterdir()}
    assert hub.fetched() == files
    hub.asked.clear()
    rows(f"hf:{NAME}@{FIRST}")
    assert hub.asked == [f"GET /api/models/{NAME}/revision/{FIRST}"]  # the list of files, and no file


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, clip: Path, other: Path) -> None:
    hub.add(NAME, clip, FIRST, "v1")
    hub.add(NAME, other, SECOND, "main")
    for spec, commit in ((f"hf:{NAME}@v1", FIRST), (f"hf:{NAME}@{FIRST}", FIRST), (f"hf:{NAME}", SECOND)):
        assert vlm.load(spec).identity["revision"] == commit
    assert not np.allclose(rows(f"hf:{NAME}@v1"), rows(f"hf:{NAME}"), atol=0.1)
    assert refusal(f"hf:{NAME}@v2").startswith(f"model hf:{NAME}@v2: the hub has no such revision of the model.")


def test_a_repository_that_does_not_exist_is_told_apart_from_one_that_is_gated(hub: Hub, clip: Path) -> None:
    hub.add("owner/gated", clip, FIRST, gated=True)
    hub.add("owner/private", clip, FIRST, private=True)
    for name in ("nobody/nothing", "owner/private"):
        assert f"model hf:{name}: the hub has no such model, or it is private and no token is set" in refusal(
            f"hf:{name}"
        )
    said = refusal("hf:owner/gated")
    assert f"the model is gated, and no token is set (HF_TOKEN): accept its conditions at {hub.url}/owner/gated" in said
    assert "did not answer" not in said
    assert not hub.fetched()


def test_a_gated_repository_with_a_token(hub: Hub, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, clip, FIRST, gated=True)
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    said = refusal(f"hf:{NAME}")
    assert "the model is gated, and the account of the token has no access to it" in said
    assert STRANGER not in said
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "the hub does not know the token" in refusal(f"hf:{NAME}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    there = rows(f"hf:{NAME}")
    monkeypatch.delenv("HF_TOKEN")  # what was fetched with a token is used without one
    np.testing.assert_array_equal(rows(f"hf:{NAME}"), there)


def test_a_gated_repository_is_refused_before_a_run(hub: Hub, clip: Path, tmp_path: Path) -> None:
    hub.add(NAME, clip, FIRST, gated=True)
    with pytest.raises(vlm.SpecError, match="the model is gated"):
        model_identity(f"hf:{NAME}", tmp_path)


OFFLINE = """
import sys
from pathlib import Path
import vlm
from tasks.embed import model_identity
identity, spec = model_identity(sys.argv[1], Path(sys.argv[2]))
print(identity, vlm.load(spec).encode_texts(["a cat"])[0, 0])
"""


@pytest.mark.slow
def test_after_one_run_with_a_network_a_new_store_in_a_new_process_needs_none(
    hub: Hub, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, clip, FIRST)
    _, spec = model_identity(f"hf:{NAME}", tmp_path / "first")
    expected = vlm.load(spec).encode_texts(["a cat"])[0, 0]
    there = {"HF_HUB_CACHE": str(tmp_path / "cache"), "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", OFFLINE, f"hf:{NAME}", str(tmp_path / "second")]
    done = subprocess.run(command, env=there | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [spec, str(expected)]
    without_network(monkeypatch)  # the same when the hub is asked and does not answer
    assert model_identity(f"hf:{NAME}", tmp_path / "third") == (spec, spec)
    assert vlm.load(spec).encode_texts(["a cat"])[0, 0] == expected


@pytest.mark.parametrize("kept", [["config.json", "model.safetensors"], ["tokenizer.json"], ["config.json"]])
def test_a_cache_that_another_program_filled_in_part_is_completed(hub: Hub, clip: Path, kept: list[str]) -> None:
    from huggingface_hub import snapshot_download

    hub.add(NAME, clip, FIRST)
    snapshot_download(NAME, allow_patterns=kept)
    hub.asked.clear()
    np.testing.assert_array_equal(rows(f"hf:{NAME}"), rows(f"hf:{clip}"))
    assert not hub.fetched() & {*kept}


def test_offline_a_cache_that_holds_a_part_is_told(hub: Hub, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import snapshot_download

    hub.add(NAME, clip, FIRST)
    snapshot_download(NAME, allow_patterns=["config.json", "model.safetensors", "preprocessor_config.json"])
    without_network(monkeypatch)
    said = refusal(f"hf:{NAME}")
    assert "the hub did not answer" in said
    assert "holds it in part (no tokenizer.json or" in said


def test_the_branch_moves_on_the_hub_and_a_store_stays(hub: Hub, clip: Path, other: Path, tmp_path: Path) -> None:
    hub.add(NAME, clip, FIRST)
    before = model_identity(f"hf:{NAME}", tmp_path / "store")
    hub.add(NAME, other, SECOND)
    assert model_identity(f"hf:{NAME}", tmp_path / "store") == before == (f"hf:{NAME}@{FIRST}",) * 2
    assert model_identity(f"hf:{NAME}", tmp_path / "new")[0] == f"hf:{NAME}@{SECOND}"


@pytest.mark.parametrize(("status", "words"), [(429, "limits the number of requests (429)"), (503, "failed (503)")])
def test_a_hub_that_is_busy_is_told_and_the_cache_is_used(
    hub: Hub, clip: Path, status: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add(NAME, clip, FIRST)
    hub.failing["/api/"] = (status, 10**6)
    assert words in refusal(f"hf:{NAME}")
    hub.failing.clear()
    there = rows(f"hf:{NAME}")
    hub.failing["/"] = (status, 10**6)
    with caplog.at_level(logging.WARNING, "bridgescope"):
        np.testing.assert_array_equal(rows(f"hf:{NAME}"), there)
    assert words in caplog.text
    assert "The cache holds the whole model" in caplog.text


@pytest.mark.parametrize("status", [429, 502])
def test_a_file_that_comes_at_the_second_try_is_taken(hub: Hub, clip: Path, status: int) -> None:
    hub.add(NAME, clip, FIRST)
    hub.failing["model.safetensors"] = (status, 1)
    np.testing.assert_array_equal(rows(f"hf:{NAME}"), rows(f"hf:{clip}"))


def test_a_hub_that_fails_while_files_are_fetched_is_told_and_the_rest_comes_later(hub: Hub, clip: Path) -> None:
    hub.add(NAME, clip, FIRST)
    hub.failing["model.safetensors"] = (500, 10**6)
    assert "the hub failed (500)" in refusal(f"hf:{NAME}")
    hub.failing.clear()
    np.testing.assert_array_equal(rows(f"hf:{NAME}"), rows(f"hf:{clip}"))


def sharded(clip: Path, folder: Path) -> Path:
    from transformers import CLIPModel

    shutil.copytree(clip, folder)
    (folder / "model.safetensors").unlink()
    CLIPModel.from_pretrained(clip).save_pretrained(folder, max_shard_size="60KB")
    assert len([*folder.glob("model-0*.safetensors")]) > 2
    return folder


def test_shards_are_fetched_all_and_one_that_lacks_is_told(hub: Hub, clip: Path, tmp_path: Path) -> None:
    folder = sharded(clip, tmp_path / "shards")
    hub.add(NAME, folder, FIRST)
    np.testing.assert_array_equal(rows(f"hf:{NAME}"), rows(f"hf:{clip}"))
    next(folder.glob("model-00002-*")).unlink()
    hub.add(NAME, folder, SECOND)
    assert "shards of weights: model-00002-of-" in refusal(f"hf:{NAME}")


def test_old_weights_alone_are_fetched_and_read_with_weights_only(hub: Hub, clip: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clip, tmp_path / "old")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    hub.add(NAME, folder, FIRST)
    np.testing.assert_array_equal(rows(f"hf:{NAME}"), rows(f"hf:{clip}"))


def test_extra_copies_are_not_fetched(hub: Hub, clip: Path, bio: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clip, tmp_path / "many")
    extras = (
        "mlx/model.safetensors", "mlx/config.json", "onnx/model.onnx", "fp16/model.safetensors", "modeling.py",
        "model.fp16.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "README.md",
    )  # fmt: skip
    for extra in extras:
        (folder / extra).parent.mkdir(exist_ok=True)
        (folder / extra).write_bytes(b"not needed")
    for path in bio.iterdir():
        shutil.copy(path, folder)
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"not needed")
    hub.add(NAME, folder, FIRST)
    np.testing.assert_array_equal(rows(f"hf:{NAME}"), rows(f"hf:{clip}"))
    assert hub.fetched() == {path.name for path in clip.iterdir()}
    hub.asked.clear()
    np.testing.assert_array_equal(rows(f"open_clip:hf-hub:{NAME}"), rows(f"open_clip:local-dir:{bio}"))
    assert hub.fetched() == {"open_clip_config.json", "open_clip_model.safetensors"}


def test_a_repository_of_open_clip_at_a_revision_and_offline(
    hub: Hub, bio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("owner/bio", bio, FIRST, "v1")
    hub.add("owner/bio", build_open_clip(tmp_path / "next", seed=1), SECOND)
    pinned = f"open_clip:hf-hub:owner/bio@{FIRST}"
    assert model_identity("open_clip:hf-hub:owner/bio@v1", tmp_path / "store") == (pinned, pinned)
    encoder = vlm.load(pinned)
    assert (encoder.identity["repository"], encoder.identity["revision"]) == ("owner/bio", FIRST)
    np.testing.assert_array_equal(encoder.encode_texts(CAPTIONS), rows(f"open_clip:local-dir:{bio}"))
    assert not np.allclose(rows("open_clip:hf-hub:owner/bio"), encoder.encode_texts(CAPTIONS), atol=0.1)
    without_network(monkeypatch)
    np.testing.assert_array_equal(rows("open_clip:hf-hub:owner/bio@v1"), encoder.encode_texts(CAPTIONS))
    json.dumps(encoder.identity)


def test_old_weights_of_open_clip_are_fetched(hub: Hub, bio: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bio, tmp_path / "old")
    torch.save(load_file(folder / "open_clip_model.safetensors"), folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_model.safetensors").unlink()
    hub.add("owner/bio", folder, FIRST)
    np.testing.assert_array_equal(rows("open_clip:hf-hub:owner/bio"), rows(f"open_clip:local-dir:{bio}"))


def test_a_tokenizer_of_another_repository_is_fetched_and_noted(
    hub: Hub, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text_cfg = {**OPEN_CLIP_CONFIG["model_cfg"]["text_cfg"], "hf_tokenizer_name": "owner/words", "vocab_size": 1200}
    config = {**OPEN_CLIP_CONFIG, "model_cfg": {**OPEN_CLIP_CONFIG["model_cfg"], "text_cfg": text_cfg}}
    hub.add("owner/marqo", build_open_clip(tmp_path / "marqo", config), FIRST)
    hub.add("owner/words", clip, SECOND)
    encoder = vlm.load("open_clip:hf-hub:owner/marqo")
    assert encoder.identity["hf_tokenizer_name"] == f"owner/words@{SECOND}"
    assert "model.safetensors" not in hub.fetched()
    there = encoder.encode_texts(CAPTIONS)
    assert encoder.tokenizer(["a cat"])[0, 0] == encoder.tokenizer.tokenizer.bos_token_id
    without_network(monkeypatch)
    np.testing.assert_array_equal(rows("open_clip:hf-hub:owner/marqo"), there)


@pytest.mark.parametrize("library", ["hf", "open_clip"])
def test_a_repository_of_the_other_library_is_told_what_to_write(
    hub: Hub, clip: Path, bio: Path, library: str, tmp_path: Path
) -> None:
    hub.add(NAME, clip, FIRST)
    hub.add("owner/bio", bio, FIRST)
    wrong, right = f"open_clip:hf-hub:{NAME}@main", f"hf:{NAME}@main"
    if library == "hf":
        wrong, right = "hf:owner/bio", "open_clip:hf-hub:owner/bio"
    assert refusal(wrong).endswith(f": write {right}")
    with pytest.raises(vlm.SpecError, match=f": write {right}"):
        model_identity(wrong, tmp_path)  # so a study is refused before it starts
    assert not hub.fetched()


def test_a_repository_of_timm_is_told_what_to_write(hub: Hub) -> None:
    assert refusal("hf:timm/ViT-B-16-SigLIP").endswith("write open_clip:hf-hub:timm/ViT-B-16-SigLIP")
    assert not hub.asked


def test_a_repository_without_weights_of_either_library_is_refused(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "gguf").mkdir()
    for name in ("config.json", "model.gguf"):
        (tmp_path / "gguf" / name).write_text("{}")
    hub.add("owner/gguf", tmp_path / "gguf", FIRST)
    assert "the repository holds no weights (model.safetensors" in refusal("hf:owner/gguf")
    assert "the repository holds no open_clip_config.json" in refusal("open_clip:hf-hub:owner/gguf")


@pytest.fixture
def tagged(hub: Hub, bio: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A spec NAME/PRETRAINED of a tiny model among open_clip's own, whose weights are on the hub."""
    from open_clip import factory, pretrained

    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny", OPEN_CLIP_CONFIG["model_cfg"])
    settings = {"hf_hub": "owner/bio/", "mean": [0.5] * 3, "std": [0.5] * 3}
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny", {"here": settings})
    hub.add("owner/bio", bio, FIRST)
    return "open_clip:tiny/here"


def test_a_pretrained_model_of_open_clip_is_fetched(hub: Hub, tagged: str, bio: Path) -> None:
    encoder = vlm.load(tagged)
    assert encoder.identity["revision"] == FIRST
    np.testing.assert_array_equal(encoder.encode_texts(CAPTIONS), rows(f"open_clip:local-dir:{bio}"))


def test_a_pretrained_model_of_open_clip_that_is_gated_or_lacks_weights_is_refused(
    hub: Hub, tagged: str, bio: Path, tmp_path: Path
) -> None:
    hub.repositories["owner/bio"].gated = True
    assert f"model {tagged}: the model is gated, and no token is set" in refusal(tagged)
    hub.repositories["owner/bio"].gated = False
    folder = shutil.copytree(bio, tmp_path / "part")
    weights = load_file(folder / "open_clip_model.safetensors")
    del weights["ln_final.weight"]
    save_file(weights, folder / "open_clip_model.safetensors")
    hub.add("owner/bio", folder, SECOND)
    assert 'Missing key(s) in state_dict: "ln_final.weight"' in refusal(tagged)


def test_a_commit_that_the_spec_names_is_not_looked_up(hub: Hub) -> None:
    from vlm import hub as ours

    assert ours.resolve(Spec.parse(f"hf:{NAME}@{FIRST}")) == FIRST
    assert not hub.asked
