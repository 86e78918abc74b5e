"""One pass over a shard of pairs: its images are decoded once for all models, and each model's dataset is written."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from storage.dataset import Dataset
from storage.embeddings import CHUNK, Writer, failed_rows, failures_attribute, finish, written_rows
from storage.listing import SHARD_ROWS
from storage.streams import captions_of, first_images, first_of, image_bytes
from tasks.progress import bar
from tasks.stage import Runtime
from vlm.batches import Images, Ints, Target, causes_of
from vlm.feed import Feed
from vlm.texts import Texts

log = logging.getLogger("bridgescope")

LOG_EVERY = 30.0  # seconds between progress lines


class Ask(NamedTuple):
    """A model of a pass, and the folder that its embeddings are written to."""

    out: Path
    number: int  #: of the encoder in the feed
    dtype: str
    name: str  #: for the progress bar


class Made(NamedTuple):
    """What a pass made of one model."""

    rows: int  #: that did not fail
    seconds: float  #: that workers spent on this model alone


class Shard(NamedTuple):
    """What a pass reads."""

    store: Path
    pairs: Dataset
    number: int  #: of the shard
    same_bytes: Ints  #: for each image, the first row with the same bytes
    captions: pl.Series
    same_caption: Ints

    @property
    def rows(self) -> tuple[int, int]:
        """Numbers of images and captions."""
        return len(self.same_bytes), len(self.captions)


def shard_of(store: Path, pairs: Dataset) -> Shard:
    """Read what a pass needs of a shard, without the bytes of its images."""
    image_id, same_bytes = first_images(store, pairs)
    captions = captions_of(store, pairs)
    return Shard(store, pairs, image_id // SHARD_ROWS, same_bytes, captions, first_of(captions))


def run_pass(
    feed: Feed, asks: Sequence[Ask], shard: Shard, runtime: Runtime, max_pixels: int
) -> list[Made | Exception]:
    """Embed a shard with some models of a feed. A model that fails does not stop the others.

    Returns for each model what was made, or its error. Raises an error that is not of one model, such as that of a
    machine without memory for an ordinary picture.
    """
    began = time.perf_counter()
    names = ", ".join(ask.name for ask in asks)
    total = sum(shard.rows) * len(asks)
    with feed, bar(total, f"embed  {names} shard {shard.number}", show=runtime.progress) as progress:
        told = _ProgressLog(shard.number, total, progress)
        targets = _images(feed, asks, shard, max_pixels, told)
        found: list[Made | Exception] = []
        for ask, target in zip(asks, targets, strict=True):
            if target.error is None:
                try:
                    found.append(_finished(feed, ask, target, shard, max_pixels, told))
                except Exception as error:
                    target.error = error
            if target.error is not None:
                if len(asks) == 1:
                    raise target.error
                found.append(target.error)
    _summary(feed, shard, len(asks), time.perf_counter() - began)
    return found


def _images(
    feed: Feed, asks: Sequence[Ask], shard: Shard, max_pixels: int, done: Callable[[int], object]
) -> list[Target]:
    """Embed and write the images of a shard."""
    dims = [feed.encoders[ask.number].dim for ask in asks]
    writers = [Writer(ask.out, "image", shard.rows[0], dim) for ask, dim in zip(asks, dims, strict=True)]
    targets = [
        Target(ask.number, writer.start, partial(written_rows, ask.out, "image"), done)
        for ask, writer in zip(asks, writers, strict=True)
    ]
    images = Images(feed, lambda start: image_bytes(shard.store, shard.pairs, start), shard.same_bytes, targets,
                    max_pixels, CHUNK)  # fmt: skip
    with closing(images.chunks()) as chunks:
        for start, _, blocks in chunks:
            with feed.timed("write"):
                for target, writer, block in zip(targets, writers, blocks, strict=True):
                    if block is not None:
                        try:
                            writer.write(start, block)
                        except Exception as error:  # of this dataset alone, such as a value that is too large
                            target.error = error
    return targets


def _finished(
    feed: Feed, ask: Ask, target: Target, shard: Shard, max_pixels: int, done: Callable[[int], object]
) -> Made:
    """Embed and write the captions with one model, whose images are written, and finish its dataset."""
    encoder, out = feed.encoders[ask.number], ask.out
    writer = Writer(out, "text", shard.rows[1], encoder.dim)
    texts = Texts(
        feed,
        encoder,
        lambda start, stop: shard.captions[start:stop].to_list(),
        shard.same_caption,
        partial(written_rows, out, "text"),
        start=writer.start,
        chunk=CHUNK,
        done=done,
    )
    began = time.perf_counter()
    for start, _, block in texts.chunks():
        with feed.timed("write"):
            writer.write(start, block)
    seconds = target.seconds / feed.workers + time.perf_counter() - began
    truncated = texts.truncated()
    failed = failed_rows(out)
    causes = causes_of(
        feed, target, lambda start: image_bytes(shard.store, shard.pairs, start), shard.same_bytes, failed, max_pixels
    )
    finish(
        out,
        {
            "model": encoder.identity, "dtype": ask.dtype, "shard": shard.number, "failed_rows": failed,
            "truncated_captions": truncated, **failures_attribute(causes),
        },
    )  # fmt: skip
    if failed or truncated:
        log.info(
            "shard %d: %d images failed, %d captions cut to the model's context", shard.number, len(failed), truncated
        )
    if causes:
        told = ", ".join(f"{count} {cause}" for cause, count in Counter(cause for cause, _ in causes.values()).items())
        log.warning("shard %d: %d images were acquired but not embedded: %s", shard.number, len(causes), told)
    return Made(sum(shard.rows) - len(failed), seconds)


class _ProgressLog:
    """Progress of a shard: a bar in a terminal, else a log line every 30 s with rows/s and the time left."""

    def __init__(self, shard: int, total: int, progress: Any) -> None:
        self.shard, self.total, self.progress = shard, total, progress
        self.done, self.began, self.logged = 0, time.perf_counter(), time.perf_counter()

    def __call__(self, rows: int) -> None:
        self.done += rows
        self.progress.update(rows)
        now = time.perf_counter()
        if self.progress.disable and now - self.logged > LOG_EVERY:
            self.logged, rate = now, self.done / (now - self.began)
            left = (self.total - self.done) / rate
            log.info("shard %d: %d of %d rows, %.1f rows/s, %.0f s left", self.shard, self.done, self.total, rate, left)


def _summary(feed: Feed, shard: Shard, models: int, seconds: float) -> None:
    """Log where the time of a pass went. The parts run in parallel, so they do not add up to the whole.

    Reading and writing are those of one thread each. Decoding is in seconds of a core. Waiting for pictures, and on a
    CPU the forward passes, are the mean of the workers. On CUDA copying and the forward passes are timed by the device.
    """
    spent = feed.seconds
    forward = spent["forward"] / (feed.workers if feed.on_cpu else 1)
    log.info(
        "shard %d: %d images, %d captions, %d rows forward in %.1f s (%.1f rows/s, %d models): read %.1f s, "
        "decode %.1f s of %d cores, wait %.1f s, copy %.1f s, forward %.1f s, write %.1f s",
        *(shard.number, *shard.rows, feed.forwarded, seconds, sum(shard.rows) * models / max(seconds, 1e-9), models),
        *(spent["read"], spent["decode"], feed.cores, spent["wait"] / feed.workers, spent["copy"]),
        *(forward, spent["write"]),
    )
