"""The files of one SAE: its concepts, their top items, words and matches, its bridges, and the codes of the items."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any, NamedTuple
from zipfile import ZipFile

import duckdb
import numpy as np
import polars as pl

from report.explorer.answers import rounded, rows_of
from report.explorer.shares import Dictionary, shares_of_items
from report.explorer.together import together_of
from report.queries import holds
from storage.site import put_json
from storage.statements import statement

TOP = 24  # items of each modality in a concept's top lists
AT_LEVEL = 3  # items of each modality at each level of a concept's activation
SAMPLED = 20_000  # items of each modality over which concepts that fire together are found
BINS = 20  # bars of the activation histogram
BRIDGES = 20_000  # maximum number of bridges per SAE
CONCEPT_BLOCK = 64  # concepts per file
CODE_DIGITS = 4  # significant digits of codes and shares; few, since codes and shares are most of the data
SMALL = 5000  # a study of at most 5000 images shows all its items; a larger one shows only items in a top list

Record = dict[str, Any]


class SAEKey(NamedTuple):
    """Names one SAE of the study."""

    model: str
    sae: str
    seed: int

    def __str__(self) -> str:
        return f"{self.model}/{self.sae}/{self.seed}"

    @property
    def folder(self) -> str:
        """The folder of the SAE's files in the archive."""
        return f"data/runs/{self}"


def find_top(con: duckdb.DuckDBPyConnection, keys: list[SAEKey]) -> None:
    """Fill the table explorer_top: the strongest items of every concept of these SAEs."""
    empty = statement("explorer/top", model="", sae="", seed=0, n=0, each=0)
    con.execute(f"CREATE OR REPLACE TEMP TABLE explorer_top AS {empty}")
    for key in keys:
        con.execute(f"INSERT INTO explorer_top {statement('explorer/top', **key._asdict(), n=TOP, each=AT_LEVEL)}")


def write_run(
    site: ZipFile, con: duckdb.DuckDBPyConnection, key: SAEKey, split: str, layout: Any, dictionary: Dictionary
) -> dict[int, Record]:
    """Write all files of one SAE. layout: positions of its concepts on the map, [C, 2].

    Returns the codes as they are written, by the number of their file.
    """
    of = key._asdict()
    concepts = rows_of(con, "concepts", **of)
    words: dict[int, list[Record]] = defaultdict(list)
    if holds(con, "concept_words"):  # a run of an earlier version lacks the table
        for row in rows_of(con, "words", **of).iter_rows(named=True):
            words[row["concept_id"]].append({"word": row["word"], "score": row["score"]})
    places = rounded(pl.DataFrame({"x": layout[:, 0], "y": layout[:, 1]})).gather(concepts["concept_id"])
    labels = _labels(con, key)
    best = [next(iter(labels[i]), {"label": "", "auc": None}) for i in concepts["concept_id"].to_list()]
    columns = concepts.drop("concept_id").to_dict(as_series=False)
    columns |= {"label": [row["label"] for row in best], "label_auc": [row["auc"] for row in best]}
    put_json(site, f"{key.folder}/concepts.json", {**places.to_dict(as_series=False), **columns})
    bridges = rows_of(con, "bridges", **of, most=BRIDGES)
    put_json(site, f"{key.folder}/bridges.json", bridges.to_dict(as_series=False))
    joined = {str(i): " ".join(word["word"] for word in own) for i, own in words.items() if own}
    put_json(site, f"{key.folder}/words.json", joined)
    _write_details(site, con, key, split, concepts["concept_id"].to_list(), words, labels)
    return _write_codes(site, con, key, dictionary)


def _write_details(
    site: ZipFile,
    con: duckdb.DuckDBPyConnection,
    key: SAEKey,
    split: str,
    ids: list[int],
    words: dict[int, list[Record]],
    labels: dict[int, list[Record]],
) -> None:
    top, levels = _top_items(con, key), _levels(con, key)
    bars = _histograms(con, key, split)
    matches: dict[int, list[Record]] = defaultdict(list)
    for row in rows_of(con, "matches", **key._asdict()).iter_rows(named=True):
        other = str(key._replace(seed=row["seed"]))
        matches[row["concept_id"]].append({"key": other, "concept": row["concept"], "cosine": row["cosine"]})
    partners, members, together = _partners(con, key), _members(con, key), _together(con, key, len(ids))
    blocks: dict[int, Record] = defaultdict(dict)
    silent: Record = {"edges": [], "image": [], "text": []}
    for i in ids:
        blocks[i // CONCEPT_BLOCK][str(i)] = {
            "images": top["image"][i],
            "texts": top["text"][i],
            "histogram": bars.get(i, silent),
            "words": words[i],
            "matches": matches[i],
            "labels": labels[i],
            "levels": levels[i],
            "partners": partners[i],
            **({"members": members[i]} if members else {}),
            "together": together[i],
        }
    for block, details in blocks.items():
        put_json(site, f"{key.folder}/concept/{block}.json", details)


def _labels(con: duckdb.DuckDBPyConnection, key: SAEKey) -> dict[int, list[Record]]:
    """The best label of every concept for each name of labels; none where the run's analysis has no labels."""
    labels: dict[int, list[Record]] = defaultdict(list)
    if holds(con, "concept_labels"):
        for row in rows_of(con, "labels", **key._asdict()).iter_rows(named=True):
            labels[row.pop("concept_id")].append(row)
    return labels


