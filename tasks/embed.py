"""Embed: embed one shard of pairs with one model into Zarr arrays. An interrupted call is resumed where it stopped."""

from __future__ import annotations

import functools
import logging
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

import vlm
from storage.dataset import Dataset
from storage.embeddings import CHUNK, failed_rows, failures_attribute, finish, write_modality, written_rows
from storage.errors import BadInput
from storage.fingerprints import fingerprint, stamp
from storage.listing import SHARD_ROWS
from storage.memo import read_memo, update_memo
from storage.pairs import read_images
from storage.streams import captions_of, first_images, first_of, image_bytes
from storage.vector_shards import forget, open_folder
from tasks.progress import bar
from tasks.stage import Runtime, stage
from vlm.batches import EncoderPool, ImageBatches, TextBatches, devices
from vlm.encoder import Encoder
from vlm.pictures import MAX_PIXELS
from vlm.precision import CHECKED, make_ready
from vlm.spec import Spec

if TYPE_CHECKING:
    from PIL import Image

COMMITS = TypeAdapter(dict[str, str])
log = logging.getLogger("bridgescope")

LOG_EVERY = 30.0  # seconds between progress lines


def model_identity(spec: str, store: Path) -> tuple[str, str]:
    """Return (identity of a model for recipes, spec with which to load it). The model is not loaded.

    The identity of a local folder is the fingerprint of its files, whatever its path. The identity of a hub repository
    is its commit, which is resolved once per store and kept in `sources/revisions.json`. Raises BadInput for a folder
    that does not exist.
    """
    parsed = Spec.parse(spec)
    if parsed.path is not None:
        folder = Path(parsed.path).expanduser()
        if not folder.is_dir():
            raise BadInput(f"{parsed}: no such folder")
        return str(parsed.with_path(fingerprint(folder, store / "sources" / "fingerprints.json"))), spec
    if not parsed.on_hub:
        return str(parsed), spec
    pinned = str(_with_commit(parsed, store / "sources" / "revisions.json"))
    return pinned, pinned


def _with_commit(spec: Spec, memo: Path) -> Spec:
    """Turn REPOSITORY[@REVISION] in a spec into REPOSITORY@COMMIT.

    COMMIT is the commit to which this store first resolved the repository and revision.
    """
    from vlm import hub

    repository, revision = spec.repository()
    if revision and hub.COMMIT.fullmatch(revision):
        return spec
    name = f"{repository}@{revision}" if revision else repository
    commits = read_memo(memo, COMMITS)
    if name not in commits:
        commits = update_memo(memo, COMMITS, {name: hub.resolve(spec)}, first_stays=True)
    return spec.with_revision(commits[name])


@functools.lru_cache(maxsize=1)
def load_encoders(model: Dataset | str, spec: str, device: str, dtype: str, store: Path) -> list[Encoder]:
    """Load a model in float32 on each device that `device` names. `spec` states where `model` is loaded from.

    The last model is cached, since the shards of a model are embedded one after another. The identity of the model is
    part of the cache key, so a folder whose files were replaced is loaded again. `embed` casts the cached encoders in
    place, so `dtype` is part of the key too. Raises BadInput if the folder now holds another model.
    """
    encoders = [vlm.load(spec, device=place) for place in devices(device)]
    if isinstance(model, str) and model_identity(spec, store)[0] != model:
        raise BadInput(f"{spec}: its files changed while the study was running: run the study again")
    return encoders


