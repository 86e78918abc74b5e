"""The estimated memory of embedding, beside a count of all tensors of models at their released size."""

from __future__ import annotations

import gc

import pytest
import torch
from fake_cuda import fake_cuda

import vlm.pixels
from bench.gpu_models import SIZES, Size, built, model_of
from vlm.memory import ALIVE, BESIDES, memory

IMAGES = 32
#: The spec of each size of the bench. SigLIP2's text tower, with its larger vocabulary, is that of so400m there.
SPECS = {
    "CLIP B/32": "hf:openai/clip-vit-base-patch32",
    "SigLIP B/16-224": "siglip",
    "CLIP L/14": "hf:openai/clip-vit-large-patch14",
    "AIMv2 L/14": "aimv2",
    "SigLIP2 so400m-384": "hf:google/siglip2-so400m-patch14-384",
}


def test_the_estimate_worked_by_hand() -> None:
    found = memory("open_clip:ViT-B-32/laion2b_s34b_b79k", "float32", 256)
    assert found.weights == 151_000_000 * 4
    # 3 x 224 x 224 numbers a picture: two bytes, and 4 bytes thrice; 15 x 50 tokens x 768 numbers of 4 bytes
    assert found.batch == 256 * (3 * 224 * 224 * (2 + 12) + 4 * ALIVE * 50 * 768)
    assert found.total == found.weights + found.batch + BESIDES
    assert memory("siglip", "bfloat16", 8) == memory("hf:google/siglip-base-patch16-224", "bfloat16", 8)


@pytest.mark.parametrize("size", SIZES, ids=[size.name for size in SIZES])
def test_the_weights_are_those_of_the_released_sizes(size: Size) -> None:
    found = sum(weight.numel() for weight in model_of(size, "meta").parameters())
    assert memory(SPECS[size.name], "float32", 1).weights == pytest.approx(4 * found, rel=0.02)


@pytest.mark.parametrize(
    ("number", "dtype"),
    [(0, "float32"), (3, "bfloat16"), *(pytest.param(n, "float32", marks=pytest.mark.slow) for n in (1, 2, 4))],
)
def test_no_batch_takes_more_or_less_than_half(number: int, dtype: str) -> None:
    """Two layers have the widest tensors of all layers."""
    size = SIZES[number]
    vlm.pixels._on.cache_clear()
    with fake_cuda() as device:
        encoder = built(size, "cuda", dtype, 0.1)
        edge = encoder.model.config.vision_config.image_size
        inputs = {"rows": torch.zeros(IMAGES, edge, edge, 3, dtype=torch.uint8, device="cuda")}
        gc.collect()
        device.peak, before = 0, device.bytes
        encoder.pixel_features(inputs)
        vlm.pixels._on.cache_clear()
    found = memory(SPECS[size.name], dtype, IMAGES).batch
    assert device.peak - before <= found
    assert device.peak - before >= 0.5 * found
