"""Whether concepts that recover planted atoms recover the planted labels too: the bridges to which the atoms belong."""

from __future__ import annotations

import duckdb
import numpy as np

from bench.bars import Bar, at_least, shown
from storage.catalog import frame

TOP = 50  # strongest bridges whose labels are compared


def labels_found(
    con: duckdb.DuckDBPyConnection, model: str, sae: str, seed: int, of_atom: np.ndarray, bridges: np.ndarray
) -> list[Bar]:
    """Results of the labels of one SAE; none where the study has no labels.

    of_atom [A]: the concept that is matched with each atom. bridges [M, 2]: image atom and text atom of every planted
    bridge, in the order of their numbers, which are the labels.
    """
    keys = {"m": model, "s": sae, "n": seed}
    query = "SELECT concept_id, label, auc FROM concept_labels WHERE model = $m AND sae = $s AND seed = $n"
    found = {concept: (label, auc) for concept, label, auc in frame(con, query, keys).iter_rows()}
    if not found:
        return []
    wanted = {int(of_atom[atom]): str(number) for number, pair in enumerate(bridges) for atom in pair}
    known = [(found[concept], label) for concept, label in wanted.items() if concept in found]
    right, auc = np.mean([best == label for (best, _), label in known]), np.mean([auc for (_, auc), _ in known])
    rows = [
        at_least(f"seed {seed}: share of concepts whose best label is the planted one", right, 0.95),
        at_least(f"seed {seed}: mean AUC of their best labels", auc, 0.95),
    ]
    query = f'SELECT "by", "precision", chance FROM bridge_precision($m, $s, {TOP}) WHERE seed = $n'
    for by, precision, chance in frame(con, query, keys).iter_rows():
        rows.append(at_least(f"seed {seed}: share of the top {TOP} by {by} that join one label", precision, 0.95))
        rows.append(shown(f"seed {seed}: the same, paired at random", chance))
    query = """SELECT avg(balanced_accuracy) FROM probing WHERE model = $m AND sae = $s AND seed = $n
        AND modality = 'image' AND probe = 'concepts' AND features = 1"""
    accuracy = frame(con, query, keys).item()
    rows.append(at_least(f"seed {seed}: accuracy of probes of images on one concept", accuracy, 0.95))
    return rows
