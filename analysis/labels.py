"""Labels of concepts: the label that each concept's activation separates best, beside permuted labels.

The label is chosen on training items, and its AUC is measured on held-out items of the concept's own modality: images
where at least half of the concept's energy is on images, else captions. The null permutes the labels over the images of
each side and repeats the choice in every draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import duckdb
import numpy as np
import polars as pl

from analysis.coactivation import Codes
from analysis.inputs import Analysis, Keys, codes_of, keys_of
from analysis.label_auc import Ranked, label_auc, ranked
from analysis.labelled import Kind, LabelledItems, labelled_items
from analysis.statistic import Statistic, Table
from analysis.tables import NULL_DRAWS, SAE_KEYS, Schema, empty, table, table_of_rows
from analysis.workers import cores, in_order
from storage.definitions import is_counted

CONCEPT_LABELS: Schema = {
    **SAE_KEYS, "concept_id": pl.Int32, "modality": pl.String, "name": pl.String, "label": pl.String,
    "training_auc": pl.Float64, "auc": pl.Float64, "null_mean": pl.Float64, "null_q975": pl.Float64,
    "above_null": pl.Boolean, "positives": pl.Int64, "draws": pl.Int32,
}  # fmt: skip
LABELS = 12  # spawn key of the random stream; every module has a different key
DRAWS = 40  # draws of the null; a 97.5 % quantile needs at least 39


class Best(NamedTuple):
    """The best label of every concept within one kind of labels, by the training items; AUCs on both sides."""

    label: np.ndarray  # [C] position among the labels of the kind
    training: np.ndarray  # [C] AUC on training items
    heldout: np.ndarray  # [C] AUC on held-out items


class Sides(NamedTuple):
    """The ranked firings of some concepts on training items and on held-out items."""

    train: Ranked
    heldout: Ranked


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The tables of this statistic. They have no rows where the study has no label that counts."""
    entry, net = analysis.sae
    concepts, draws = of_sae(con, keys_of(entry), net.config.width)
    return {"concept_labels": concepts, "null_draws": draws}


