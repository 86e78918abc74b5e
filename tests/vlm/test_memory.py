"""The estimated memory of embedding, beside a count of all tensors of models at their released size."""

from __future__ import annotations

import gc
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_cuda import fake_cuda

import vlm.pixels
from bench.gpu_models import SIZES, Size, built, model_of
from vlm.memory import BESIDES, Memory, memory, together, tower

IMAGES = 32
#: The spec of each size of the bench. SigLIP2's text tower, with its larger vocabulary, is that of so400m there.
SPECS = {
    "CLIP B/32": "hf:openai/clip-vit-base-patch32",
    "SigLIP B/16-224": "siglip",
    "CLIP L/14": "hf:openai/clip-vit-large-patch14",
    "AIMv2 L/14": "aimv2",
    "SigLIP2 so400m-384": "hf:google/siglip2-so400m-patch14-384",
    "SigLIP2 giant-384": "hf:google/siglip2-giant-opt-patch16-384",
}
GIANT = Size(
    "SigLIP2 giant-384", "siglip",
    {"hidden_size": 1536, "intermediate_size": 6144, "num_hidden_layers": 40, "num_attention_heads": 16,
     "patch_size": 16, "image_size": 384},
    {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
     "vocab_size": 256000, "projection_size": 1536},
    None, "", {},
)  # fmt: skip
#: Tokens of a picture by hand, with one of the class in CLIP: 224 / 32 = 7, and 7 x 7 + 1 = 50. Millions of parameters
#: as open_clip's profile of models states them, and for SigLIP2 as the hub counts the weights.
RELEASED = [
    ("clip", 14**2 + 1, 224, 150),
    ("siglip", 14**2, 224, 203),
    ("siglip2", 14**2, 224, 375),
    ("aimv2", 16**2, 224, 435),
    ("hf:openai/clip-vit-base-patch32", 7**2 + 1, 224, 151),
    ("hf:openai/clip-vit-large-patch14", 16**2 + 1, 224, 428),
    ("hf:openai/clip-vit-large-patch14-336", 24**2 + 1, 336, 428),
    ("open_clip:ViT-L-14-336/openai", 24**2 + 1, 336, 428),
    ("open_clip:ViT-L-14-336-quickgelu/openai", 24**2 + 1, 336, 428),
    ("open_clip:ViT-S-32/x", 7**2 + 1, 224, 63),
    ("open_clip:ViT-B-32-256/datacomp_s34b_b86k", 8**2 + 1, 256, 151),
    ("hf:laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K", 8**2 + 1, 256, 151),
    ("open_clip:ViT-H-14/laion2b_s32b_b79k", 16**2 + 1, 224, 986),
    ("open_clip:hf-hub:apple/DFN5B-CLIP-ViT-H-14-378", 27**2 + 1, 378, 986),
    ("open_clip:ViT-g-14/laion2b_s34b_b88k", 16**2 + 1, 224, 1367),
    ("hf:laion/CLIP-ViT-bigG-14-laion2B-39B-b160k@main", 16**2 + 1, 224, 2540),
    ("open_clip:ViT-bigG-14/laion2b_s39b_b160k", 16**2 + 1, 224, 2540),
    ("open_clip:hf-hub:timm/vit_gigantic_patch14_clip_224.laion2b", 16**2 + 1, 224, 2540),
    ("open_clip:hf-hub:timm/vit_large_patch14_clip_336.openai", 24**2 + 1, 336, 428),
    ("hf:facebook/metaclip-b32-400m", 7**2 + 1, 224, 151),
    ("hf:facebook/metaclip-h14-fullcc2.5b", 16**2 + 1, 224, 986),
    ("hf:google/siglip-base-patch16-256", 16**2, 256, 203),
    ("hf:google/siglip-base-patch16-384", 24**2, 384, 203),
    ("hf:google/siglip-base-patch16-512", 32**2, 512, 204),
    ("hf:google/siglip-base-patch16-256-multilingual", 16**2, 256, 371),
    ("hf:google/siglip-large-patch16-384", 24**2, 384, 652),
    ("hf:google/siglip-so400m-patch14-384", 27**2, 384, 878),
    ("open_clip:ViT-SO400M-14-SigLIP/webli", 16**2, 224, 877),
    ("hf:google/siglip-so400m-patch16-256-i18n", 16**2, 256, 1127),
    ("hf:google/siglip2-base-patch32-256", 8**2, 256, 377),
    ("hf:google/siglip2-base-patch16-512", 32**2, 512, 376),
    ("hf:google/siglip2-base-patch16-naflex", 16**2, 256, 375),
    ("open_clip:ViT-L-16-SigLIP2-384/webli", 24**2, 384, 882),
    ("hf:google/siglip2-large-patch16-512", 32**2, 512, 882),
    ("hf:google/siglip2-so400m-patch16-naflex", 16**2, 256, 1136),
    ("hf:google/siglip2-giant-opt-patch16-256", 16**2, 256, 1871),
    ("open_clip:ViT-gopt-16-SigLIP2-384/webli", 24**2, 384, 1871),
    ("hf:local-dir:/models/siglip-so400m-patch14-224/", 16**2, 224, 877),
]
#: Models with another text tower, other layers, or a name without a size.
UNKNOWN = [
    "hf:kakaobrain/align-base", "hf:patrickjohncyr/fashion-clip", "hf:local-dir:/clip-vit-base-patch32/mine",
    "open_clip:RN50/openai", "open_clip:convnext_base_w/laion2b_s13b_b82k", "open_clip:ViT-e-14/x",
    "open_clip:ViT-B-16-plus-240/laion400m_e32", "open_clip:coca_ViT-L-14/laion2b_s13b_b90k",
    "open_clip:xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k", "open_clip:EVA02-L-14-336/merged2b_s6b_b61k",
    "open_clip:hf-hub:timm/eva02_large_patch14_clip_336.merged2b_s6b_b61k", "open_clip:MobileCLIP2-L-14/dfndr2b",
    "open_clip:ViT-H-14-worldwide/metaclip2_worldwide", "open_clip:hf-hub:timm/PE-Core-L-14-336",
    "open_clip:hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
    "hf:local-dir:/models/vit-base-patch4",
]  # fmt: skip


