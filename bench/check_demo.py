"""Compare the results in the catalog of the demo study with their bars.

python bench/check_demo.py --store DIR [--study demo]

Prints one line per result with its bar, writes bench/results/demo.json, and ends with 1 when a bar is not met.
"""

import argparse
import sys
from pathlib import Path

import duckdb
from bars import Bar, at_least, at_most, finish

from storage import open_catalog
from storage.definitions import definitions

MODELS = {"emoji-clip": "softmax loss", "emoji-siglip": "sigmoid loss"}
SAE = "main"
TOP = definitions().top_concepts

RETRIEVAL = """
SELECT r10, chance, gallery FROM retrieval JOIN retrieval_chance() USING (direction)
WHERE model = $model AND intervention = 'embeddings' AND direction = 'image_to_text' AND k = 10
"""
SAES = """
SELECT avg(r2_image), avg(r2_text), avg(abs(l0 - k) / k), avg(dead_fraction), count(*)
FROM saes WHERE model = $model AND sae = $sae
"""
UNIMODAL = """
SELECT avg(is_unimodal(modality_score)::INTEGER) FROM concepts
WHERE model = $model AND sae = $sae AND is_counted(firings, modality_score)
"""
ALL = "SELECT avg(stability), avg(floor_matched), avg(floor_matched_sd) FROM stability($model, $sae)"
ENERGETIC = """
SELECT stability, floor_matched, floor_matched_sd FROM stability_by_energy($model, $sae) WHERE k = $top
"""

LABELS = "SELECT auc, null_q975, above_null FROM label_figures($model, $sae) WHERE name = 'group'"
OF_ONE_LABEL = """
SELECT avg("precision"), avg(chance) FROM bridge_precision($model, $sae, 100)
WHERE name = 'group' AND "by" = 'covariance_bridge'
"""


def one(con: duckdb.DuckDBPyConnection, query: str, **values: object) -> tuple:
    """The only row of a query's answer."""
    row = con.execute(query, values).fetchone()
    if row is None:
        sys.exit(f"the catalog has no row for {values}: is this the demo study?")
    return row


def figures(store: Path, study: str) -> list[Bar]:
    """Every result of the demo study with its bar."""
    rows = []
    with open_catalog(store, study) as con:
        for model in MODELS:
            r10, chance, gallery = one(con, RETRIEVAL, model=model)
            name = f"{model}: R@10 image to caption among {gallery} images, times chance"
            rows.append(at_least(name, r10 / chance, 10))
            image, text, off, dead, seeds = one(con, SAES, model=model, sae=SAE)
            rows.append(at_least(f"{model}: held-out R2 of images, mean of {seeds} seeds", image, 0.55))
            rows.append(at_least(f"{model}: held-out R2 of captions, mean of {seeds} seeds", text, 0.55))
            rows.append(at_most(f"{model}: L0 away from k, as a share of k", off, 0.25))
            rows.append(at_most(f"{model}: dead fraction", dead, 0.05))
            auc, chance, above = one(con, LABELS, model=model, sae=SAE)
            name = f"{model}: AUC of groups of emoji {auc:.3f}, above the 97.5 % point of permuted ones"
            rows.append(at_least(name, auc - chance, 0.02))
            rows.append(at_least(f"{model}: share of concepts above their own permutations", above, 0.25))
            agreeing, chance = one(con, OF_ONE_LABEL, model=model, sae=SAE)
            name = f"{model}: share {agreeing:.2f} of the top 100 covariance bridges joins one group, times chance"
            rows.append(at_least(name, agreeing / chance, 2))
            (unimodal,) = one(con, UNIMODAL, model=model, sae=SAE)
            bar = at_least if model == "emoji-clip" else at_most
            rows.append(bar(f"{model}: share of unimodal concepts", unimodal, 0.5 if bar is at_least else 0.1))
            every, floor, spread = one(con, ALL, model=model, sae=SAE)
            top, top_floor, top_spread = one(con, ENERGETIC, model=model, sae=SAE, top=TOP)
            rows.append(at_least(f"{model}: stability over floor_matched, in its sd", (every - floor) / spread, 3))
            name = f"{model}: stability of the top {TOP} over floor_matched, in its sd"
            rows.append(at_least(name, (top - top_floor) / top_spread, 3))
            name = f"{model}: stability of the top {TOP} over its floor, against that of all over theirs"
            rows.append(at_least(name, (top - top_floor) / (every - floor), 1))
    return rows


def main() -> int:
    """Print and write the results; return 1 when a bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--study", default="demo")
    arguments = parser.parse_args()
    return finish("demo", figures(arguments.store, arguments.study))


if __name__ == "__main__":
    sys.exit(main())
