"""Checks of embeddings: numbers about a shard that show whether its images and captions belong together.

The checks read embeddings as stored. They raise no errors; the table shows what is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from storage.dataset import Dataset
from storage.embeddings import FAILURES, NDArray, failures_of, open_array, read_attributes
from storage.listing import DROPPED, SHARD_ROWS
from storage.pairs import read_captions, read_images

TABLE = "checks.parquet"
SCHEMA: dict[str, Any] = {
    "shard": pl.Int32,
    "modality": pl.String,
    "rows": pl.Int64,
    "failed": pl.Int64,
    "nan": pl.Int64,
    "norm_min": pl.Float64,
    "norm_mean": pl.Float64,
    "norm_max": pl.Float64,
    "equal_share": pl.Float64,
    "images_with_captions": pl.Int64,
    "matched": pl.Float64,
    "shuffled": pl.Float64,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
}
MODALITIES = ("image", "text")
Z95 = 1.959964  # half the width of a 95 % interval, in standard errors


class Alignment(NamedTuple):
    """Cosine of images with their captions and with another image's captions: means over the images with captions."""

    images: int  #: number of images with captions
    matched: float
    shuffled: float
    difference: float  #: `matched` minus `shuffled`
    low: float  #: lower end of the 95 % interval of the difference; `high` is the upper end
    high: float

    @property
    def is_above(self) -> bool:
        """Whether matched pairs are more alike than shuffled ones, beyond chance."""
        return self.low > 0


