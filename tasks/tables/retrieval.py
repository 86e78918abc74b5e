"""What concepts do for retrieval: recalls of every model, and of every SAE after taking concepts out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import duckdb
import numpy as np
import polars as pl

from sae import SAE
from sae.concepts.coactivation import Codes
from sae.concepts.retrieval import ConceptSets, Decoder, Gallery, Outcome, baselines, interventions, most
from storage.embeddings import NDArray
from storage.rows import Rows
from tasks.tables.bridges import biases_of
from tasks.tables.frames import RETRIEVAL, empty
from tasks.tables.inputs import Analysis, Keys, class_of, keys_of

GALLERY = 1000  # images (DEFINITIONS)
ALIGNED = 32  # concepts most aligned with the mean gap that are taken out together, an eighth of a narrow dictionary
BRIDGES = 100  # top bridges whose concepts alone are kept
CONCEPTS = """
SELECT energy, modality_score, align_mean_gap FROM concepts
WHERE model = $model AND sae = $sae AND seed = $seed ORDER BY concept_id
"""
TOP = """
SELECT image_concept, text_concept FROM bridges
WHERE model = $model AND sae = $sae AND seed = $seed ORDER BY bridge DESC, image_concept, text_concept LIMIT $n
"""


def retrieval_rows(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> pl.DataFrame:
    """Recall among the images of the split with the smallest split_u. Reads the tables concepts and bridges."""
    found = [empty(RETRIEVAL)]
    for model in analysis.models():
        rows = analysis.rows(model, analysis.split)
        gallery = gallery_of(rows)
        means = _means(analysis, model, rows)
        keys = {"model": model, "sae": None, "seed": None, "split": analysis.split}
        found.append(_table(keys, gallery, baselines(gallery, means)))
        for entry, net in analysis.trained(model):
            of = keys_of(entry)
            energy = np.array([e for e, _, _ in con.execute(CONCEPTS, of).fetchall()])
            sets, seed = sets_of(con, of), entry.seed or 0
            outcomes = interventions(gallery, _decoder(net, gallery), means, energy, sets, seed)
            own = (one for one in outcomes if one.intervention not in ("embeddings", "mean_removed"))
            found.append(_table({**of, "split": analysis.split}, gallery, own))
    return pl.concat(found)


def gallery_of(rows: Rows) -> Gallery:
    """The images with the smallest split_u, and all of their captions."""
    chosen = np.sort(np.argsort(rows.split_u, kind="stable")[:GALLERY])
    position = np.full(len(rows.image), -1)
    position[chosen] = np.arange(len(chosen))
    own = position[rows.owner]
    return Gallery(rows.image[chosen], rows.text[own >= 0], own[own >= 0])


def _means(analysis: Analysis, model: str, rows: Rows) -> tuple[NDArray, NDArray]:
    """Mean embeddings of the training rows; of the counted ones where no image is held out from training."""
    train = analysis.rows(model, "train") if analysis.split != "train" else rows
    return train.image.mean(0, dtype=np.float64), train.text.mean(0, dtype=np.float64)


def sets_of(con: duckdb.DuckDBPyConnection, keys: Keys) -> ConceptSets:
    """Which concepts are taken out, or kept, together."""
    _, scores, alignment = zip(*con.execute(CONCEPTS, keys).fetchall(), strict=True)
    classes = np.array([class_of(score) for score in scores])
    count = min(ALIGNED, max(1, len(classes) // 8))
    aligned = most(np.array([a or 0.0 for a in alignment]), count) if any(alignment) else np.empty(0, np.int64)
    top = con.execute(TOP, {**keys, "n": BRIDGES}).fetchall()
    return ConceptSets(
        unimodal=np.flatnonzero((classes == "image") | (classes == "text")),
        bimodal=np.flatnonzero(classes == "bimodal"),
        aligned=aligned,
        bridging=np.unique(np.array(top, np.int64)),
    )


def _decoder(net: SAE, gallery: Gallery) -> Decoder:
    codes = _codes(net, gallery.image, "image"), _codes(net, gallery.text, "text")
    return Decoder(*codes, net.dictionary.numpy(), np.stack(biases_of(net)))


def _codes(net: SAE, x: NDArray, modality: str) -> Codes:
    dense = net.encode(x, modality).numpy()
    row, concept = dense.nonzero()
    indptr = np.searchsorted(row, np.arange(len(dense) + 1))
    return Codes(indptr.astype(np.int64), concept.astype(np.int32), dense[row, concept])


def _table(keys: dict[str, Any], gallery: Gallery, outcomes: Iterable[Outcome]) -> pl.DataFrame:
    rows = [
        {
            **keys, "intervention": one.intervention, "direction": one.direction, "gallery": len(gallery.image),
            "captions": len(gallery.text), **{f"r{k}": value for k, value in one.recalls.items()},
            "concepts": one.concepts, "energy_share": one.energy,
        }
        for one in outcomes
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=RETRIEVAL).with_columns(pl.col(pl.Float64).fill_nan(None))
