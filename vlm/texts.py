"""The captions of a shard in batches, for one model of a feed. Rows keep their place; see `vlm.batches`."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vlm.batches import Ints, Room, batch_rows, fill_repeats
from vlm.decoders import rows_of
from vlm.feed import Array, Feed

if TYPE_CHECKING:
    import torch

    from vlm.encoder import Encoder, Tokens

CAPTIONS_PER_IMAGE = 4  # captions have fewer tokens than images have patches, so a batch holds 4 times as many


class _Encoding(NamedTuple):
    rows: Ints
    result: Future[Array]


class Texts:
    """Encodes the captions of a shard with one model. Each chunk is sorted by length, so that there is little padding.

    Captions are tokenized ahead, in a thread of their own. The arguments are those of `Images`, and

        captions: a function from (start, stop) to a range of the captions.
        start: the first row to embed, the start of a chunk.
    """

    def __init__(
        self,
        feed: Feed,
        encoder: Encoder,
        captions: Callable[[int, int], list[str]],
        first_of: Ints,
        earlier: Callable[[Ints], Array],
        start: int = 0,
        chunk: int = 1024,
        done: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.feed, self.encoder, self.captions = feed, encoder, captions
        self.first_of, self.earlier, self.start, self.chunk, self.done = first_of, earlier, start, chunk, done
        self._room = Room(CAPTIONS_PER_IMAGE * feed.batch_size)
        self._too_long = np.zeros(len(first_of), dtype=bool)

    def chunks(self) -> Iterator[tuple[int, int, Array]]:
        """Yield (start, stop, rows) of each chunk, in order; the rows are float32 [stop - start, dim]."""
        self.done(self.start)
        source = self._batches()
        waiting: deque[_Encoding] = deque()
        for start in range(self.start, len(self.first_of), self.chunk):
            end = min(start + self.chunk, len(self.first_of))
            out = np.empty((end - start, self.encoder.dim), np.float32)
            while self._ahead(source, waiting) and waiting[0].rows[0] < end:
                batch = waiting.popleft()
                out[batch.rows - start] = batch.result.result()
                self.done(len(batch.rows))
            self.done(fill_repeats(out, start, self.first_of, self.earlier))
            yield start, end, out

    def _ahead(self, source: Iterator[_Encoding], waiting: deque[_Encoding]) -> bool:
        """Submit batches until three per worker are waiting, or none is left. Returns whether a batch is waiting."""
        while len(waiting) < 3 * self.feed.workers:
            batch = next(source, None)
            if batch is None:
                break
            waiting.append(batch)
        return bool(waiting)

    def _batches(self) -> Iterator[_Encoding]:
        """Submit batches in the order of chunks, shortest captions first. The next chunk is tokenized meanwhile."""
        size = batch_rows(self.feed, CAPTIONS_PER_IMAGE * self.feed.batch_size, len(self.first_of))
        starts = iter(range(self.start, len(self.first_of), self.chunk))
        ahead: deque[Future[tuple[Ints, Tokens | None]]] = deque()
        while True:
            while len(ahead) < 2 and (start := next(starts, None)) is not None:
                ahead.append(self.feed.tokenize(functools.partial(self._tokens, start)))
            if not ahead:
                return
            rows, tokens = ahead.popleft().result()
            if tokens is None:
                continue
            for places in tokens.by_length().split(size):
                yield self._submit(rows[places.numpy()], tokens.batch(places))

    def _tokens(self, start: int) -> tuple[Ints, Tokens | None]:
        """(rows of a chunk that repeat no other, their tokens or None if there are none)."""
        end = min(start + self.chunk, len(self.first_of))
        rows = start + np.flatnonzero(self.first_of[start:end] == np.arange(start, end))
        if not len(rows):
            return rows, None
        given = self.captions(start, end)
        tokens = self.encoder.tokenize([given[row - start] for row in rows])
        self._too_long[rows] = tokens.truncated.numpy()
        return rows, tokens

    def _submit(self, rows: Ints, inputs: dict[str, torch.Tensor]) -> _Encoding:
        def part(some: slice) -> Array:
            return self.feed.rows(self.encoder.token_features, rows_of(inputs, some), "captions")

        def work() -> Array:
            found = self._room.run(self.encoder.device, len(rows), part, self.encoder.dim)
            self.feed.spent("forward", 0.0, len(rows))
            return found

        return _Encoding(rows, self.feed.forward(work))

    def truncated(self) -> int:
        """Number of captions of the whole shard that are longer than the model's context. Captions that an interrupted
        call has encoded are tokenized again, not encoded again."""
        for begin in range(0, self.start, self.chunk):
            end = min(begin + self.chunk, self.start)
            tokens = self.encoder.tokenize(self.captions(begin, end))
            self._too_long[begin:end] = tokens.truncated.numpy()
        return int(self._too_long[self.first_of].sum())
