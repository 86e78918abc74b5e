"""Embed: one pair shard through one model, into Zarr, going on where an interrupted call stopped."""

from __future__ import annotations

import functools
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np

import vlm
from storage.dataset import Dataset, locked, write_atomically
from storage.embeddings import CHUNK, failed_rows, finish, write_modality, written_rows
from storage.errors import BadInput
from storage.listing import SHARD_ROWS
from storage.pairs import read_captions, read_images
from storage.streams import captions_of, first_images, first_of, image_bytes
from storage.vectors import fingerprint, open_vectors
from tasks.progress import bar
from tasks.stage import Runtime, stage
from vlm.batches import EncoderPool, ImageBatches, TextBatches, devices
from vlm.encoder import Encoder
from vlm.pictures import MAX_PIXELS
from vlm.spec import Spec

log = logging.getLogger("bridgescope")

FIRST_BATCH = 16  # images and captions that a cast to bfloat16 is checked on
TELL_EVERY = 30.0  # seconds between lines on the way


def model_identity(spec: str, store: Path) -> tuple[str, str]:
    """(what a recipe knows of a model, the spec to load it by), without loading it.

    A local folder counts by its bytes, wherever it lies; a hub repository by its commit, which is resolved once for a
    store and kept in `sources/revisions.json`. Raises BadInput for a folder that is not there.
    """
    parsed = Spec.parse(spec)
    if parsed.path is not None:
        folder = Path(parsed.path).expanduser()
        if not folder.is_dir():
            raise BadInput(f"{parsed}: no such folder")
        return str(parsed.with_path(fingerprint(folder, store / "sources" / "fingerprints.json"))), spec
    if parsed.kind == "open_clip":
        return str(parsed), spec
    pinned = str(_pinned(parsed, store / "sources" / "revisions.json"))
    return pinned, pinned


def _pinned(spec: Spec, memo: Path) -> Spec:
    """hf:REPOSITORY@COMMIT of hf:REPOSITORY[@REVISION]: the commit that the store met first."""
    from vlm import hub

    repository, revision = spec.repository()
    if revision and hub.COMMIT.fullmatch(revision):
        return spec
    with locked(memo):
        commits: dict[str, str] = json.loads(memo.read_text()) if memo.exists() else {}
        if spec.rest not in commits:
            commits[spec.rest] = hub.resolve(repository, revision)
            write_atomically(memo, json.dumps(commits, indent=1, sort_keys=True))
    return Spec("hf", f"{repository}@{commits[spec.rest]}")


@functools.lru_cache(maxsize=1)
def load_encoders(spec: str, device: str, dtype: str) -> list[Encoder]:
    """A model on each device that `device` means, in float32 until its cast was checked. One model at a time stays
    loaded: shards of a model come one after another; `dtype` keeps the casts of a model apart."""
    return [vlm.load(spec, device=place) for place in devices(device)]


