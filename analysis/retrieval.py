"""Retrieval: recall at K between images and captions, after interventions on the concepts of an SAE.

Scores are computed in blocks of rows; the full matrix of scores is never in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import duckdb
import numpy as np
import polars as pl
from scipy.sparse import csr_array

from analysis.coactivation import Codes
from analysis.inputs import Analysis, Keys, biases_of, codes_of, jackknife_groups, keys_of
from analysis.statistic import Statistic, Table
from analysis.tables import SAE_KEYS, Schema, table_of_rows
from sae import SAE
from storage.rows import Rows

RETRIEVAL_TABLE: Schema = {
    **SAE_KEYS, "split": pl.String, "intervention": pl.String, "direction": pl.String, "gallery": pl.Int64,
    "captions": pl.Int64, "r1": pl.Float64, "r5": pl.Float64, "r10": pl.Float64, "concepts": pl.Float64,
    "energy_share": pl.Float64,
}  # fmt: skip
GROUPS: Schema = {
    **SAE_KEYS, "split": pl.String, "intervention": pl.String, "direction": pl.String, "jackknife_group": pl.Int32,
    "queries": pl.Int64, "hits": pl.Int64,
}  # fmt: skip
GALLERY = 1000  # number of images (docs/definitions.md, "Retrieval")
ALIGNED = 32  # size of the set of concepts most aligned with the mean gap; at most an eighth of the dictionary
BRIDGES = 100  # number of top bridges whose concepts the intervention `only_bridging` keeps
CONCEPTS = """
SELECT energy, modality_class(modality_score), align_mean_gap FROM concepts
WHERE model = $model AND sae = $sae AND seed = $seed ORDER BY concept_id
"""
TOP = """
SELECT image_concept, text_concept FROM bridges
WHERE model = $model AND sae = $sae AND seed = $seed ORDER BY bridge DESC, image_concept, text_concept LIMIT $n
"""
BLOCK = 1024
DRAWS = 5  # random sets of concepts per removed set
ENERGY_OFF = 0.01  # a random set may have less energy than the removed set by this share of the removed set's energy
RETRIEVAL = 3  # spawn key of this module's random stream; each module has a different key


class Gallery(NamedTuple):
    """The images and captions among which recall is measured (docs/definitions.md, "Retrieval")."""

    image: np.ndarray  # [n, d]
    text: np.ndarray  # [m, d]
    owner: np.ndarray  # [m] row of `image` to which each caption belongs
    group: np.ndarray = np.empty(0, np.int64)  # [n] jackknife group of each image; empty where no interval is needed
    image_id: np.ndarray = np.empty(0, np.int64)  # [n] ascending; empty where no codes are read
    pair_id: np.ndarray = np.empty(0, np.int64)  # [m] ascending


class Decoder(NamedTuple):
    """The codes of the gallery's rows, and the dictionary and bias that decode these codes."""

    image: Codes  # n rows
    text: Codes  # m rows
    dictionary: np.ndarray  # [C, d]
    bias: np.ndarray  # [d], or [2, d] (image, text) where each modality was centred on its own mean


class ConceptSets(NamedTuple):
    """Ids of the concepts that are removed or kept together; order and repetition do not matter."""

    unimodal: np.ndarray
    bimodal: np.ndarray
    aligned: np.ndarray  # the concepts most aligned with the mean gap, chosen by `most`
    bridging: np.ndarray  # the image concepts and the text concepts of the top bridges, as one set


