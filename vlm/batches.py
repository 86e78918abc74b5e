"""The images of a shard in batches, for the models of a feed. Rows keep their place.

Only the first of equal rows is encoded. No batch crosses the end of a chunk of rows, so a shard that is resumed at a
chunk runs the same batches as an uninterrupted shard.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vlm.decoders import Causes, Decoded, Work, rows_of
from vlm.encoder import is_out_of_memory, prepared
from vlm.feed import Array, Feed, Later
from vlm.pictures import MAX_PIXELS, DecodeError, decode

if TYPE_CHECKING:
    pass

log = logging.getLogger("bridgescope")

Ints = np.ndarray[Any, np.dtype[np.int64]]
BLOCK = 32  # pictures that a decoding thread or process decodes at a time
WRITTEN_LATER = 64  # batches whose rows wait to be written


class Room:
    """The largest number of rows that a model runs at a time. It is halved when a device's memory runs out."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._lock = threading.Lock()

    def run(self, device: str, rows: int, part: Callable[[slice], Array], dim: int) -> Array:
        """Rows 0 to `rows` by as many calls of `part` as are needed: float32 [rows, dim]."""
        parts: list[Array] = []
        at = 0
        while at < rows:
            size = min(self.rows, rows - at)
            try:
                parts.append(part(slice(at, at + size)))
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                self._halve(device, size)
                continue
            at += size
        return np.concatenate(parts) if parts else np.empty((0, dim), np.float32)

    def _halve(self, device: str, size: int) -> None:
        import torch

        with self._lock:
            if size <= self.rows:  # otherwise another worker has already halved it
                self.rows = size // 2
                log.warning("%s: out of memory with %d rows per batch: continuing with %d", device, size, self.rows)
        if device.startswith("cuda"):
            torch.cuda.empty_cache()  # so that the smaller batch gets contiguous memory