@stage("embeddings", version="2", unhashed=("spec",), resumes=True, on_device=True)
def embed(
    out: Path,
    pairs: Dataset,
    model: Dataset | str,
    dtype: str,
    spec: str,
    runtime: Runtime,
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Embed the images and captions of a shard. Returns the number of rows that did not fail.

    model: the handle or the identity of the model, which is part of the recipe.
    spec: the spec with which the model is loaded, which is not part of the recipe.
    max_pixels: an image with more pixels is not decoded. Must be at least the limit of `acquire`.
    """
    encoders = load_encoders(model, spec, runtime.device, dtype, runtime.store)
    captions = captions_of(runtime.store, pairs)
    for encoder in encoders:
        _make_ready(encoder, runtime.store, pairs, captions[:CHECKED].to_list(), dtype, spec, max_pixels)
    image_id, same_bytes = first_images(runtime.store, pairs)
    shard, rows = image_id // SHARD_ROWS, (len(same_bytes), len(captions))
    began = time.perf_counter()
    with (
        EncoderPool(encoders, runtime.embed_batch_size) as pool,
        bar(sum(rows), f"embed  {spec.rpartition('/')[2]} shard {shard}", show=runtime.progress) as progress,
    ):
        progress_log = _ProgressLog(shard, sum(rows), progress)
        pictures = ImageBatches(
            pool,
            lambda start: image_bytes(runtime.store, pairs, start),
            same_bytes,
            lambda rows: written_rows(out, "image", rows),
            max_pixels=max_pixels,
            chunk=CHUNK,
            done=progress_log,
        )
        texts = TextBatches(
            pool,
            lambda start, stop: captions[start:stop].to_list(),
            first_of(captions),
            lambda rows: written_rows(out, "text", rows),
            chunk=CHUNK,
            done=progress_log,
        )
        dim = encoders[0].dim
        write_modality(out, "image", rows[0], dim, pictures.encode, lambda _: None)
        write_modality(out, "text", rows[1], dim, texts.encode, lambda _: None)
        truncated = texts.truncated()
        failed = failed_rows(out)
        causes = pictures.failures(failed)
    finish(
        out,
        {
            "model": encoders[0].identity, "dtype": dtype, "shard": shard, "failed_rows": failed,
            "truncated_captions": truncated, **failures_attribute(causes),
        },
    )  # fmt: skip
    _summary(shard, rows, pool, time.perf_counter() - began, len(failed), truncated)
    if causes:
        told = ", ".join(f"{count} {cause}" for cause, count in Counter(cause for cause, _ in causes.values()).items())
        log.warning("shard %d: %d images were acquired but not embedded: %s", shard, len(causes), told)
    return sum(rows) - len(failed)


def _make_ready(
    encoder: Encoder, store: Path, pairs: Dataset, texts: list[str], dtype: str, spec: str, max_pixels: int
) -> None:
    """Let an encoder compute in `dtype`. This is checked with the first captions, and the first images that decode.

    On failure the model is removed from the cache, since some of its weights may be cast already.
    """

    def pictures() -> Iterator[Image.Image]:
        for data in image_bytes(store, pairs):
            try:
                if data is not None:
                    picture = vlm.decode(data, max_pixels)
                    encoder.prepared(picture)
                    yield picture
            except vlm.DecodeError:
                continue  # `embed` counts this image as failed later

    try:
        make_ready(encoder, pictures, texts, dtype, spec)
    except Exception:
        load_encoders.cache_clear()
        raise


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


def _summary(shard: int, rows: tuple[int, int], pool: EncoderPool, seconds: float, failed: int, truncated: int) -> None:
    """Log the time spent on reading, forward passes and writing, and the numbers of failed images and cut captions."""
    spent = pool.seconds
    log.info(
        "shard %d: %d images, %d captions, %d rows forward in %.1f s (%.1f rows/s): "
        "read %.1f s, forward %.1f s, write and the rest %.1f s",
        *(shard, *rows, pool.forwarded, seconds, sum(rows) / max(seconds, 1e-9)),
        *(spent["read"], spent["forward"], max(0.0, seconds - sum(spent.values()))),
    )
    if failed or truncated:
        log.info("shard %d: %d images failed, %d captions cut to the model's context", shard, failed, truncated)


@stage("embeddings", version="2", unhashed=("path",), resumes=True)
def adopt_vectors(out: Path, pairs: Dataset, rows: str, path: str, runtime: Runtime) -> int:
    """Write the user's own vectors of a shard's pairs, normalised. Returns the number of rows.

    rows: digest of these rows in the folder `path`. Raises BadInput if the rows have changed since the digest was made.
    """
    from storage.vectors import unit

    folder = open_folder(Path(path), stamp(Path(path)))
    place = folder.place(runtime.store, pairs)
    if folder.digest(place) != rows:
        forget(runtime.store, Path(path))
        raise BadInput(f"embeddings:{path}: the folder changed while the study was running: run the study again")
    vectors, (image, text) = folder.vectors, place
    ids = read_images(runtime.store, pairs, ["image_id"])["image_id"]
    shard = int(ids[0]) // SHARD_ROWS if len(ids) else None  # a shard has no images if all were removed
    dim = vectors.image.shape[1]
    write_modality(out, "image", len(image), dim, lambda a, b: unit(vectors.image[image[a:b]]), lambda _: None)
    write_modality(out, "text", len(text), dim, lambda a, b: unit(vectors.text[text[a:b]]), lambda _: None)
    finish(out, {"model": {"vectors": rows}, "dtype": str(vectors.image.dtype), "shard": shard, "failed_rows": []})
    return len(image) + len(text)
