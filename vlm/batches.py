"""Embedding of images and captions in batches: workers run the model while threads decode ahead. Both are timed.

Decoding runs in threads, because Pillow releases the interpreter's lock (134 images/s of 640 x 480 pixels on one core,
277 on two cores). Processes would have to send the pixels back. There is one worker per GPU. A CPU has one worker per
core, each with one thread. A single worker that splits every operation over all cores would wait at each operation for
the core that is decoding (ViT-B-32, two cores, float32: 13.2 images/s instead of 16.2). No batch crosses the end of a
chunk of rows, so a shard that is resumed at a chunk runs the same batches as an uninterrupted shard.
"""

from __future__ import annotations

import functools
import logging
import os
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vlm.encoder import is_out_of_memory
from vlm.pictures import MAX_PIXELS, DecodeError, decode

if TYPE_CHECKING:
    from vlm.encoder import Encoder

log = logging.getLogger("bridgescope")

Array = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
#: Images per batch by default. On a CPU, more than 16 images per core gain nothing. A GPU needs many images.
CPU_BATCH, GPU_BATCH = 16, 256
CAPTIONS_PER_IMAGE = 4  # captions have fewer tokens than images have patches, so a batch holds 4 times as many


def devices(device: str) -> list[str]:
    """The devices that a study's `device` means: "auto" and "cuda" mean every GPU, any other name one device."""
    import torch

    count = torch.cuda.device_count()
    return [f"cuda:{number}" for number in range(count)] if device in ("auto", "cuda") and count > 1 else [device]


class Later(NamedTuple):
    """A stand-in for a future: the work is done when its result is asked for."""

    work: Callable[[], Any]

    def result(self) -> Any:
        """Do the work and return its result."""
        return self.work()


class EncoderPool:
    """Worker threads that run encoders, and threads that decode pictures for them. The pool is a context manager.

    Args:
        encoders: one per device. A single one on a CPU is shared by as many workers as torch has threads.
        batch_size: images per batch, or "auto". A batch of captions holds four times as many captions.
    """

    def __init__(self, encoders: Sequence[Encoder], batch_size: int | str = "auto") -> None:
        import torch

        self._threads = torch.get_num_threads()
        on_cpu = all(encoder.device == "cpu" for encoder in encoders)
        shared = self._threads if on_cpu and len(encoders) == 1 else 1
        self.encoders = [encoder for encoder in encoders for _ in range(shared)]
        self.batch_size = (CPU_BATCH if on_cpu else GPU_BATCH) if batch_size == "auto" else int(batch_size)
        self.forwarded = 0  #: rows that went through a model
        #: mean seconds per worker: `read` in decoding or waiting for it, `forward` in the model
        self.seconds = {"read": 0.0, "forward": 0.0}
        self._lock = threading.Lock()
        self._idle: queue.SimpleQueue[Encoder] = queue.SimpleQueue()
        for encoder in self.encoders:
            self._idle.put(encoder)
        self._one_thread_each = on_cpu and len(self.encoders) > 1
        #: When workers fill every core, decoding ahead gains nothing. More threads than cores evict each other from the
        #: caches and wait for the interpreter's lock (EfficientNet-Lite0 on two cores fell to a quarter of its speed).
        self._decode_ahead = not on_cpu or len(self.encoders) < (os.cpu_count() or 1)
        self._forward = ThreadPoolExecutor(len(self.encoders), thread_name_prefix="forward")
        self._decode = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")

    def __enter__(self) -> EncoderPool:
        import torch

        if self._one_thread_each:  # threads that start later inherit this number
            torch.set_num_threads(1)
        return self

    def __exit__(self, *_: object) -> None:
        import torch

        self._forward.shutdown(cancel_futures=True)
        self._decode.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads)

    def decode(self, work: Callable[[], Any]) -> Future[Any] | Later:
        """Run some work in a decoding thread. Without decoding ahead, the worker that wants the result does."""
        return self._decode.submit(work) if self._decode_ahead else Later(work)

    def forward(self, work: Callable[[Encoder], Array]) -> Future[Array]:
        """Run some work on the encoder of the next free worker. Work begins in the order of the calls of `forward`."""
        return self._forward.submit(self._with_encoder, work)

    def _with_encoder(self, work: Callable[[Encoder], Array]) -> Array:
        encoder = self._idle.get()
        try:
            return work(encoder)
        finally:
            self._idle.put(encoder)

    def spent(self, part: str, since: float, rows: int = 0) -> None:
        """Add the seconds since `since` to `seconds[part]`, and `rows` to `forwarded`."""
        with self._lock:
            self.seconds[part] += (time.perf_counter() - since) / len(self.encoders)
            self.forwarded += rows


