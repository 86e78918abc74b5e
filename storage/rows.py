"""The items on one side of a study's split: their embeddings, ids and split numbers, and the image of each caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from storage.dataset import Dataset
from storage.embeddings import EmbeddingError, NDArray, read
from storage.pairs import read_captions, read_images
from storage.split import in_half

Ints = np.ndarray[Any, np.dtype[np.int64]]


class Rows(NamedTuple):
    """Counted items of one model: the acquired and embedded items on the requested side of the split."""

    image: NDArray  #: n images x d, float32 unit rows if normalised, float16 as stored
    text: NDArray  #: m captions x d, float32 unit rows if normalised, float16 as stored
    image_id: Ints  #: [n], id of each image
    pair_id: Ints  #: [m], id of each caption
    owner: Ints  #: [m], the row of each caption's image in `image`
    split_u: np.ndarray[Any, np.dtype[np.float64]]  #: [n], split number of each image, in [0, 1)


def select(
    store: Path,
    pairs: Sequence[Dataset],
    embeddings: Sequence[Dataset],
    heldout: float,
    split: str = "all",
    half: str | None = None,
    normalised: bool = True,
) -> Rows:
    """Read shards and keep the items of a split: 'heldout' (split_u < heldout), 'train' (the others) or 'all'.

    `half` ('a' or 'b') keeps only one of two disjoint halves of these images. `pairs` and `embeddings` hold one dataset
    per shard, in the same order. Without `normalised`, the rows stay in float16, at half the memory; the training of
    SAEs then normalises each batch. Failed images and their captions are left out. Raises EmbeddingError when a shard's
    pairs and embeddings differ in rows, or when the requested side of the split is empty.
    """
    parts = [_shard(store, p, e, heldout, split, half, normalised) for p, e in zip(pairs, embeddings, strict=True)]
    image, text, image_id, pair_id, caption_of, split_u = (np.concatenate(part) for part in zip(*parts, strict=True))
    if split != "all" and (len(image) == 0 or len(text) == 0):
        raise EmbeddingError(
            f"no {'images' if len(image) == 0 else 'captions'} in the split {split!r} (heldout = {heldout}): set "
            "another pairs.heldout, or take more pairs"
        )
    order = np.argsort(image_id, kind="stable")
    owner = order[np.searchsorted(image_id[order], caption_of)]
    return Rows(image, text, image_id, pair_id, owner, split_u)


def _shard(
    store: Path, pairs: Dataset, embeddings: Dataset, heldout: float, split: str, half: str | None, normalised: bool
) -> tuple[Any, ...]:
    vectors = read(store, embeddings, normalised)
    images = read_images(store, pairs, ["image_id", "group_key", "split_u", "error"])
    captions = read_captions(store, pairs, ["pair_id", "image_id"])
    if len(vectors.image) != images.height or len(vectors.text) != captions.height:
        raise EmbeddingError(
            f"{embeddings.path} and {pairs.path} differ in rows: delete the folder of the first and run again"
        )
    held = pl.col("split_u") < heldout
    side = {"heldout": held, "train": ~held, "all": pl.lit(True)}[split]
    images = images.with_columns(keep=side & pl.col("error").is_null())
    keep = images["keep"].to_numpy().copy()
    keep[vectors.failed_rows] = False
    if half is not None:
        keep &= np.array([in_half(group, half) for group in images["group_key"]], bool)
    kept_ids = images["image_id"].to_numpy()[keep]
    keep_text = np.isin(captions["image_id"].to_numpy(), kept_ids)
    return (
        vectors.image[keep],
        vectors.text[keep_text],
        kept_ids,
        captions["pair_id"].to_numpy()[keep_text],
        captions["image_id"].to_numpy()[keep_text],
        images["split_u"].to_numpy()[keep],
    )
