"""Publish: one SAE of a finished study, with a card made from the run's own tables. Called by hand, never by a flow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from storage.catalog import open_catalog
from storage.errors import BadInput

STABILITY = """
SELECT avg(stability) AS stability, avg(floor_random) AS floor_random, avg(floor_matched) AS floor_matched
FROM stability($model, $sae) WHERE $seed IN (seed_a, seed_b)
"""


def publish(
    store: Path,
    study: str | None,
    model: str,
    sae: str,
    seed: int,
    target: str | os.PathLike[str],
    private: bool = True,
) -> str:
    """Put an SAE of the newest run into a repository of the hub, `owner/name`, or into a folder. Returns where it is.

    Raises BadInput when the study has not run or has no such SAE.
    """
    from sae import SAE
    from sae.hub import push_to_hub

    named = {"model": model, "sae": sae, "seed": seed}
    with open_catalog(store, study) as con:
        row = _one(con.execute("SELECT * FROM saes WHERE model = $model AND sae = $sae AND seed = $seed", named))
        if row is None:
            there = con.execute("SELECT model, sae, seed FROM saes ORDER BY ALL").fetchall()
            listed = ", ".join(f"{m} {s} {n}" for m, s, n in there)
            raise BadInput(f"no SAE {model} {sae} {seed}; the study has {listed}")
        stability = _one(con.execute(STABILITY, named)) or {}
    return push_to_hub(SAE.load(store / row["path"]), target, {**row, **stability}, private=private)


def _one(answer: Any) -> dict[str, Any] | None:
    """The first row of an answer by column."""
    names = [column[0] for column in answer.description]
    found = answer.fetchone()
    return None if found is None else dict(zip(names, found, strict=True))
