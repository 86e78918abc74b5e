"""Unusable specs, devices and dtypes are errors; importing vlm is quick."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import vlm


@pytest.mark.parametrize("spec", ["", "clap", "hf:", "open_clip", "open_clip:", "demo:emoji-clip"])
def test_unknown_kinds_name_the_spec_and_what_is_allowed(spec: str) -> None:
    with pytest.raises(
        vlm.SpecError, match=r"open_clip:NAME/PRETRAINED, open_clip:hf-hub:.*, open_clip:local-dir:PATH, hf:REPOSITORY"
    ) as caught:
        vlm.load(spec)
    assert repr(spec) in str(caught.value)
    assert caught.value.exit_code == 2


def test_unknown_model_and_tag_of_open_clip() -> None:
    with pytest.raises(vlm.SpecError, match="no model 'ViT-B-33'"):
        vlm.load("open_clip:ViT-B-33/openai")
    for spec in ("open_clip:ViT-B-32/nothing", "open_clip:ViT-B-32"):
        with pytest.raises(vlm.SpecError, match=r"allowed after open_clip:ViT-B-32/ are .*laion2b_s34b_b79k"):
            vlm.load(spec)


def test_unknown_dtype_and_device() -> None:
    with pytest.raises(vlm.SpecError, match="allowed are float32, float16, bfloat16"):
        vlm.load("open_clip:ViT-B-32/openai", dtype="float64")
    for device in ("cuda:99", "nowhere"):
        with pytest.raises(vlm.SpecError, match=f"device '{device}' is not on this machine: allowed are auto, cpu"):
            vlm.load("open_clip:ViT-B-32/openai", device=device)


def test_folders_that_are_no_checkpoint(tmp_path: Path) -> None:
    spec = f"open_clip:local-dir:{tmp_path}"
    with pytest.raises(vlm.SpecError, match="there is no such folder"):
        vlm.load(spec + "/missing")
    with pytest.raises(vlm.SpecError, match=r"holds no open_clip_config\.json"):
        vlm.load(spec)
    config = tmp_path / "open_clip_config.json"
    config.write_text("{}")
    with pytest.raises(vlm.SpecError, match=r"not JSON with model_cfg\.text_cfg"):
        vlm.load(spec)
    model_cfg = {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {"hf_model_name": "somebody/model"}}
    config.write_text(json.dumps({"model_cfg": model_cfg}))
    with pytest.raises(vlm.SpecError, match="holds no weights"):
        vlm.load(spec)
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    with pytest.raises(vlm.SpecError, match=r"config\.json must lie in the folder too"):
        vlm.load(spec)
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
    with pytest.raises(vlm.SpecError, match="open_clip cannot load it: "):
        vlm.load(spec)


def test_a_repository_is_named_as_the_hub_names_it() -> None:
    for rest in ("a/b/c", "some body/model", "@main"):
        with pytest.raises(vlm.SpecError, match="must be hf:REPOSITORY"):
            vlm.load(f"hf:{rest}")


@pytest.mark.parametrize("module", ["tasks.specs", "vlm", "vlm.loading", "vlm.pictures"])
def test_no_library_of_models_is_imported_before_a_model_is_loaded(module: str) -> None:
    code = f"import sys, {module}; print({{'torch', 'open_clip', 'transformers', 'prefect'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_every_public_name_is_there() -> None:
    for name in vlm.__all__:
        assert getattr(vlm, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'vlm' has no attribute 'decoded'"):
        vlm.decoded  # noqa: B018
