"""Pictures of one grey and what an encoder makes of them, for tests of the feed; other processes import this module."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image

from vlm.batches import Images, Target
from vlm.encoder import Encoder
from vlm.feed import Feed
from vlm.pixels import Constants, Pixels, _by_steps, _finish_rows
from vlm.thin import unchanged

ROWS = Pixels(
    functools.partial(_by_steps, unchanged, ()), functools.partial(_finish_rows, Constants((0.0,), (1.0,))), "a"
)


def expected(value: float) -> np.ndarray:
    return np.array([np.cos(value / 100), np.sin(value / 100)], np.float32)


def png(grey: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (2, 2), (grey, grey, grey)).save(out, "png")
    return out.getvalue()


BROKEN = b"<html>404</html>"


def unrepeated(rows: Sequence[object]) -> np.ndarray:
    return np.arange(len(rows), dtype=np.int64)


def none_earlier(rows: np.ndarray) -> np.ndarray:
    raise AssertionError(f"asked for earlier rows {rows}")


def read_from(images: Sequence[bytes | None]):
    return lambda start: iter(images[start:])


def embedded(feed: Feed, images: Sequence[bytes | None], start: int = 0, chunk: int = 64, **options) -> np.ndarray:
    """The rows of the first model from row `start` on."""
    target = Target(0, start, none_earlier)
    pass_ = Images(feed, read_from(images), unrepeated(images), [target], chunk=chunk, **options)
    rows = [blocks[0] for _, _, blocks in pass_.chunks()]
    if target.error is not None:
        raise target.error
    return np.concatenate(rows)


class Greys(Encoder):
    """An encoder on an accelerator, with the embeddings of `test_batches.expected`."""

    def __init__(self, size: int) -> None:
        self.dim, self.device, self.dtype, self.identity = 2, "accelerator", torch.float32, {}
        step = functools.partial(torch.nn.Identity())  # a step that can be pickled, of a library
        self.pixels = ROWS._replace(resize=functools.partial(_by_steps, functools.partial(_square, size), (step,)))

    def pixel_features(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        angle = inputs["rows"][:, 0, 0, 0].float() / 100
        return torch.stack([angle.cos(), angle.sin()], 1)

    preprocess = image_features = tokenize = token_features = None  # type: ignore[assignment]


def _square(size: int, image):
    return image.resize((size, size))
