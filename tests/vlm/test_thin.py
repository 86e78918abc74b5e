"""Extremely thin pictures: only what reaches the model is computed. All others reach the preprocessing as they are."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tiny_models import build, build_open_clip

import vlm
from vlm.encoder import Encoder
from vlm.hf import _bounded as bounded_of_processor
from vlm.open_clip import _bounded as bounded_of_settings
from vlm.thin import BICUBIC, BILINEAR, Crop, bounded, centre, fitted, squashed

FAMILIES = ["clip", "aimv2", "siglip", "naflex", "open_clip"]
THIN = [(65_000, 1), (1, 65_000)]


@pytest.fixture(scope="module", params=FAMILIES)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("models") / request.param
    if request.param == "open_clip":
        return vlm.load(f"open_clip:local-dir:{build_open_clip(folder)}")
    return vlm.load(f"hf:local-dir:{build(request.param, folder)}")


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


@contextmanager
def within(megabytes: int) -> Iterator[None]:
    """Whatever this process allocates beyond its memory of now must fit into so many megabytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (megabytes << 20), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("size", [(640, 480), (3000, 20), (20, 3000), (20_000, 160), (1, 1), (167, 1)])
def test_a_picture_that_costs_little_is_left_as_it_is(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    assert centre(image, Crop((224, 224), (224, 224))) is image
    assert squashed(image, (224, 224)) is image
    assert fitted(image, 448) is image
    assert bounded(image) is image


@pytest.mark.parametrize("size", [(400, 7), (7, 401), (401, 1), (1, 400), (900, 31), (29, 901), (5000, 3), (3, 5000)])
@pytest.mark.parametrize("shape", [(32, 32), (32, 48), (48, 32)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_centre_is_that_of_open_clips_resized_picture(
    size: tuple[int, int], shape: tuple[int, int], interpolation: str
) -> None:
    image = noise(*size)
    config = PreprocessCfg(size=shape, interpolation=interpolation, mean=(0, 0, 0), std=(1, 1, 1))
    preprocess = image_transform_v2(config, is_train=False)
    settings = {"size": shape, "interpolation": interpolation}
    part = bounded_of_settings(settings)(image, most=1)  # type: ignore[call-arg]
    assert part.width * part.height <= 48 * 48
    levels = np.abs(preprocess(part).numpy() - preprocess(image).numpy()) * 255
    assert levels.max() < 1.5  # Pillow holds places in a picture as float32
    assert (levels > 0.5).mean() < 0.01


@pytest.mark.parametrize("edge", [32, 40])
@pytest.mark.parametrize("size", [(400, 7), (7, 401), (401, 1), (1, 400), (900, 40), (41, 900), (5000, 3), (3, 5000)])
def test_the_centre_is_that_of_transformers_resized_picture(size: tuple[int, int], edge: int) -> None:
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor(
        size={"shortest_edge": edge}, crop_size={"height": 32, "width": 32}, do_rescale=False, do_normalize=False
    )
    image = noise(*size)
    part = bounded_of_processor(processor)(image, most=1)  # type: ignore[call-arg]
    assert part.width * part.height <= 40 * 40
    levels = [np.asarray(processor(images=each)["pixel_values"][0]).astype(int) for each in (part, image)]
    assert np.abs(levels[0] - levels[1]).max() <= 1  # torch and Pillow round differently


@pytest.mark.parametrize("size", THIN)
def test_the_embedding_of_the_thinnest_picture_is_that_of_the_whole(encoder: Encoder, size: tuple[int, int]) -> None:
    image = noise(*size)
    quick = encoder.encode_images([image])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "bounded", lambda image: image)
        whole = encoder.encode_images([image])
    np.testing.assert_allclose(quick, whole, atol=1e-3)


def real() -> dict[str, Callable[[Image.Image], object]]:
    """The preprocessing of each family at the size of its released checkpoints."""
    from transformers import CLIPImageProcessor, Siglip2ImageProcessor, SiglipImageProcessor

    def of(processor: object) -> Callable[[Image.Image], object]:
        bound = bounded_of_processor(processor)
        return lambda image: processor(images=bound(image), return_tensors="pt")  # type: ignore[operator]

    def of_mode(mode: str) -> Callable[[Image.Image], object]:
        bound = bounded_of_settings({"size": 224, "resize_mode": mode})
        transform = image_transform_v2(PreprocessCfg(size=224, resize_mode=mode), is_train=False)
        return lambda image: transform(bound(image))

    return {
        "clip, aimv2": of(CLIPImageProcessor()),
        "clip, 336": of(CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})),
        "siglip": of(SiglipImageProcessor()),
        "siglip, 384": of(SiglipImageProcessor(size={"height": 384, "width": 384})),
        "naflex": of(Siglip2ImageProcessor(patch_size=16, max_num_patches=256)),
        **{f"open_clip, {mode}": of_mode(mode) for mode in ("shortest", "longest", "squash")},
    }


@pytest.mark.parametrize("name", real())
def test_a_thin_picture_takes_little_memory_in_every_family(name: str) -> None:
    preprocess = real()[name]
    preprocess(Image.new("RGB", (640, 480)))
    for size in (*THIN, (1000, 1), (1, 1000), (30_000, 50), (50, 30_000)):
        image = Image.new("RGB", size)
        with within(50):
            preprocess(image)


@pytest.mark.parametrize("size", [(3_000_000, 2), (1, 8_000_000)])
def test_pictures_that_are_thinner_still_are_embedded(encoder: Encoder, size: tuple[int, int]) -> None:
    embedding = encoder.encode_images([Image.new("RGB", size, (200, 30, 30))])
    assert np.isfinite(embedding).all()
    if getattr(encoder.bounded, "func", None) is centre:  # type: ignore[attr-defined]
        square = encoder.encode_images([Image.new("RGB", (64, 64), (200, 30, 30))])
        np.testing.assert_allclose(embedding, square, atol=1e-4)


def test_a_picture_of_one_line_keeps_its_colours_in_the_longest_mode() -> None:
    bound = bounded_of_settings({"size": 224, "resize_mode": "longest"})
    assert bound(Image.new("RGB", (448, 1))).size == (224, 1)  # 448 x 1 would be rounded to 224 x 0
    image = Image.new("RGB", (440, 2))
    assert bound(image) is image


def test_the_filter_is_that_of_the_processor() -> None:
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor(resample=BILINEAR)
    assert bounded_of_processor(processor).keywords["crop"].resample == BILINEAR  # type: ignore[attr-defined]
    assert bounded_of_settings({"size": 224}).keywords["crop"].resample == BICUBIC  # type: ignore[attr-defined]