class Recalls(NamedTuple):
    """Recalls after one intervention, in one direction."""

    intervention: str
    direction: str  # "image_to_text" or "text_to_image"
    recalls: dict[int, float]  # {K: recall at K}, K = 1, 5, 10; mean over the draws
    concepts: float  # number of removed or kept concepts, mean over the draws; NaN for an intervention without concepts
    energy: float  # energy of these concepts as a share of the energy of all concepts; mean and NaN as for `concepts`


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The tables of one SAE: recalls among the GALLERY images of the split with the smallest split_u.

    `retrieval_groups` has the hits of the reconstructions. Reads the tables codes, concepts and bridges.
    """
    entry, net = analysis.sae
    keys, gallery = keys_of(entry), gallery_of(analysis.counted)
    energy = np.array([e for e, _, _ in con.execute(CONCEPTS, keys).fetchall()])
    decoder, named = _decoder(con, net, gallery), {**keys, "split": analysis.split}
    recalls = interventions(gallery, decoder, energy, sets_of(con, keys), keys["seed"] or 0)
    rebuilt = _both_kept(decoder, np.arange(net.config.width))
    return {
        "retrieval": recall_rows(named, gallery, recalls),
        "retrieval_groups": group_rows({**named, "intervention": "reconstructions"}, gallery, *rebuilt),
    }


def gallery_of(rows: Rows) -> Gallery:
    """The GALLERY images with the smallest split_u, and all of their captions.

    split_u is the number that assigns an image to a side of the split.
    """
    chosen = np.argsort(rows.split_u, kind="stable")[:GALLERY]
    chosen = chosen[np.argsort(rows.image_id[chosen])]
    position = np.full(len(rows.image), -1)
    position[chosen] = np.arange(len(chosen))
    texts = np.flatnonzero(position[rows.owner] >= 0)
    texts = texts[np.argsort(rows.pair_id[texts])]
    owner, group = position[rows.owner[texts]], jackknife_groups(rows.split_u[chosen])
    return Gallery(rows.image[chosen], rows.text[texts], owner, group, rows.image_id[chosen], rows.pair_id[texts])


def sets_of(con: duckdb.DuckDBPyConnection, keys: Keys) -> ConceptSets:
    """The sets of concepts of one SAE that are removed, or kept, together."""
    _, names, alignment = zip(*con.execute(CONCEPTS, keys).fetchall(), strict=True)
    classes = np.array(names)
    count = min(ALIGNED, max(1, len(classes) // 8))
    aligned = most(np.array([a or 0.0 for a in alignment]), count) if any(alignment) else np.empty(0, np.int64)
    top = con.execute(TOP, {**keys, "n": BRIDGES}).fetchall()
    return ConceptSets(
        unimodal=np.flatnonzero((classes == "image") | (classes == "text")),
        bimodal=np.flatnonzero(classes == "bimodal"),
        aligned=aligned,
        bridging=np.unique(np.array(top, np.int64)),
    )


def _decoder(con: duckdb.DuckDBPyConnection, net: SAE, gallery: Gallery) -> Decoder:
    codes = codes_of(con, "image", gallery.image_id), codes_of(con, "text", gallery.pair_id)
    return Decoder(*codes, net.dictionary.numpy(), np.stack(biases_of(net)))


def recall_rows(keys: dict[str, Any], gallery: Gallery, recalls: Iterable[Recalls]) -> pl.DataFrame:
    """Rows of the table `retrieval`. keys: model, sae, seed and split."""
    rows = [
        {
            **keys, "intervention": one.intervention, "direction": one.direction, "gallery": len(gallery.image),
            "captions": len(gallery.text), **{f"r{k}": value for k, value in one.recalls.items()},
            "concepts": one.concepts, "energy_share": one.energy,
        }
        for one in recalls
    ]  # fmt: skip
    return table_of_rows(rows, RETRIEVAL_TABLE)


def group_rows(keys: dict[str, Any], gallery: Gallery, image: np.ndarray, text: np.ndarray) -> pl.DataFrame:
    """Rows of the table `retrieval_groups`: queries and hits at K = 1 per jackknife group of the query's image.

    keys: model, sae, seed, split and intervention. image [n, d], text [m, d]: the rows after the intervention.
    """
    image, text = unit(image, "image"), unit(text, "text")
    of_queries = {
        "image_to_text": gallery.group[np.unique(gallery.owner)],
        "text_to_image": gallery.group[gallery.owner],
    }
    rows = []
    for direction, ranks in _ranks(image, text, gallery.owner).items():
        queries, hits = (np.bincount(of_queries[direction], weights) for weights in (None, ranks == 0))
        rows += [
            {**keys, "direction": direction, "jackknife_group": int(group), "queries": queries[group],
             "hits": int(hits[group])}
            for group in np.flatnonzero(queries)
        ]  # fmt: skip
    return table_of_rows(rows, GROUPS)


def recall(
    image: np.ndarray, text: np.ndarray, owner: np.ndarray, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, dict[int, float]]:
    """Share of queries whose own item is among the K nearest by cosine, in both directions.

    image: [n, d], text: [m, d], any norm, normalised here in float32. owner: [m] row of each caption's image.
    Image to text: the queries are the images that have a caption, and a query is a hit when any of its captions is in
    the top K.
    Ties count against the query: every other item with the same score ranks before the query's own item. So embeddings
    that have collapsed to one point score 0, not 1. A recall is NaN where there is no query.
    Returns {"image_to_text": {K: recall}, "text_to_image": {K: recall}}. Raises ValueError on unusable input.
    """
    owner = np.asarray(owner, np.int64)
    image, text = unit(image, "image"), unit(text, "text")
    if owner.shape != (len(text),) or (len(owner) and not (owner.min() >= 0 and owner.max() < len(image))):
        raise ValueError(f"owner must name one of {len(image)} image rows for each of {len(text)} captions")
    return {
        direction: {k: float((rank < k).mean()) if len(rank) else float("nan") for k in ks}
        for direction, rank in _ranks(image, text, owner).items()
    }


def interventions(
    gallery: Gallery,
    decoder: Decoder,
    energy: np.ndarray,
    sets: ConceptSets,
    seed: int,
) -> Iterator[Recalls]:
    """Yield the recalls in both directions after every intervention on the concepts of an SAE.

    energy: [C], as in the view `concepts`. The interventions, in this order:
    reconstructions keeps all concepts (see `kept`).
    For each of the sets unimodal, bimodal and aligned: without_<set> removes the set (see `removed`). random_for_<set>
    removes random concepts of about the same energy (see `equal_energy`) and is averaged over DRAWS draws;
    `Recalls.energy` is the energy that was removed.
    only_bridging keeps only the set `bridging`.
    Raises ValueError where shapes do not fit or a concept does not exist.
    Source: docs/definitions.md, "Retrieval".
    """
    energy = np.asarray(energy, np.float64)
    width = len(decoder.dictionary)
    if energy.shape != (width,) or not (energy >= 0).all():
        raise ValueError(f"energy: one number from 0 for each of {width} concepts is needed, got shape {energy.shape}")
    for modality, x, codes in (("image", gallery.image, decoder.image), ("text", gallery.text, decoder.text)):
        if len(codes.indptr) - 1 != len(x):
            raise ValueError(f"{modality}: codes of {len(codes.indptr) - 1} rows for a gallery of {len(x)}")
    everything = np.arange(width)
    yield from averaged("reconstructions", gallery.owner, [_both_kept(decoder, everything)], [everything], energy)
    for name in ("unimodal", "bimodal", "aligned"):
        S = _concepts(getattr(sets, name), width, name)
        yield from averaged(f"without_{name}", gallery.owner, [_both_removed(gallery, decoder, S)], [S], energy)
        draws = equal_energy(energy, S, DRAWS, seed)
        vectors = (_both_removed(gallery, decoder, draw) for draw in draws)
        yield from averaged(f"random_for_{name}", gallery.owner, vectors, draws, energy)
    S = _concepts(sets.bridging, width, "bridging")
    yield from averaged("only_bridging", gallery.owner, [_both_kept(decoder, S)], [S], energy)


def removed(x: np.ndarray, codes: Codes, dictionary: np.ndarray, S: np.ndarray) -> np.ndarray:
    """x - sum over S of z_i D_i, renormalised: [n, d] float32. Removing nothing gives the unit rows of x [n, d].

    codes: z, n rows. dictionary: D [C, d]. S: ids of concepts. A row that becomes 0 stays 0. Raises ValueError on
    unusable input.
    """
    x = unit(x, "x")
    part = _decoded(codes, dictionary, S)
    if part.shape != x.shape:
        raise ValueError(f"codes and dictionary give rows {part.shape}, the embeddings are {x.shape}")
    return unit(x - part, "rows without concepts")


def kept(codes: Codes, dictionary: np.ndarray, bias: np.ndarray, S: np.ndarray) -> np.ndarray:
    """b + sum over S of z_i D_i, renormalised: [n, d] float32. Keeping all concepts gives the reconstructions.

    codes: z, n rows. dictionary: D [C, d]. bias: b [d]. S: ids of concepts. b is added to every row, so a row on which
    no concept of S fires equals b, renormalised. A row of 0 stays 0.
    """
    return unit(_decoded(codes, dictionary, S) + np.asarray(bias, np.float32), "rows of kept concepts")


def equal_energy(energy: np.ndarray, S: np.ndarray, draws: int, seed: int) -> list[np.ndarray]:
    """`draws` random sets of concepts, each of about the summed energy of S; members of S may be drawn.

    The target is the energy of S. Each draw visits the concepts of non-zero energy in random order and takes a concept
    if its energy does not exceed the rest of the target. It stops when the rest is at most ENERGY_OFF of the target;
    without this limit it would go on to take concepts of tiny energy. A draw never has more energy than S. It ends with
    a larger rest only if every concept that it did not take has more energy than the rest.
    """
    target = float(energy[np.unique(np.asarray(S, np.int64))].sum())
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(RETRIEVAL,)))
    chosen = []
    for _ in range(draws):
        remaining, taken = target * (1 + 1e-12), []  # 1e-12 is for rounding: sums in different orders differ
        for concept in random.permutation(np.flatnonzero(energy > 0)):
            if remaining <= ENERGY_OFF * target:
                break
            if energy[concept] <= remaining:
                remaining -= energy[concept]
                taken.append(concept)
        chosen.append(np.sort(np.array(taken, np.int64)))
    return chosen


def most(alignment: np.ndarray, count: int) -> np.ndarray:
    """Ids of the `count` concepts with the largest |alignment| [C]. Of two equal values, the lower id comes first."""
    return np.argsort(-np.abs(alignment), kind="stable")[:count]


def averaged(
    name: str,
    owner: np.ndarray,
    vectors: Iterable[tuple[np.ndarray, np.ndarray]],
    sets: Sequence[np.ndarray] = (),
    energy: np.ndarray | None = None,
) -> Iterator[Recalls]:
    """Yield the recalls of one intervention in both directions, averaged over its draws.

    vectors: (image, text) of each draw. sets: the removed or kept concepts of each draw.
    """
    of_draws = [recall(image, text, owner) for image, text in vectors]
    count = share = float("nan")
    if energy is not None:
        count = float(np.mean([len(S) for S in sets]))
        total = float(energy.sum())
        share = float(np.mean([energy[S].sum() for S in sets])) / total if total > 0 else share
    for direction, ks in of_draws[0].items():
        recalls = {k: float(np.mean([of_draw[direction][k] for of_draw in of_draws])) for k in ks}
        yield Recalls(name, direction, recalls, count, share)


def _both_removed(gallery: Gallery, decoder: Decoder, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    D = decoder.dictionary
    return removed(gallery.image, decoder.image, D, S), removed(gallery.text, decoder.text, D, S)


def _both_kept(decoder: Decoder, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    D = decoder.dictionary
    bias_I, bias_T = np.broadcast_to(decoder.bias, (2, D.shape[1]))
    return kept(decoder.image, D, bias_I, S), kept(decoder.text, D, bias_T, S)


def _decoded(codes: Codes, dictionary: np.ndarray, S: np.ndarray) -> np.ndarray:
    """sum over the concepts i of S of z_i D_i, [n, d] float32; z are the codes, and D is the dictionary."""
    D = np.asarray(dictionary, np.float32)
    wanted = np.zeros(len(D), np.float32)
    wanted[_concepts(S, len(D), "S")] = 1
    if len(codes.concepts) and not (codes.concepts.min() >= 0 and codes.concepts.max() < len(D)):
        raise ValueError(f"codes name a concept outside 0..{len(D) - 1}")
    values = np.asarray(codes.values, np.float32) * wanted[codes.concepts]
    return csr_array((values, codes.concepts, codes.indptr), shape=(len(codes.indptr) - 1, len(D))) @ D


def _concepts(S: np.ndarray, width: int, name: str) -> np.ndarray:
    S = np.unique(np.asarray(S, np.int64))
    if len(S) and not (S[0] >= 0 and S[-1] < width):
        raise ValueError(f"{name} names a concept outside 0..{width - 1}")
    return S


def _ranks(image: np.ndarray, text: np.ndarray, owner: np.ndarray) -> dict[str, np.ndarray]:
    """The rank of each query's own item, from 0, by direction. Queries are in the order of the images or captions."""
    return {"image_to_text": _image_ranks(image, text, owner), "text_to_image": _text_ranks(image, text, owner)}


