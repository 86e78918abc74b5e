"""Retrieval with concepts: recall at K between images and captions, as they are and after interventions.

Scores are computed in blocks of rows; the full matrix is never held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import duckdb
import numpy as np
import polars as pl
from scipy.sparse import csr_array

from analysis.coactivation import Codes
from analysis.inputs import Analysis, Keys, biases_of, keys_of
from analysis.statistic import Statistic, Table
from analysis.tables import SAE_KEYS, Schema, empty, table_of_rows
from sae import SAE
from storage.embeddings import NDArray
from storage.rows import Rows

RETRIEVAL_TABLE: Schema = {
    **SAE_KEYS, "split": pl.String, "intervention": pl.String, "direction": pl.String, "gallery": pl.Int64,
    "captions": pl.Int64, "r1": pl.Float64, "r5": pl.Float64, "r10": pl.Float64, "concepts": pl.Float64,
    "energy_share": pl.Float64,
}  # fmt: skip
GALLERY = 1000  # images (DEFINITIONS)
ALIGNED = 32  # concepts most aligned with the mean gap that are taken out together, an eighth of a narrow dictionary
BRIDGES = 100  # top bridges whose concepts alone are kept
CONCEPTS = """
SELECT energy, modality_class(modality_score), align_mean_gap FROM concepts
WHERE model = $model AND sae = $sae AND seed = $seed ORDER BY concept_id
"""
TOP = """
SELECT image_concept, text_concept FROM bridges
WHERE model = $model AND sae = $sae AND seed = $seed ORDER BY bridge DESC, image_concept, text_concept LIMIT $n
"""
BLOCK = 1024
DRAWS = 5  # random sets of concepts for each removed set
ENERGY_OFF = 0.01  # by this share of the removed energy a random set may miss it
RETRIEVAL = 3  # stream of random numbers under a seed; the floors of stability are 1, the nulls of geometry 2


class Gallery(NamedTuple):
    """The embeddings that look for each other; DEFINITIONS says which."""

    image: np.ndarray  # [n, d]
    text: np.ndarray  # [m, d]
    owner: np.ndarray  # [m] row of `image` that a caption belongs to


class Decoder(NamedTuple):
    """Codes of the gallery's rows, and what turns codes into embeddings."""

    image: Codes  # n rows
    text: Codes  # m rows
    dictionary: np.ndarray  # [C, d]
    bias: np.ndarray  # [d], or [2, d]: image and text, where each was centred on a mean of its own


class ConceptSets(NamedTuple):
    """Ids of the concepts that are removed or kept together; order and repetition do not matter."""

    unimodal: np.ndarray
    bimodal: np.ndarray
    aligned: np.ndarray  # most aligned with the modality subspace: `most(alignment, count)`
    bridging: np.ndarray  # image and text concepts of the top-n bridges, as one set


class Recalls(NamedTuple):
    """Recalls after one intervention, in one direction."""

    intervention: str
    direction: str  # "image_to_text" or "text_to_image"
    recalls: dict[int, float]  # K: recall, at K = 1, 5, 10; mean over the draws
    concepts: float  # how many were removed or kept, mean over the draws; NaN where none were chosen
    energy: float  # their share of the energy of all concepts, mean over the draws; NaN likewise


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """Recall among the images of the split with the smallest split_u. Reads the tables concepts and bridges."""
    tables = [empty(RETRIEVAL_TABLE)]
    for model in analysis.models():
        rows = analysis.rows(model, analysis.split)
        gallery = gallery_of(rows)
        means = _means(analysis, model, rows)
        keys = {"model": model, "sae": None, "seed": None, "split": analysis.split}
        tables.append(_table(keys, gallery, baselines(gallery, means)))
        for entry, net in analysis.trained(model):
            tables.append(of_sae(con, analysis, keys_of(entry), net, gallery, means))
    return {"retrieval": pl.concat(tables)}


def of_sae(
    con: duckdb.DuckDBPyConnection,
    analysis: Analysis,
    keys: Keys,
    net: SAE,
    gallery: Gallery,
    means: tuple[NDArray, NDArray],
) -> pl.DataFrame:
    """The rows of `retrieval` of one SAE: the interventions that need it."""
    energy = np.array([e for e, _, _ in con.execute(CONCEPTS, keys).fetchall()])
    recalls = interventions(gallery, _decoder(net, gallery), means, energy, sets_of(con, keys), keys["seed"] or 0)
    own = (one for one in recalls if one.intervention not in ("embeddings", "mean_removed"))
    return _table({**keys, "split": analysis.split}, gallery, own)


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


def _decoder(net: SAE, gallery: Gallery) -> Decoder:
    codes = _codes(net, gallery.image, "image"), _codes(net, gallery.text, "text")
    return Decoder(*codes, net.dictionary.numpy(), np.stack(biases_of(net)))


def _codes(net: SAE, x: NDArray, modality: str) -> Codes:
    dense = net.encode(x, modality).numpy()
    row, concept = dense.nonzero()
    indptr = np.searchsorted(row, np.arange(len(dense) + 1))
    return Codes(indptr.astype(np.int64), concept.astype(np.int32), dense[row, concept])


