"""Checkpoint: an SAE that was trained elsewhere takes the place of training, addressed by the bytes of its files."""

from __future__ import annotations

from pathlib import Path

from storage.dataset import Dataset
from tasks.stage import Runtime, stage

CURVE = ("loss", "r2", "l0", "dead_fraction", "rows_per_second")


@stage("saes", version="import 1", unhashed=("path",))
def import_sae(
    out: Path,
    pairs: list[Dataset],
    embeddings: list[Dataset],
    checkpoint: str,
    architecture: str,
    k: int | None,
    heldout: float,
    path: str,
    runtime: Runtime,
) -> int:
    """Read an SAE from `path`, whose bytes are `checkpoint`, for the rows of a model's shards.

    The rows say which dimension it must have; a threshold that its file leaves open is calibrated on the training rows.
    Its training curve has no rows.
    """
    import polars as pl

    from sae.interchange import load_checkpoint
    from storage.rows import select

    rows = select(runtime.store, pairs, embeddings, heldout, "train")
    found = load_checkpoint(
        path, dim=rows.image.shape[1], architecture=architecture, k=k or 0, rows=(rows.image, rows.text)
    )
    found.save(out)
    columns = {"step": pl.Int64, "epoch": pl.Float64, **dict.fromkeys(CURVE, pl.Float64)}
    pl.DataFrame(schema=columns).write_parquet(out / "training.parquet")
    return len(rows.image) + len(rows.text)
