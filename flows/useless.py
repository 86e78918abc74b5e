"""Warnings for SAEs that explain nothing or are mostly dead, with what to change in the study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from storage.catalog import open_catalog
from storage.runs import Run

MOST_DEAD = 0.5  # share of dead concepts above which an SAE counts as useless
FITS = 0.2  # R2 on the training rows from which on an SAE has learned something
#: the settings of which a seed is useless: the lowest R2 of the counted rows, R2 at the end of the training of that
#: seed (NULL for an imported SAE), and the largest share of dead concepts; frozen parts are not meant to learn
QUERY = """
WITH measured AS (
    SELECT model, sae, seed, width, k, nullif(r2, 'nan'::DOUBLE) AS r2, nullif(dead_fraction, 'nan'::DOUBLE) AS dead
    FROM saes
    WHERE frozen IS NULL
), ends AS (
    SELECT model, sae, seed, max_by(r2, step) AS trained FROM training GROUP BY model, sae, seed
)
SELECT
    model, sae, any_value(width) AS width, any_value(k) AS k, min(r2) AS r2, arg_min(trained, r2) AS trained,
    max(dead) AS dead, count(*) FILTER (r2 < 0) AS below, count(*) AS seeds
FROM measured
LEFT JOIN ends USING (model, sae, seed)
GROUP BY model, sae
HAVING min(r2) < 0 OR max(dead) > $most
ORDER BY model, sae
"""


def warnings_of(store: Path, run: Run) -> list[str]:
    """One sentence, with a remedy, for each SAE setting of a run of which a seed is useless."""
    with open_catalog(store, run=run) as con:
        answer = con.execute(QUERY, {"most": MOST_DEAD})
        columns = [column[0] for column in answer.description or []]
        rows = [dict(zip(columns, row, strict=True)) for row in answer.fetchall()]
    return [sentence for row in rows for sentence in sentences(row)]


def sentences(row: dict[str, Any]) -> list[str]:
    """The warnings for one row of QUERY."""
    name, found = f"{row['model']} {row['sae']}", []
    if row["r2"] is not None and row["r2"] < 0:
        found.append(
            f"{name}: R2 is below 0 (lowest {row['r2']:.2f}, in {row['below']} of {row['seeds']} seeds): the SAE "
            f"reconstructs worse than the mean row does. {_remedy(row)}"
        )
    if row["dead"] is not None and row["dead"] > MOST_DEAD:
        narrower = max(2, row["width"] // 2)
        found.append(
            f"{name}: up to {row['dead']:.0%} of the concepts fire on no training row. Set width to {narrower} (now "
            f"{row['width']}), or raise k (now {row['k']}); decoder_bias = true and more epochs also leave fewer dead"
        )
    return found


def _remedy(row: dict[str, Any]) -> str:
    """What to change when R2 is below 0, by what the SAE reached on its training rows."""
    if row["trained"] is None:
        return (
            "It was trained elsewhere: check that it belongs to this model, and that the model's embeddings are "
            "normalised as they were in its training"
        )
    if row["trained"] >= FITS:
        return (
            f"On the rows of the training R2 is {row['trained']:.2f}, so it overfits: set width to "
            f"{max(2, row['width'] // 2)} (now {row['width']}), or take more pairs"
        )
    return (
        f"On the rows of the training R2 is {row['trained']:.2f}, so it has not learned: leave epochs, batch_size and "
        f'learning_rate at "auto", and raise k (now {row["k"]})'
    )
