"""The macro `concept_shift` for two sets of items that any SQL selects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb

from storage.catalog import frame
from storage.errors import BadInput
from storage.guard import check

if TYPE_CHECKING:
    import polars as pl

MODALITIES = ("image", "text", "both")


def concept_shift(
    con: duckdb.DuckDBPyConnection, sae: str, modality: str, a: str, b: str, level: float = 0.1
) -> pl.DataFrame:
    """Which concepts of an SAE two sets of items use differently: the answer of the macro, the clearest shift first.

    con: a catalog. sae: `model/sae/seed`. modality: "image", "text", or "both" for images with their captions.
    a, b: one SELECT statement each, with one column: pair_id for "text", else image_id, as in
    "SELECT image_id FROM labels WHERE label = 'animals'" or "SELECT pair_id FROM pairs WHERE caption ILIKE '%dog%'".
    level: of the false discoveries, above 0 and below 1.
    Raises BadInput for a statement that does more than read, fails, has another column or selects no item, and for an
    SAE or a modality that is not there. Definition: docs/definitions.md, "Shift between two sets of items".
    """
    if modality not in MODALITIES:
        raise BadInput(f"modality is {modality!r}; allowed are {', '.join(MODALITIES)}")
    if not 0 < level < 1:
        raise BadInput(f"level is {level!r}; a number above 0 and below 1 is allowed")
    model, name, seed = _parts(con, sae)
    sets = {letter: _ids(con, letter, query) for letter, query in (("a", a), ("b", b))}
    values = {"model": model, "sae": name, "seed": seed, "modality": modality, "level": level, **sets}
    return frame(con, "FROM concept_shift($model, $sae, $seed, $modality, $a, $b, level := $level)", values)


def _parts(con: duckdb.DuckDBPyConnection, sae: str) -> tuple[str, str, int]:
    rows = con.execute("SELECT DISTINCT model, sae, seed FROM activations ORDER BY ALL").fetchall()
    found = {f"{model}/{name}/{seed}": (model, name, seed) for model, name, seed in rows}
    if sae not in found:
        raise BadInput(f"No SAE named {sae!r}. Available: {', '.join(found)}.")
    return found[sae]


def _ids(con: duckdb.DuckDBPyConnection, letter: str, query: str) -> list[int]:
    """The ids that the statement of one set selects."""
    text = check(con, query)
    try:
        answer = con.sql(text)
        kinds = [str(kind) for kind in answer.types]
        if len(kinds) != 1 or not kinds[0].endswith(("INT", "INTEGER")):
            raise BadInput(f"set {letter} has the columns {', '.join(kinds)}; one column of ids is needed")
        ids = [row[0] for row in answer.fetchall() if row[0] is not None]
    except duckdb.Error as error:
        raise BadInput(f"set {letter}: {str(error).rstrip()}") from error
    if not ids:
        raise BadInput(f"set {letter} selects no item")
    return ids
