"""Compare a study of planted vectors with their true dictionary and codes, which bench/planted.py wrote beside them.

python -m bench.check_planted --store DIR --vectors DIR [--study planted]

Prints one line per result with its bar, writes bench/results/planted.json, and ends with 1 when a bar is not met.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import polars as pl
from scipy.optimize import linear_sum_assignment

from analysis.stability import match
from bench.bars import Bar, at_least, at_most, finish
from bench.frozen_bars import beats_frozen
from bench.label_bars import labels_found
from sae import SAE
from storage import open_catalog
from storage.catalog import frame

FEWEST_FIRINGS = 100  # modality scores of atoms that fire less often on the counted items are not compared


def true_scores(vectors: Path, con, atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Modality score and number of firings of every atom, from its true codes on the items that the study counted."""
    split = frame(con, "SELECT DISTINCT split FROM concepts")["split"].item()
    side = "" if split == "all" else f" WHERE split = '{split}'"
    keys = pl.read_parquet(vectors / "metadata.parquet", glob=False).with_row_index("item")
    images = frame(con, f"SELECT source_key FROM images{side}").join(keys, left_on="source_key", right_on="key")["item"]
    texts = frame(con, f"SELECT source_key::BIGINT AS item FROM pairs{side}")["item"]
    codes = pl.read_parquet(vectors / "truth" / "codes.parquet", glob=False)
    energy, firings = {}, np.zeros(atoms)
    for modality, items in (("image", images), ("text", texts)):
        counted = codes.filter((pl.col("modality") == modality) & pl.col("item").is_in(items.cast(pl.Int64).to_list()))
        sums = np.bincount(counted["atom"], weights=counted["activation"], minlength=atoms)
        firings += np.bincount(counted["atom"], minlength=atoms)
        energy[modality] = sums / len(items)
    total = energy["image"] + energy["text"]
    return energy["image"] / np.maximum(total, 1e-12), firings


def figures(store: Path, vectors: Path, study: str) -> list[Bar]:
    """Each measured result of the planted study, with the bar that it must reach."""
    con = open_catalog(store, study)
    atoms = np.load(vectors / "truth" / "atoms.npy")
    bridges = pl.read_parquet(vectors / "truth" / "bridges.parquet", glob=False)
    planted = set(bridges.iter_rows())
    scores, firings = true_scores(vectors, con, len(atoms))
    asked = firings >= FEWEST_FIRINGS
    rows = []

    trained = frame(con, "SELECT model, sae, seed, path FROM saes WHERE twin_of IS NULL ORDER BY ALL")
    for model, sae, seed, path in trained.iter_rows():
        dictionary = SAE.load(store / path).dictionary.numpy()
        similarity = atoms @ dictionary.T  # the learned dictionary may have more concepts than there are planted atoms
        _, of_atom = linear_sum_assignment(-similarity)
        cosines = similarity[np.arange(len(atoms)), of_atom]
        rows.append(at_least(f"seed {seed}: mean matched cosine to the planted atoms", cosines.mean(), 0.9))
        rows.append(
            at_least(f"seed {seed}: share of the planted atoms matched at .9 or more", (cosines >= 0.9).mean(), 1.0)
        )
        learned = (
            frame(
                con,
                "SELECT modality_score FROM concepts WHERE model = $m AND sae = $s AND seed = $n ORDER BY concept_id",
                {"m": model, "s": sae, "n": seed},
            )["modality_score"]
            .fill_null(0.5)
            .to_numpy()
        )
        errors = np.abs(learned[of_atom] - scores)[asked]
        name = f"seed {seed}: largest error of a modality score, {asked.sum()} atoms with {FEWEST_FIRINGS} firings"
        rows.append(at_most(name, errors.max(), 0.02))
        top = frame(con, f"SELECT image_concept, text_concept FROM top_bridges('{model}', '{sae}', {seed}, 50)")
        atom_of = {int(concept): atom for atom, concept in enumerate(of_atom)}
        hits = [(atom_of.get(i), atom_of.get(j)) in planted for i, j in top.iter_rows()]
        rows.append(at_least(f"seed {seed}: precision of the top 50 bridges", np.mean(hits), 0.95))
        rows += labels_found(con, model, sae, seed, of_atom, bridges.to_numpy())
        rows += nulls(con, model, sae, seed, dictionary)
        for a, b, value in frame(con, f"SELECT seed_a, seed_b, alive FROM stability('{model}', '{sae}')").iter_rows():
            if a == seed:
                rows.append(at_least(f"stability of seeds {a} and {b}, alive concepts", value, 0.9))
    return rows + beats_frozen(con, store, vectors)


def nulls(con, model: str, sae: str, seed: int, dictionary: np.ndarray) -> list[Bar]:
    """Means of nulls, as distances from the values expected for them, in standard deviations of the mean.

    The expected floor_random is the mean matched cosine of the learned dictionary with five new random dictionaries.
    With images permuted, the covariance bridges are expected to add up to 0, and the raw bridges to
    <E_P[z_I D], E_P[z_T D]>.
    """
    drawn = np.random.default_rng(999).standard_normal((5, *dictionary.shape))
    drawn /= np.linalg.norm(drawn, axis=2, keepdims=True)
    fresh = [match(dictionary, rows).cosines.mean() for rows in drawn]
    terms = dict(
        con.execute(
            "SELECT term, value FROM matched_similarity WHERE model = $m AND sae = $s AND seed = $n",
            {"m": model, "s": sae, "n": seed},
        ).fetchall()
    )
    no_bias = terms["shuffled"] - terms["bias"] - terms["text_on_bias"] - terms["image_on_bias"]
    expected = {
        ("stability", "floor_random"): np.mean(fresh),
        ("covariance_total", "images_permuted"): 0.0,
        ("raw_total", "images_permuted"): no_bias,
    }
    rows = []
    for (statistic, null), value in expected.items():
        ((mean, sd, draws),) = con.execute(
            """SELECT mean, sd, draws FROM nulls WHERE model = $m AND sae = $s AND seed = $n AND statistic = $t
            AND "null" = $u""",
            {"m": model, "s": sae, "n": seed, "t": statistic, "u": null},
        ).fetchall()
        # the expected floor is itself the mean of a few draws, which adds an error
        error = sd * np.sqrt(1 / draws + (1 / len(fresh) if null == "floor_random" else 0))
        off = abs(mean - value) / error
        name = f"seed {seed}: {statistic} under {null}, {mean:.5f} where {value:.5f} is expected: sds off"
        rows.append(at_most(name, off, 3, "sd"))
    return rows


def main() -> int:
    """Print and write the results; return 1 when a bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("--study", default="planted")
    arguments = parser.parse_args()
    return finish("planted", figures(arguments.store, arguments.vectors, arguments.study))


if __name__ == "__main__":
    sys.exit(main())
