"""Probing: how well a few concepts of an SAE predict a label, beside all of its concepts.

The statistic `embedding_probing` adds probes on the embeddings of the same items.
Sources: the features of largest mean difference, as SAEBench's published sparse probing chooses them (its code was read
in excerpts); probes on embeddings and components as baselines, after arXiv 2502.16681; frozen SAEs as nulls of sparse
probing, after arXiv 2602.14111. Of both papers, the abstract was read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import duckdb
import numpy as np
import polars as pl
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from analysis.inputs import Analysis, Keys, codes_of, groups_of, keys_of
from analysis.labelled import POSITIVES, Kind, LabelledItems, Side, labelled_items
from analysis.probes import Features, Items, all_features, few_features
from analysis.statistic import Statistic, Table
from analysis.tables import SAE_KEYS, Schema, empty, table
from analysis.workers import cores, in_order

PROBING: Schema = {
    **SAE_KEYS, "modality": pl.String, "probe": pl.String, "features": pl.Int32, "name": pl.String, "label": pl.String,
    "balanced_accuracy": pl.Float64, "penalty": pl.Float64, "positives": pl.Int64, "training": pl.Int64,
    "heldout": pl.Int64,
}  # fmt: skip
SIZES = (1, 2, 4, 8, 16)  # numbers of features of the sparse probes
PENALTY = 0.01  # of the probes on a few features; from .001 to .1, mean accuracies of the demo differ by at most .01
PENALTIES = (1.0, 0.1, 0.01)  # among which the penalty of a probe on all features is chosen
ITEMS = 10_000  # most training items, and most held-out items, of one modality
LABELS = 100  # most labels of one name: those that most training items of the draw have
VALIDATING = 4  # of the 20 jackknife groups of training images, those that choose the penalty
DRAWN = 18  # spawn key of this module's random stream; each module has a different key


class DrawnSide(NamedTuple):
    """The drawn items of one modality on one side of the split."""

    items: np.ndarray  # [n] ids of the items, ascending
    image: np.ndarray  # [n] ids of their images
    has: np.ndarray  # [n, L] bool: whether an item has a label


class Drawn(NamedTuple):
    """The drawn items of one modality on both sides of the split, and their labels."""

    modality: str
    kinds: list[Kind]
    train: DrawnSide
    heldout: DrawnSide


class Probed(NamedTuple):
    """The probes on one number of features, one per label."""

    probe: str
    features: int
    accuracy: np.ndarray  # [L] balanced accuracy on held-out items
    penalty: float


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The table of this statistic. It has no rows where the study has no label that counts."""
    entry, net = analysis.sae
    return {"probing": of_sae(con, keys_of(entry), net.config.width)}


def of_sae(con: duckdb.DuckDBPyConnection, keys: Keys, width: int) -> pl.DataFrame:
    """The rows of one SAE: probes on its concepts. Reads codes, images, pairs and labels."""
    tables = [empty(PROBING)]
    for drawn in drawn_items(con):
        ids = np.concatenate([drawn.train.items, drawn.heldout.items])
        order = np.argsort(ids, kind="stable")
        codes = codes_of(con, drawn.modality, ids[order])
        z = csr_array((codes.values, codes.concepts, codes.indptr), shape=(len(ids), width))
        z = z[np.argsort(order, kind="stable")]
        tables += [rows_of(keys, drawn, one) for one in probes_of(con, drawn, z, "concepts", "all_concepts")]
    return pl.concat(tables)


def drawn_items(con: duckdb.DuckDBPyConnection) -> Iterator[Drawn]:
    """The items of each modality on which probes are fitted and scored, where labels count.

    The draw is the same for all SAEs and for the embeddings of a model. At most ITEMS items of either side are drawn; a
    label counts where at least POSITIVES of the drawn items of each side have it, and as many do not.
    """
    for modality in ("image", "text"):
        given = labelled_items(con, modality)
        drawn = None if given is None else draw(modality, given)
        if drawn is not None and drawn.kinds:
            yield drawn