def _partners(con: duckdb.DuckDBPyConnection, key: SAEKey) -> dict[int, list[Record]]:
    """The partners of every concept in the other models; none where the run has one model."""
    partners: dict[int, list[Record]] = defaultdict(list)
    if holds(con, "correspondence"):
        for row in rows_of(con, "partners", **key._asdict()).iter_rows(named=True):
            other = str(key._replace(model=row.pop("model")))
            partners[row.pop("concept_id")].append({"key": other, **row})
    return partners


def _members(con: duckdb.DuckDBPyConnection, key: SAEKey) -> dict[int, list[Record]]:
    """The seeds' concepts that every concept of a consensus SAE was made from; none for another SAE."""
    members: dict[int, list[Record]] = defaultdict(list)
    if holds(con, "consensus_members"):
        for row in rows_of(con, "members", **key._asdict()).iter_rows(named=True):
            of = str(key._replace(sae=row.pop("of_sae"), seed=row.pop("of_seed")))
            members[row.pop("concept_id")].append({"key": of, **row})
    return members


def _together(con: duckdb.DuckDBPyConnection, key: SAEKey, width: int) -> dict[int, Record]:
    """The concepts that fire together with every concept, on images and on captions."""
    together: dict[int, Record] = defaultdict(dict)
    for modality in ("image", "text"):
        answer = con.execute(statement("explorer/sampled", **key._asdict(), modality=modality, most=SAMPLED))
        item, concept, activation = answer.fetchnumpy().values()
        found = together_of(np.asarray(item), np.asarray(concept), np.asarray(activation), width)
        for i, others in enumerate(found):
            columns = {"concept": [j for j, _ in others], "correlation": [value for _, value in others]}
            together[i]["images" if modality == "image" else "texts"] = columns
    return together


def _levels(con: duckdb.DuckDBPyConnection, key: SAEKey) -> dict[int, list[Record]]:
    """Items of every concept at levels of its activation below the top list, the highest level first."""
    levels: dict[int, list[Record]] = defaultdict(list)
    answer = rows_of(con, "levels", **key._asdict())
    for row in rounded(answer, CODE_DIGITS).iter_rows(named=True):
        own = levels[row["concept_id"]]
        if not own or own[-1]["level"] != row["level"]:
            own.append({"level": row["level"], "images": [], "texts": []})
        items = own[-1]["images" if row["modality"] == "image" else "texts"]
        items.append({"item": row["item_id"], "activation": row["activation"]})
    return levels


def _top_items(con: duckdb.DuckDBPyConnection, key: SAEKey) -> dict[str, dict[int, list[Record]]]:
    top: dict[str, dict[int, list[Record]]] = {"image": defaultdict(list), "text": defaultdict(list)}
    for row in rows_of(con, "top_of", **key._asdict()).iter_rows(named=True):
        top[row["modality"]][row["concept_id"]].append({"item": row["item_id"], "activation": row["activation"]})
    return top


def _histograms(con: duckdb.DuckDBPyConnection, key: SAEKey, split: str) -> dict[int, Record]:
    histograms: dict[int, Record] = {}
    for row in rows_of(con, "histograms", **key._asdict(), split=split, bins=BINS).iter_rows(named=True):
        edges = [float(f"{row['highest'] * i / BINS:.6g}") for i in range(BINS + 1)]
        bars = histograms.setdefault(row["concept_id"], {"edges": edges, "image": [0] * BINS, "text": [0] * BINS})
        if row["bin"] is not None:
            bars["image"][row["bin"]], bars["text"][row["bin"]] = row["image"], row["text"]
    return histograms


def _write_codes(
    site: ZipFile, con: duckdb.DuckDBPyConnection, key: SAEKey, dictionary: Dictionary
) -> dict[int, Record]:
    """Write the codes of the items shown, one file per block of images.

    In a study of more than SMALL images, only the items in a top list of this SAE have codes. An item on which no
    concept fires has no codes.
    """
    blocks: dict[int, Record] = defaultdict(lambda: {"images": {}, "texts": {}})
    for modality, name in (("image", "images"), ("text", "texts")):
        codes = rows_of(con, "codes", **key._asdict(), modality=modality, small=SMALL)
        items, first = np.unique(codes["item_id"].to_numpy(), return_index=True)
        order = np.argsort(first)
        starts = np.append(first[order], codes.height).astype(np.int64)
        concept, activation = codes["concept_id"].to_numpy().astype(np.int64), codes["activation"].to_numpy()
        share, rest = shares_of_items(dictionary.concepts, dictionary.bias[modality], starts, concept, activation)
        columns = codes.select("concept_id", "activation", share=pl.Series(share))
        of_firings = [column.to_list() for column in rounded(columns, CODE_DIGITS)]
        biases = rounded(pl.DataFrame({"bias": rest}))["bias"].to_list()
        of_items = zip(items[order].tolist(), codes["block"].gather(starts[:-1]).to_list(), biases, strict=True)
        for (item, block, bias), (start, stop) in zip(of_items, itertools.pairwise(starts.tolist()), strict=True):
            own = (column[start:stop] for column in of_firings)
            codes_of = dict(zip(("concept", "activation", "share"), own, strict=True))
            blocks[block][name][str(item)] = {**codes_of, "bias": bias}
    for block, both in blocks.items():
        put_json(site, f"{key.folder}/codes/{block}.json", both)
    return blocks