def batch_rows(feed: Feed, most: int, rows: int) -> int:
    """Rows per batch, at most `most`. A small shard is divided evenly, to keep all workers busy."""
    return max(1, min(most, -(-rows // feed.workers)))


def fill_repeats(out: Array, start: int, first_of: Ints, earlier: Callable[[Ints], Array]) -> int:
    """Fill the rows of a chunk that repeat an earlier row. Returns their number.

    out: rows of the chunk that begins at row `start` of the shard, float32 [n, dim]
    """
    first = first_of[start : start + len(out)]
    here = np.flatnonzero((first != np.arange(start, start + len(out))) & (first >= start))
    before = np.flatnonzero(first < start)
    out[here] = out[first[here] - start]
    if len(before):
        out[before] = earlier(first[before])
    return len(here) + len(before)


class Target:
    """A model of a feed that embeds the images of a shard.

    Args:
        number: of the encoder in the feed.
        start: the first row to embed, the start of a chunk. The rows before were embedded by an interrupted call.
        earlier: a function from row numbers to float32 embeddings. It is called for rows of earlier chunks that later
            rows repeat.
        done: called with a number of rows whenever rows are finished.
    """

    def __init__(
        self, number: int, start: int, earlier: Callable[[Ints], Array], done: Callable[[int], object] = lambda _: None
    ) -> None:
        self.number, self.start, self.earlier, self.done = number, start, earlier, done
        self.error: Exception | None = None  #: set when the model failed; the others go on
        self.failures: dict[int, tuple[str, str]] = {}  #: {first row with these bytes: (cause, detail)}, of this call
        self.seconds = 0.0  #: that workers spent on the images of this model


class _Batch(NamedTuple):
    rows: Ints  #: row numbers in the shard, all in one chunk
    result: Future[dict[int, Array | Exception]]  #: by position of the target


class Images:
    """Encodes the images of a shard with several models, in one pass.

    Args:
        feed: entered as a context manager.
        read: `read(start)` yields the bytes of images from row `start` on, None for a missing image.
        first_of: int64 [n]: for each row, the number of the first row with the same content. For most rows this is the
            row itself. Only first rows are encoded.
        targets: the models.
        max_pixels: an image of more pixels fails like an image that cannot be decoded.
        chunk: rows of a chunk.
    """

    def __init__(
        self,
        feed: Feed,
        read: Callable[[int], Iterator[bytes | None]],
        first_of: Ints,
        targets: Sequence[Target],
        max_pixels: int = MAX_PIXELS,
        chunk: int = 1024,
    ) -> None:
        self.feed, self.read, self.first_of, self.targets = feed, read, first_of, list(targets)
        self.max_pixels, self.chunk = max_pixels, chunk
        self._rooms = [Room(feed.batch_size) for _ in self.targets]

    def chunks(self) -> Generator[tuple[int, int, list[Array | None]], None, None]:
        """Yield (start, stop, rows of each target) of each chunk that some target needs, in order.

        The rows are float32 [stop - start, dim], NaN for an image that is missing or broken; None for a target that
        has embedded the chunk before, or has failed.
        """
        batches: queue.Queue[_Batch | Exception | None] = queue.Queue(WRITTEN_LATER)
        stop = threading.Event()
        reader = threading.Thread(target=self._submit_all, args=(batches, stop), name="read")
        reader.start()
        begun: list[_Batch] = []
        try:
            for target in self.targets:
                target.done(target.start)
            batch = self._next(batches, begun)
            for start in range(self._first(), len(self.first_of), self.chunk):
                end = min(start + self.chunk, len(self.first_of))
                out = [self._empty(target, start, end) for target in self.targets]
                while batch is not None and batch.rows[0] < end:
                    self._place(batch, out, start)
                    batch = self._next(batches, begun)
                for target, rows in zip(self.targets, out, strict=True):
                    if rows is not None and target.error is None:
                        target.done(fill_repeats(rows, start, self.first_of, target.earlier))
                yield start, end, [o if t.error is None else None for t, o in zip(self.targets, out, strict=True)]
                if all(target.error is not None for target in self.targets):
                    return
        finally:
            stop.set()
            reader.join()
            while not batches.empty():
                left = batches.get()
                begun += [left] if isinstance(left, _Batch) else []
            for each in begun:  # their workers use the slots
                each.result.exception()

    def _first(self) -> int:
        return min(target.start for target in self.targets)

    def _empty(self, target: Target, start: int, end: int) -> Array | None:
        if target.start > start or target.error is not None:
            return None
        return np.full((end - start, self.feed.encoders[target.number].dim), np.nan, np.float32)

    def _next(self, batches: queue.Queue[_Batch | Exception | None], begun: list[_Batch]) -> _Batch | None:
        batch = batches.get()
        if isinstance(batch, Exception):
            raise batch
        begun[:] = [each for each in begun if not each.result.done()]
        begun += [] if batch is None else [batch]
        return batch

    def _place(self, batch: _Batch, out: list[Array | None], start: int) -> None:
        """Put the rows of a batch into the rows of its chunk."""
        for place, found in batch.result.result().items():
            target, rows = self.targets[place], out[place]
            if isinstance(found, Exception):
                target.error = target.error or found
            elif rows is not None:
                rows[batch.rows - start] = found
                target.done(len(batch.rows))

    # In the reading thread

    def _submit_all(self, batches: queue.Queue[_Batch | Exception | None], stop: threading.Event) -> None:
        """Put every batch into the queue, then None; or an error that ended the reading."""
        last: Exception | None = None
        try:
            for batch in self._batches(stop):
                _put(batches, batch, stop)
        except Exception as error:
            last = error
        _put(batches, last, stop)

    def _batches(self, stop: threading.Event) -> Iterator[_Batch]:
        """Submit batches, from the first row that is needed on, in the order of chunks."""
        first, total = self._first(), len(self.first_of)
        size = batch_rows(self.feed, self.feed.batch_size, total)
        stream = self.read(first)
        for begin in range(first, total, self.chunk):
            end = min(begin + self.chunk, total)
            is_first = (self.first_of[begin:end] == np.arange(begin, end)).tolist()
            opened: _Open | None = None
            for row in range(begin, end, BLOCK):
                with self.feed.timed("read"):
                    given = list(islice(stream, min(BLOCK, end - row)))
                flags = is_first[row - begin : row - begin + len(given)]
                fresh = [(row + n, data) for n, data in enumerate(given) if data is not None and flags[n]]
                while fresh:
                    if opened is None:
                        slot = self.feed.take(stop)
                        if slot is None:
                            return
                        opened = _Open(slot, size)
                    fresh = opened.add(fresh)
                    self._decode(opened)
                    if opened.is_full:
                        yield self._submit(opened, begin)
                        opened = None
            if opened is not None:
                yield self._submit(opened, begin)

    def _decode(self, opened: _Open) -> None:
        """Submit the pictures that no decoder has yet, if they are a block or the last of the batch."""
        if len(opened.data) >= BLOCK or opened.is_full:
            work = Work(opened.slot, opened.places(), opened.data, self.max_pixels)
            opened.decoding.append(self.feed.decode(work))
            opened.data = []

    def _submit(self, opened: _Open, chunk: int) -> _Batch:
        if opened.data:
            opened.size = len(opened.rows)
            self._decode(opened)
        wanted = [place for place, target in enumerate(self.targets) if target.start <= chunk]
        rows = np.array(opened.rows, np.int64)
        return _Batch(rows, self.feed.forward(lambda: self._run(opened, rows, wanted)))

    # In a worker

    def _run(self, opened: _Open, rows: Ints, wanted: list[int]) -> dict[int, Array | Exception]:
        """Embed a batch with each of the wanted targets."""
        try:
            failures: dict[int, Causes] = {}
            began = time.perf_counter()
            for each in opened.decoding:
                failures.update(each.result().failures)
            if self.feed.decode_ahead:
                self.feed.spent("wait", time.perf_counter() - began)
            found: dict[int, Array | Exception] = {}
            for place in wanted:
                if self.targets[place].error is None:
                    try:
                        found[place] = self._embed(place, opened.slot, rows, failures)
                    except Exception as error:
                        found[place] = error
            return found
        finally:
            self.feed.release(opened.slot)

    def _embed(self, place: int, slot: int, rows: Ints, failures: dict[int, Causes]) -> Array:
        target, began = self.targets[place], time.perf_counter()
        encoder, view = self.feed.encoders[target.number], self.feed.view_of[target.number]
        failed = {at: cause for at, causes in failures.items() if (cause := causes.get(None) or causes.get(view))}
        target.failures.update({int(rows[at]): cause for at, cause in failed.items()})
        inputs = self.feed.slot(slot)[view]
        sound = [at for at in range(len(rows)) if at not in failed]
        inputs = rows_of(inputs, sound if failed else slice(0, len(rows)))

        def part(some: slice) -> Array:
            return self.feed.rows(encoder.pixel_features, rows_of(inputs, some), "pictures")

        found = self._rooms[place].run(encoder.device, len(sound), part, encoder.dim)
        self.feed.spent("forward", 0.0, len(sound))
        target.seconds += time.perf_counter() - began  # of several workers, so a few additions may be lost
        if not failed:
            return found
        out = np.full((len(rows), encoder.dim), np.nan, np.float32)
        out[sound] = found
        return out


def causes_of(
    feed: Feed,
    target: Target,
    read: Callable[[int], Iterator[bytes | None]],
    first_of: Ints,
    rows: Sequence[int],
    max_pixels: int = MAX_PIXELS,
) -> dict[int, tuple[str, str]]:
    """{row: (cause, detail)} of those of a target's failed rows whose bytes are in the shard.

    Rows that an interrupted call has encoded are decoded again, which gives their cause.
    """
    found: dict[int, tuple[str, str]] = {}
    resize = feed.encoders[target.number].pixels.resize
    for row in rows:
        first = int(first_of[row])
        if first not in target.failures and (data := next(read(first))) is not None:
            target.failures[first] = ("failed in an interrupted run", "")
            try:
                prepared(resize, decode(data, max_pixels))
            except DecodeError as error:
                target.failures[first] = (error.cause, error.detail)
        if first in target.failures:
            found[row] = target.failures[first]
    return found


class _Open:
    """A batch that is being filled."""

    def __init__(self, slot: int, size: int) -> None:
        self.slot, self.size = slot, size
        self.rows: list[int] = []
        self.data: list[bytes] = []  # of the last rows, which no decoder has yet
        self.decoding: list[Future[Decoded] | Later] = []

    @property
    def is_full(self) -> bool:
        return len(self.rows) == self.size

    def add(self, given: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Add (row, bytes) of pictures as far as there is room. Returns the others."""
        room = self.size - len(self.rows)
        self.rows += [row for row, _ in given[:room]]
        self.data += [data for _, data in given[:room]]
        return given[room:]

    def places(self) -> list[int]:
        """Places in the slot of the pictures that no decoder has yet."""
        return list(range(len(self.rows) - len(self.data), len(self.rows)))


def _put(batches: queue.Queue[Any], item: object, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            return batches.put(item, timeout=0.2)
        except queue.Full:
            continue
