"""Casting of a model to bfloat16, with a check that the embeddings of the first batch hardly change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm.encoder import Encoder
from vlm.spec import SpecError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

LOWEST_COSINE = 0.999


def cast_checked(encoder: Encoder, images: Sequence[Image.Image], texts: Sequence[str], name: str) -> float:
    """Cast a float32 encoder to bfloat16 in place. Returns the lowest cosine between an embedding before and after.

    Raises `SpecError` when this cosine is under 0.999: the study must then use dtype = "float32".
    """
    before = _encoded(encoder, images, texts)
    encoder.cast("bfloat16")
    after = _encoded(encoder, images, texts)
    cosines = [float((a * b).sum(1).min()) for a, b in zip(before, after, strict=True) if len(a)]
    lowest = min(cosines, default=1.0)
    if lowest < LOWEST_COSINE:
        raise SpecError(
            f'model {name}: with dtype = "bfloat16" an embedding of the first batch has cosine {lowest:.5f} to itself '
            f'in float32; at least {LOWEST_COSINE} is needed: use dtype = "float32"'
        )
    return lowest


def _encoded(encoder: Encoder, images: Sequence[Image.Image], texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    return encoder.encode_images(images), encoder.encode_texts(texts)
