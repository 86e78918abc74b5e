"""Compare a study of the vectors of bench/plant_vlm_like.py with the truth that was written beside them.

python -m bench.check_vlm_like --store DIR --vectors DIR [--study vlm_like]

Prints one line per figure with its bar, writes bench/results/vlm_like.json, and ends with 1 when a bar is not met.
A concept counts as matched where its cosine with its atom is at least .8.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy import sparse

from bench.bars import Bar, at_least, at_most, finish, shown
from bench.recovery import MATCHED, agreement, matched, modality_scores
from sae import SAE
from storage import open_catalog
from storage.catalog import frame

FEWEST_FIRINGS = 100  # modality scores of atoms that fire less often on the counted items are not compared
BLOCK = 2048
BRIDGES = 50

Items = dict[str, np.ndarray]  # {modality: numbers of the counted items}
Codes = dict[str, sparse.csr_array]  # {modality: [items, atoms or concepts]}


def counted_items(con, vectors: Path) -> Items:
    """The items of both modalities that the statistics of the study count, as row numbers of the vectors."""
    split = frame(con, "SELECT DISTINCT split FROM concepts")["split"].item()
    side = "" if split == "all" else f" WHERE split = '{split}'"
    keys = pl.read_parquet(vectors / "metadata.parquet", glob=False).with_row_index("item")
    images = frame(con, f"SELECT source_key FROM images{side}").join(keys, left_on="source_key", right_on="key")["item"]
    texts = frame(con, f"SELECT source_key::BIGINT AS item FROM pairs{side}")["item"]
    return {"image": np.sort(images.to_numpy()).astype(np.int64), "text": np.sort(texts.to_numpy())}


def planted_codes(vectors: Path, atoms: int, items: Items) -> Codes:
    """True codes of the items, [items, A]."""
    rows = len(np.load(vectors / "image.npy", mmap_mode="r"))
    table = pl.read_parquet(vectors / "truth" / "codes.parquet", glob=False)
    codes = {}
    for modality, counted in items.items():
        own = table.filter(pl.col("modality") == modality)
        every = sparse.csr_array((own["activation"], (own["item"], own["atom"])), shape=(rows, atoms))
        codes[modality] = every[counted]
    return codes


@torch.no_grad()
def found_codes(net: SAE, vectors: Path, items: Items) -> Codes:
    """Codes [items, C] of the items by the inference rule of an SAE."""
    codes = {}
    for modality, counted in items.items():
        x = np.load(vectors / f"{modality}.npy", mmap_mode="r")
        of = [np.asarray(x[counted[start : start + BLOCK]]) for start in range(0, len(counted), BLOCK)]
        codes[modality] = sparse.vstack([sparse.csr_array(net.encode(rows).numpy()) for rows in of], format="csr")
    return codes


def recovery(atoms: np.ndarray, kinds: np.ndarray, truth: Codes, dictionary: np.ndarray, found: Codes) -> list[Bar]:
    """The figures of one SAE that need no table of the study: MCC, F1, cosines and modality scores.

    atoms [A, d], kinds [A] and the true codes; the dictionary [C, d] and the codes found on the same items.
    """
    agreed = agreement(*(sparse.vstack([codes["image"], codes["text"]], format="csr") for codes in (truth, found)))
    left, right, cosines = matched(atoms, dictionary)
    firings = sum(np.bincount(codes.indices, minlength=len(atoms)) for codes in truth.values())
    asked = (firings[left] >= FEWEST_FIRINGS) & (cosines >= MATCHED)
    true_scores, scores = (modality_scores(codes["image"], codes["text"]) for codes in (truth, found))
    true_scores, scores = true_scores[left][asked], np.nan_to_num(scores[right], nan=0.5)[asked]
    errors, of = np.abs(scores - true_scores), kinds[left][asked]
    as_planted = {
        "image": scores > 0.75,
        "text": scores < 0.25,
        "bimodal": (scores >= 0.25) & (scores <= 0.75) | (np.abs(true_scores - 0.5) > 0.05),
    }
    rows = [
        at_least("MCC of codes", agreed.mcc, 0.6),
        at_least("F1 of firing, matched pairs", agreed.f1, 0.4),
        at_least("mean matched cosine to the planted atoms", cosines.mean(), 0.7),
        shown(f"share of the planted atoms matched at {MATCHED:g} or more", (cosines >= MATCHED).mean()),
        at_least(f"share of {len(errors)} modality scores within .05", (errors <= 0.05).mean(), 0.9),
        at_most("median error of a modality score", np.median(errors), 0.05),
    ]
    for kind, right_kind in as_planted.items():
        rows.append(at_least(f"share of {kind} atoms found as {kind}", right_kind[of == kind].mean(), 0.95))
    return rows


def bridge_precision(con, sae: tuple[str, str, int], planted: set[tuple[int, int]], atom_of: dict[int, int]) -> Bar:
    """Share of the strongest bridges of an SAE whose two concepts are matched to atoms of a planted bridge."""
    model, name, seed = sae
    top = frame(con, f"SELECT image_concept, text_concept FROM top_bridges('{model}', '{name}', {seed}, {BRIDGES})")
    hits = [(atom_of.get(i), atom_of.get(j)) in planted for i, j in top.iter_rows()]
    return at_least(f"precision of the top {BRIDGES} bridges", float(np.mean(hits)), 0.7)


def figures(store: Path, vectors: Path, study: str) -> list[Bar]:
    """Each measured figure of the study, with the bar that it must reach."""
    con = open_catalog(store, study)
    atoms = np.load(vectors / "truth" / "atoms.npy")
    kinds = pl.read_parquet(vectors / "truth" / "atoms.parquet", glob=False)["kind"].to_numpy()
    planted = set(pl.read_parquet(vectors / "truth" / "bridges.parquet", glob=False).iter_rows())
    items = counted_items(con, vectors)
    truth = planted_codes(vectors, len(atoms), items)
    rows = []
    for model, name, seed, path in frame(con, "SELECT model, sae, seed, path FROM saes ORDER BY ALL").iter_rows():
        net = SAE.load(store / path)
        dictionary = net.dictionary.numpy()
        own = recovery(atoms, kinds, truth, dictionary, found_codes(net, vectors, items))
        left, right, _ = matched(atoms, dictionary)
        own.append(
            bridge_precision(con, (model, name, seed), planted, dict(zip(right.tolist(), left.tolist(), strict=True)))
        )
        rows += [{**row, "name": f"{name}, seed {seed}: {row['name']}"} for row in own]
    return rows


def main() -> int:
    """Print and write the figures; return 1 when a bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("--study", default="vlm_like")
    arguments = parser.parse_args()
    return finish("vlm_like", figures(arguments.store, arguments.vectors, arguments.study))


if __name__ == "__main__":
    sys.exit(main())
