"""What chance gives for bridges: the same figures with images, with rows of the dictionary, or with both permuted.

The figures of the study itself are the same function of its own scores.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from sae.concepts.coactivation import CLASSES, KINDS, Pairs, Scores, joined

NULLS = ("images_permuted", "dictionary_permuted", "both_permuted")
TOPS = (10, 100, 1000)  # bridges whose share of the positive part is told
PERMUTED = 4  # stream of random numbers under a seed


def bridge_nulls(
    pairs: Pairs, D: np.ndarray, classes: list[str], min_pairs: int, draws: int, seed: int
) -> dict[str, list[dict[str, float]]]:
    """`figures` under each of NULLS, a dict a draw. D: [C, d] float64, unit rows.

    images_permuted: whole images, with all their codes, permuted among those with as many captions; its expected
    co-activation is E_P[z_i] E_P[z_j]. dictionary_permuted: rows of D permuted, codes as they are.
    """
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PERMUTED,)))
    captions = np.bincount(pairs.pair_image, minlength=len(pairs.image.indptr) - 1)
    shuffled_rows = [D[random.permutation(len(D))] for _ in range(draws)]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in NULLS}
    found["dictionary_permuted"] = list(figures(pairs.scores(shuffled_rows, classes, min_pairs)))
    for rows in shuffled_rows:
        shuffled = pairs.with_images(permuted_among_equals(captions, random))
        one, both = figures(shuffled.scores([D, rows], classes, min_pairs))
        found["images_permuted"].append(one)
        found["both_permuted"].append(both)
    return found


def permuted_among_equals(captions: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A permutation [n] of images that keeps the number of captions: captions [n]."""
    by_count = np.argsort(captions, kind="stable")
    image_of = np.empty(len(captions), np.int64)
    for group in np.split(by_count, np.flatnonzero(np.diff(captions[by_count])) + 1):
        image_of[group] = random.permutation(group)
    return image_of


def figures(blocks: Iterable[list[Scores]]) -> Iterator[dict[str, float]]:
    """The figures of each dictionary whose scores the blocks hold.

    For raw and covariance bridges: total and positive (sums over all cells); self_share and opposite_share of the
    positive part (i = j; between a concept of images alone and one of captions alone); top_<n>_share of the n highest
    cells with enough pairs; and the highest such cell: top_bridge, top_covariance_bridge, top_correlation_bridge.
    """
    parts = [[_part(one) for one in block] for block in blocks]
    yield from (_figures(list(of_one)) for of_one in zip(*parts, strict=True))


class _Part(NamedTuple):
    """What the figures need of a block: its totals and its highest cells, not all of its cells."""

    totals: np.ndarray
    top: list[np.ndarray]
    correlation: float


def _part(scores: Scores) -> _Part:
    top = [_highest(scores.rows[:, 1 + kind], max(TOPS)) for kind in range(len(KINDS))]
    known = scores.rows[:, 3][~np.isnan(scores.rows[:, 3])]
    return _Part(scores.totals, top, float(known.max(initial=-np.inf)))


def _figures(parts: list[_Part]) -> dict[str, float]:
    totals = joined([part.totals for part in parts])
    image, text = CLASSES.index("image"), CLASSES.index("text")
    found: dict[str, float] = {}
    for k, kind in enumerate(KINDS):
        positive = totals[k, :, 0]
        whole = float(positive.sum())
        top = _highest(np.concatenate([part.top[k] for part in parts]), max(TOPS))
        found[f"{kind}_total"] = float(totals[k].sum())
        found[f"{kind}_positive"] = whole
        found[f"{kind}_self_share"] = _share(float(positive[1].sum()), whole)
        found[f"{kind}_opposite_share"] = _share(float(positive[0, image, text] + positive[0, text, image]), whole)
        found |= {f"{kind}_top_{n}_share": _share(float(top[:n].clip(0).sum()), whole) for n in TOPS}
        found["top_bridge" if kind == "raw" else "top_covariance_bridge"] = float(top[0]) if len(top) else np.nan
    best = max(part.correlation for part in parts)
    found["top_correlation_bridge"] = float(best) if np.isfinite(best) else np.nan
    return found


def _highest(values: np.ndarray, n: int) -> np.ndarray:
    """The n largest values, or all, descending."""
    if len(values) > n:
        values = np.partition(values, len(values) - n)[len(values) - n :]
    return np.sort(values)[::-1]


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")
