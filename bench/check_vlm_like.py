"""Compare a study of the vectors of bench/plant_vlm_like.py with the truth that was written beside them.

python -m bench.check_vlm_like --store DIR --vectors DIR [--study vlm_like]

Prints one line per result with its bar, writes bench/results/vlm_like.json, and ends with 1 when a bar is not met.
A concept counts as matched where its cosine with its atom is at least .8.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import polars as pl
from scipy import sparse

from bench.bars import Bar, at_least, at_most, finish, shown
from bench.frozen_bars import beats_frozen
from bench.planted_codes import Codes, counted_items, found_codes, planted_codes
from bench.recovery import FEWEST_FIRINGS, MATCHED, agreement, matched, modality_scores
from sae import SAE
from storage import open_catalog
from storage.catalog import frame

BRIDGES = 50


def recovery(atoms: np.ndarray, kinds: np.ndarray, truth: Codes, dictionary: np.ndarray, found: Codes) -> list[Bar]:
    """The results of one SAE that need no table of the study: MCC, F1, cosines and modality scores.

    atoms [A, d], kinds [A] and the true codes; the dictionary [C, d] and the codes found on the same items.
    """
    agreed = agreement(*(sparse.vstack([codes["image"], codes["text"]], format="csr") for codes in (truth, found)))
    left, right, cosines = matched(atoms, dictionary)
    firings = sum(np.bincount(codes.indices, minlength=len(atoms)) for codes in truth.values())
    asked = (firings[left] >= FEWEST_FIRINGS) & (cosines >= MATCHED)
    true_scores, scores = (modality_scores(codes["image"], codes["text"]) for codes in (truth, found))
    true_scores, scores, of = true_scores[left][asked], scores[right][asked], kinds[left][asked]
    errors = np.abs(np.nan_to_num(scores, nan=0.5) - true_scores)
    even = (of == "bimodal") & (np.abs(true_scores - 0.5) <= 0.05)
    # Scores of the atoms of each kind, and the range that they must lie in. A NaN lies in none.
    as_planted = {
        "image": (scores[of == "image"], 0.75, 1),
        "text": (scores[of == "text"], 0, 0.25),
        "bimodal": (scores[even], 0.25, 0.75),
    }
    rows = [
        at_least("MCC of codes", agreed.mcc, 0.6),
        at_least("F1 of firing, matched pairs", agreed.f1, 0.4),
        at_least("mean matched cosine to the planted atoms", cosines.mean(), 0.7),
        shown(f"share of the planted atoms matched at {MATCHED:g} or more", (cosines >= MATCHED).mean()),
        at_least(f"share of {len(errors)} modality scores within .05", (errors <= 0.05).mean(), 0.9),
        at_most("median error of a modality score", np.median(errors), 0.05),
    ]
    for kind, (of_kind, low, high) in as_planted.items():
        right_kind = (low <= of_kind) & (of_kind <= high)
        share = right_kind.mean() if len(of_kind) else np.nan
        rows.append(at_least(f"share of {kind} atoms found as {kind}", share, 0.95))
    return rows


def bridge_precision(con, sae: tuple[str, str, int], planted: set[tuple[int, int]], atom_of: dict[int, int]) -> Bar:
    """Share of the strongest bridges of an SAE whose two concepts are matched to atoms of a planted bridge."""
    model, name, seed = sae
    top = frame(con, f"SELECT image_concept, text_concept FROM top_bridges('{model}', '{name}', {seed}, {BRIDGES})")
    hits = [(atom_of.get(i), atom_of.get(j)) in planted for i, j in top.iter_rows()]
    return at_least(f"precision of the top {BRIDGES} bridges", float(np.mean(hits)), 0.7)


def figures(store: Path, vectors: Path, study: str) -> list[Bar]:
    """Each measured result of the study, with the bar that it must reach."""
    con = open_catalog(store, study)
    atoms = np.load(vectors / "truth" / "atoms.npy")
    kinds = pl.read_parquet(vectors / "truth" / "atoms.parquet", glob=False)["kind"].to_numpy()
    planted = set(pl.read_parquet(vectors / "truth" / "bridges.parquet", glob=False).iter_rows())
    items = counted_items(con, vectors)
    truth = planted_codes(vectors, len(atoms), items)
    rows = []
    trained = frame(con, "SELECT model, sae, seed, path FROM saes WHERE twin_of IS NULL ORDER BY ALL")
    for model, name, seed, path in trained.iter_rows():
        net = SAE.load(store / path)
        dictionary = net.dictionary.numpy()
        own = recovery(atoms, kinds, truth, dictionary, found_codes(net, vectors, items))
        left, right, _ = matched(atoms, dictionary)
        own.append(
            bridge_precision(con, (model, name, seed), planted, dict(zip(right.tolist(), left.tolist(), strict=True)))
        )
        rows += [{**row, "name": f"{name}, seed {seed}: {row['name']}"} for row in own]
    return rows + beats_frozen(con, store, vectors)


def main() -> int:
    """Print and write the results; return 1 when a bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("--study", default="vlm_like")
    arguments = parser.parse_args()
    return finish("vlm_like", figures(arguments.store, arguments.vectors, arguments.study))


if __name__ == "__main__":
    sys.exit(main())
