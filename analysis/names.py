"""Names of concepts: the words that set a concept's captions apart, and how well the encoder finds its items by them.

The words are taken from training items alone, and the score is measured on held-out items, so that no name is scored on
the captions that it is made from. Vectors that were computed elsewhere have no encoder: their names have no score.
"""

from __future__ import annotations

from typing import NamedTuple

import duckdb
import numpy as np
import polars as pl
from scipy.special import stdtrit

from analysis.inputs import Analysis, Encode, Keys, jackknife_groups, keys_of
from analysis.label_auc import Wins, wins_of
from analysis.statistic import Statistic, Table
from analysis.tables import SAE_KEYS, Schema, empty, fill, table
from analysis.workers import cores, in_order
from storage.catalog import frame
from storage.definitions import definitions
from storage.rows import Rows

CONCEPT_WORDS: Schema = {**SAE_KEYS, "concept_id": pl.Int32, "word": pl.String, "score": pl.Float64}
CONCEPT_NAMES: Schema = {
    **SAE_KEYS, "concept_id": pl.Int32, "modality": pl.String, "words": pl.String, "is_scored": pl.Boolean,
    "score": pl.Float64, "low": pl.Float64, "high": pl.Float64, "chance": pl.Float64, "firings": pl.Int64,
    "items": pl.Int64,
}  # fmt: skip
TOP = 24  # training items of each modality whose captions name a concept
WORDS = 8  # distinctive words kept per concept
NAMED = 3  # how many of them form its name
PRIOR = 10  # weight of the prior, in captions
LEAST = 1.96  # z-score from which a word is distinctive (95 %)
GROUPS = 20  # groups of images that the jackknife leaves out one by one
ITEMS = 10_000  # most held-out items of a modality that score names: those with the smallest split_u
BLOCK = 2**22  # similarities in memory at a time and thread: 16 MB


class Items(NamedTuple):
    """The n held-out items of one modality that score names, in ascending order of their ids."""

    ids: np.ndarray  # [n] int64
    rows: np.ndarray  # [n, d] float32 unit embeddings
    groups: np.ndarray  # [n] int64, jackknife group of the item's image


