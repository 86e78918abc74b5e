"""Write paired vectors that look like a vision-language model's, made from a known dictionary.

python -m bench.plant_vlm_like --to DIR [--pairs 40000] [--dim 256] [--atoms 2048] [--l0 14] [--gap 0.6] [--noise 0.25]
                                [--kept 0.7] [--seed 0]

They are harder to decompose than those of bench/planted.py. The modalities are separated by a gap, and all rows lie in
a common cone. There are more atoms than dimensions. Most atoms are rare, activations have a heavy tail, and noise has a
falling spectrum. A caption shares only a part of what fires in its image.

Three eighths of the atoms fire in images only, three eighths in text only, a quarter in both. Half of the atoms that
fire in both do so equally often. A third of the atoms that fire in images only have a text partner that points partly
the same way and fires on many of the same pairs. The planted bridges are these partners, and every atom of both
modalities with itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse

from bench.planted import write

BLOCK = 4096  # pairs drawn at a time
PARTNER_COSINE = 0.4
CONE = 0.5  # length of the mean that both modalities share, where the sum of the activations has length 1
SIGMA = 0.5  # of the logarithm of an activation
TAIL = 10  # the atom of rank r fires at a rate proportional to 1 / (r + TAIL)
MOST = 0.6  # highest rate at which an atom fires in a modality


class VLMLike(NamedTuple):
    """Vectors and the truth behind them. Codes times atoms are a row without its means and its noise."""

    image: np.ndarray  # [n, d] float16, unit norm up to rounding
    text: np.ndarray  # [n, d] float16; caption j belongs to image j
    atoms: np.ndarray  # [A, d] float32 unit rows
    kinds: np.ndarray  # [A] "image", "text" or "bimodal"
    codes_image: sparse.csr_array  # [n, A] float32
    codes_text: sparse.csr_array  # [n, A] float32
    bridges: np.ndarray  # [M, 2] (image atom, text atom)


class World(NamedTuple):
    """What all pairs are drawn from."""

    atoms: np.ndarray  # [A, d]
    kinds: np.ndarray  # [A]
    partners: np.ndarray  # [P, 2] (image atom, text atom)
    rates: np.ndarray  # [2, A], share of the rows of each modality in which an atom fires
    means: np.ndarray  # [2, d], of each modality, with the cone
    spectrum: np.ndarray  # [d, d]; standard normal draws times its transpose are the noise
    lengths: np.ndarray  # [2], root mean square of the norm of codes @ atoms before they are scaled to 1


def plant(
    pairs: int = 40_000,
    dim: int = 256,
    atoms: int = 2048,
    l0: float = 14.0,
    gap: float = 0.6,
    noise: float = 0.25,
    kept: float = 0.7,
    seed: int = 0,
) -> VLMLike:
    """Draw a dictionary and `pairs` image-caption pairs from it. With equal other arguments, fewer pairs are a prefix.

    l0: atoms that fire per row, on average over both modalities. gap, noise: lengths of the mean of a modality and of
    the noise, where the activations add up to a root mean square of 1. kept: probability that a caption keeps its
    image's draw of an atom; other draws are independent. Raises ValueError for fewer than 32 atoms or no pair.
    """
    if atoms < 32 or pairs < 1:
        raise ValueError(f"{atoms} atoms and {pairs} pairs; at least 32 atoms and 1 pair are needed")
    world = draw_world(dim, atoms, l0, gap, noise, seed)
    blocks = [draw_block(world, kept, seed, number) for number in range(-(-pairs // BLOCK))]
    image, text = (np.concatenate([rows[m] for rows, _ in blocks])[:pairs] for m in (0, 1))
    codes = [sparse.vstack([codes[m] for _, codes in blocks], format="csr")[:pairs] for m in (0, 1)]
    both = np.flatnonzero(world.kinds == "bimodal")
    bridges = np.concatenate([world.partners, np.stack([both, both], axis=1)])
    return VLMLike(image, text, world.atoms, world.kinds, codes[0], codes[1], bridges)


def draw_world(dim: int, atoms: int, l0: float, gap: float, noise: float, seed: int) -> World:
    """Draw everything that the pairs share."""
    random = np.random.default_rng(seed)
    unimodal = atoms * 3 // 8
    kinds = np.repeat(["image", "text", "bimodal"], [unimodal, unimodal, atoms - 2 * unimodal])
    left = np.arange(unimodal // 3)
    partners = np.stack([left, left + unimodal], axis=1)

    D = _unit(random.standard_normal((atoms, dim)))
    side = D[partners[:, 1]] - (D[partners[:, 1]] * D[left]).sum(1, keepdims=True) * D[left]
    D[partners[:, 1]] = PARTNER_COSINE * D[left] + np.sqrt(1 - PARTNER_COSINE**2) * _unit(side)

    tail = 1 / (np.arange(atoms) + TAIL)
    firing = random.permutation(tail * l0 / tail.sum())
    firing[partners[:, 1]] = firing[left]
    both = np.flatnonzero(kinds == "bimodal")
    score = np.select([kinds == "image", kinds == "text"], [1.0, 0.0], 0.5)
    score[both[: len(both) // 2]] = random.uniform(0.15, 0.85, len(both) // 2)
    rates = np.stack([2 * firing * score, 2 * firing * (1 - score)]).clip(max=MOST)

    directions = _unit(random.standard_normal((3, dim)))
    means = CONE * directions[2] + gap * directions[:2]
    spectrum = random.standard_normal((dim, dim)) / np.sqrt(np.arange(1, dim + 1))
    spectrum *= noise / np.linalg.norm(spectrum)
    # Firings and activations are independent within a row, so the mean squared norm of codes @ atoms is the sum of the
    # variances of the codes plus the squared norm of the mean. The activations are log-normal.
    first, second = np.exp(SIGMA**2 / 2), np.exp(2 * SIGMA**2)
    variances = rates * second - (rates * first) ** 2
    lengths = np.sqrt(variances.sum(1) + np.square((rates * first) @ D).sum(1))
    return World(D.astype(np.float32), kinds, partners, rates, means, spectrum, lengths)


def draw_block(world: World, kept: float, seed: int, number: int) -> tuple[list[np.ndarray], list[sparse.csr_array]]:
    """Rows [BLOCK, d] float16 and codes [BLOCK, A] of both modalities; they depend on the world and these numbers."""
    random = np.random.default_rng([seed, number])
    shape = (BLOCK, len(world.atoms))
    uniform = random.random(shape, np.float32)
    rows, codes = [], []
    for modality in range(2):
        if modality == 1:
            uniform[:, world.partners[:, 1]] = uniform[:, world.partners[:, 0]]
            uniform = np.where(random.random(shape, np.float32) < kept, uniform, random.random(shape, np.float32))
        row, atom = np.nonzero(uniform < world.rates[modality].astype(np.float32))
        value = random.lognormal(0, SIGMA, len(row)) / world.lengths[modality]
        of = sparse.csr_array((value, (row, atom)), shape=shape)
        rest = random.standard_normal((BLOCK, len(world.spectrum))) @ world.spectrum.T
        x = of @ world.atoms + rest + world.means[modality]
        norms = np.linalg.norm(x, axis=1)
        rows.append((x / norms[:, None]).astype(np.float16))
        codes.append((sparse.diags_array(1 / norms) @ of).tocsr().astype(np.float32))
    return rows, codes


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, metavar="DIR")
    numbers = {
        "pairs": 40_000,
        "dim": 256,
        "atoms": 2048,
        "l0": 14.0,
        "gap": 0.6,
        "noise": 0.25,
        "kept": 0.7,
        "seed": 0,
    }
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    options = vars(parser.parse_args())
    folder = options.pop("to")
    planted = plant(**options)
    write(planted, folder)
    rows = [codes.nnz / codes.shape[0] for codes in (planted.codes_image, planted.codes_text)]
    gap = np.linalg.norm(planted.image.mean(0, np.float64) - planted.text.mean(0, np.float64))
    print(f"{len(planted.image)} pairs, {len(planted.atoms)} atoms, {len(planted.bridges)} bridges -> {folder}")
    print(f"atoms per row: image {rows[0]:.2f}, text {rows[1]:.2f}; distance of the modality means {gap:.2f}")


if __name__ == "__main__":
    main()
