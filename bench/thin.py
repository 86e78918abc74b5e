"""Seconds that a picture of 65,000 x 1 or 1 x 65,000 pixels costs in a shard: decoding, and resizing for each family.

The image processors are those of the released models. `tests/vlm/test_thin.py` bounds the memory of the same pictures.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from bars import Bar, at_most
from PIL import Image

from vlm.encoder import prepared
from vlm.hf import _bounded as bounded_of_processor
from vlm.open_clip import _bounded as bounded_of_settings
from vlm.pictures import decode
from vlm.pixels import Pixels, of_processor, of_transform

SIZES = ((65_000, 1), (1, 65_000))
MOST = 0.1  # seconds
RUNS = 5  # of each picture, of which the shortest counts


def jpeg(size: tuple[int, int]) -> bytes:
    """A JPEG of noise."""
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "jpeg")
    return out.getvalue()


def _of_processor(processor: Any) -> Pixels:
    bounded = bounded_of_processor(processor)

    def preprocess(image: Image.Image) -> Any:
        given = processor(images=bounded(image), return_tensors="pt")
        values = {name: given[name][0] for name in processor.model_input_names}
        return values if len(values) > 1 else values["pixel_values"]

    return of_processor(processor, preprocess, bounded)


def _of_mode(mode: str, edge: int = 224) -> Pixels:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    settings: dict[str, Any] = {"size": edge, "resize_mode": mode}
    bounded = bounded_of_settings(settings)
    transform = image_transform_v2(PreprocessCfg(**settings), is_train=False)
    return of_transform(transform, lambda image: transform(bounded(image)), bounded)


def families() -> dict[str, Pixels]:
    """The preparation of pictures of each family, at sizes of released models."""
    from transformers import CLIPImageProcessor, Siglip2ImageProcessor, SiglipImageProcessor

    return {
        "clip, aimv2": _of_processor(CLIPImageProcessor()),
        "clip, 336": _of_processor(
            CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
        ),
        "siglip": _of_processor(SiglipImageProcessor()),
        "siglip, 384": _of_processor(SiglipImageProcessor(size={"height": 384, "width": 384})),
        "naflex": _of_processor(Siglip2ImageProcessor(patch_size=16, max_num_patches=256)),
        **{f"open_clip, {mode}": _of_mode(mode) for mode in ("shortest", "longest", "squash")},
    }


def seconds(work: Callable[[], object]) -> float:
    """The shortest time of `RUNS` runs."""
    found = []
    for _ in range(RUNS):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def cost(pixels: Pixels, data: bytes) -> object:
    """What a decoding thread does with a picture."""
    return prepared(pixels.resize, decode(data))


def rows() -> list[Bar]:
    """A row per family: the time of the picture that costs more."""
    pictures, ordinary, found = [jpeg(size) for size in SIZES], jpeg((640, 480)), []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the decoding threads and processes of a feed
    for name, pixels in families().items():
        cost(pixels, ordinary)  # the first call imports
        most = max(seconds(partial(cost, pixels, data)) for data in pictures)
        found.append(at_most(f"a picture of 65,000 x 1 in a shard, {name}", most, MOST, "s"))
    torch.set_num_threads(threads)
    return found