def of_sae(
    con: duckdb.DuckDBPyConnection, keys: Keys, width: int, draws: int = DRAWS
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of concept_labels of one SAE, and the draws of the mean AUC over the concepts that are counted.

    The seed of the SAE is also the seed of the draws. Reads codes, concepts, images, pairs and labels.
    """
    numbers = con.execute(
        "SELECT modality_score, firings FROM concepts "
        "WHERE model = $model AND sae = $sae AND seed = $seed ORDER BY concept_id",
        keys,
    ).fetchnumpy()
    score = np.ma.filled(numbers["modality_score"].astype(np.float64), np.nan)
    counts = is_counted(np.asarray(numbers["firings"]), score)
    tables = [empty(CONCEPT_LABELS)]
    drawn: dict[str, list[np.ndarray]] = {}
    for modality in ("image", "text"):
        given = labelled_items(con, modality)
        if given is None:
            continue
        own = np.flatnonzero(score >= 0.5 if modality == "image" else score < 0.5)
        sides, own = _fired(_ranked(con, modality, given, own, width), own)
        bests = best_labels(sides, given)
        nulls = permuted(sides, given, draws, keys["seed"] or 0)
        for place, kind in enumerate(given.kinds):
            rows, null = _rows(kind, bests[place], nulls[:, place], given), nulls[:, place][:, counts[own]]
            tables.append(table({**keys, "concept_id": own, "modality": modality, **rows}, CONCEPT_LABELS))
            drawn.setdefault(kind.name, []).append(null)
    of_draws = [
        {**keys, "null": "labels_permuted", "draw": draw, "statistic": f"label_auc_{name}", "value": value}
        for name, parts in drawn.items()
        for draw, value in enumerate(_means(np.concatenate(parts, axis=1)))
    ]
    return pl.concat(tables).sort("concept_id", "name"), table_of_rows(of_draws, NULL_DRAWS)


def best_labels(sides: Sides, given: LabelledItems) -> list[Best]:
    """The best label of every concept, for each kind of labels: that with the largest AUC on training items.

    Among equal AUCs it is the first label.
    """
    return list(_best(sides, given, None, None))


def permuted(sides: Sides, given: LabelledItems, draws: int, seed: int) -> np.ndarray:
    """Held-out AUCs [draws, kinds, C] float32 of the best labels, chosen again in draws that permute labels.

    Each draw permutes the labels over the images of both sides independently. The labels of an image stay together,
    so that a label keeps its number of images.
    """

    def draw(number: int) -> np.ndarray:
        random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(LABELS, number)))
        orders = (random.permutation(len(side.images)) for side in (given.train, given.heldout))
        return np.stack([best.heldout for best in _best(sides, given, *orders)]).astype(np.float32)

    drawn = list(in_order(draw, range(draws), cores()))
    return np.stack(drawn) if drawn else np.empty((0, len(given.kinds), len(sides.train.silent)), np.float32)


def _best(sides: Sides, given: LabelledItems, train: np.ndarray | None, heldout: np.ndarray | None) -> Iterator[Best]:
    training = label_auc(sides.train, given.train.labelled, train)
    measured = label_auc(sides.heldout, given.heldout.labelled, heldout)
    concepts = np.arange(len(training))
    for kind in given.kinds:
        # In a draw, a label of captions may lose all its items to images without captions: its AUC is then not known.
        of_kind = np.where(np.isnan(training[:, kind.at]), -1.0, training[:, kind.at])
        label = of_kind.argmax(1)
        yield Best(label, of_kind[concepts, label], measured[:, kind.at][concepts, label])


def _ranked(
    con: duckdb.DuckDBPyConnection, modality: str, given: LabelledItems, concepts: np.ndarray, width: int
) -> Sides:
    def of(items: np.ndarray, image: np.ndarray, images: np.ndarray) -> Ranked:
        codes: Codes = codes_of(con, modality, items)
        return ranked(codes, image, len(images), concepts, width)

    return Sides(of(*given.train[:3]), of(*given.heldout[:3]))


def _fired(sides: Sides, concepts: np.ndarray) -> tuple[Sides, np.ndarray]:
    """Leave out concepts that fire on no training item: no label can be chosen for them."""
    kept = np.flatnonzero(np.diff(sides.train.start) > 0)
    return Sides(*(_taken(side, kept) for side in sides)), concepts[kept]


def _taken(ranks: Ranked, kept: np.ndarray) -> Ranked:
    lengths = np.diff(ranks.start)[kept]
    start = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    at = np.arange(start[-1]) + np.repeat(ranks.start[kept] - start[:-1], lengths)
    return Ranked(start, ranks.images[at], ranks.excess[at], ranks.silent[kept], ranks.items)


def _rows(kind: Kind, best: Best, null: np.ndarray, given: LabelledItems) -> dict[str, np.ndarray | str | int]:
    """Columns of concept_labels. null: held-out AUCs [draws, C] of the concepts under permuted labels."""
    heldout = given.heldout
    positives = heldout.labelled.positives(
        np.bincount(heldout.image, minlength=len(heldout.images)), np.arange(len(heldout.images))
    )[kind.at]
    # Weibull's quantile is that which 2.5 % of further draws exceed; numpy's default is lower with few draws.
    high = np.quantile(null, 0.975, axis=0, method="weibull") if null.size else np.full(len(best.label), np.nan)
    return {
        "name": kind.name,
        "label": np.array(kind.labels, object)[best.label],
        "training_auc": best.training,
        "auc": best.heldout,
        "null_mean": null.mean(0, dtype=np.float64),
        "null_q975": high,
        "above_null": best.heldout > high,
        "positives": positives[best.label],
        "draws": len(null),
    }


def _means(values: np.ndarray) -> list[float]:
    """The mean of each draw over concepts; NaN without concepts."""
    return [float(row.mean(dtype=np.float64)) if len(row) else float("nan") for row in values]


STATISTIC = Statistic(
    name="labels",
    version="1",
    needs=("concepts",),
    tables={"concept_labels": CONCEPT_LABELS},
    adds=("null_draws",),
    make=make,
)