def _image_ranks(image: np.ndarray, text: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """For each image with a caption: the number of other captions that score at least as high as its best caption."""
    ranks = []
    order = np.argsort(owner, kind="stable")
    sorted_owner = owner[order]
    for start in range(0, len(image), BLOCK):
        scores = image[start : start + BLOCK] @ text.T
        first, last = np.searchsorted(sorted_owner, [start, start + len(scores)])
        own, rows = order[first:last], sorted_owner[first:last] - start
        best = np.full(len(scores), -np.inf, np.float32)
        np.maximum.at(best, rows, scores[rows, own])
        scores[rows, own] = -np.inf
        captioned = np.isfinite(best)
        ranks.append((scores[captioned] >= best[captioned, None]).sum(1))
    return np.concatenate(ranks) if ranks else np.empty(0, np.int64)


def _text_ranks(image: np.ndarray, text: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """For each caption: the number of other images that score at least as high as its own image."""
    ranks = []
    for start in range(0, len(text), BLOCK):
        scores = text[start : start + BLOCK] @ image.T
        rows, own = np.arange(len(scores)), owner[start : start + BLOCK]
        ranks.append((scores >= scores[rows, own][:, None]).sum(1) - 1)
    return np.concatenate(ranks) if ranks else np.empty(0, np.int64)


def unit(rows: np.ndarray, name: str) -> np.ndarray:
    rows = np.asarray(rows, np.float32)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"{name} must be finite rows [n, d]; it has shape {rows.shape}")
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


STATISTIC = Statistic(
    name="retrieval",
    version="3",
    needs=("concepts", "bridges"),
    tables={"retrieval": RETRIEVAL_TABLE, "retrieval_groups": GROUPS},
    make=make,
)
