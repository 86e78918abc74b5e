"""The table of results that a run ends with: each figure from the catalog, in plain text."""

from __future__ import annotations

from pathlib import Path

import duckdb

from storage.catalog import open_catalog
from storage.runs import Run

SAES = """
WITH shares AS (
    SELECT model, sae,
        avg((modality_score < .1 OR modality_score > .9)::INTEGER) FILTER (firings >= 10) AS unimodal
    FROM concepts GROUP BY model, sae
)
SELECT model, sae, count(*) AS seeds, avg(r2_image) AS r2_image, avg(r2_text) AS r2_text, avg(l0) AS l0,
    any_value(k) AS k, avg(dead_fraction) AS dead, any_value(unimodal) AS unimodal
FROM saes JOIN shares USING (model, sae) GROUP BY model, sae
"""
STABILITY = """
SELECT avg(stability), avg(floor_random), avg(floor_matched), avg(floor_matched_sd) FROM stability($model, $sae)
"""
TOP = """
SELECT k, stability, floor_random, floor_matched, floor_matched_sd
FROM stability_by_energy($model, $sae) WHERE k = 32
"""
RETRIEVAL = """
SELECT model, r1, r10, gallery, captions FROM retrieval
WHERE direction = 'image_to_text' AND intervention = 'embeddings'
"""

HEADLINES = (
    f"SELECT model || ' ' || sae AS name, r2_image, r2_text, l0, dead, unimodal FROM ({SAES}) ORDER BY name",
    f"SELECT model AS name, r1, r10 FROM ({RETRIEVAL}) ORDER BY name",
)

Order = list[tuple[str | None, str | None]]  # (model, sae), as the study names them


def results(store: Path, run: Run) -> str:
    """The headline figures of a run, a few lines."""
    with open_catalog(store, run=run) as con:
        order = list(dict.fromkeys((entry.model, entry.sae) for entry in run.of("train")))
        return "\n".join([*_retrieval(con), "", *_saes(con, order), "", *_stability(con, order)])


def headlines(store: Path, run: Run) -> dict[str, float]:
    """The headline figures of a run by name, for comparing runs: those that the table shows, floors included."""
    found: dict[str, float] = {}
    with open_catalog(store, run=run) as con:
        for query in HEADLINES:
            answer = con.execute(query)
            _, *columns = [column[0] for column in answer.description or []]
            for name, *values in answer.fetchall():
                found |= {f"{name} {c}": v for c, v in zip(columns, values, strict=True) if v is not None}
        for model, sae in dict.fromkeys((entry.model, entry.sae) for entry in run.of("train")):
            row = con.execute(STABILITY, {"model": model, "sae": sae}).fetchone() or ()
            names = ("stability", "floor_random", "floor_matched")
            found |= {f"{model} {sae} {n}": v for n, v in zip(names, row, strict=False) if v is not None}
    return found


def _retrieval(con: duckdb.DuckDBPyConnection) -> list[str]:
    lines = ["held-out retrieval, image to caption   R@1 (chance)   R@10 (chance)"]
    for model, r1, r10, gallery, captions in con.execute(RETRIEVAL).fetchall():
        each = captions / gallery
        chance = {k: chance_of_hit(captions, each, k) for k in (1, 10)}
        lines.append(f"  {model:36} {r1:.3f} ({chance[1]:.3f})  {r10:.3f} ({chance[10]:.3f})")
    return lines


def chance_of_hit(captions: int, own: float, k: int) -> float:
    """Chance that one of `own` captions is among k drawn from all, without replacement."""
    missed = 1.0
    for i in range(min(k, captions)):
        missed *= max(0.0, (captions - own - i) / (captions - i))
    return 1.0 - missed


def _saes(con: duckdb.DuckDBPyConnection, order: Order) -> list[str]:
    lines = ["SAEs, mean of seeds                    R2 image  R2 text    L0 (k)   dead  unimodal"]
    rows = sorted(con.execute(SAES).fetchall(), key=lambda row: order.index(row[:2]))
    for model, sae, seeds, image, text, l0, k, dead, unimodal in rows:
        name = f"{model} {sae} ({seeds})"
        share = f"{unimodal:8.1%}" if unimodal is not None else "       -"
        lines.append(f"  {name:36} {image:8.3f} {text:8.3f} {l0:6.1f} ({k}) {dead:6.1%}  {share}")
    return lines


def _stability(con: duckdb.DuckDBPyConnection, order: Order) -> list[str]:
    lines = ["stability of pairs of seeds            all    top 32   floor random  floor matched (sd): all, top 32"]
    for model, sae in order:
        of, name = {"model": model, "sae": sae}, f"{model} {sae}"
        every = con.execute(STABILITY, of).fetchone()
        top = con.execute(TOP, of).fetchone()
        if not every or every[0] is None:
            lines.append(f"  {name:36} needs two seeds")
            continue
        head = f"  {name:36} {every[0]:.3f}"
        tail = f"{every[1]:.3f}         {every[2]:.3f} ({every[3]:.4f})"
        lines.append(
            f"{head}  {top[1]:.3f}    {tail}, {top[3]:.3f} ({top[4]:.4f})" if top else f"{head}           {tail}"
        )
    return lines