def _table(keys: dict[str, Any], gallery: Gallery, recalls: Iterable[Recalls]) -> pl.DataFrame:
    rows = [
        {
            **keys, "intervention": one.intervention, "direction": one.direction, "gallery": len(gallery.image),
            "captions": len(gallery.text), **{f"r{k}": value for k, value in one.recalls.items()},
            "concepts": one.concepts, "energy_share": one.energy,
        }
        for one in recalls
    ]  # fmt: skip
    return table_of_rows(rows, RETRIEVAL_TABLE)


def recall(
    image: np.ndarray, text: np.ndarray, owner: np.ndarray, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, dict[int, float]]:
    """Share of queries whose own item is among the K nearest by cosine, both directions.

    image: [n, d], text: [m, d], any norm, normalised here in float32. owner: [m] row of the image a caption belongs to.
    Image to text counts a hit when any own caption is in the top K, over the images that have a caption.
    Ties count against the query: every foreign item with the same score ranks before the own one, so that
    embeddings that collapsed to one point score 0, not 1. NaN where there is no query.
    Returns {"image_to_text": {K: recall}, "text_to_image": {K: recall}}. Raises ValueError on unusable input.
    """
    owner = np.asarray(owner, np.int64)
    image, text = _unit(image, "image"), _unit(text, "text")
    if owner.shape != (len(text),) or (len(owner) and not (owner.min() >= 0 and owner.max() < len(image))):
        raise ValueError(f"owner must name one of {len(image)} image rows for each of {len(text)} captions")
    ranks = {"image_to_text": _image_ranks(image, text, owner), "text_to_image": _text_ranks(image, text, owner)}
    return {
        direction: {k: float((rank < k).mean()) if len(rank) else float("nan") for k in ks}
        for direction, rank in ranks.items()
    }


def interventions(
    gallery: Gallery,
    decoder: Decoder,
    means: tuple[np.ndarray, np.ndarray],
    energy: np.ndarray,
    sets: ConceptSets,
    seed: int,
) -> Iterator[Recalls]:
    """Effect of concepts on retrieval: recalls in both directions after every intervention.

    means: mean image and mean text [d] of the training rows. energy: [C], as in the view `concepts`. In this order:
    embeddings; mean_removed; reconstructions (all kept); without_unimodal, without_bimodal, without_aligned, each
    followed by random_for_<set>, random concepts of as much energy removed, averaged over DRAWS draws (`energy` shows
    how equal; see `equal_energy`); only_bridging. Removing: see `removed`; keeping: see `kept`, with the bias.
    Raises ValueError where shapes do not fit or a concept does not exist.
    Source: DEFINITIONS "What concepts do for retrieval".
    """
    energy = np.asarray(energy, np.float64)
    width = len(decoder.dictionary)
    if energy.shape != (width,) or not (energy >= 0).all():
        raise ValueError(f"energy: one number from 0 for each of {width} concepts is needed, got shape {energy.shape}")
    for modality, x, codes in (("image", gallery.image, decoder.image), ("text", gallery.text, decoder.text)):
        if len(codes.indptr) - 1 != len(x):
            raise ValueError(f"{modality}: codes of {len(codes.indptr) - 1} rows for a gallery of {len(x)}")
    yield from baselines(gallery, means)
    everything = np.arange(width)
    yield from _recalls("reconstructions", gallery.owner, [_both_kept(decoder, everything)], [everything], energy)
    for name in ("unimodal", "bimodal", "aligned"):
        S = _concepts(getattr(sets, name), width, name)
        yield from _recalls(f"without_{name}", gallery.owner, [_both_removed(gallery, decoder, S)], [S], energy)
        draws = equal_energy(energy, S, DRAWS, seed)
        vectors = (_both_removed(gallery, decoder, draw) for draw in draws)
        yield from _recalls(f"random_for_{name}", gallery.owner, vectors, draws, energy)
    S = _concepts(sets.bridging, width, "bridging")
    yield from _recalls("only_bridging", gallery.owner, [_both_kept(decoder, S)], [S], energy)


def baselines(gallery: Gallery, means: tuple[np.ndarray, np.ndarray]) -> Iterator[Recalls]:
    """The interventions that need no SAE: embeddings as they are, and mean_removed.

    mean_removed: each modality's training mean removed from its unit rows, renormalised, nothing else.
    """
    for name, mean, x in zip(("image", "text"), means, (gallery.image, gallery.text), strict=True):
        if np.shape(mean) != np.shape(x)[1:] or not np.isfinite(mean).all():
            raise ValueError(f"mean {name} of shape {np.shape(mean)} does not fit {name} rows {np.shape(x)}, or is NaN")
    yield from _recalls("embeddings", gallery.owner, [(gallery.image, gallery.text)])
    centred = _unit(gallery.image, "image") - means[0], _unit(gallery.text, "text") - means[1]
    yield from _recalls("mean_removed", gallery.owner, [centred])


