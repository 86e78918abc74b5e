"""The shared definitions of `storage/sql/definitions.sql`, as Python values and as macros of a connection."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import duckdb
import numpy as np

from storage.statements import SQL

Array = np.ndarray[Any, np.dtype[Any]]


class Definitions(NamedTuple):
    """The numeric definitions."""

    unimodal_bound: float  #: a concept is unimodal when its modality score is below this, or above one minus this
    min_firings: int  #: concepts with fewer firings are left out of modality shares
    top_concepts: int  #: size of the set of most energetic concepts in headlines


def define(con: duckdb.DuckDBPyConnection) -> None:
    """Create the macros of `storage/sql/definitions.sql` on a connection."""
    con.execute((SQL / "definitions.sql").read_text())


@functools.cache
def definitions() -> Definitions:
    """Return the numeric definitions, read from the SQL file."""
    with duckdb.connect() as con:
        define(con)
        row = con.execute("SELECT unimodal_bound()::DOUBLE, min_firings(), top_concepts()").fetchall()[0]
    return Definitions(*row)


def is_unimodal(modality_score: Array) -> Array:
    """The macro `is_unimodal` over an array; a score of NaN is not unimodal."""
    bound = definitions().unimodal_bound
    return np.asarray((modality_score < bound) | (modality_score > 1 - bound))


def is_counted(firings: Array, modality_score: Array) -> Array:
    """The macro `is_counted` over arrays; a concept with a score of NaN is not counted."""
    return np.asarray((firings >= definitions().min_firings) & np.isfinite(modality_score))
