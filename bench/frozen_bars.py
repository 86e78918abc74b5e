"""Whether trained SAEs recover planted atoms better than their frozen twins, of which a part was never learned."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
from scipy import sparse

from bench.bars import Bar, at_least, shown
from bench.planted_codes import counted_items, found_codes, planted_codes
from bench.recovery import agreement, matched
from sae import SAE
from storage.catalog import frame

LEAST = 0.02  # by which the mean over seeds of a trained SAE must exceed that of its best twin


class Recovered(NamedTuple):
    """How well one SAE recovers the planted atoms."""

    cosine: float  # mean matched cosine to the atoms
    auc: float  # mean AUC of the matched concepts as classifiers of whether their atom fires


def beats_frozen(con: duckdb.DuckDBPyConnection, store: Path, vectors: Path) -> list[Bar]:
    """For each setting with frozen twins, how far its recovery exceeds that of each twin, as means over the seeds.

    Matched cosine pairs atoms and concepts by their directions, AUC pairs them by their codes, so that neither twin is
    judged by the part that it could not learn alone.
    """
    atoms = np.load(vectors / "truth" / "atoms.npy")
    items = counted_items(con, vectors)
    truth = planted_codes(vectors, len(atoms), items)
    query = """SELECT model, coalesce(twin_of, sae) AS setting, sae, list(path ORDER BY seed) AS paths FROM saes
        WHERE coalesce(twin_of, sae) IN (SELECT twin_of FROM saes) GROUP BY ALL ORDER BY ALL"""
    of: dict[tuple[str, str], dict[str, Recovered]] = {}
    for model, setting, name, paths in frame(con, query).iter_rows():
        each = []
        for path in paths:
            net = SAE.load(store / path)
            found = found_codes(net, vectors, items)
            agreed = agreement(
                *(sparse.vstack([codes["image"], codes["text"]], format="csr") for codes in (truth, found))
            )
            each.append(Recovered(matched(atoms, net.dictionary.numpy())[2].mean(), agreed.auc))
        of.setdefault((model, setting), {})[name] = Recovered(*np.mean(each, axis=0))
    rows: list[Bar] = []
    for (_, setting), recovered in of.items():
        own = recovered[setting]
        for name, twin in recovered.items():
            if name == setting:
                continue
            for what, here, there in zip(("matched cosine to the atoms", "AUC of the atoms"), own, twin, strict=True):
                rows.append(shown(f"{name}: {what}, where {setting} has {here:.3f}", there))
                rows.append(at_least(f"{setting}: its {what} above that of {name}", here - there, LEAST))
    return rows