class _Batch(NamedTuple):
    rows: Ints  #: row numbers in the shard, all in one chunk
    result: Future[Array]


class _Batches(ABC):
    """The rows of a shard in batches. The pool's workers run batches before the caller of `encode` asks for them.

    Args:
        first_of: int64 [n]: for each row, the number of the first row with the same content. For most rows this is the
            row itself. Only first rows are encoded.
        earlier: a function from row numbers to float32 embeddings. It is called for rows of earlier chunks that later
            rows repeat.
        chunk: rows per call of `encode`; no batch crosses the end of a chunk.
        done: called with the number of rows whenever rows are finished.
    """

    def __init__(
        self,
        pool: EncoderPool,
        first_of: Ints,
        earlier: Callable[[Ints], Array],
        chunk: int = 1024,
        done: Callable[[int], object] = lambda rows: None,
    ) -> None:
        self.pool, self.first_of, self.earlier, self.chunk, self.done = pool, first_of, earlier, chunk, done
        self.dim = pool.encoders[0].dim
        self.largest = pool.batch_size  #: largest number of rows in a batch; shrinks if memory runs out
        self._waiting: deque[_Batch] = deque()
        self._source: Iterator[_Batch] | None = None
        self._lock = threading.Lock()

    @abstractmethod
    def _batches(self, start: int) -> Iterator[_Batch]:
        """Submit batches to the pool, from row `start` on, in the order of chunks."""

    def encode(self, start: int, stop: int) -> Array:
        """Embeddings of rows start to stop: float32 [stop - start, dim], NaN for an image that is missing or broken.

        Call it once per chunk, in order; the first call may be for any chunk.
        """
        if self._source is None:
            self.done(start)
            self._source = self._batches(start)
        out = np.full((stop - start, self.dim), np.nan, np.float32)
        while self._fill() and self._waiting[0].rows[0] < stop:
            batch = self._waiting.popleft()
            out[batch.rows - start] = batch.result.result()
            self.done(len(batch.rows))
        first = self.first_of[start:stop]
        here = np.flatnonzero((first != np.arange(start, stop)) & (first >= start))
        before = np.flatnonzero(first < start)
        out[here] = out[first[here] - start]
        if len(before):
            out[before] = self.earlier(first[before])
        self.done(len(here) + len(before))
        return out

    def _size(self, most: int) -> int:
        """Rows per batch, at most `most`. A small shard is divided evenly, to keep all workers busy."""
        return max(1, min(most, -(-len(self.first_of) // len(self.pool.encoders))))

    def _fill(self) -> bool:
        """Submit batches until three per worker are waiting, or none is left. Returns whether a batch is waiting."""
        assert self._source is not None
        while len(self._waiting) < 3 * len(self.pool.encoders):
            batch = next(self._source, None)
            if batch is None:
                break
            self._waiting.append(batch)
        return bool(self._waiting)

    def _forward(self, encoder: Encoder, rows: int, run: Callable[[slice], Array]) -> Array:
        """Run rows through the model. A batch that does not fit the device is halved, and so are all later batches."""
        began = time.perf_counter()
        parts: list[Array] = []
        at = 0
        while at < rows:
            size = min(self.largest, rows - at)
            try:
                parts.append(run(slice(at, at + size)))
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                self._shrink(encoder.device, size)
                continue
            at += size
        self.pool.spent("forward", began, rows)
        return np.concatenate(parts) if parts else np.empty((0, self.dim), np.float32)

    def _shrink(self, device: str, size: int) -> None:
        import torch

        with self._lock:
            if size <= self.largest:  # otherwise another worker has already halved `largest`
                self.largest = size // 2
                log.warning("%s: out of memory with %d rows a batch: going on with %d", device, size, self.largest)
        if device.startswith("cuda"):
            torch.cuda.empty_cache()  # so that the smaller batch gets contiguous memory


class ImageBatches(_Batches):
    """Encodes the images of a shard. `read(start)` yields their bytes from row `start` on, None for a missing image.

    An image of more than `max_pixels` fails like an image that cannot be decoded.
    """

    def __init__(
        self,
        pool: EncoderPool,
        read: Callable[[int], Iterator[bytes | None]],
        first_of: Ints,
        earlier: Callable[[Ints], Array],
        max_pixels: int = MAX_PIXELS,
        **options: Any,
    ) -> None:
        super().__init__(pool, first_of, earlier, **options)
        self.read, self.max_pixels = read, max_pixels
        self._failures: dict[int, DecodeError] = {}  # of this call, by the first row with the same bytes

    def failures(self, rows: Sequence[int]) -> dict[int, tuple[str, str]]:
        """{row: (cause, detail)} of those of the failed rows whose bytes are in the shard.

        Rows that an interrupted call has encoded are decoded again, which gives their cause.
        """
        found: dict[int, tuple[str, str]] = {}
        for row in rows:
            first = int(self.first_of[row])
            if first not in self._failures and (data := next(self.read(first))) is not None:
                self._prepared(first, data)
                self._failures.setdefault(first, DecodeError("failed in an interrupted run"))
            if first in self._failures:
                found[row] = (self._failures[first].cause, self._failures[first].detail)
        return found

    def _batches(self, start: int) -> Iterator[_Batch]:
        stream = self.read(start)
        size = self._size(self.pool.batch_size)
        for begin in range(start, len(self.first_of), self.chunk):
            fresh: list[tuple[int, Future[Any] | Later]] = []
            end = min(begin + self.chunk, len(self.first_of))
            for row in range(begin, end):
                data = next(stream)
                if data is not None and self.first_of[row] == row:
                    fresh.append((row, self.pool.decode(functools.partial(self._prepared, row, data))))
                if fresh and (len(fresh) == size or row == end - 1):
                    yield self._batch(fresh)
                    fresh = []

    def _prepared(self, row: int, data: bytes) -> Any:
        """The input of the model for an image. None if the image fails: its row stays NaN and its cause is kept."""
        try:
            return self.pool.encoders[0].prepared(decode(data, self.max_pixels))
        except DecodeError as error:
            self._failures[row] = error
            return None

    def _batch(self, fresh: list[tuple[int, Future[Any] | Later]]) -> _Batch:
        def work(encoder: Encoder) -> Array:
            began = time.perf_counter()
            pixels = [future.result() for _, future in fresh]
            self.pool.spent("read", began)
            sound = [place for place, picture in enumerate(pixels) if picture is not None]
            out = np.full((len(fresh), self.dim), np.nan, np.float32)
            out[sound] = self._forward(
                encoder,
                len(sound),
                lambda part: encoder.encode_pixels(encoder.collate([pixels[place] for place in sound[part]])),
            )
            return out

        return _Batch(np.array([row for row, _ in fresh], np.int64), self.pool.forward(work))


class TextBatches(_Batches):
    """Encodes the captions of a shard; each chunk is sorted by length, shortest first, so that there is little padding.

    `captions(start, stop)` returns a range of the captions.
    """

    def __init__(
        self,
        pool: EncoderPool,
        captions: Callable[[int, int], list[str]],
        first_of: Ints,
        earlier: Callable[[Ints], Array],
        **options: Any,
    ) -> None:
        super().__init__(pool, first_of, earlier, **options)
        self.captions = captions
        self.largest = CAPTIONS_PER_IMAGE * pool.batch_size
        self._start: int | None = None
        self._too_long = np.zeros(len(first_of), dtype=bool)

    def _batches(self, start: int) -> Iterator[_Batch]:
        self._start = start
        size = self._size(CAPTIONS_PER_IMAGE * self.pool.batch_size)
        for begin in range(start, len(self.first_of), self.chunk):
            end = min(begin + self.chunk, len(self.first_of))
            rows = begin + np.flatnonzero(self.first_of[begin:end] == np.arange(begin, end))
            if not len(rows):
                continue
            given = self.captions(begin, end)
            tokens = self.pool.encoders[0].tokenize([given[row - begin] for row in rows])
            self._too_long[rows] = tokens.truncated.numpy()
            for places in tokens.by_length().split(size):
                yield self._batch(rows[places.numpy()], tokens.batch(places))

    def _batch(self, rows: Ints, inputs: dict[str, Any]) -> _Batch:
        def work(encoder: Encoder) -> Array:
            def run(part: slice) -> Array:
                return encoder.encode_tokens({name: values[part] for name, values in inputs.items()})

            return self._forward(encoder, len(rows), run)

        return _Batch(rows, self.pool.forward(work))

    def truncated(self) -> int:
        """Number of captions of the whole shard that are longer than the model's context. Captions that an interrupted
        call has encoded are tokenized again, not encoded again."""
        before = len(self.first_of) if self._start is None else self._start
        for begin in range(0, before, self.chunk):
            end = min(begin + self.chunk, before)
            tokens = self.pool.encoders[0].tokenize(self.captions(begin, end))
            self._too_long[begin:end] = tokens.truncated.numpy()
        return int(self._too_long[self.first_of].sum())
