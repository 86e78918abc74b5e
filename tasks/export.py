"""Export: write the codes of one SAE on one shard, for all items of both splits, and its dictionary, as Parquet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from storage.activations import Activations, write_activations, write_atoms
from storage.dataset import Dataset
from storage.embeddings import NDArray
from storage.rows import Ints, select
from tasks.devices import device_at_hand
from tasks.progress import bar
from tasks.stage import Runtime, stage

if TYPE_CHECKING:
    from sae import SAE

BLOCK = 8192  # rows encoded at a time, up to 16,384 concepts
CELLS = 2**27  # most dense codes at a time: 0.5 GB of float32, of which an encoder holds a few


@stage("activations", version="1", on_device=True)
def export(out: Path, sae: Dataset, pairs: Dataset, embeddings: Dataset, shard: int, runtime: Runtime) -> int:
    """Write the activations of an SAE on one shard. The codes are computed on the study's device.

    On another device a code differs by the rounding of float32, and a code that lies as close to the threshold may be
    there on one device only. Items and concepts have the same order.
    """
    from sae import SAE

    rows = select(runtime.store, [pairs], [embeddings], heldout=0.0)
    model = SAE.load(runtime.store / sae.path, device_at_hand(runtime.device))
    with bar(len(rows.image) + len(rows.text), f"export shard {shard}", show=runtime.progress) as progress:
        image = encode(model, rows.image, rows.image_id, "image", progress.update)
        text = encode(model, rows.text, rows.pair_id, "text", progress.update)
    return write_activations(out / f"{shard}.parquet", image, text)


@stage("atoms", version="1")
def atoms(out: Path, sae: Dataset, runtime: Runtime) -> int:
    """Write the dictionary of an SAE, own or imported, and what it adds to decoded codes. Returns the width."""
    from sae import SAE
    from sae.model import MEANS

    net = SAE.load(runtime.store / sae.path)
    means = {name: None if (mean := getattr(net, key)) is None else mean.numpy() for name, key in MEANS.items()}
    write_atoms(out, net.dictionary.numpy(), net.bias.numpy(), means)
    return int(net.config.width)


def encode(
    model: SAE, x: NDArray, ids: Ints, modality: str, done: Callable[[int], object] = lambda rows: None
) -> Activations:
    """Return the non-zero codes of the rows `x` (float32 [n, d], one modality). `ids` are the item ids of the rows.

    done: called with the number of rows of each block that was encoded.
    """
    items, concepts, values = [ids[:0]], [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    rows = max(1, min(BLOCK, CELLS // model.config.width))
    for start in range(0, len(x), rows):
        codes = model.encode(x[start : start + rows], modality)
        item, concept = codes.nonzero(as_tuple=True)  # on the device: only the non-zero codes leave it
        items.append(ids[start : start + rows][item.cpu().numpy()])
        concepts.append(concept.cpu().numpy().astype(np.int32))
        values.append(codes[item, concept].cpu().numpy())
        done(len(codes))
    return Activations(np.concatenate(items), np.concatenate(concepts), np.concatenate(values))
