"""Vectors for the speed bench: sparse sums of drawn atoms, in two separated modalities, written block by block.

bench/planted.py is not used, because its dense codes do not fit in memory at 600,000 rows. This module keeps no codes.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse

ATOMS_A_ROW = 20
NOISE = 0.05  # norm of the noise in a row whose atoms have a norm of about 1
GAP = 0.7  # distance of the two modality means, about as in CLIP
BLOCK = 8192  # rows drawn at a time


class Vectors(NamedTuple):
    """Unit rows of both modalities, memory maps of float16."""

    image: np.ndarray  # [n/2, d]
    text: np.ndarray  # [n/2, d]


def planted(folder: Path, rows: int, dim: int, atoms: int, seed: int = 0) -> Vectors:
    """Draw `rows` rows, half of them images, from one dictionary of `atoms` unit vectors, or load them from `folder`.

    Three eighths of the atoms fire in images only, three eighths in captions only, a quarter in both; rates follow
    a mild Zipf law. Rows are drawn block by block, so that a shorter file is a prefix of a longer one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = {name: folder / f"{name}-{rows}x{dim}-{atoms}-{seed}.npy" for name in ("image", "text")}
    random = np.random.default_rng(seed)
    D = _unit(random.standard_normal((atoms, dim), np.float32))
    shift = _unit(random.standard_normal((1, dim), np.float32)) * (GAP / 2)
    rate = random.permutation(1 / (np.arange(atoms) + atoms / 8))
    unimodal = atoms * 3 // 8
    for modality, (name, file) in enumerate(path.items()):
        if file.exists():
            continue
        silent = slice(unimodal, 2 * unimodal) if name == "image" else slice(0, unimodal)
        mine = rate.copy()
        mine[silent] = 0
        partial = file.with_suffix(".partial")
        out = np.lib.format.open_memmap(partial, "w+", np.float16, (rows // 2, dim))
        for number, start in enumerate(range(0, rows // 2, BLOCK)):
            count = min(BLOCK, rows // 2 - start)
            drawn = np.random.default_rng([seed, modality, number])
            out[start : start + count] = _block(drawn, D, mine / mine.sum(), shift if name == "image" else -shift)[
                :count
            ]
        out.flush()
        partial.rename(file)
    return Vectors(*(np.load(file, mmap_mode="r") for file in path.values()))


def _block(random: np.random.Generator, D: np.ndarray, rate: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Draw BLOCK unit rows: sums of ATOMS_A_ROW atoms, moved by the modality's `shift`, with noise."""
    picks = random.choice(len(D), size=(BLOCK, ATOMS_A_ROW), p=rate)
    weights = random.uniform(0.5, 1.5, picks.shape).astype(np.float32) / np.sqrt(ATOMS_A_ROW)
    indptr = np.arange(0, picks.size + 1, ATOMS_A_ROW)
    x = sparse.csr_array((weights.ravel(), picks.ravel(), indptr), shape=(BLOCK, len(D))) @ D
    noise = random.standard_normal(x.shape, np.float32) * (NOISE / np.sqrt(D.shape[1]))
    return _unit(x + shift + noise)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
