"""Retrieval between images and captions by a model's embeddings alone, the baseline of interventions on concepts."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import duckdb
import numpy as np

from analysis.inputs import Analysis
from analysis.retrieval import (
    GROUPS,
    RETRIEVAL_TABLE,
    Gallery,
    Recalls,
    averaged,
    gallery_of,
    group_rows,
    recall_rows,
    unit,
)
from analysis.statistic import Statistic, Table

Means = tuple[np.ndarray, np.ndarray]
log = logging.getLogger("bridgescope")


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The rows of both tables that need no SAE. They are measured on the same gallery as the rows of the SAEs."""
    keys = {"model": analysis.model, "sae": None, "seed": None, "split": analysis.split}
    gallery = gallery_of(analysis.counted)
    return {
        "retrieval": recall_rows(keys, gallery, baselines(gallery, means_of(analysis))),
        "retrieval_groups": group_rows({**keys, "intervention": "embeddings"}, gallery, gallery.image, gallery.text),
    }


def means_of(analysis: Analysis) -> Means:
    """Mean image and mean caption [d] float64 of the training rows.

    Both means are NaN, with a warning, where a modality has no training rows.
    """
    train = analysis.side("train")
    if len(train.image) and len(train.text):
        return train.image.mean(0, dtype=np.float64), train.text.mean(0, dtype=np.float64)
    log.warning("model %s: no training rows: the retrieval `mean_removed` is left empty", analysis.model)
    unknown = np.full(train.image.shape[1], np.nan)
    return unknown, unknown


def baselines(gallery: Gallery, means: Means) -> Iterator[Recalls]:
    """Yield the recalls of the interventions that need no SAE: the unchanged embeddings, and mean_removed.

    mean_removed subtracts each modality's training mean [d] from the unit rows of the modality and renormalises the
    rows. The recalls of mean_removed are NaN where a mean is NaN. Raises ValueError where the shapes do not fit.
    """
    for name, mean, x in zip(("image", "text"), means, (gallery.image, gallery.text), strict=True):
        if np.shape(mean) != np.shape(x)[1:]:
            raise ValueError(f"mean {name} of shape {np.shape(mean)} does not fit {name} rows {np.shape(x)}")
    yield from averaged("embeddings", gallery.owner, [(gallery.image, gallery.text)])
    if all(np.isfinite(mean).all() for mean in means):
        centred = unit(gallery.image, "image") - means[0], unit(gallery.text, "text") - means[1]
        yield from averaged("mean_removed", gallery.owner, [centred])
    else:
        nothing = gallery.image[:0], gallery.text[:0]
        yield from averaged("mean_removed", gallery.owner[:0], [nothing])


STATISTIC = Statistic(
    name="embedding_retrieval",
    version="2",
    tables={"retrieval": RETRIEVAL_TABLE, "retrieval_groups": GROUPS},
    make=make,
    per="model",
)
