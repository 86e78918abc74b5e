"""One row an SAE: its settings, and how well it rebuilds the counted rows of each modality."""

from __future__ import annotations

import numpy as np
import polars as pl

import sae
from sae import SAE
from storage.embeddings import NDArray
from tasks.tables.frames import SAE_KEYS
from tasks.tables.inputs import Analysis, keys_of

BLOCK = 8192  # rows decoded at a time


def sae_rows(analysis: Analysis) -> pl.DataFrame:
    """The view `saes`, but for dead_fraction, which is counted from activations."""
    found = []
    for model in analysis.models():
        rows = analysis.rows(model, analysis.split)
        for entry, net in analysis.trained(model):
            sums = {name: _reconstruction(net, x, name) for name, x in (("image", rows.image), ("text", rows.text))}
            config = net.config
            found.append(
                {
                    **keys_of(entry), "architecture": config.architecture, "dim": config.dim, "width": config.width,
                    "k": config.k, "decoder_bias": config.decoder_bias, "image_share": str(config.image_share),
                    "data_half": analysis.diets.get(entry.sae or "", {}).get("data_half"), "split": analysis.split,
                    **sae.metrics.combine(sums["image"], sums["text"]),
                    "rows_seen": config.rows_seen, "path": entry.dataset.path,
                }
            )  # fmt: skip
    return pl.DataFrame(found, schema_overrides={**SAE_KEYS, "data_half": pl.String}, infer_schema_length=None)


def _reconstruction(net: SAE, x: NDArray, modality: str) -> sae.metrics.Reconstruction:
    sums = sae.metrics.Reconstruction()
    for start in range(0, len(x), BLOCK):
        block = np.asarray(x[start : start + BLOCK])
        codes = net.encode(block, modality)
        sums.update(block, net.decode(codes, modality).numpy(), codes.numpy())
    return sums
