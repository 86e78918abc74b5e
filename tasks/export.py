"""Export: write the codes of one SAE on one shard, for all items of both splits, as sorted Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from storage.activations import Activations, write_activations
from storage.dataset import Dataset
from storage.embeddings import NDArray
from storage.rows import Ints, select
from tasks.stage import Runtime, stage

if TYPE_CHECKING:
    from sae import SAE

BLOCK = 8192  # rows encoded at a time; this limits the memory of the dense codes


@stage("activations", version="1")
def export(out: Path, sae: Dataset, pairs: Dataset, embeddings: Dataset, shard: int, runtime: Runtime) -> int:
    """Write the activations of an SAE on one shard."""
    from sae import SAE

    rows = select(runtime.store, [pairs], [embeddings], heldout=0.0)
    model = SAE.load(runtime.store / sae.path)
    image = encode(model, rows.image, rows.image_id, "image")
    return write_activations(out / f"{shard}.parquet", image, encode(model, rows.text, rows.pair_id, "text"))


def encode(model: SAE, x: NDArray, ids: Ints, modality: str) -> Activations:
    """Return the non-zero codes of the rows `x` (float32 [n, d], one modality). `ids` are the item ids of the rows."""
    items, concepts, values = [ids[:0]], [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for start in range(0, len(x), BLOCK):
        codes = model.encode(x[start : start + BLOCK], modality).numpy()
        item, concept = codes.nonzero()
        items.append(ids[start : start + BLOCK][item])
        concepts.append(concept.astype(np.int32))
        values.append(codes[item, concept])
    return Activations(np.concatenate(items), np.concatenate(concepts), np.concatenate(values))
