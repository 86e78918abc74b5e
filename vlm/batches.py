"""Images and captions through an encoder in batches: decoding runs ahead of the forward pass, each part is timed.

Batches start at the rows they are asked for, so a resumed shard runs the same batches as an uninterrupted one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from vlm.decode import DecodeError, decode

if TYPE_CHECKING:
    from torch import Tensor

    from vlm.encoder import Encoder

Array = np.ndarray[Any, np.dtype[np.float32]]


class ImageBatches:
    """Encodes ranges of a list of encoded images; while one batch is in the model, the next are being decoded."""

    def __init__(self, encoder: Encoder, images: Sequence[bytes | None], batch_size: int, ahead: int = 2) -> None:
        self.encoder, self.images, self.batch_size, self.ahead = encoder, images, batch_size, ahead
        self.seconds = {"read": 0.0, "forward": 0.0}  #: time spent waiting for decoded images, and in the model
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")
        self._pending: dict[int, Future[Tensor | None]] = {}

    def __enter__(self) -> ImageBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def encode(self, start: int, stop: int) -> Array:
        """Embed rows start to stop: float32 [stop - start, dim], NaN for an image that is missing or broken."""
        import torch

        out = np.full((stop - start, self.encoder.dim), np.nan, np.float32)
        for first in range(start, stop, self.batch_size):
            last = min(first + self.batch_size, stop)
            began = time.perf_counter()
            self._submit(first, min(last + self.ahead * self.batch_size, len(self.images)))
            decoded = {row: self._pending.pop(row).result() for row in range(first, last)}
            pixels = {row: tensor for row, tensor in decoded.items() if tensor is not None}
            self.seconds["read"] += time.perf_counter() - began
            if pixels:
                began = time.perf_counter()
                rows = np.array(list(pixels)) - start
                out[rows] = self.encoder.encode_pixels(torch.stack(list(pixels.values())))
                self.seconds["forward"] += time.perf_counter() - began
        return out

    def _submit(self, first: int, last: int) -> None:
        for row in range(first, last):
            if row not in self._pending:
                self._pending[row] = self._pool.submit(self._decoded, row)

    def _decoded(self, row: int) -> Tensor | None:
        data = self.images[row]
        if data is None:
            return None
        try:
            return self.encoder.preprocess(decode(data))
        except DecodeError:
            return None  # its row stays NaN and is named in failed_rows


class TextBatches:
    """Encodes ranges of a list of captions."""

    def __init__(self, encoder: Encoder, captions: Sequence[str], batch_size: int) -> None:
        self.encoder, self.captions, self.batch_size = encoder, captions, batch_size
        self.seconds = {"forward": 0.0}

    def encode(self, start: int, stop: int) -> Array:
        """Embed captions start to stop: float32 [stop - start, dim]."""
        began = time.perf_counter()
        firsts = range(start, stop, self.batch_size)
        batches = [self.encoder.encode_texts(list(self.captions[i : min(i + self.batch_size, stop)])) for i in firsts]
        self.seconds["forward"] += time.perf_counter() - began
        return np.concatenate(batches)
