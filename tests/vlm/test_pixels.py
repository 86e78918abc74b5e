"""Resizing on the host and normalising on the device give what the processors of the libraries give."""

from __future__ import annotations

import functools
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import Compose, Lambda, ToTensor
from transformers import CLIPImageProcessor, Siglip2ImageProcessor, SiglipImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from vlm.pixels import TOLERANCE, Pixels, of_processor, of_transform
from vlm.thin import unchanged

DRAW = np.random.default_rng(1)
IMAGES = [Image.fromarray(DRAW.integers(0, 255, shape, dtype=np.uint8)) for shape in ((90, 61, 3), (40, 200, 3))]


def by_processor(processor: Any, image: Image.Image) -> Any:
    given = processor(images=image, return_tensors="pt")
    values = {name: given[name][0] for name in processor.model_input_names}
    return values if len(values) > 1 else values["pixel_values"]


def finished(pixels: Pixels, images: list[Image.Image]) -> Any:
    given = [pixels.resize(image) for image in images]
    return pixels.finish({name: torch.stack([each[name] for each in given]) for name in given[0]})


@pytest.mark.parametrize(
    ("processor", "way"),
    [
        (CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 36}), "_by_methods"),
        (SiglipImageProcessor(size={"height": 32, "width": 40}), "_by_methods"),
        (SiglipImageProcessor(size={"height": 32, "width": 40}, resample=2, image_std=[0.2, 0.3, 0.4]), "_by_methods"),
        (Siglip2ImageProcessor(patch_size=8, max_num_patches=16, image_mean=[0.1, 0.5, 0.7]), "_by_processor"),
        (CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), "_by_processor"),
        (CLIPImageProcessor(do_normalize=False), "_named"),
    ],
)
def test_both_steps_of_a_processor_equal_its_call(processor: Any, way: str) -> None:
    preprocess = functools.partial(by_processor, processor)
    pixels = of_processor(processor, preprocess, unchanged)
    assert pixels.resize.func.__name__ == way  # type: ignore[attr-defined]
    found = finished(pickle.loads(pickle.dumps(pixels)), IMAGES)
    for row, image in enumerate(IMAGES):
        expected = preprocess(image)
        if not isinstance(expected, dict):
            found, expected = {"pixel_values": found} if row == 0 else found, {"pixel_values": expected}
        for name, values in expected.items():
            assert found[name].dtype == values.dtype
            torch.testing.assert_close(found[name][row], values, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_both_steps_of_a_transform_equal_the_transform_to_the_last_bit(mode: str) -> None:
    transform = image_transform_v2(PreprocessCfg(size=32, resize_mode=mode), False)
    pixels = of_transform(transform, transform, unchanged)
    assert pixels.resize(IMAGES[0])["rows"].dtype == torch.uint8
    assert torch.equal(finished(pixels, IMAGES), torch.stack([transform(image) for image in IMAGES]))


def test_a_transform_of_another_kind_is_called_whole() -> None:
    for transform in (
        Compose([Lambda(lambda image: image.resize((8, 8))), ToTensor(), Lambda(lambda x: x * 2)]),
        ToTensor(),
        lambda image: torch.ones(3, 4, 4),
    ):
        pixels = of_transform(transform, transform, unchanged)
        assert pixels.key is None
        picture = IMAGES[0]
        assert torch.equal(finished(pixels, [picture])[0], transform(picture))


def test_equal_keys_mean_equal_resizing() -> None:
    def key(**options: Any) -> str | None:
        transform = image_transform_v2(PreprocessCfg(size=32, **options), False)
        return of_transform(transform, transform, unchanged).key

    assert key() == key(mean=(0.1, 0.2, 0.3)) is not None
    assert len({key(), key(interpolation="bilinear"), key(resize_mode="squash")}) == 3
