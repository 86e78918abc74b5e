"""Write paired vectors made from a known dictionary, to test whether an SAE that is trained on them recovers it.

python bench/planted.py --to DIR [--pairs 60000] [--dim 160] [--atoms 256] [--atoms-a-row 6.6 4 8] [--seed 0]

A study reads the vectors by the model spec `embeddings:PATH`. Three eighths of the atoms fire in images only, three
eighths in text only, a quarter in both. Two thirds of the atoms that fire in images only have a text partner that
points partly the same way and fires on the same pairs. These are the planted bridges.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

PARTNER_COSINE = 0.4
PARTNER_RATE = 0.9  # share of the pairs in which a text partner fires if and only if its image atom fires
# Number of atoms that fire per row: mean, fewest, most. A pair with a row outside these bounds is drawn again, because
# normalisation makes the activations in a row of one to three atoms much larger than all others. The mean holds
# before redrawing; after it, the mean is about 6.0.
ATOMS_A_ROW = (6.6, 4, 8)
# Range of the activations before the row is normalised. The least is far above 0, so that an encoder can tell the
# weakest activation from the cross-talk of other atoms.
LEAST, MOST = 0.9, 1.1


class Planted(NamedTuple):
    """Vectors and the truth behind them."""

    image: np.ndarray  # [n, d] float16, unit norm up to rounding
    text: np.ndarray  # [n, d] float16; caption j belongs to image j
    atoms: np.ndarray  # [A, d] float32 unit rows
    kinds: np.ndarray  # [A] "image", "text" or "bimodal"
    codes_image: np.ndarray  # [n, A] float32; codes @ atoms is the normalised row
    codes_text: np.ndarray  # [n, A]
    bridges: np.ndarray  # [M, 2] (image atom, text atom): planted pairs, and bimodal atoms with themselves


def plant(
    pairs: int = 60_000,
    dim: int = 160,
    atoms: int = 256,
    seed: int = 0,
    atoms_a_row: tuple[float, int, int] = ATOMS_A_ROW,
) -> Planted:
    """Draw a dictionary and `pairs` image-caption pairs from it.

    Raises ValueError for fewer than 32 atoms (the atoms of a row could not all be rare) or no pair.
    """
    mean, fewest, most = atoms_a_row
    if atoms < 32 or pairs < 1:
        raise ValueError(f"{atoms} atoms and {pairs} pairs; at least 32 atoms and 1 pair are needed")
    random = np.random.default_rng(seed)
    unimodal = atoms * 3 // 8
    partners = np.arange(unimodal * 2 // 3)[:, None] + np.array([0, unimodal])
    kinds = np.repeat(["image", "text", "bimodal"], [unimodal, unimodal, atoms - 2 * unimodal])
    rates = _rates(random, kinds, partners, mean)
    D = _dictionary(random, atoms, dim, partners)

    fires = np.zeros((2, pairs, atoms), bool)
    wanted = np.ones(pairs, bool)
    while wanted.any():
        fires[:, wanted] = _draw(random, int(wanted.sum()), kinds, rates, partners)
        counts = fires.sum(2)
        wanted = ((counts < fewest) | (counts > most)).any(0)
    image, codes_image = _rows(random, fires[0], D)
    text, codes_text = _rows(random, fires[1], D)
    both = np.flatnonzero(kinds == "bimodal")
    bridges = np.concatenate([partners, np.stack([both, both], axis=1)])
    return Planted(image, text, D, kinds, codes_image, codes_text, bridges)


def _rates(random: np.random.Generator, kinds: np.ndarray, partners: np.ndarray, mean: float) -> np.ndarray:
    """Rates [2, A] at which each atom fires in images and in texts; on average `mean` atoms fire per row.

    Rates follow a mild Zipf law: the highest is about three times the lowest. Partners have the same rate. The two
    rates of a bimodal atom have the ratio s : (1 - s), where s is its modality score; the scores are spread evenly over
    0.15 to 0.85.
    """
    base = 1 / (np.arange(len(kinds)) + len(kinds) / 2)
    base = random.permutation(base)
    base[partners[:, 1]] = base[partners[:, 0]]
    both = np.flatnonzero(kinds == "bimodal")
    score = random.permutation(np.linspace(0.15, 0.85, len(both)))
    rates = np.stack([base * (kinds == "image"), base * (kinds == "text")])
    rates[:, both] = base[both] * np.minimum(1, np.stack([score / (1 - score), (1 - score) / score]))
    return rates * (mean / rates.sum(1, keepdims=True).mean())


def _draw(
    random: np.random.Generator, pairs: int, kinds: np.ndarray, rates: np.ndarray, partners: np.ndarray
) -> np.ndarray:
    """Booleans [2, pairs, A]: which atoms fire in the image and in the caption of each pair.

    A bimodal atom fires less often in one modality. In each pair where it fires there, it fires in both. In a
    share PARTNER_RATE of the pairs, a text partner fires if and only if its image atom does; in the other pairs the
    partner is drawn independently. Everything else is independent.
    """
    uniform = random.random((2, pairs, len(kinds)))
    both = kinds == "bimodal"
    uniform[1, :, both] = uniform[0, :, both]
    copied = random.random((pairs, len(partners))) < PARTNER_RATE
    left, right = partners.T
    uniform[1][:, right] = np.where(copied, uniform[0][:, left], uniform[1][:, right])
    return uniform < rates[:, None, :]


def _dictionary(random: np.random.Generator, atoms: int, dim: int, partners: np.ndarray) -> np.ndarray:
    """Unit rows [A, d]. Partners have the cosine PARTNER_COSINE; other pairs are as nearly orthogonal as d allows."""
    left, right = partners.T
    D = random.standard_normal((atoms, dim))
    for _ in range(300):  # lower the squared cosines of all other pairs; cosines of random atoms reach 0.4
        D /= np.linalg.norm(D, axis=1, keepdims=True)
        side = D[right] - (D[right] * D[left]).sum(1, keepdims=True) * D[left]
        side /= np.linalg.norm(side, axis=1, keepdims=True)
        D[right] = PARTNER_COSINE * D[left] + np.sqrt(1 - PARTNER_COSINE**2) * side
        atoms_AD = D.astype(np.float32)
        cosines = D @ D.T
        cosines[left, right] = cosines[right, left] = 0
        np.fill_diagonal(cosines, 0)
        D -= 0.1 * cosines @ D
    return atoms_AD


def _rows(random: np.random.Generator, fires: np.ndarray, D: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows [n, d] as float16, and codes [n, A] such that codes @ D is the row."""
    codes = np.where(fires, random.uniform(LEAST, MOST, fires.shape), 0).astype(np.float32)
    x = codes @ D
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return (x / norms).astype(np.float16), codes / norms


