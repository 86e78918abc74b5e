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
from storage.errors import BadInput
from storage.shift import concept_shift
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


def test_few_of_the_concepts_that_are_found_are_false() -> None:
    """The law of `bench/shift.py` at a small size: 4 of 40 concepts are planted, in 8 simulations."""
    false, power = [], []
    for seed in range(8):
        random = np.random.default_rng(seed)
        in_a = random.random(500) < 0.4
        rate = np.tile(random.uniform(0.05, 0.3, 40), (500, 1))
        rate[in_a, :4] = 2 * rate[in_a, :4] + 0.1
        z = np.where(random.random(rate.shape) < rate, random.gamma(2, 0.2, rate.shape), 0)
        with catalog(z, np.zeros((0, 40)), np.zeros(0, np.int64), random.random(500)) as con:
            con.execute(MACRO)
            query = "SELECT concept_id, energy_q FROM concept_shift('m', 's', 0, 'image', $a, $b)"
            rows = con.execute(query, {"a": np.flatnonzero(in_a).tolist(), "b": np.flatnonzero(~in_a).tolist()})
            found = {concept for concept, q in rows.fetchall() if q <= 0.1}
        false.append(len([concept for concept in found if concept >= 4]) / max(len(found), 1))
        power.append(len(found & set(range(4))) / 4)
    # The mean of 8 simulations has a standard error near .04; without any correction for 40 concepts it is near .5.
    assert np.mean(false) <= 0.2
    assert np.mean(power) >= 0.8


def test_sets_may_come_from_any_sql() -> None:
    random = np.random.default_rng(0)
    z = np.where(random.random((400, 20)) < 0.1, 1.0, 0)
    z[:100, 3] = random.random(100) < 0.6
    with catalog(z, z, np.arange(400), random.random(400)) as con:
        con.execute(MACRO)
        for modality, key, table in (("image", "image_id", "images"), ("text", "pair_id", "pairs")):
            found = concept_shift(
                con, "m/s/0", modality, f"SELECT {key} FROM {table} WHERE {key} < 100;", f"FROM {table} SELECT {key}"
            )
            assert found["concept_id"][0] == 3
            assert found["shifted"][0]
            assert found["shifted"].sum() <= 3
        for words, says in (
            (("m/s/1", "image", "SELECT 1", "SELECT 1"), "No SAE named 'm/s/1'. Available: m/s/0."),
            (("m/s/0", "audio", "SELECT 1", "SELECT 1"), "modality is 'audio'"),
            (("m/s/0", "image", "FROM images", "SELECT 1"), "set a has the columns BIGINT, VARCHAR"),
            (("m/s/0", "image", "SELECT 'x'", "SELECT 1"), "set a has the columns VARCHAR"),
            (("m/s/0", "image", "SELECT 1", "SELECT image_id FROM images WHERE false"), "set b selects no item"),
            (("m/s/0", "image", "SELECT 1", "SELECT nothing FROM images"), "set b: Binder Error"),
            (("m/s/0", "image", "SELECT 1", "DROP TABLE images"), "not allowed"),
        ):
            with pytest.raises(BadInput, match=says):
                concept_shift(con, *words)
        with pytest.raises(BadInput, match="level is 1"):
            concept_shift(con, "m/s/0", "image", "SELECT 1", "SELECT 1", level=1)
