"""Embed: one pair shard through one model, into Zarr, going on where an interrupted call stopped."""

from __future__ import annotations

import functools
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np

import vlm
from storage.dataset import Dataset
from storage.embeddings import finish, write_modality
from storage.listing import SHARD_ROWS
from storage.pairs import read_captions, read_images
from storage.vectors import open_vectors
from tasks.progress import bar
from tasks.stage import Runtime, stage
from vlm.batches import ImageBatches, TextBatches
from vlm.encoder import Encoder

log = logging.getLogger("bridgescope")


@functools.lru_cache(maxsize=1)
def load_encoder(spec: str, device: str, dtype: str) -> Encoder:
    """One model at a time stays loaded: shards of a model come one after another."""
    return vlm.load(spec, device=device, dtype=dtype)


@stage("embeddings", version="1", unhashed=("spec",), resumes=True)
def embed(out: Path, pairs: Dataset, model: Dataset | str, dtype: str, spec: str, runtime: Runtime) -> int:
    """Embed a shard's images and captions. `model` is what the recipe knows of it: a handle, or its identity."""
    encoder = load_encoder(spec, runtime.device, dtype)
    images = read_images(runtime.store, pairs, ["image_id", "image", "error"])
    captions = read_captions(runtime.store, pairs, ["caption"])["caption"].to_list()
    shard = images["image_id"][0] // SHARD_ROWS if images.height else 0
    began = time.perf_counter()
    texts = TextBatches(encoder, captions, runtime.embed_batch_size)
    with (
        ImageBatches(encoder, images["image"].to_list(), runtime.embed_batch_size) as pictures,
        bar(
            images.height + len(captions), f"embed  {spec.rpartition('/')[2]} shard {shard}", show=runtime.progress
        ) as progress,
    ):
        write_modality(out, "image", images.height, encoder.dim, pictures.encode, progress.update)
        write_modality(out, "text", len(captions), encoder.dim, texts.encode, progress.update)
    failed = failed_rows(out)
    finish(out, {"model": encoder.identity, "dtype": dtype, "shard": shard, "failed_rows": failed})
    log.info(
        "shard %d: %d images, %d captions; read %.1f s, forward %.1f s, write %.1f s",
        *(shard, images.height, len(captions), pictures.seconds["read"]),
        pictures.seconds["forward"] + texts.seconds["forward"],
        time.perf_counter() - began - sum(pictures.seconds.values()) - texts.seconds["forward"],
    )  # fmt: skip
    return images.height + len(captions) - len(failed)


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


def failed_rows(out: Path) -> list[int]:
    """Image rows that were written as NaN."""
    import zarr

    image = zarr.open_array(out / "image", mode="r")
    return [int(row) for row in np.flatnonzero(np.isnan(np.asarray(image[:, 0])))]
