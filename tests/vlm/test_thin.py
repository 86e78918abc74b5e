"""Extremely thin pictures: cut or shrunk before they are resized. All others reach the preprocessing as they are."""

from __future__ import annotations

import numpy as np
import pytest
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tiny_models import build

import vlm
from vlm.encoder import Encoder
from vlm.open_clip import _bounded
from vlm.thin import Crop, centre, whole

FAMILIES = ["clip", "aimv2", "siglip", "naflex"]


@pytest.fixture(scope="module", params=FAMILIES)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = build(request.param, tmp_path_factory.mktemp("models") / request.param)
    return vlm.load(f"hf:local-dir:{folder}")


def waves(width: int, height: int) -> Image.Image:
    """A picture with waves along its longer side, each two and a half times as long as the shorter side."""
    phase = np.arange(max(width, height)) * 2 * np.pi / (2.5 * min(width, height))
    line = (127 + 120 * np.sin(phase[:, None] + np.arange(3))).astype(np.uint8)
    lines = np.broadcast_to(line, (min(width, height), *line.shape))
    return Image.fromarray(np.ascontiguousarray(lines if width >= height else lines.transpose(1, 0, 2)))


@pytest.mark.parametrize("size", [(640, 480), (3000, 10), (10, 3000), (20_000, 30), (1, 1), (1783, 1)])
def test_a_picture_that_costs_little_is_left_as_it_is(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    assert centre(image, Crop((224, 224), (224, 224))) is image
    assert whole(image) is image


@pytest.mark.parametrize("size", [(400, 7), (7, 401), (401, 1), (1, 400), (900, 40), (41, 900)])
@pytest.mark.parametrize("shape", [(32, 32), (32, 48)])
def test_the_cut_gives_what_the_whole_gives(size: tuple[int, int], shape: tuple[int, int]) -> None:
    image = waves(*size)
    config = PreprocessCfg(size=shape, mean=(0, 0, 0), std=(1, 1, 1))
    preprocess = image_transform_v2(config, is_train=False)
    part = centre(image, Crop(shape[::-1], shape[::-1]), limit=1)
    assert part.width * part.height < size[0] * size[1]
    # The resized lengths are rounded, so the centre may lie half a pixel aside.
    difference = np.abs(preprocess(part).numpy() - preprocess(image).numpy()) * 255
    assert difference.mean() < 8
    turned = image.transpose(Image.Transpose.ROTATE_180)
    assert np.abs(preprocess(turned).numpy() - preprocess(image).numpy()).mean() * 255 > 20


@pytest.mark.parametrize("size", [(65_000, 1), (1, 65_000), (3_000_000, 2), (2, 3_000_000), (1, 20_000_000)])
def test_the_thinnest_pictures_cost_little_in_every_family(encoder: Encoder, size: tuple[int, int]) -> None:
    embedding = encoder.encode_images([Image.new("RGB", size, (200, 30, 30))])
    assert np.isfinite(embedding).all()
    if size[0] * size[1] < 100_000:  # it looks like a picture of one colour, which is what it is
        square = encoder.encode_images([Image.new("RGB", (64, 64), (200, 30, 30))])
        if encoder.bounded is not whole:
            np.testing.assert_allclose(embedding, square, atol=1e-4)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(65_000, 1), (1, 65_000), (1, 20_000_000)])
def test_the_thinnest_pictures_cost_little_in_every_mode_of_open_clip(mode: str, size: tuple[int, int]) -> None:
    config = PreprocessCfg(size=224, resize_mode=mode)
    bounded = _bounded({"size": 224, "resize_mode": mode})(Image.new("RGB", size))
    assert bounded.width * bounded.height < 1 << 18
    assert image_transform_v2(config, is_train=False)(bounded).shape == (3, 224, 224)


def test_a_picture_of_one_line_keeps_its_colours_in_the_longest_mode() -> None:
    bounded = _bounded({"size": 224, "resize_mode": "longest"})
    assert bounded(Image.new("RGB", (448, 1))).size == (224, 1)  # 448 x 1 would be rounded to 224 x 0
    image = Image.new("RGB", (440, 2))
    assert bounded(image) is image
