"""Photographs that benches draw, as JPEGs in memory. Imports Pillow and numpy alone."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def photo(seed: int) -> bytes:
    """A JPEG of 640 x 480 with smooth areas and detail as in a photograph, about 60 KB."""
    draw = np.random.default_rng(seed)
    ground = Image.fromarray(draw.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(
        (640, 480), Image.Resampling.BICUBIC
    )
    detail = Image.fromarray(draw.integers(0, 255, (120, 160, 3), dtype=np.uint8)).resize((640, 480))
    out = io.BytesIO()
    Image.blend(ground, detail, 0.25).save(out, "jpeg", quality=90)
    return out.getvalue()
