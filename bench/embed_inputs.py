"""Inputs of the embedding bench: images, captions and shards drawn here, and models with random weights."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from photos import photo as photo  # for the benches
from PIL import Image

from storage.dataset import Dataset
from storage.pairs import CAPTIONS, IMAGES
from vlm.encoder import Encoder
from vlm.open_clip import OpenClipEncoder

WORDS = [
    "a", "the", "man", "woman", "dog", "cat", "street", "table", "red", "blue", "large", "small", "sitting", "standing",
    "riding", "next", "to", "on", "in", "with", "of", "plate", "food", "train", "bus", "tennis", "ball", "wave",
]  # fmt: skip


def captions_like_coco(count: int, seed: int = 0) -> list[str]:
    """Captions of 8 to 15 words (about 12 tokens), as long as COCO's captions."""
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, int(draw.integers(8, 16)))) for _ in range(count)]


def small_images(count: int) -> Iterator[bytes]:
    draw = np.random.default_rng(0)
    for _ in range(count):
        out = io.BytesIO()
        Image.fromarray(draw.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(out, "png", compress_level=1)
        yield out.getvalue()


def shard(store: Path, images: Sequence[bytes], captions: Sequence[str], name: str) -> Dataset:
    """Write a shard of pairs in the layout of acquire."""
    folder = store / "pairs" / name
    folder.mkdir(parents=True)
    ids = range(len(images))
    columns = {
        "image_id": list(ids), "source_key": [str(i) for i in ids], "image": list(images),
        "sha256": [f"{name} {i}" for i in ids],
    }  # fmt: skip
    table = pa.table({name: columns.get(name, [None] * len(images)) for name in IMAGES.names}, schema=IMAGES)
    pq.write_table(table, folder / "images.parquet", row_group_size=1024)
    rows = {
        "pair_id": list(range(len(captions))), "image_id": [0] * len(captions), "caption": list(captions),
        "source_key": [str(i) for i in range(len(captions))],
    }  # fmt: skip
    pl.DataFrame(rows, schema=CAPTIONS).write_parquet(folder / "captions.parquet")
    return Dataset(path=f"pairs/{name}", recipe=name, digest=name, rows=len(images))


class HashTokenizer:
    """Replaces SigLIP's tokenizer, whose vocabulary no package ships: an id per word; end of text and padding are 1."""

    context_length = 64

    def __call__(self, texts: list[str], context_length: int = 64) -> torch.Tensor:
        out = torch.ones(len(texts), context_length, dtype=torch.long)
        for place, text in enumerate(texts):
            ids = [2 + sum(word.encode()) * 31 % 30000 for word in text.split()][: context_length - 1]
            out[place, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        return out


def full_size(name: str, device: str) -> OpenClipEncoder:
    """An open_clip model at full size with random weights."""
    import open_clip

    torch.manual_seed(0)
    model, _, transform = open_clip.create_model_and_transforms(name)
    tokenizer = HashTokenizer() if "SigLIP" in name else open_clip.get_tokenizer(name)
    return OpenClipEncoder(model, transform, tokenizer, {"kind": "open_clip", "model": name}, device)


def demo_model(folder: Path, device: str) -> Encoder:
    """The demo's model with untrained projections."""
    import vlm
    from vlm import demo

    draw = np.random.default_rng(0)
    maps = [draw.normal(size=(demo.DIM, width)).astype(np.float32) for width in (demo.IMAGE_WIDTH, demo.TEXT_WIDTH)]
    demo.write_checkpoint(folder, demo.Projections(*maps, scale=100.0, bias=None))
    return vlm.load(f"open_clip:local-dir:{folder}", device=device)


def tiny(device: str) -> OpenClipEncoder:
    from open_clip import SimpleTokenizer
    from open_clip.model import CLIP
    from open_clip.transform import PreprocessCfg, image_transform_v2

    torch.manual_seed(0)
    model = CLIP(
        embed_dim=16,
        vision_cfg={"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
        text_cfg={"width": 32, "heads": 2, "layers": 1, "context_length": 16},
    )
    return OpenClipEncoder(
        model, image_transform_v2(PreprocessCfg(size=16), False), SimpleTokenizer(context_length=16), {}, device
    )


def in_bfloat16(encoder: OpenClipEncoder) -> OpenClipEncoder:
    model = copy.deepcopy(encoder.model)
    return OpenClipEncoder(model, encoder.transform, encoder.tokenizer, {}, encoder.device, "bfloat16")
