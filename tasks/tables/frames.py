"""Tables as frames: their columns and types, and how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

Schema = dict[str, Any]
SAE_KEYS: Schema = {"model": pl.String, "sae": pl.String, "seed": pl.Int32}
MATCHES: Schema = {
    "model": pl.String, "sae_a": pl.String, "seed_a": pl.Int32, "sae_b": pl.String, "seed_b": pl.Int32,
    "concept_a": pl.Int32, "concept_b": pl.Int32, "cosine": pl.Float32,
}  # fmt: skip
FLOORS: Schema = {
    **SAE_KEYS, "null": pl.String, "draw": pl.Int32, "concept_id": pl.Int32, "cosine": pl.Float32,
}  # fmt: skip
BRIDGES: Schema = {
    **SAE_KEYS, "split": pl.String, "image_concept": pl.Int32, "text_concept": pl.Int32, "pairs": pl.Int64,
    "coactivation": pl.Float64, "cosine": pl.Float64, "bridge": pl.Float64, "covariance_bridge": pl.Float64,
    "correlation_bridge": pl.Float64,
}  # fmt: skip
TOTALS: Schema = {
    **SAE_KEYS, "split": pl.String, "class_image": pl.String, "class_text": pl.String, "self": pl.Boolean,
    "kind": pl.String, "total": pl.Float64, "positive": pl.Float64, "negative": pl.Float64,
}  # fmt: skip
SIMILARITY: Schema = {**SAE_KEYS, "split": pl.String, "term": pl.String, "value": pl.Float64}
NULL_DRAWS: Schema = {
    **SAE_KEYS, "statistic": pl.String, "null": pl.String, "draw": pl.Int32, "value": pl.Float64,
}  # fmt: skip
NULL_SUMMARIES: Schema = {
    **SAE_KEYS, "statistic": pl.String, "null": pl.String, "mean": pl.Float64, "sd": pl.Float64, "q025": pl.Float64,
    "q975": pl.Float64, "draws": pl.Int64,
}  # fmt: skip
CONCEPT_GEOMETRY: Schema = {
    **SAE_KEYS, "concept_id": pl.Int32, "direction_accuracy": pl.Float64, "align_mean_gap": pl.Float64,
    "align_logistic": pl.Float64, "align_lda": pl.Float64, "align_inlp": pl.Float64, "monosemanticity": pl.Float64,
}  # fmt: skip
GEOMETRY: Schema = {
    "model": pl.String, "subspace": pl.String, "rank": pl.Int32, "heldout_accuracy": pl.Float64,
}  # fmt: skip
RETRIEVAL: Schema = {
    **SAE_KEYS, "split": pl.String, "intervention": pl.String, "direction": pl.String, "gallery": pl.Int64,
    "captions": pl.Int64, "r1": pl.Float64, "r5": pl.Float64, "r10": pl.Float64, "concepts": pl.Float64,
    "energy_share": pl.Float64,
}  # fmt: skip


def table(columns: dict[str, Any], schema: Schema) -> pl.DataFrame:
    """Arrays and constants as one table; constants are repeated, also over no rows. NaN becomes NULL."""
    arrays = {name: value for name, value in columns.items() if isinstance(value, np.ndarray)}
    constants = [pl.lit(value, dtype=schema[name]).alias(name) for name, value in columns.items() if name not in arrays]
    found = (
        pl.DataFrame(arrays).with_columns(constants).select(pl.col(name).cast(kind) for name, kind in schema.items())
    )
    return found.with_columns(pl.col(pl.Float32, pl.Float64).fill_nan(None))


def empty(schema: Schema) -> pl.DataFrame:
    """A table without rows."""
    return pl.DataFrame(schema=schema)


def write_table(out: Path, name: str, rows: pl.DataFrame) -> None:
    """Write one table as Parquet."""
    rows.write_parquet(out / f"{name}.parquet", compression="zstd", row_group_size=131_072)
