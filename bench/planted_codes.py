"""True codes of planted vectors and the codes that an SAE finds for them, on the items that a study counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy import sparse

from sae import SAE
from storage.catalog import frame

BLOCK = 2048
Items = dict[str, np.ndarray]  # {modality: numbers of the counted items}
Codes = dict[str, sparse.csr_array]  # {modality: [items, atoms or concepts]}


def counted_items(con, vectors: Path) -> Items:
    """The items of both modalities that the statistics of the study count, as row numbers of the vectors."""
    split = frame(con, "SELECT DISTINCT split FROM concepts")["split"].item()
    side = "" if split == "all" else f" WHERE split = '{split}'"
    keys = pl.read_parquet(vectors / "metadata.parquet", glob=False).with_row_index("item")
    images = frame(con, f"SELECT source_key FROM images{side}").join(keys, left_on="source_key", right_on="key")["item"]
    texts = frame(con, f"SELECT source_key::BIGINT AS item FROM pairs{side}")["item"]
    return {"image": np.sort(images.to_numpy()).astype(np.int64), "text": np.sort(texts.to_numpy())}


def planted_codes(vectors: Path, atoms: int, items: Items) -> Codes:
    """True codes of the items, [items, A]."""
    rows = len(np.load(vectors / "image.npy", mmap_mode="r"))
    table = pl.read_parquet(vectors / "truth" / "codes.parquet", glob=False)
    codes = {}
    for modality, counted in items.items():
        own = table.filter(pl.col("modality") == modality)
        every = sparse.csr_array((own["activation"], (own["item"], own["atom"])), shape=(rows, atoms))
        codes[modality] = every[counted]
    return codes


@torch.no_grad()
def found_codes(net: SAE, vectors: Path, items: Items) -> Codes:
    """Codes [items, C] of the items by the inference rule of an SAE."""
    codes = {}
    for modality, counted in items.items():
        x = np.load(vectors / f"{modality}.npy", mmap_mode="r")
        of = [np.asarray(x[counted[start : start + BLOCK]]) for start in range(0, len(counted), BLOCK)]
        codes[modality] = sparse.vstack([sparse.csr_array(net.encode(rows).numpy()) for rows in of], format="csr")
    return codes