@pytest.mark.parametrize(("spec", "tokens", "edge", "millions"), RELEASED, ids=[each[0] for each in RELEASED])
def test_the_name_of_a_released_model_says_its_size(spec: str, tokens: int, edge: int, millions: int) -> None:
    found = tower(spec)
    assert found is not None
    assert (found.tokens, found.edge) == (tokens, edge)
    assert found.parameters == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize("spec", UNKNOWN)
def test_nothing_is_said_about_a_model_whose_name_does_not_say_its_size(spec: str) -> None:
    assert tower(spec) is None
    assert memory(spec, "float32", 1) is None


def configs() -> dict[str, dict[str, Any]]:
    """The image towers of open_clip's models, by name."""
    package = find_spec("open_clip")
    assert package is not None
    assert package.submodule_search_locations
    files = Path(package.submodule_search_locations[0], "model_configs").glob("*.json")
    return {file.stem: json.loads(file.read_text())["vision_cfg"] for file in files}


def test_the_names_of_open_clip_say_what_its_configurations_say() -> None:
    given = configs()
    known = {name: found for name in given if (found := tower(f"open_clip:{name}/x"))}
    for name, found in known.items():
        vision, clip = given[name], "timm_model_name" not in given[name]
        edge = vision["image_size"]
        patch = vision["patch_size"] if clip else int(re.findall(r"patch(\d+)", vision["timm_model_name"])[0])
        assert (name, found.edge, found.tokens) == (name, edge, (edge // patch) ** 2 + clip)
        if clip:
            widths = vision["width"] * (1 + vision.get("mlp_ratio", 4))
            assert found.values == pytest.approx(3 * widths, rel=1e-4), name
    usual = {name for name in given if name.startswith("ViT-") and not re.search("plus|alt|worldwide", name)}
    assert usual - set(known) == {"ViT-e-14"}
    assert len(known) > 50


def test_the_estimate_worked_by_hand() -> None:
    found = memory("open_clip:ViT-B-32/laion2b_s34b_b79k", "float32", 256)
    assert found is not None
    assert found.weights == 151_000_000 * 4
    # 3 x 224 x 224 numbers a picture: two bytes, and 4 bytes thrice; 3 x 50 tokens x (768 + 3,072) numbers of 4 bytes
    assert found.batch == 256 * (3 * 224 * 224 * (2 + 12) + 4 * 3 * 50 * (768 + 3072))
    assert found.total == found.weights + found.batch + BESIDES
    assert memory("siglip", "bfloat16", 8) == memory("hf:google/siglip-base-patch16-224", "bfloat16", 8)


def test_a_pass_takes_all_weights_and_one_batch() -> None:
    models = [Memory(400, 70), Memory(900, 20), Memory(600, 50)]
    assert together(models) == Memory(1900, 70, BESIDES)
    assert together(models, at_once=2) == Memory(1500, 70, BESIDES)


@pytest.mark.parametrize("size", [*SIZES, GIANT], ids=[size.name for size in (*SIZES, GIANT)])
def test_the_weights_are_those_of_the_released_sizes(size: Size) -> None:
    found = sum(weight.numel() for weight in model_of(size, "meta").parameters())
    estimated = memory(SPECS[size.name], "float32", 1)
    assert estimated is not None
    assert estimated.weights == pytest.approx(4 * found, rel=0.02)


@pytest.mark.slow
def test_the_weights_are_those_that_open_clip_makes() -> None:
    """The models of CLIPA have a smaller vocabulary, and 3 % fewer weights, than those of the same size."""
    from open_clip import get_model_config
    from open_clip.model import CLIP, CustomTextCLIP

    for name in configs():
        estimated = tower(f"open_clip:{name}/x")
        if estimated is not None:
            config = dict(get_model_config(name))
            kind = CustomTextCLIP if config.pop("custom_text", False) else CLIP
            with torch.device("meta"):
                found = sum(weight.numel() for weight in kind(**config).parameters())
            assert estimated.parameters == pytest.approx(found, rel=0.035), name


@pytest.mark.parametrize(
    ("number", "dtype"),
    [(0, "float32"), (3, "bfloat16"), *(pytest.param(n, "float32", marks=pytest.mark.slow) for n in (1, 2, 4, 5))],
)
def test_no_batch_takes_more_or_less_than_half(number: int, dtype: str) -> None:
    """Two layers have the widest tensors of all layers."""
    size = (*SIZES, GIANT)[number]
    vlm.pixels._on.cache_clear()
    with fake_cuda() as device:
        encoder = built(size, "cuda", dtype, 0.1)
        edge = encoder.model.config.vision_config.image_size
        inputs = {"rows": torch.zeros(IMAGES, edge, edge, 3, dtype=torch.uint8, device="cuda")}
        gc.collect()
        device.peak, before = 0, device.bytes
        encoder.pixel_features(inputs)
        vlm.pixels._on.cache_clear()
    found = memory(SPECS[size.name], dtype, IMAGES)
    assert found is not None
    assert device.peak - before <= found.batch
    assert device.peak - before >= 0.5 * found.batch