class Scores(NamedTuple):
    """Scores of the names of N concepts; NaN where a score is not known."""

    score: np.ndarray  # [N] AUC
    low: np.ndarray  # [N] bounds of its 95 % interval
    high: np.ndarray
    chance: np.ndarray  # [N] AUC of the name of the concept next in energy
    firings: np.ndarray  # [N] int64, held-out items on which the concept fires


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The tables of this statistic. Reads codes, pairs and concepts, and the embeddings of the held-out items."""
    entry, _ = analysis.sae
    keys = keys_of(entry)
    words = words_of(con, keys)
    named = words.group_by("concept_id", maintain_order=True).agg(words=pl.col("word").head(NAMED).str.join(", "))
    held_out = con.execute("SELECT count(*) FROM pairs WHERE split = 'heldout'").fetchall()[0][0] > 0
    encode = analysis.encode if held_out else None
    names = of_sae(con, keys, named, encode, analysis.embedded_on("heldout") if encode is not None else None)
    return {"concept_words": words, "concept_names": names}


def words_of(con: duckdb.DuckDBPyConnection, keys: Keys) -> pl.DataFrame:
    """The words that distinguish the training captions of each concept, the most distinctive first: concept_words."""
    for name in ("caption_words", "caption_counts"):
        fill(con, name)
    fill(con, "concept_words", **keys, top=TOP, prior=PRIOR, least=LEAST, n=WORDS)
    words = frame(con, "FROM concept_words")
    for name in ("concept_words", "caption_counts", "caption_words"):
        con.execute(f"DROP TABLE {name}")
    return words.cast(CONCEPT_WORDS)  # type: ignore[arg-type]


def of_sae(
    con: duckdb.DuckDBPyConnection, keys: Keys, named: pl.DataFrame, encode: Encode | None, rows: Rows | None
) -> pl.DataFrame:
    """The rows of concept_names of one SAE. Reads codes and concepts.

    named: concept_id and words of the concepts that have words. encode: gives the unit embeddings of texts; without it,
    no name is scored. rows: the held-out items, which `encode` needs.
    """
    of_concepts = frame(
        con,
        "SELECT concept_id, modality_score, energy FROM concepts WHERE model = $model AND sae = $sae AND seed = $seed",
        keys,
    )
    named = named.join(of_concepts, on="concept_id").sort("energy", "concept_id", descending=[True, False])
    tables = [empty(CONCEPT_NAMES)]
    for modality in ("image", "text"):
        on_images = pl.col("modality_score").fill_null(1.0) >= 0.5
        own = named.filter(on_images if modality == "image" else ~on_images)
        if own.is_empty():
            continue
        concepts = own["concept_id"].to_numpy()
        columns = {**keys, "concept_id": concepts, "modality": modality, "words": own["words"].to_numpy()}
        if encode is None or rows is None:
            none = dict.fromkeys(("score", "low", "high", "chance", "firings", "items"), None)
            tables.append(table({**columns, "is_scored": False, **none}, CONCEPT_NAMES))
            continue
        items = _items(rows, modality)
        scores = scored(con, modality, items, concepts, _encoded(encode, own["words"].to_list()))
        found = {**scores._asdict(), "items": len(items.ids), "is_scored": True}
        tables.append(table({name: {**columns, **found}[name] for name in CONCEPT_NAMES}, CONCEPT_NAMES))
    return pl.concat(tables).sort("concept_id")


def scored(
    con: duckdb.DuckDBPyConnection, modality: str, items: Items, concepts: np.ndarray, names: np.ndarray
) -> Scores:
    """Score names on the held-out items of a modality. Reads codes.

    concepts [N]: in the order of their energies, so that neighbours have like energies. names [N, d]: embeddings of
    their names.
    Source: docs/definitions.md, "Names of concepts".
    """
    start, fired = _firings(con, modality, items.ids, concepts)
    block = max(1, BLOCK // max(1, len(items.ids)))
    width = len(concepts)

    def of_block(first: int) -> tuple[Wins, np.ndarray]:
        stop = min(first + block, width)
        before, after = max(0, first - 1), min(width, stop + 1)
        similarity = names[before:after] @ items.rows.T
        own = slice(first - before, stop - before)
        at = start[first : stop + 1]
        wins = wins_of(similarity[own], at, fired, items.groups, GROUPS)
        if width == 1:
            return wins, np.full(1, np.nan)
        # The similarities to the name of the next concept; of the one before it, for the last concept.
        place = np.arange(first, stop)
        beside = np.where(place + 1 < width, place + 1, width - 2) - before
        return wins, wins_of(similarity[beside], at, fired, items.groups, 1).auc()

    parts = list(in_order(of_block, range(0, width, block), cores()))
    wins = Wins(*(np.concatenate(each) for each in zip(*(wins for wins, _ in parts), strict=True)))
    low, high = interval(wins)
    return Scores(wins.auc(), low, high, np.concatenate([chance for _, chance in parts]), wins.positives.sum(1))


def interval(wins: Wins) -> tuple[np.ndarray, np.ndarray]:
    """Bounds [N] of the 95 % interval of each AUC, by delete-one-group jackknife over the groups that hold items.

    NaN where fewer than `min_firings` items are positive, or where the AUC without some group is not defined.
    Source: docs/definitions.md, "Uncertainty of per-concept sums", "Names of concepts".
    """
    held = np.flatnonzero((wins.positives + wins.negatives).sum(0) > 0)
    counts = len(held)
    if counts < 2:
        nothing = np.full(len(wins.positives), np.nan)
        return nothing, nothing
    without = np.stack([wins.without(int(group)) for group in held])
    sd = np.sqrt((counts - 1) * without.var(0))
    half = stdtrit(counts - 1, 0.975) * np.where(wins.positives.sum(1) >= definitions().min_firings, sd, np.nan)
    auc = wins.auc()
    return np.maximum(auc - half, 0.0), np.minimum(auc + half, 1.0)


def _encoded(encode: Encode, texts: list[str]) -> np.ndarray:
    """Unit embeddings [N, d] of texts. Equal texts are encoded once."""
    unique, inverse = np.unique(np.array(texts), return_inverse=True)
    return encode(unique.tolist())[inverse]


def _items(rows: Rows, modality: str) -> Items:
    groups = jackknife_groups(rows.split_u)
    of = (rows.image_id, rows.image, groups) if modality == "image" else (rows.pair_id, rows.text, groups[rows.owner])
    split_u = rows.split_u if modality == "image" else rows.split_u[rows.owner]
    first = np.lexsort((of[0], split_u))[:ITEMS]
    order = first[np.argsort(of[0][first])]
    return Items(*(np.ascontiguousarray(each[order]) for each in of))


def _firings(
    con: duckdb.DuckDBPyConnection, modality: str, ids: np.ndarray, concepts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The positions among `ids` of the held-out items on which each of N concepts fires, in compressed rows.

    Returns start [N+1] and the positions, both int64.
    """
    found = con.execute(
        "SELECT concept_id, item_id FROM codes WHERE is_image = $is_image AND NOT training",
        {"is_image": modality == "image"},
    ).fetchnumpy()
    place = np.full(int(max(concepts.max(), found["concept_id"].max(initial=0))) + 1, -1, np.int64)
    place[concepts] = np.arange(len(concepts))
    of = place[found["concept_id"]]
    at = np.searchsorted(ids, found["item_id"])
    kept = np.flatnonzero((of >= 0) & (at < len(ids)))
    kept = kept[ids[at[kept]] == found["item_id"][kept]]
    kept = kept[np.lexsort((at[kept], of[kept]))]
    start = np.concatenate([[0], np.cumsum(np.bincount(of[kept], minlength=len(concepts)))])
    return start.astype(np.int64), at[kept].astype(np.int64)


STATISTIC = Statistic(
    name="names",
    version="1",
    per="names",
    needs=("concepts",),
    tables={"concept_words": CONCEPT_WORDS, "concept_names": CONCEPT_NAMES},
    make=make,
)
