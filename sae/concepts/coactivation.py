"""Co-activation of image and text concepts over aligned pairs, and the Bridge Score built on it.

Works through blocks of image concepts, so that no full C x C matrix of scores is ever held.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from sae.kernels import coactivate_

CLASSES = ("image", "text", "bimodal", "silent")
BLOCK = 256  # image concepts at a time: 16 MB a float64 matrix at 8,192 concepts


class Codes(NamedTuple):
    """Sparse codes of n items, by item (CSR). Every stored entry fires: values are above 0."""

    indptr: np.ndarray  # [n+1] int64: entries of item r are indptr[r] .. indptr[r+1]-1
    concepts: np.ndarray  # [nnz] int32
    values: np.ndarray  # [nnz] float32


class Bridges(NamedTuple):
    """What `bridges` found."""

    rows: dict[str, np.ndarray]  # columns of the view `bridges`, sorted by image_concept, text_concept
    totals: list[dict[str, Any]]  # class_image, class_text, self, kind, total, positive, negative; untruncated


class _Index(NamedTuple):
    """The input in the order in which the kernel walks it."""

    concept_start: np.ndarray
    concept_items: np.ndarray
    concept_values: np.ndarray
    pair_start: np.ndarray
    pair_captions: np.ndarray
    text: Codes


class _Moments(NamedTuple):
    """Over the pairs, zeros included."""

    mean: np.ndarray  # [C] E_P[z]
    deviation: np.ndarray  # [C] standard deviation


def coactivation(
    image: Codes, text: Codes, pair_image: np.ndarray, pair_text: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """G [C, C] float64 = E_P[z_i(x_I) z_j(x_T)] and pairs [C, C] int64, the number of pairs on which both fire.

    pair_image, pair_text: [P] rows of `image` and `text`; one image may stand in several pairs.
    Raises ValueError where codes or pairs point outside.
    """
    index = _index(image, text, pair_image, pair_text, width)
    G, pairs = np.zeros((width, width)), np.zeros((width, width), np.int64)
    coactivate_(0, width, *index[:-1], *index.text, G, pairs)
    return G / max(len(pair_image), 1), pairs


def bridges(
    image: Codes,
    text: Codes,
    pair_image: np.ndarray,
    pair_text: np.ndarray,
    dictionary: np.ndarray,
    classes: list[str],
    min_pairs: int,
) -> Bridges:
    """The Bridge Score of every image concept i with every text concept j, over the given pairs.

    dictionary: [C, d] unit rows. classes: the class of each concept, one of CLASSES.
    Rows are those with pairs >= min_pairs: bridge = G_ij <D_i, D_j>, covariance_bridge = (G_ij - E_P[z_i] E_P[z_j])
    <D_i, D_j>, correlation_bridge = that over both standard deviations over the pairs (NaN where one is 0).
    Totals are untruncated. Source: arXiv 2504.11695, Bridge Score; DEFINITIONS in docs.
    """
    D = np.asarray(dictionary, np.float64)
    width = len(D)
    if len(classes) != width or not set(classes) <= set(CLASSES):
        raise ValueError(f"classes: one of {', '.join(CLASSES)} for each of {width} concepts is needed")
    if len(pair_image) == 0:
        raise ValueError("no pairs: bridges are means over pairs")
    index = _index(image, text, pair_image, pair_text, width)
    moments_I = _moments(image, np.bincount(pair_image, minlength=len(image.indptr) - 1), width)
    moments_T = _moments(text, np.bincount(pair_text, minlength=len(text.indptr) - 1), width)
    members_CK = np.array([[name == known for known in CLASSES] for name in classes], np.float64)
    parts: list[dict[str, np.ndarray]] = []
    totals = _Totals(members_CK)
    for start, G, pairs in _blocks(index, width, len(pair_image)):
        stop = start + len(G)
        cosine = D[start:stop] @ D.T
        bridge = G * cosine
        covariance = (G - np.outer(moments_I.mean[start:stop], moments_T.mean)) * cosine
        totals.add(start, "raw", bridge)
        totals.add(start, "covariance", covariance)
        i, j = np.nonzero(pairs >= max(min_pairs, 0))
        deviations = moments_I.deviation[start + i] * moments_T.deviation[j]
        correlation = np.full(len(i), np.nan)
        np.divide(covariance[i, j], deviations, out=correlation, where=deviations > 0)
        parts.append({
            "image_concept": (start + i).astype(np.int32),
            "text_concept": j.astype(np.int32),
            "pairs": pairs[i, j],
            "coactivation": G[i, j],
            "cosine": cosine[i, j],
            "bridge": bridge[i, j],
            "covariance_bridge": covariance[i, j],
            "correlation_bridge": correlation,
        })  # fmt: skip
    return Bridges({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, totals.rows())


class _Totals:
    """Sums of scores by class of i, class of j, and whether i = j."""

    def __init__(self, members_CK: np.ndarray) -> None:
        self.members_CK = members_CK
        # [self or cross, positive or negative, K, K] by kind
        self.sums = {kind: np.zeros((2, 2, len(CLASSES), len(CLASSES))) for kind in ("raw", "covariance")}

    def add(self, start: int, kind: str, scores_BC: np.ndarray) -> None:
        """Count the scores [B, C] of image concepts start .. start+B-1."""
        here = np.arange(len(scores_BC))
        block_BK = self.members_CK[start : start + len(scores_BC)]
        for sign, part in enumerate((np.maximum(scores_BC, 0), np.minimum(scores_BC, 0))):
            own = part[here, start + here]
            self.sums[kind][1, sign] += (block_BK * own[:, None]).T @ block_BK
            part[here, start + here] = 0
            self.sums[kind][0, sign] += block_BK.T @ part @ self.members_CK

    def rows(self) -> list[dict[str, Any]]:
        """One row a kind, pair of classes, and cross or self; self only where both classes are one."""
        return [
            {
                "class_image": class_image,
                "class_text": class_text,
                "self": bool(own),
                "kind": kind,
                "total": float(sums[own, 0, a, b] + sums[own, 1, a, b]),
                "positive": float(sums[own, 0, a, b]),
                "negative": float(sums[own, 1, a, b]),
            }
            for kind, sums in self.sums.items()
            for a, class_image in enumerate(CLASSES)
            for b, class_text in enumerate(CLASSES)
            for own in (0, 1)
            if not own or a == b
        ]


def _blocks(index: _Index, width: int, pairs: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(first image concept, G [B, C], pair counts [B, C]) for each block of image concepts."""
    for start in range(0, width, BLOCK):
        stop = min(start + BLOCK, width)
        sums, counts = np.zeros((stop - start, width)), np.zeros((stop - start, width), np.int64)
        coactivate_(start, stop, *index[:-1], *index.text, sums, counts)
        yield start, sums / pairs, counts


