"""The macro concept_shift: sums and standard errors against numpy, its tail probability, and a planted shift."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pytest
from sql_case import catalog

from storage.definitions import define
from storage.statements import SQL

Array = np.ndarray[Any, Any]
MACRO = (SQL / "macros" / "concept_shift.sql").read_text()


def test_the_tail_of_the_normal_and_of_students_distribution() -> None:
    with duckdb.connect() as con:
        define(con)
        for z in (0.0, 0.5, 1.959964, 4.0, 9.0):
            (p,) = con.execute("SELECT two_sided_p(?::DOUBLE)", [z]).fetchone() or (None,)
            assert p == pytest.approx(math.erfc(z / math.sqrt(2)), rel=2e-7)
        # 2.093 is the 97.5 % point of Student's distribution with 19 degrees of freedom.
        (p,) = con.execute("SELECT two_sided_p(normal_of_student(-2.093024, 19))").fetchone() or (None,)
        assert p == pytest.approx(0.05, abs=2e-4)


@pytest.mark.parametrize("modality", ["image", "text", "both"])
def test_energies_rates_and_standard_errors_are_those_of_dense_codes(modality: str) -> None:
    random = np.random.default_rng(1)
    u, owner = random.random(200), np.sort(random.integers(0, 200, 300))
    z = [np.where(random.random((n, 5)) < 0.3, random.random((n, 5)), 0).astype(np.float32) for n in (200, 300)]
    groups = np.floor(u * 2**40).astype(np.int64) % 20
    a, b = np.arange(0, 120), np.arange(100, 190)  # the sets overlap
    kinds = {"image": (z[0], groups, np.arange(200)), "text": (z[1], groups[owner], np.arange(300))}
    if modality == "both":
        kinds["text"] = (z[1], groups[owner], owner)
    used = [kinds[name] for name in ("image", "text") if modality in (name, "both")]

    def difference(measure: Callable[[Array], Array], left_out: int = -1) -> Array:
        """Mean over kinds of the mean over a minus the mean over b, without one group of images."""
        return np.mean([
            measure(codes[np.isin(ids, a) & (group != left_out)]).mean(0)
            - measure(codes[np.isin(ids, b) & (group != left_out)]).mean(0)
            for codes, group, ids in used
        ], axis=0)  # fmt: skip

    with catalog(*z, owner, u) as con:
        con.execute(MACRO)
        query = "SELECT * FROM concept_shift('m', 's', 0, $modality, $a, $b) ORDER BY concept_id"
        rows = con.execute(query, {"modality": modality, "a": a.tolist(), "b": b.tolist()}).fetchnumpy()
    for name, measure in (("energy", lambda x: x.astype(np.float64)), ("rate", lambda x: x > 0)):
        left = np.array([difference(measure, group) for group in range(20)])
        np.testing.assert_allclose(rows[f"{name}_difference"], difference(measure), atol=1e-12)
        np.testing.assert_allclose(rows[f"{name}_sd"], np.sqrt(19 * left.var(axis=0)), atol=1e-12)
        order = np.argsort(rows[f"{name}_p"])
        q = np.minimum.accumulate((rows[f"{name}_p"][order] * 5 / np.arange(1, 6))[::-1])[::-1]
        np.testing.assert_allclose(rows[f"{name}_q"][order], q, rtol=1e-9)


def test_a_planted_shift_is_found_and_comes_first() -> None:
    random = np.random.default_rng(0)
    z = np.where(random.random((400, 20)) < 0.1, 1.0, 0)
    z[:100, 3] = random.random(100) < 0.6
    with catalog(z, np.zeros((0, 20)), np.zeros(0, np.int64), random.random(400)) as con:
        con.execute(MACRO)
        sets = "(SELECT list(image_id) FROM images WHERE image_id < 100), (SELECT list(image_id) FROM images)"
        first = con.execute(f"SELECT concept_id, shifted FROM concept_shift('m', 's', 0, 'image', {sets})").fetchone()
    assert first == (3, True)
