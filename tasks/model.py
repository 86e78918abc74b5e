"""Model: build a demo model from two frozen towers and the training pairs of the study's first run."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from safetensors.numpy import load_file, save_file

from storage.dataset import Dataset
from storage.errors import BadInput
from storage.pairs import read_captions, read_images
from tasks.progress import bar
from tasks.stage import Runtime, stage


@stage("features", version="1")
def features(out: Path, pairs: list[Dataset], heldout: float, runtime: Runtime) -> int:
    """Compute the features of both frozen towers for the training pairs. All variants of the model share them."""
    from vlm.demo import tower_features

    columns = ["image_id", "split_u", "error", "image"]
    images = pl.concat([read_images(runtime.store, shard, columns) for shard in pairs])
    images = images.filter((pl.col("split_u") >= heldout) & pl.col("error").is_null()).with_row_index("row")
    captions = pl.concat([read_captions(runtime.store, shard) for shard in pairs])
    captions = captions.join(images.select("image_id", "row"), on="image_id", maintain_order="left")
    with bar(images.height + captions.height, "model  tower features", show=runtime.progress) as progress:
        done = {"images": 0, "captions": 0}

        def update(kind: str, count: int) -> None:
            progress.update(count - done[kind])
            done[kind] = count

        image, text = tower_features(images["image"], captions["caption"].to_list(), progress=update)
    save_file(
        {"image": image, "text": text, "owner": captions["row"].to_numpy().astype("int64")},
        out / "features.safetensors",
    )
    return images.height


@stage("models", version="1")
def demo_model(out: Path, features: Dataset, variant: str, seed: int, runtime: Runtime) -> int:
    """Train the two projections of one variant and write an open_clip checkpoint.

    Raises BadInput for fewer than two training images with captions.
    """
    from vlm.demo import align, write_checkpoint

    towers = load_file(runtime.store / features.path / "features.safetensors")
    captioned = len(set(towers["owner"].tolist()))
    if captioned < 2:
        raise BadInput(
            f"demo:{variant} needs two training images with captions, and there are {captioned}: set another "
            "pairs.heldout, or take more pairs"
        )
    write_checkpoint(out, align(towers["image"], towers["text"], towers["owner"], variant, seed))
    return features.rows
