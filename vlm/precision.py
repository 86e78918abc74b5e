"""Arithmetic of fewer bits than float32, where the embeddings of the first items of a shard hardly change.

A study may ask for weights in float16 or bfloat16. With float32 on a GPU that multiplies in TF32 (inputs of products
rounded to the 11 significant bits of float16, sums in float32), products are made so where this is safe, since stored
embeddings are rounded to as many bits anyway.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from vlm.encoder import Encoder
from vlm.spec import SpecError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

CHECKED = 256  # number of images, and of captions, whose embeddings are compared with those in float32
#: Lowest cosine between an embedding and itself in float32. EfficientNet-Lite0 has .9991 in bfloat16, and .99999 in
#: float16, which has three bits more. TF32 has the bits of float16.
LOWEST_COSINE = {"float16": 0.9999, "bfloat16": 0.999, "tf32": 0.9999}
AT_A_TIME = 16  # pictures that are decoded at a time: 16 of 12 million pixels are 580 MB
TF32_SINCE = (8, 0)  # first compute capability that multiplies in TF32 (Ampere)
log = logging.getLogger("bridgescope")


def make_ready(
    encoder: Encoder, images: Callable[[], Iterable[Image.Image]], texts: Sequence[str], dtype: str, name: str
) -> None:
    """Let a float32 encoder compute in `dtype`, or float32 in TF32 where that is safe, in place. Once done, it stays.

    images: gives the pictures of a shard that can be decoded, from its first on; it is called once for each comparison.
    texts: captions of the shard. Of both the first 256 are embedded in float32 and again.

    What was chosen is noted in `encoder.identity`, under `dtype` and, on a GPU with TF32, `tf32`. Raises `SpecError`
    when an embedding in float16 has a cosine under .9999 to itself in float32, or under .999 in bfloat16: the study
    must then use another dtype. The encoder is of no more use then.
    """
    if dtype != encoder.identity["dtype"]:
        lowest = cast_checked(encoder, images, texts, dtype, name)
        log.info("%s in %s: lowest cosine to float32 among the first items %.5f", name, dtype, lowest)
    elif dtype == "float32" and "tf32" not in encoder.identity and has_tf32(encoder.device):
        lowest = allow_tf32(encoder, images, texts)
        safe = "used" if encoder.identity["tf32"] else "not used"
        log.info("%s: TF32 is %s: lowest cosine to float32 among the first items %.5f", name, safe, lowest)


def cast_checked(
    encoder: Encoder, images: Callable[[], Iterable[Image.Image]], texts: Sequence[str], dtype: str, name: str
) -> float:
    """Cast a float32 encoder in place. Returns the lowest cosine between an embedding before and after.

    Raises `SpecError` when this cosine is under `LOWEST_COSINE`, or when an embedding is not finite any more.
    """
    before = [*_encoded(encoder, images, texts)]
    encoder.cast(dtype)
    least = LOWEST_COSINE[dtype]
    instead = 'use dtype = "float32"' + (' or "bfloat16"' if dtype == "float16" else ' or "float16"')
    try:
        lowest = _lowest(before, _encoded(encoder, images, texts))
    except FloatingPointError as error:
        raise SpecError(f'model {name}: with dtype = "{dtype}" {error}: {instead}') from error
    if lowest < least:
        raise SpecError(
            f'model {name}: with dtype = "{dtype}" an embedding of the first {CHECKED} items has cosine {lowest:.5f} '
            f"with its own embedding in float32; at least {least} is needed: {instead}"
        )
    return lowest


def has_tf32(device: str) -> bool:
    """Whether a device multiplies in TF32."""
    import torch

    return device.startswith("cuda") and torch.cuda.get_device_capability(device) >= TF32_SINCE


def allow_tf32(encoder: Encoder, images: Callable[[], Iterable[Image.Image]], texts: Sequence[str]) -> float:
    """Let the forward passes of a float32 encoder multiply in TF32 if that is safe, else in float32 throughout.

    Returns the lowest cosine between an embedding in TF32 and in float32. Without this function, torch convolves in
    TF32 and multiplies matrices in float32. Other computations of the process keep their settings.
    """
    forward = encoder.image_features, encoder.token_features

    def multiply(tf32: bool) -> None:
        changed: Any = encoder  # whose methods are replaced on this object alone
        changed.image_features, changed.token_features = (functools.partial(_with_tf32, tf32, each) for each in forward)

    multiply(tf32=False)
    before = [*_encoded(encoder, images, texts)]
    multiply(tf32=True)
    lowest = _lowest(before, _encoded(encoder, images, texts))
    safe = lowest >= LOWEST_COSINE["tf32"]
    multiply(tf32=safe)
    encoder.identity = {**encoder.identity, "tf32": safe}
    return lowest


def _with_tf32(tf32: bool, forward: Callable[[Any], Any], given: Any) -> Any:
    with multiplying(tf32):
        return forward(given)


@contextmanager
def multiplying(tf32: bool) -> Iterator[None]:
    """Products of float32 matrices and convolutions on GPUs are made in TF32, or not, within this context."""
    from torch.backends import cuda, cudnn

    before = cuda.matmul.allow_tf32, cudnn.allow_tf32
    cuda.matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        cuda.matmul.allow_tf32, cudnn.allow_tf32 = before


def _encoded(
    encoder: Encoder, images: Callable[[], Iterable[Image.Image]], texts: Sequence[str]
) -> Iterator[np.ndarray]:
    """The embeddings of the first pictures, a few at a time, and of the first captions."""
    pictures = islice(images(), CHECKED)
    while few := [*islice(pictures, AT_A_TIME)]:
        yield encoder.encode_images(few)
    yield encoder.encode_texts(texts[:CHECKED])


def _lowest(before: Iterable[np.ndarray], after: Iterable[np.ndarray]) -> float:
    return min((float((a * b).sum(1).min()) for a, b in zip(before, after, strict=True) if len(a)), default=1.0)