def write(planted: Any, folder: Path) -> None:
    """Write vectors, metadata and truth into folder (made if absent).

    planted: a named tuple with the fields of Planted; its codes may be sparse arrays.
    """
    truth = folder / "truth"
    truth.mkdir(parents=True, exist_ok=True)
    np.save(folder / "image.npy", planted.image)
    np.save(folder / "text.npy", planted.text)
    keys = [f"planted-{row:06d}" for row in range(len(planted.image))]
    by_modality = {"image": sparse.csr_array(planted.codes_image), "text": sparse.csr_array(planted.codes_text)}
    fires = by_modality["image"] + by_modality["text"]
    fires.sort_indices()
    captions = ["atoms " + " ".join(map(str, row)) for row in np.split(fires.indices, fires.indptr[1:-1])]
    # The labels of a pair: the planted bridges whose image atom fires in its image.
    of_bridges = by_modality["image"][:, planted.bridges[:, 0]]
    of_bridges.sort_indices()
    labels = [list(map(str, row)) for row in np.split(of_bridges.indices, of_bridges.indptr[1:-1])]
    table = pa.table({"key": keys, "caption": captions, "bridge": pa.array(labels, pa.list_(pa.string()))})
    pq.write_table(table, folder / "metadata.parquet")

    np.save(truth / "atoms.npy", planted.atoms)
    atoms = len(planted.atoms)
    energy = {
        name: np.bincount(codes.indices, codes.data, atoms) / codes.shape[0] for name, codes in by_modality.items()
    }
    total = energy["image"] + energy["text"]
    of_atoms = {
        "atom": np.arange(len(planted.atoms), dtype=np.int32),
        "kind": planted.kinds.tolist(),
        **{f"energy_{name}": values for name, values in energy.items()},
        "modality_score": np.divide(energy["image"], total, out=np.full(len(total), np.nan), where=total > 0),
        **{f"fires_{name}": np.bincount(codes.indices, minlength=len(total)) for name, codes in by_modality.items()},
    }
    pq.write_table(pa.table(of_atoms), truth / "atoms.parquet")
    pairs = planted.bridges.astype(np.int32)
    pq.write_table(pa.table({"image_atom": pairs[:, 0], "text_atom": pairs[:, 1]}), truth / "bridges.parquet")
    parts = []
    # The codes are written per item, so that scores on held-out rows can be compared with the truth on the same rows.
    # By sampling alone, the truth on all rows differs from it by more than the tolerance of the comparison.
    for name, codes in by_modality.items():
        item = np.repeat(np.arange(codes.shape[0]), np.diff(codes.indptr))
        columns = {"modality": [name] * len(item), "item": item, "atom": codes.indices.astype(np.int32)}
        parts.append(pa.table(columns | {"activation": codes.data}))
    pq.write_table(pa.concat_tables(parts), truth / "codes.parquet", compression="zstd")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, metavar="DIR")
    parser.add_argument("--pairs", type=int, default=60_000)
    parser.add_argument("--dim", type=int, default=160)
    parser.add_argument("--atoms", type=int, default=256)
    parser.add_argument(
        "--atoms-a-row", type=float, nargs=3, default=ATOMS_A_ROW, metavar=("MEAN", "FEWEST", "MOST"),
        help="mean before redrawing, and the bounds outside which a pair is drawn again",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    mean, fewest, most = arguments.atoms_a_row
    planted = plant(arguments.pairs, arguments.dim, arguments.atoms, arguments.seed, (mean, int(fewest), int(most)))
    write(planted, arguments.to)
    cosines = np.abs(planted.atoms @ planted.atoms.T - np.eye(len(planted.atoms)))
    cosines[planted.bridges[:, 0], planted.bridges[:, 1]] = cosines[planted.bridges[:, 1], planted.bridges[:, 0]] = 0
    codes_a_row = [(codes > 0).sum(1).mean() for codes in (planted.codes_image, planted.codes_text)]
    print(f"{len(planted.image)} pairs, {len(planted.atoms)} atoms, {len(planted.bridges)} bridges -> {arguments.to}")
    print(
        f"atoms per row: image {codes_a_row[0]:.2f}, text {codes_a_row[1]:.2f}; "
        f"highest other cosine {cosines.max():.2f}"
    )


if __name__ == "__main__":
    main()