def _index(image: Codes, text: Codes, pair_image: np.ndarray, pair_text: np.ndarray, width: int) -> _Index:
    image, text = _checked(image, "image", width), _checked(text, "text", width)
    images, texts = len(image.indptr) - 1, len(text.indptr) - 1
    pair_image, pair_text = np.asarray(pair_image, np.int64), np.asarray(pair_text, np.int64)
    if len(pair_image) != len(pair_text):
        raise ValueError(f"pair_image has {len(pair_image)} entries and pair_text {len(pair_text)}")
    for name, rows, count in (("pair_image", pair_image, images), ("pair_text", pair_text, texts)):
        if len(rows) and not (rows.min() >= 0 and rows.max() < count):
            raise ValueError(f"{name} points outside the {count} rows of codes")
    by_concept = np.argsort(image.concepts, kind="stable")
    by_image = np.argsort(pair_image, kind="stable")
    items = np.repeat(np.arange(images, dtype=np.int64), np.diff(image.indptr))
    return _Index(
        _starts(image.concepts, width),
        items[by_concept],
        image.values[by_concept],
        _starts(pair_image, images),
        pair_text[by_image],
        text,
    )


def _starts(keys: np.ndarray, count: int) -> np.ndarray:
    """[count+1] int64: where each key's run begins once the keys are sorted."""
    return np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=count))]).astype(np.int64)


def _checked(codes: Codes, name: str, width: int) -> Codes:
    """The codes in the types the kernel is compiled for: it reads without bounds checks."""
    indptr = np.ascontiguousarray(codes.indptr, np.int64)
    concepts = np.ascontiguousarray(codes.concepts, np.int32)
    values = np.ascontiguousarray(codes.values, np.float32)
    if len(indptr) == 0 or indptr[0] != 0 or indptr[-1] != len(concepts) or (np.diff(indptr) < 0).any():
        raise ValueError(f"{name} codes: indptr does not rise from 0 to the {len(concepts)} entries")
    if len(values) != len(concepts):
        raise ValueError(f"{name} codes: {len(concepts)} concepts and {len(values)} values")
    if len(concepts) and not (concepts.min() >= 0 and concepts.max() < width):
        raise ValueError(f"{name} codes: a concept lies outside 0..{width - 1}")
    if not (values > 0).all():
        raise ValueError(f"{name} codes: stored values must be above 0, for every stored entry counts as firing")
    return Codes(indptr, concepts, values)


def _moments(codes: Codes, pairs_of_item: np.ndarray, width: int) -> _Moments:
    """Mean and standard deviation of each concept's code over the pairs; pairs_of_item [n] is each item's weight."""
    total = int(pairs_of_item.sum())
    weight = np.repeat(pairs_of_item, np.diff(codes.indptr)).astype(np.float64)
    z = np.asarray(codes.values, np.float64)
    mean = np.bincount(codes.concepts, weight * z, minlength=width) / total
    off = np.bincount(codes.concepts, weight * (z - mean[codes.concepts]) ** 2, minlength=width)
    silent = total - np.bincount(codes.concepts, weight, minlength=width)
    variance = (off + silent * mean**2) / total
    # A code that is the same on every pair leaves only the rounding of its mean: that is 0, not a tiny deviation.
    variance[variance < 1e-14 * mean**2] = 0
    return _Moments(mean, np.sqrt(variance))
