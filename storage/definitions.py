"""The shared definitions of `storage/sql/definitions.sql`, as Python values and as macros of a connection."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import duckdb
import numpy as np

from storage.statements import SQL

Array = np.ndarray[Any, np.dtype[Any]]


class Definitions(NamedTuple):
    """The numbers that `storage/sql/definitions.sql` defines."""

    unimodal_bound: float  #: a concept is unimodal if its modality score is below this bound or above 1 - bound
    min_firings: int  #: concepts with fewer firings are left out of the shares of modalities
    top_concepts: int  #: number of "most energetic concepts" that the headlines speak of


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
    """Apply the macro `is_unimodal` to an array. A concept with a score of NaN is not unimodal."""
    bound = definitions().unimodal_bound
    return np.asarray((modality_score < bound) | (modality_score > 1 - bound))


def is_counted(firings: Array, modality_score: Array) -> Array:
    """Apply the macro `is_counted` to arrays. A concept with a score of NaN is not counted."""
    return np.asarray((firings >= definitions().min_firings) & np.isfinite(modality_score))