def draw(modality: str, given: LabelledItems) -> Drawn:
    """The drawn items, and the labels that count among them; see `drawn_items`."""
    train, heldout = _drawn_side(given.train, 0), _drawn_side(given.heldout, 1)
    positives = train.has.sum(0)
    least = np.minimum(
        np.minimum(positives, len(train.has) - positives),
        np.minimum(heldout.has.sum(0), len(heldout.has) - heldout.has.sum(0)),
    )
    kinds: list[Kind] = []
    taken = [np.empty(0, np.int64)]
    for kind in given.kinds:
        counts = np.arange(kind.at.start, kind.at.stop)
        counts = counts[least[counts] >= POSITIVES]
        counts = np.sort(counts[np.argsort(-positives[counts], kind="stable")[:LABELS]])
        if len(counts):
            first = kinds[-1].at.stop if kinds else 0
            names = [kind.labels[i - kind.at.start] for i in counts]
            kinds.append(Kind(kind.name, names, slice(first, first + len(counts))))
            taken.append(counts)
    columns = np.concatenate(taken)
    return Drawn(modality, kinds, *(side._replace(has=side.has[:, columns]) for side in (train, heldout)))


def _drawn_side(side: Side, number: int) -> DrawnSide:
    count = len(side.items)
    random = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(DRAWN, number)))
    chosen = np.sort(random.choice(count, min(count, ITEMS), replace=False))
    image = side.image[chosen]
    start, labels, total = side.labelled
    lengths = np.diff(start)[image]
    has = np.zeros((len(chosen), total), bool)
    first = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    at = np.arange(lengths.sum()) + np.repeat(start[image] - first, lengths)
    has[np.repeat(np.arange(len(chosen)), lengths), labels[at]] = True
    return DrawnSide(side.items[chosen], side.images[image], has)


def probes_of(
    con: duckdb.DuckDBPyConnection, drawn: Drawn, features: Features, few: str | None, every: str | None
) -> list[Probed]:
    """Fit the probes on the drawn training items and score them on the drawn held-out items.

    features [n, F]: of the training items, then of the held-out items. few: the name of the probes on the features that
    differ most between the classes, for every number in SIZES; every: that of the probes on all features. None leaves
    the probes out.
    """
    stop = len(drawn.train.items)
    train, heldout = Items(features[:stop], drawn.train.has), Items(features[stop:], drawn.heldout.has)
    probed = []
    if few is not None:
        sizes = [size for size in SIZES if size <= features.shape[1]]
        accuracies = few_features(train, heldout, sizes, PENALTY)
        probed += [Probed(few, size, of_size, PENALTY) for size, of_size in zip(sizes, accuracies, strict=True)]
    if every is not None:
        penalty = best_penalty(train, groups_of(con, drawn.train.image))
        probed.append(Probed(every, features.shape[1], all_features(train, heldout, penalty), penalty))
    return probed


def best_penalty(train: Items, group: np.ndarray) -> float:
    """The penalty of PENALTIES with the largest mean balanced accuracy on a fifth of the training images.

    The probes are fitted on the items of the other images. group [n]: the jackknife group of each item's image; those
    below VALIDATING are the fifth. Among equal penalties, the largest is taken.
    """
    fitted, tested = train.of(group >= VALIDATING), train.of(group < VALIDATING)
    if 0 in (len(fitted.has), len(tested.has)):
        return PENALTIES[0]
    with threadpool_limits(1):  # each penalty has a thread
        found = list(in_order(lambda penalty: all_features(fitted, tested, penalty), PENALTIES, cores()))
    return PENALTIES[int(np.nan_to_num(found).mean(1).argmax())]


def rows_of(keys: Keys, drawn: Drawn, probed: Probed) -> pl.DataFrame:
    """Rows of the table `probing`."""
    names = [kind.name for kind in drawn.kinds for _ in kind.labels]
    columns = {
        **keys, "modality": drawn.modality, "probe": probed.probe, "features": probed.features,
        "name": np.array(names, object), "label": np.array([x for kind in drawn.kinds for x in kind.labels], object),
        "balanced_accuracy": probed.accuracy, "penalty": probed.penalty, "positives": drawn.heldout.has.sum(0),
        "training": len(drawn.train.items), "heldout": len(drawn.heldout.items),
    }  # fmt: skip
    return table(columns, PROBING)


STATISTIC = Statistic(
    name="probing",
    version="1",
    tables={"probing": PROBING},
    make=make,
)