def removed(x: np.ndarray, codes: Codes, dictionary: np.ndarray, S: np.ndarray) -> np.ndarray:
    """x - sum over S of z_i D_i, renormalised: [n, d] float32. Removing nothing gives the unit rows of x [n, d].

    codes: n rows. S: ids of concepts. A row of which nothing is left stays 0. Raises ValueError on unusable input.
    """
    x = _unit(x, "x")
    part = _decoded(codes, dictionary, S)
    if part.shape != x.shape:
        raise ValueError(f"codes and dictionary give rows {part.shape}, the embeddings are {x.shape}")
    return _unit(x - part, "rows without concepts")


def kept(codes: Codes, dictionary: np.ndarray, bias: np.ndarray, S: np.ndarray) -> np.ndarray:
    """sum over S of z_i D_i, + b, renormalised: [n, d] float32. Keeping all concepts gives the reconstructions.

    b is in every row of both modalities, so a row on which none of S fires is b alone. A row of 0 stays 0.
    """
    return _unit(_decoded(codes, dictionary, S) + np.asarray(bias, np.float32), "rows of kept concepts")


def equal_energy(energy: np.ndarray, S: np.ndarray, draws: int, seed: int) -> list[np.ndarray]:
    """Random sets of concepts, each of about the summed energy of S; members of S may be among them.

    Each draw walks through the concepts that have energy in random order, takes every one that still fits, and stops
    once it lacks at most ENERGY_OFF of the energy of S: going on would pick up every tiny concept. So a draw never
    holds more than S, and lacks more than that only where all concepts it left out are larger than what it lacks.
    """
    target = float(energy[np.unique(np.asarray(S, np.int64))].sum())
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(RETRIEVAL,)))
    chosen = []
    for _ in range(draws):
        room, taken = target * (1 + 1e-12), []  # sums of the same numbers in another order differ by rounding
        for concept in random.permutation(np.flatnonzero(energy > 0)):
            if room <= ENERGY_OFF * target:
                break
            if energy[concept] <= room:
                room -= energy[concept]
                taken.append(concept)
        chosen.append(np.sort(np.array(taken, np.int64)))
    return chosen


def most(alignment: np.ndarray, count: int) -> np.ndarray:
    """Ids of the `count` concepts with the largest |alignment| [C]; of equal ones the lower id goes first."""
    return np.argsort(-np.abs(alignment), kind="stable")[:count]


def _recalls(
    name: str,
    owner: np.ndarray,
    vectors: Iterable[tuple[np.ndarray, np.ndarray]],
    sets: Sequence[np.ndarray] = (),
    energy: np.ndarray | None = None,
) -> Iterator[Recalls]:
    """Both directions of one intervention, averaged over its draws: vectors (image, text) and chosen sets of each."""
    tried = [recall(image, text, owner) for image, text in vectors]
    count = share = float("nan")
    if energy is not None:
        count = float(np.mean([len(S) for S in sets]))
        whole = float(energy.sum())
        share = float(np.mean([energy[S].sum() for S in sets])) / whole if whole > 0 else share
    for direction in tried[0]:
        recalls = {k: float(np.mean([one[direction][k] for one in tried])) for k in tried[0][direction]}
        yield Recalls(name, direction, recalls, count, share)


def _both_removed(gallery: Gallery, decoder: Decoder, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    D = decoder.dictionary
    return removed(gallery.image, decoder.image, D, S), removed(gallery.text, decoder.text, D, S)


def _both_kept(decoder: Decoder, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    D = decoder.dictionary
    bias_I, bias_T = np.broadcast_to(decoder.bias, (2, D.shape[1]))
    return kept(decoder.image, D, bias_I, S), kept(decoder.text, D, bias_T, S)


def _decoded(codes: Codes, dictionary: np.ndarray, S: np.ndarray) -> np.ndarray:
    """sum over S of z_i D_i, [n, d] float32."""
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


def _image_ranks(image: np.ndarray, text: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """[images with a caption]: foreign captions that score at least as high as the best own one."""
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
        asked = np.isfinite(best)
        ranks.append((scores[asked] >= best[asked, None]).sum(1))
    return np.concatenate(ranks) if ranks else np.empty(0, np.int64)


def _text_ranks(image: np.ndarray, text: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """[captions]: other images that score at least as high as the own one."""
    ranks = []
    for start in range(0, len(text), BLOCK):
        scores = text[start : start + BLOCK] @ image.T
        rows, own = np.arange(len(scores)), owner[start : start + BLOCK]
        ranks.append((scores >= scores[rows, own][:, None]).sum(1) - 1)
    return np.concatenate(ranks) if ranks else np.empty(0, np.int64)


def _unit(rows: np.ndarray, name: str) -> np.ndarray:
    rows = np.asarray(rows, np.float32)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"{name} must be finite rows [n, d]; it has shape {rows.shape}")
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


STATISTIC = Statistic(
    name="retrieval",
    version="1",
    needs=("concepts", "bridges"),
    tables={"retrieval": RETRIEVAL_TABLE},
    make=make,
)
