"""Partners: the concept of another SAE whose codes correlate most with those of a concept, on the same items.

Within a modality this is a control: two seeds see the same images, so the correlation of an image concept with its
partner among the other seed's image codes is the ceiling of what image and text concepts can reach with each other.
Every correlation is the largest of C, so its chance level lies far above 0: it is measured with permuted images.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import duckdb
import numpy as np
import polars as pl

from analysis.assignment import KEPT, QUICK, assign_rows, assign_similarities
from analysis.coactivation import Codes, PairedCodes
from analysis.inputs import Analysis, Counted, codes_of_sae, counted_pairs
from analysis.statistic import Statistic, Table
from analysis.tables import Schema, table
from sae import SAE
from storage.runs import Entry

FIGURES: Schema = {
    "modality_a": pl.String, "modality_b": pl.String, "concept_a": pl.Int32, "concept_b": pl.Int32,
    "correlation": pl.Float32, "match_confidence": pl.Float32, "assigned": pl.Int32, "assigned_correlation": pl.Float32,
    "sampled_correlation": pl.Float32, "floor": pl.Float32,
}  # fmt: skip
DRAWN: Schema = {"modality_a": pl.String, "modality_b": pl.String, "draw": pl.Int32, "value": pl.Float64}
RUNS: Schema = {"model": pl.String, "sae": pl.String, "seed_a": pl.Int32, "seed_b": pl.Int32}
SPLIT: Schema = {"split": pl.String}
PARTNERS: Schema = {**RUNS, **SPLIT, **FIGURES}
PARTNER_FLOORS: Schema = {**RUNS, **SPLIT, **DRAWN}
MODALITIES = ("image", "text")
ALL = tuple((a, b) for a in MODALITIES for b in MODALITIES)
DRAWS = 20  # permutations of the images per floor
SAMPLE = 1_024  # most concepts whose floors are measured
FLOOR_IMAGES = 5_000  # most images on which floors are measured, with all their captions
EXACT = 1_024  # most concepts that are assigned exactly; the mean of more is within 1e-4 of the largest one
FLOOR = 5  # spawn key of this module's random stream; each module has a different key
BLOCK = 256  # rows of correlations that are looked at at a time: 67 MB at 65,536 concepts
log = logging.getLogger("bridgescope")


class Run(NamedTuple):
    """One SAE, with its codes of the counted images and captions."""

    entry: Entry
    width: int
    codes: dict[str, Codes]  #: by modality; the items are those of `Items`


class Items(NamedTuple):
    """Images and their captions: `owner` [P] is the position of each caption's image, `images` their number."""

    images: int
    owner: np.ndarray


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The tables partners and partner_floors of two seeds of one setting, in both orders."""
    counted = counted_pairs(con, analysis.split)
    a, b = (run_of(con, analysis, entry, net, counted) for entry, net in analysis.trained())
    found, drawn = [], []
    for reverse, (rows, draws) in enumerate(compared(a, b, items_of(counted), ALL)):
        first, other = (b, a) if reverse else (a, b)
        at = {
            "model": a.entry.model, "sae": a.entry.sae, "seed_a": first.entry.seed, "seed_b": other.entry.seed,
            "split": analysis.split,
        }  # fmt: skip
        found.append(with_keys(rows, at, PARTNERS))
        drawn.append(with_keys(draws, at, PARTNER_FLOORS))
    return {"partners": pl.concat(found), "partner_floors": pl.concat(drawn)}


def run_of(con: duckdb.DuckDBPyConnection, analysis: Analysis, entry: Entry, net: SAE, counted: Counted) -> Run:
    """Read the codes of one SAE of a part. Raises BadInput where they are missing or not above 0."""
    return Run(entry, net.config.width, codes_of_sae(con, analysis, entry, counted))


def items_of(counted: Counted) -> Items:
    """The counted images and the owner of each caption."""
    return Items(len(counted.images), counted.pair_image)


def with_keys(rows: pl.DataFrame, keys: dict[str, Any], schema: Schema) -> pl.DataFrame:
    """The rows with constant columns, in the order of the schema."""
    constants = [pl.lit(value, dtype=schema[name]).alias(name) for name, value in keys.items()]
    return rows.with_columns(constants).select(list(schema))


def compared(
    a: Run, b: Run, items: Items, modalities: tuple[tuple[str, str], ...]
) -> tuple[tuple[pl.DataFrame, pl.DataFrame], tuple[pl.DataFrame, pl.DataFrame]]:
    """The partners of a's concepts in b, and of b's in a: for each, the tables with the columns FIGURES and DRAWN.

    modalities: pairs (modality of a's codes, modality of b's codes). An SAE of fewer concepts gets silent ones, so that
    both have equally many; these are left out of the tables again.
    """
    width = max(a.width, b.width)
    sample = sampled(items)
    there, back = [], []
    for side_a, side_b in modalities:
        pairs = PairedCodes(a.codes[side_a], b.codes[side_b], *same_items(items, side_a, side_b), width)
        best = _best(pairs.correlations()) if width <= KEPT else _best_in_blocks(pairs)
        floors = _floors(a, b, items, sample, (side_a, side_b), width)
        there.append(_rows(side_a, side_b, best[0], floors[0], a.width))
        back.append(_rows(side_b, side_a, best[1], floors[1], b.width))
    return _joined(there), _joined(back)


def _joined(parts: list[tuple[pl.DataFrame, pl.DataFrame]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    return pl.concat([rows for rows, _ in parts]), pl.concat([draws for _, draws in parts])


def same_items(
    items: Items, side_a: str, side_b: str, image_of: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """For each pair of items that are compared, the item of a and the item of b: two arrays [P] int64.

    Images are compared with themselves, captions with themselves, and a caption with its image. image_of: a permutation
    of the images. SAE b then sees image image_of[i], with its captions, in the place of image i: the caption of place r
    among those of image i is compared with that of place r of the other image, modulo the number of these.
    """
    identity = np.arange(items.images)
    other = identity if image_of is None else np.asarray(image_of, np.int64)
    captions = np.arange(len(items.owner))
    if side_a == side_b == "image":
        return identity, other
    if side_b == "image":
        return captions, other[items.owner]
    if side_a == "image":
        return np.argsort(other)[items.owner], captions  # the place in which b sees the image of this caption
    if image_of is None:
        return captions, captions
    order = np.argsort(items.owner, kind="stable")
    counts = np.bincount(items.owner, minlength=items.images)
    start = np.cumsum(counts) - counts
    place = np.empty_like(captions)
    place[order] = captions - np.repeat(start, counts)
    image = other[items.owner]
    return captions, order[start[image] + place % counts[image]]


class _Best(NamedTuple):
    """What the concepts of one SAE reach with those of the other. Arrays [C]; NaN, and -1, where there is nothing."""

    partner: np.ndarray
    correlation: np.ndarray
    second: np.ndarray
    assigned: np.ndarray
    assigned_correlation: np.ndarray


def _best(S: np.ndarray) -> tuple[_Best, _Best]:
    """Partners and the one-to-one assignment, from the correlations S [C, C] float32, by row and by column.

    A code that is constant is not in the assignment. Where the SAEs have unequal numbers of other codes, some codes of
    the SAE that has more of them are assigned to none.
    """
    rows, columns = ~np.isnan(S).all(1), ~np.isnan(S).all(0)
    chosen = np.full(len(S), -1)
    height, width = int(rows.sum()), int(columns.sum())
    if height and width:
        # Rows or columns are added that correlate with nothing. Their values differ by less than float32 numbers are
        # rounded by, since equal rows would make the auction slow.
        square = np.random.default_rng(0).random((max(height, width),) * 2, np.float32) * np.float32(1e-7)
        square[:height, :width] = S[np.ix_(rows, columns)]
        within = QUICK[-1] if len(square) <= EXACT else QUICK[0]
        found = assign_similarities(square, within).permutation[:height]
        there = found < width
        chosen[np.flatnonzero(rows)[there]] = np.flatnonzero(columns)[found[there]]
    back = np.full(len(S), -1)
    back[chosen[chosen >= 0]] = np.flatnonzero(chosen >= 0)
    return _of_rows(S, chosen), _of_rows(S.T, back)


def _best_in_blocks(pairs: PairedCodes) -> tuple[_Best, _Best]:
    """What `_best` finds, where the correlations do not fit in memory: they are computed again where they are needed.

    More than EXACT codes are assigned within QUICK[0] of the largest mean correlation, as in `_best`, or within what a
    line in the log says. So a code of equal correlations may have another partner than there.
    """
    width = pairs.width
    by_row, by_column = _Top.empty(width), _Top.empty(width)
    for start in range(0, width, BLOCK):
        block = pairs.correlation_rows(np.arange(start, min(start + BLOCK, width)))
        for each, found in zip(by_row, _top(block), strict=True):
            each[start : start + len(block)] = found
        place, first, after = _top(block.T)
        better = first > by_column.best  # of equal correlations, that of the first row counts
        by_column.second[:] = np.where(better, np.maximum(by_column.best, after), np.maximum(by_column.second, first))
        by_column.partner[better] = start + place[better]
        by_column.best[better] = first[better]
    chosen, correlation = _assigned_in_blocks(pairs)
    back, correlation_back = np.full(width, -1), np.full(width, np.nan, np.float32)
    assigned = np.flatnonzero(chosen >= 0)
    back[chosen[assigned]], correlation_back[chosen[assigned]] = assigned, correlation[assigned]
    return by_row.with_assigned(chosen, correlation), by_column.with_assigned(back, correlation_back)


def _assigned_in_blocks(pairs: PairedCodes) -> tuple[np.ndarray, np.ndarray]:
    """The concept [C] that each of the first codes is assigned to, -1 for none, and their correlations [C] float32."""
    chosen, correlation = np.full(pairs.width, -1), np.full(pairs.width, np.nan, np.float32)
    rows, columns = (np.flatnonzero(each.deviation > 0) for each in (pairs.moments_image, pairs.moments_text))
    size = max(len(rows), len(columns))
    if len(rows) == 0 or len(columns) == 0:
        return chosen, correlation

    def similar(wanted: np.ndarray | slice) -> np.ndarray:
        """Rows of the square that `_best` makes. Those that are added have numbers of their own for each row."""
        places = np.arange(size)[wanted]
        found = np.empty((len(places), size), np.float32)
        real = places < len(rows)
        found[real, : len(columns)] = pairs.correlation_rows(rows[places[real]])[:, columns]
        for place, row, is_real in zip(places, found, real, strict=True):
            added = row[len(columns) :] if is_real else row
            added[:] = np.random.default_rng((0, place)).random(len(added), np.float32) * np.float32(1e-7)
        return found

    found = assign_rows(similar, size, QUICK[-1] if size <= EXACT else QUICK[0])
    log.info("%d concepts are assigned within %.1g of the largest mean correlation", size, found.gap)
    partner = found.permutation[: len(rows)]
    there = partner < len(columns)
    chosen[rows[there]], correlation[rows[there]] = columns[partner[there]], found.cosines[: len(rows)][there]
    return chosen, correlation


class _Top(NamedTuple):
    """The best and the second best of each concept. Arrays [C]; -inf, and -1, where there is none."""

    partner: np.ndarray
    best: np.ndarray
    second: np.ndarray

    @classmethod
    def empty(cls, width: int) -> _Top:
        return cls(np.full(width, -1), np.full(width, -np.inf), np.full(width, -np.inf))

    def with_assigned(self, assigned: np.ndarray, correlation: np.ndarray) -> _Best:
        """With NaN, and -1, where there is nothing."""
        known = np.isfinite(self.best)
        best, second = (np.where(np.isfinite(each), each, np.nan) for each in (self.best, self.second))
        return _Best(np.where(known, self.partner, -1), best, second, assigned, correlation)


def _top(block: np.ndarray) -> _Top:
    """The best and the second best of each row of some correlations."""
    block = np.nan_to_num(block, copy=True, nan=-np.inf)
    rows = np.arange(len(block))
    place = block.argmax(1)
    first = block[rows, place].copy()
    block[rows, place] = -np.inf
    return _Top(place, first, block.max(1))


def _of_rows(S: np.ndarray, assigned: np.ndarray) -> _Best:
    """The best and the second best of each row, a block of rows at a time."""
    width = len(S)
    top = _Top.empty(width)
    for start in range(0, width, BLOCK):
        for each, found in zip(top, _top(S[start : start + BLOCK]), strict=True):
            each[start : start + BLOCK] = found
    own = np.where(assigned >= 0, S[np.arange(width), assigned], np.nan)
    return top.with_assigned(assigned, own)


def sampled(items: Items) -> np.ndarray:
    """The images on which floors are measured: FLOOR_IMAGES of those with a caption, chosen at random, ascending."""
    images = np.unique(items.owner)
    return np.sort(_random(0).permutation(images)[:FLOOR_IMAGES])


def _random(purpose: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(0, spawn_key=(FLOOR, purpose)))


class _Floor(NamedTuple):
    """Best correlations on the sampled items: as they are [C], with permuted images, mean [C], and by draw [DRAWS]."""

    observed: np.ndarray
    mean: np.ndarray
    by_draw: np.ndarray


def _floors(
    a: Run, b: Run, items: Items, sample: np.ndarray, sides: tuple[str, str], width: int
) -> tuple[_Floor, _Floor]:
    """The best correlations of a's concepts and of b's on the sampled items, also with permuted images."""
    fewer, codes_a, codes_b = _narrowed(items, sample, a.codes[sides[0]], b.codes[sides[1]], sides)
    chosen = [_chosen(codes, width) for codes in (codes_a, codes_b)]

    def best(image_of: np.ndarray | None, *of: np.ndarray | None) -> Iterator[np.ndarray]:
        of_a, of_b = same_items(fewer, *sides, image_of)
        yield PairedCodes(codes_a, codes_b, of_a, of_b, width).best_correlations(of[0])[0]
        yield PairedCodes(codes_b, codes_a, of_b, of_a, width).best_correlations(of[1])[0]

    observed, random = list(best(None, None, None)), _random(1)
    concepts = [np.flatnonzero(weights) for weights in chosen]
    draws = [list(best(random.permutation(len(sample)), *concepts)) for _ in range(DRAWS)]
    there, back = (
        _Floor(observed[side], np.mean([draw[side] for draw in draws], axis=0), np.array([
            weighted_mean(draw[side], chosen[side]) for draw in draws
        ]))
        for side in (0, 1)
    )  # fmt: skip
    return there, back


def _chosen(codes: Codes, width: int) -> np.ndarray:
    """The weight [C] of each concept in the mean of a floor: its energy, if at most SAMPLE concepts have any.

    Of more concepts, SAMPLE are drawn with chances in proportion to their energies, and weigh as often as drawn, so
    that the mean has the mean weighted by energy as its expectation.
    """
    energies = np.bincount(codes.concepts, codes.values.astype(np.float64), minlength=width)
    if np.count_nonzero(energies) <= SAMPLE:
        return energies
    drawn = _random(2).choice(width, SAMPLE, p=energies / energies.sum())
    return np.bincount(drawn, minlength=width).astype(np.float64)


def _narrowed(
    items: Items, sample: np.ndarray, codes_a: Codes, codes_b: Codes, sides: tuple[str, str]
) -> tuple[Items, Codes, Codes]:
    """The sampled images with their captions, and the codes of these."""
    place = np.full(items.images, -1)
    place[sample] = np.arange(len(sample))
    owner = place[items.owner]
    kept = {"image": sample, "text": np.flatnonzero(owner >= 0)}
    return (
        Items(len(sample), owner[kept["text"]]),
        _taken(codes_a, kept[sides[0]]),
        _taken(codes_b, kept[sides[1]]),
    )


def _taken(codes: Codes, rows: np.ndarray) -> Codes:
    """The codes of some items, in their order."""
    counts = np.diff(codes.indptr)[rows]
    start = np.concatenate([[0], np.cumsum(counts)])
    at = np.arange(start[-1]) + np.repeat(codes.indptr[rows] - start[:-1], counts)
    return Codes(start, codes.concepts[at], codes.values[at])


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Mean of the values that are numbers; NaN where none has a weight above 0."""
    known = ~np.isnan(values)
    total = weights[known].sum()
    return float(values[known] @ weights[known] / total) if total > 0 else float("nan")


def _rows(side_a: str, side_b: str, best: _Best, floor: _Floor, width: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of both tables, for the concepts of one SAE."""
    at = {"modality_a": side_a, "modality_b": side_b}
    figures = {
        "concept_a": np.arange(width), "concept_b": best.partner[:width], "correlation": best.correlation[:width],
        "match_confidence": (best.correlation - best.second)[:width], "assigned": best.assigned[:width],
        "assigned_correlation": best.assigned_correlation[:width], "sampled_correlation": floor.observed[:width],
        "floor": floor.mean[:width],
    }  # fmt: skip
    rows = table({**at, **figures}, FIGURES).with_columns(
        pl.when(pl.col(name) >= 0).then(pl.col(name)).alias(name) for name in ("concept_b", "assigned")
    )
    return rows, table({**at, "draw": np.arange(DRAWS), "value": floor.by_draw}, DRAWN)


STATISTIC = Statistic(
    name="partners",
    version="1",
    tables={"partners": PARTNERS, "partner_floors": PARTNER_FLOORS},
    make=make,
    per="seeds",
)
