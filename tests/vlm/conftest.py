"""Drawn pictures and one checkpoint of the demo's model, built once for all tests of this folder."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageDraw


class Built(NamedTuple):
    folder: Path
    images: list[bytes]
    captions: list[str]
    image_features: np.ndarray
    caption_features: np.ndarray
    projections: tuple


def drawn(shape: str, colour: str) -> bytes:
    image = Image.new("RGBA", (96, 72), (0, 0, 0, 0))
    getattr(ImageDraw.Draw(image), shape)((20, 10, 70, 60), fill=colour)
    out = io.BytesIO()
    image.save(out, "png")
    return out.getvalue()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Features, projections and checkpoint of six drawn pictures with a short and a long caption each."""
    from vlm import demo

    kinds = [(shape, colour) for shape in ("ellipse", "rectangle") for colour in ("red", "green", "blue")]
    images = [drawn(*kind) for kind in kinds]
    captions = []
    for shape, colour in kinds:
        captions += [f"{colour} {shape}", f"a {colour} {shape}, drawn on a white ground (test, Pillow, geometry)"]
    image_features, caption_features = demo.tower_features(iter(images), captions, batch_size=4)
    projections = demo.align(image_features, caption_features, np.arange(12) // 2, "emoji-siglip")
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    demo.write_checkpoint(folder, projections)
    return Built(folder, images, captions, image_features, caption_features, projections)