@stage("embeddings", version="2", unhashed=("spec",), resumes=True)
def embed(
    out: Path,
    pairs: Dataset,
    model: Dataset | str,
    dtype: str,
    spec: str,
    runtime: Runtime,
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Embed a shard's images and captions. `model` is what the recipe knows of it: a handle, or its identity.

    `max_pixels` is at least what `acquire` let through.
    """
    encoders = load_encoders(spec, runtime.device, dtype)
    captions = captions_of(runtime.store, pairs)
    if dtype != encoders[0].identity["dtype"]:
        _cast(encoders, runtime.store, pairs, captions[:FIRST_BATCH].to_list(), spec, max_pixels)
    image_id, same_bytes = first_images(runtime.store, pairs)
    shard, rows = image_id // SHARD_ROWS, (len(same_bytes), len(captions))
    began = time.perf_counter()
    with (
        EncoderPool(encoders, runtime.embed_batch_size) as pool,
        bar(sum(rows), f"embed  {spec.rpartition('/')[2]} shard {shard}", show=runtime.progress) as progress,
    ):
        tell = _Teller(shard, sum(rows), progress)
        pictures = ImageBatches(
            pool,
            lambda start: image_bytes(runtime.store, pairs, start),
            same_bytes,
            lambda rows: written_rows(out, "image", rows),
            max_pixels=max_pixels,
            chunk=CHUNK,
            done=tell,
        )
        texts = TextBatches(
            pool,
            lambda start, stop: captions[start:stop].to_list(),
            first_of(captions),
            lambda rows: written_rows(out, "text", rows),
            chunk=CHUNK,
            done=tell,
        )
        dim = encoders[0].dim
        write_modality(out, "image", rows[0], dim, pictures.encode, lambda _: None)
        write_modality(out, "text", rows[1], dim, texts.encode, lambda _: None)
        truncated = texts.truncated()
    failed = failed_rows(out)
    finish(
        out,
        {
            "model": encoders[0].identity, "dtype": dtype, "shard": shard, "failed_rows": failed,
            "truncated_captions": truncated,
        },
    )  # fmt: skip
    _summary(shard, rows, pool, time.perf_counter() - began, len(failed), truncated)
    return sum(rows) - len(failed)


def _cast(encoders: list[Encoder], store: Path, pairs: Dataset, texts: list[str], spec: str, max_pixels: int) -> None:
    """Cast to bfloat16, checked on the first device with the shard's first sound images. A model that fails is
    forgotten: it is half cast."""
    from vlm.precision import cast_checked

    images = []
    for data in image_bytes(store, pairs):
        try:
            images += [vlm.decode(data, max_pixels)] if data is not None else []
        except vlm.DecodeError:
            continue  # the stage counts it when it comes to its row
        if len(images) == FIRST_BATCH:
            break
    try:
        lowest = cast_checked(encoders[0], images, texts, spec)
    except Exception:
        load_encoders.cache_clear()
        raise
    for encoder in encoders[1:]:
        encoder.cast("bfloat16")
    log.info("%s in bfloat16: lowest cosine to float32 in the first batch %.5f", spec, lowest)


class _Teller:
    """Progress: a bar where a person is watching, else a line every half minute, with rows/s and the time left."""

    def __init__(self, shard: int, total: int, progress: Any) -> None:
        self.shard, self.total, self.progress = shard, total, progress
        self.done, self.began, self.told = 0, time.perf_counter(), time.perf_counter()

    def __call__(self, rows: int) -> None:
        self.done += rows
        self.progress.update(rows)
        now = time.perf_counter()
        if self.progress.disable and now - self.told > TELL_EVERY:
            self.told, rate = now, self.done / (now - self.began)
            left = (self.total - self.done) / rate
            log.info("shard %d: %d of %d rows, %.1f rows/s, %.0f s left", self.shard, self.done, self.total, rate, left)


def _summary(shard: int, rows: tuple[int, int], pool: EncoderPool, seconds: float, failed: int, truncated: int) -> None:
    """Where the time went, and what did not come through whole."""
    spent = pool.seconds
    log.info(
        "shard %d: %d images, %d captions, %d rows forward in %.1f s (%.1f rows/s): "
        "read %.1f s, forward %.1f s, write and the rest %.1f s",
        *(shard, *rows, pool.forwarded, seconds, sum(rows) / max(seconds, 1e-9)),
        *(spent["read"], spent["forward"], max(0.0, seconds - sum(spent.values()))),
    )
    if failed or truncated:
        log.info("shard %d: %d images failed, %d captions cut to the model's context", shard, failed, truncated)


@stage("embeddings", version="1", unhashed=("path",), resumes=True)
def adopt_vectors(out: Path, pairs: Dataset, model: str, path: str, runtime: Runtime) -> int:
    """Take the rows of a pair shard from the user's own vectors. `model` is their fingerprint."""
    vectors = open_vectors(Path(path))
    row_of = {key: row for row, key in enumerate(vectors.keys)}
    images = read_images(runtime.store, pairs, ["image_id", "source_key"])
    rows = np.array([row_of[key] for key in images["source_key"]], dtype=np.int64)
    texts = read_captions(runtime.store, pairs, ["source_key"])["source_key"].cast(int).to_numpy()

    def unit(array: np.ndarray[Any, Any], index: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
        block = np.asarray(array[index], np.float32)
        return block / np.linalg.norm(block, axis=1, keepdims=True)

    dim = vectors.image.shape[1]
    shard = images["image_id"][0] // SHARD_ROWS
    write_modality(out, "image", len(rows), dim, lambda a, b: unit(vectors.image, rows[a:b]), lambda _: None)
    write_modality(out, "text", len(texts), dim, lambda a, b: unit(vectors.text, texts[a:b]), lambda _: None)
    finish(
        out, {"model": {"vectors": model}, "dtype": str(vectors.image.dtype), "shard": int(shard), "failed_rows": []}
    )
    return len(rows) + len(texts)