def write_checks(out: Path, store: Path, pairs: Dataset, embeddings: Dataset) -> int:
    """Check one shard of embeddings and write the table. Returns its number of rows, one per modality."""
    image, text = (np.asarray(open_array(store / embeddings.path / name)[:]) for name in MODALITIES)
    attributes = read_attributes(store, embeddings)
    failed = np.array(attributes["failed_rows"], np.int64)
    _write_failures(out, store, pairs, attributes.get("failures", []))
    ids = read_images(store, pairs, ["image_id"])["image_id"].to_numpy()
    owner = np.searchsorted(ids, read_captions(store, pairs, ["image_id"])["image_id"].to_numpy())
    shared = {"shard": int(ids[0]) // SHARD_ROWS if len(ids) else None, **_columns(alignment(image, text, owner))}
    rows = [
        {"modality": name, "failed": len(rows), **_of_rows(array, rows), **shared}
        for name, array, rows in zip(MODALITIES, (image, text), (failed, failed[:0]), strict=True)
    ]
    pl.DataFrame(rows, SCHEMA).write_parquet(out / TABLE)
    return len(rows)


def _write_failures(out: Path, store: Path, pairs: Dataset, failures: Sequence[Sequence[Any]]) -> None:
    """Write a table of the images that were acquired and not embedded, like the ledger. Nothing if there are none."""
    if failures:
        rows, causes, details = zip(*failures, strict=True)
        images = read_images(store, pairs, ["image_id", "source_key"])[[int(row) for row in rows]]
        shards = (images["image_id"] // SHARD_ROWS).alias("shard")
        table = [images["source_key"], shards, pl.Series("cause", causes), pl.Series("detail", details)]
        pl.DataFrame(table).cast(DROPPED).write_parquet(out / FAILURES)  # type: ignore[arg-type]


def _of_rows(array: NDArray, failed: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Number of rows, number of NaN rows not in `failed`, norms, and share of rows that have an exact copy."""
    nan = np.asarray(np.isnan(array).any(axis=1))
    kept = np.ascontiguousarray(array[~nan])
    nan[failed] = False
    columns: dict[str, Any] = {"rows": len(array), "nan": int(nan.sum())}
    if len(kept):
        norms = np.linalg.norm(kept.astype(np.float32), axis=1).astype(np.float64)
        columns |= {"norm_min": norms.min(), "norm_mean": norms.mean(), "norm_max": norms.max()}
        whole = kept.view(np.dtype((np.void, kept.shape[1] * kept.itemsize))).reshape(-1)
        _, counts = np.unique(whole, return_counts=True)
        columns["equal_share"] = counts[counts > 1].sum() / len(kept)
    return columns


def alignment(image: NDArray, text: NDArray, owner: np.ndarray[Any, Any]) -> Alignment | None:
    """Compare the images of a shard [n, d] with their captions [m, d] and with the captions of another image.

    owner: int64 [m], the image row of each caption. The other image is the next one in a fixed random order. Returns
    None with fewer than two images that have captions. Rows that are NaN or zero are left out.
    """
    image, text = _unit(image), _unit(text)
    failed = np.asarray(np.isnan(image).any(axis=1))
    good = np.asarray(~np.isnan(text).any(axis=1)) & ~failed[owner]
    counts = np.bincount(owner[good], minlength=len(image))
    with_captions = np.flatnonzero(counts)
    if len(with_captions) < 2:
        return None
    together = np.flatnonzero(good)[np.argsort(owner[good], kind="stable")]
    starts = np.cumsum(counts[with_captions]) - counts[with_captions]
    mean = np.add.reduceat(text[together], starts, axis=0) / counts[with_captions, None]
    order = np.random.default_rng(0).permutation(len(with_captions))
    image, mean = image[with_captions][order], mean[order]
    matched, shuffled = ((image * other).sum(axis=1, dtype=np.float64) for other in (mean, np.roll(mean, -1, axis=0)))
    difference = matched - shuffled
    half = Z95 * difference.std(ddof=1) / len(difference) ** 0.5
    middle = float(difference.mean())
    return Alignment(
        len(difference), float(matched.mean()), float(shuffled.mean()), middle, middle - half, middle + half
    )


def _unit(rows: NDArray) -> NDArray:
    """Rows in float32 of norm 1; NaN where a row is NaN or zero."""
    rows = rows.astype(np.float32)
    with np.errstate(invalid="ignore"):
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def _columns(found: Alignment | None) -> dict[str, Any]:
    if found is None:
        return {"images_with_captions": None}
    images, matched, shuffled, difference, low, high = found
    return {
        "images_with_captions": images, "matched": matched, "shuffled": shuffled, "difference": difference,
        "difference_low": low, "difference_high": high,
    }  # fmt: skip


def tell(store: Path, checks: Sequence[Dataset]) -> tuple[str, bool]:
    """Return one line on the checks of all shards of a model, and whether all the checks passed."""
    table = pl.concat([pl.read_parquet(store / each.path / TABLE, glob=False) for each in checks])
    parts = [_told(name, table.filter(pl.col("modality") == name)) for name in MODALITIES]
    nan = int(table["nan"].sum())
    if nan:
        parts.append(f"{nan:,} rows without an embedding that never failed")
    lost = [cause for path in failures_of(store, checks) for cause in pl.read_parquet(path, glob=False)["cause"]]
    if lost:
        causes = ", ".join(f"{count:,} {cause}" for cause, count in Counter(lost).most_common())
        parts.append(f"{len(lost):,} images were acquired but not embedded: {causes} (the view ledger lists them)")
    found = pooled(table)
    if found is not None:
        parts.append(
            f"cosine of matched pairs {found.matched:.3f}, of shuffled ones {found.shuffled:.3f}, difference "
            f"{found.difference:.3f} [{found.low:.3f}, {found.high:.3f}]"
        )
    if found is not None and not found.is_above:
        parts[-1] += ": matched pairs are not more alike than shuffled ones: do images and captions belong together?"
    return "; ".join(parts), nan == 0 and not lost and (found is None or found.is_above)


def _told(modality: str, shards: pl.DataFrame) -> str:
    """The rows of one modality in words."""
    rows, failed = shards["rows"].to_numpy(), shards["failed"].to_numpy()
    words = f"{rows.sum():,} {modality} rows" + (f", {failed.sum():,} failed" if failed.any() else "")
    with_norms = shards.filter(pl.col("norm_min").is_not_null())
    if with_norms.height == 0:
        return words
    left = with_norms["rows"].to_numpy() - with_norms["failed"].to_numpy()
    low, high = with_norms["norm_min"].to_numpy().min(), with_norms["norm_max"].to_numpy().max()
    equal = float(with_norms["equal_share"].to_numpy() @ left / left.sum())
    return f"{words} (norms {low:.3g} to {high:.3g}, {equal:.1%} duplicates)"


def pooled(table: pl.DataFrame) -> Alignment | None:
    """The alignment of all shards in a table of checks: means weighted by images, with the interval of their mean."""
    shards = table.filter(pl.col("modality") == "image", pl.col("difference").is_not_null())
    if shards.height == 0:
        return None
    count = shards["images_with_captions"].to_numpy().astype(np.float64)
    share = count / count.sum()
    matched, shuffled, difference, low, high = (
        shards[name].to_numpy() for name in ("matched", "shuffled", "difference", "difference_low", "difference_high")
    )
    half = float(np.sqrt(((share * (high - low) / 2) ** 2).sum()))
    middle = float(share @ difference)
    return Alignment(
        int(count.sum()), float(share @ matched), float(share @ shuffled), middle, middle - half, middle + half
    )
