"""Stability and bridges in SQL, on tables small enough to check by hand."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import numpy as np
import pytest

from analysis.correspondence import CORRESPONDENCE, CORRESPONDENCE_FLOORS
from analysis.partners import PARTNER_FLOORS, PARTNERS
from analysis.statistic import create_inner
from analysis.subspace_stability import SUBSPACE_MATCHES
from analysis.tables import empty, fill
from sae.settings import Settings
from storage.definitions import define
from storage.macros import create_macros

RUN = "model VARCHAR, sae VARCHAR, seed INTEGER"
ENERGY = {0: [5.0, 3.0, 1.0, 1.0], 1: [1.0, 1.0, 2.0, 6.0]}  # energies of concepts 0 to 3, by seed
# Concept i of seed 0 is matched with concept 3 - i of seed 1, with the cosine COSINE[i].
COSINE = [0.9, 0.7, 0.3, 0.1]


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    """A catalog with two seeds of the SAE `main`, and one seed of `main-share0`.

    `main-share0` is a diet of `main`: an SAE trained with another share of images. Each seed of each SAE has four
    concepts, and two draws of its floors (the stability that chance reaches).
    """
    con = duckdb.connect(config={"threads": 1})
    define(con)
    create_inner(con)
    con.execute(f"""CREATE TABLE concepts ({RUN}, concept_id INTEGER, energy DOUBLE, energy_image DOUBLE,
        energy_text DOUBLE, firings BIGINT, modality_score DOUBLE, dead BOOLEAN, direction_accuracy DOUBLE,
        align_mean_gap DOUBLE, align_logistic DOUBLE, align_lda DOUBLE, align_inlp DOUBLE, stability DOUBLE)""")
    scores = [1.0, 0.95, 0.5, 0.0]
    for sae, seed in (("main", 0), ("main", 1), ("main-share0", 0)):
        for i, energy in enumerate(ENERGY[seed]):
            dead = seed == 0 and i == 3
            values = [energy, 2 * energy, 0.0, 20, scores[i], dead, 0.6, -0.4, 0.2, 0.0, 0.5, 0.9]
            insert(con, "concepts", ["m", sae, seed, i, *values])
    con.execute("""CREATE TABLE matches (model VARCHAR, sae_a VARCHAR, seed_a INTEGER, sae_b VARCHAR, seed_b INTEGER,
        concept_a INTEGER, concept_b INTEGER, cosine FLOAT)""")
    for i, cosine in enumerate(COSINE):
        insert(con, "matches", ["m", "main", 0, "main", 1, i, 3 - i, cosine])
        insert(con, "matches", ["m", "main", 1, "main", 0, 3 - i, i, cosine])
        insert(con, "matches", ["m", "main", 0, "main-share0", 0, i, i, cosine / 2])
        insert(con, "matches", ["m", "main", 1, "main-share0", 0, i, i, cosine / 4])
    con.execute(f'CREATE TABLE floors ({RUN}, "null" VARCHAR, draw INTEGER, concept_id INTEGER, cosine FLOAT)')
    for sae, seed in (("main", 0), ("main", 1), ("main-share0", 0)):
        for draw in (0, 1):
            for i in range(4):
                insert(con, "floors", ["m", sae, seed, "floor_matched", draw, i, 0.1 * i + 0.2 * draw])
                insert(con, "floors", ["m", sae, seed, "floor_random", draw, i, 0.1])
    fill_bridges(con)
    fill_partners(con)
    con.execute(f"""CREATE TABLE saes ({RUN}, r2 DOUBLE, r2_image DOUBLE, r2_text DOUBLE, l0 DOUBLE,
        dead_fraction DOUBLE, settings VARCHAR)""")
    con.execute(f"""CREATE TABLE retrieval ({RUN}, split VARCHAR, intervention VARCHAR, direction VARCHAR,
        gallery BIGINT, r1 DOUBLE)""")
    fill(con, "nulls")
    create_macros(con)
    return con


def fill_partners(con: duckdb.DuckDBPyConnection) -> None:
    """Store the partners of seed 0 of `main` in seed 1 and in the model n, and projections of its concepts."""
    schemas = {
        "partners": PARTNERS, "partner_floors": PARTNER_FLOORS, "correspondence": CORRESPONDENCE,
        "correspondence_floors": CORRESPONDENCE_FLOORS, "subspace_matches": SUBSPACE_MATCHES,
    }  # fmt: skip
    for name, schema in schemas.items():
        con.register("schema_of_partners", empty(schema).to_arrow())
        con.execute(f"CREATE TABLE {name} AS FROM schema_of_partners")
    for i, (within, across) in enumerate(((0.9, 0.6), (0.8, 0.5), (0.4, 0.4), (None, None))):
        for side, figure in (("image", within), ("text", across)):
            figures = ["image", side, i, i, figure, 0.1, i, figure, figure, 0.2]
            insert(con, "partners", ["m", "main", 0, 1, "heldout", *figures])
        insert(con, "correspondence", ["m", "n", "main", 0, "heldout", "image", "image", *figures[2:]])
        for m, projection in ((1, 0.5), (2, 0.5 + 0.1 * i)):
            insert(con, "subspace_matches", ["m", "main", 0, 1, i, m, projection])
    for draw, value in enumerate((0.1, 0.3)):
        for side in ("image", "text"):
            insert(con, "partner_floors", ["m", "main", 0, 1, "heldout", "image", side, draw, value])
        insert(con, "correspondence_floors", ["m", "n", "main", 0, "heldout", "image", "image", draw, value])
        insert(con, "null_draws", ["m", "main", 0, "subspace_stability_1", "floor_matched", draw, value])


def fill_bridges(con: duckdb.DuckDBPyConnection) -> None:
    """Store four bridges of seed 0 of `main`, their totals, the terms of matched similarity, and two nulls."""
    con.execute(f"""CREATE TABLE bridges ({RUN}, split VARCHAR, image_concept INTEGER, text_concept INTEGER,
        pairs BIGINT, coactivation DOUBLE, cosine DOUBLE, bridge DOUBLE, covariance_bridge DOUBLE,
        correlation_bridge DOUBLE)""")
    for i, j, bridge, covariance, correlation in (
        (0, 3, 4.0, 1.0, 0.5), (1, 3, 3.0, -1.0, -0.2), (2, 2, 1.0, 2.0, 0.9), (0, 1, -2.0, 0.5, None),
    ):  # fmt: skip
        insert(con, "bridges", ["m", "main", 0, "heldout", i, j, 12, 1.0, 0.5, bridge, covariance, correlation])
    con.execute(f"""CREATE TABLE bridge_totals ({RUN}, split VARCHAR, class_image VARCHAR, class_text VARCHAR,
        self BOOLEAN, kind VARCHAR, total DOUBLE, positive DOUBLE, negative DOUBLE)""")
    for a, b, own, kind, positive, negative in (
        ("image", "text", False, "raw", 7.0, 0.0), ("bimodal", "bimodal", True, "raw", 1.0, 0.0),
        ("image", "image", False, "raw", 2.0, -2.0), ("image", "text", False, "covariance", 1.0, -1.0),
        ("bimodal", "bimodal", True, "covariance", 3.0, 0.0),
    ):  # fmt: skip
        insert(
            con, "bridge_totals", ["m", "main", 0, "heldout", a, b, own, kind, positive + negative, positive, negative]
        )
    con.execute(f"CREATE TABLE matched_similarity ({RUN}, split VARCHAR, term VARCHAR, value DOUBLE)")
    for term, value in (("bridges", 8.0), ("matched", 16.0), ("shuffled", 13.0)):
        insert(con, "matched_similarity", ["m", "main", 0, "heldout", term, value])
    for draw, value in enumerate((0.4, 0.5, 0.6)):
        insert(con, "null_draws", ["m", "main", 0, "raw_opposite_share", "images_permuted", draw, value])
    insert(con, "null_summaries", ["m", "main", 0, "align_lda", "floor_random", 0.1, 0.05, 0.01, 0.2, 0])


def insert_sae(
    con: duckdb.DuckDBPyConnection, sae: str, seed: int, r2: float, settings: dict[str, Any], model: str = "m"
) -> None:
    """Store the row of an SAE. Its R2 of images is .1 lower, that of captions .1 higher."""
    insert(con, "saes", [model, sae, seed, r2, r2 - 0.1, r2 + 0.1, 3.0, 0.1, json.dumps(settings)])


def insert(con: duckdb.DuckDBPyConnection, table: str, row: list[Any]) -> None:
    con.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def rows(con: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    answer = con.execute(query)
    names = [column[0] for column in answer.description or []]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def null(con: duckdb.DuckDBPyConnection, statistic: str, name: str = "floor_matched") -> dict[str, Any]:
    return rows(
        con, f"FROM nulls WHERE seed = 0 AND sae = 'main' AND statistic = '{statistic}' AND \"null\" = '{name}'"
    )[0]


def test_nulls_of_stability(con: duckdb.DuckDBPyConnection) -> None:
    # The first draw of floor_matched has the cosines 0, .1, .2 and .3. The second draw adds .2 to each cosine, so the
    # mean of both draws is .1 above the first draw. The energies of concepts 0 to 3 are 5, 3, 1 and 1.
    assert null(con, "stability")["mean"] == pytest.approx((0.15 + 0.35) / 2)
    assert null(con, "stability")["sd"] == pytest.approx(0.2 / np.sqrt(2))
    weighted = (5 * 0 + 3 * 0.1 + 0.2 + 0.3) / 10
    assert null(con, "stability_energy_weighted")["mean"] == pytest.approx(weighted + 0.1)
    assert null(con, "stability_alive")["mean"] == pytest.approx(0.1 + 0.1)  # concept 3 is dead and left out
    assert null(con, "stability_top_1")["mean"] == pytest.approx(0 + 0.1)
    assert null(con, "stability_top_2")["mean"] == pytest.approx(0.05 + 0.1)
    assert null(con, "stability_top_4")["mean"] == pytest.approx(0.15 + 0.1)
    # Concept 0 alone holds 50 % of the energy. 60 % needs concepts 0 and 1, 90 % needs concepts 0, 1 and 2.
    assert null(con, "stability_share_50")["mean"] == pytest.approx(0 + 0.1)
    assert null(con, "stability_share_60")["mean"] == pytest.approx(0.05 + 0.1)
    assert null(con, "stability_share_90")["mean"] == pytest.approx(0.1 + 0.1)
    assert null(con, "stability_share_100")["mean"] == pytest.approx(0.15 + 0.1)
    # Concept 3 is dead. Of the living concepts 0, 1 and 2, the least energetic half is 1 and 2.
    assert null(con, "stability_rare")["mean"] == pytest.approx(0.15 + 0.1)
    assert null(con, "stability_common_over_rare")["mean"] == pytest.approx(-0.15)
    assert (null(con, "stability")["q025"], null(con, "stability")["q975"]) == pytest.approx((0.155, 0.345))
    # In seed 1 the energies have another order: concept 3 has the largest energy.
    assert rows(con, "FROM nulls WHERE seed = 1 AND statistic = 'stability_top_1' AND \"null\" = 'floor_matched'")[0][
        "mean"
    ] == pytest.approx(0.3 + 0.1)


def test_nulls_of_other_statistics_are_passed_on(con: duckdb.DuckDBPyConnection) -> None:
    row = null(con, "raw_opposite_share", "images_permuted")
    assert (row["mean"], row["sd"], row["draws"]) == pytest.approx((0.5, 0.1, 3))
    assert null(con, "align_lda", "floor_random")["q975"] == 0.2
    assert {row["statistic"] for row in rows(con, "FROM nulls_of('m', 'main') WHERE draws = 0")} == {"align_lda"}


def test_stability(con: duckdb.DuckDBPyConnection) -> None:
    (row,) = rows(con, "FROM stability('m', 'main')")
    assert row["stability"] == pytest.approx(0.5)
    # Weighted by the energies of seed 0, stability is (5 * .9 + 3 * .7 + .3 + .1) / 10 = .7. In seed 1 the concepts 3,
    # 2, 1 and 0 have the energies 6, 2, 1 and 1. Weighted by these energies, stability is
    # (6 * .9 + 2 * .7 + .3 + .1) / 10 = .72. The mean of .7 and .72 is .71.
    assert row["energy_weighted"] == pytest.approx(0.71)
    assert row["alive"] == pytest.approx((0.9 + 0.7 + 0.3) / 3)  # concept 3 of seed 0 is dead
    assert (row["floor_random"], row["floor_matched"]) == pytest.approx((0.1, 0.25))
    # The floor of living concepts is .2 for seed 0, where concept 3 is dead, and .25 for seed 1, where none is dead.
    assert row["alive_floor_matched"] == pytest.approx(0.225)
    assert row["energy_weighted_floor_random"] == pytest.approx(0.1)


def mean_by_energy(values: list[float]) -> float:
    """Mean of the values of the first concepts of seed 0, weighted by their energies."""
    weights = ENERGY[0][: len(values)]
    return sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights)


def test_partners_lie_between_floor_and_ceiling(con: duckdb.DuckDBPyConnection) -> None:
    # The fourth concept has no correlation, so the means are over three concepts. The floor is (.1 + .3) / 2.
    ceiling, figure = mean_by_energy([0.9, 0.8, 0.4]), mean_by_energy([0.6, 0.5, 0.4])
    within, across = rows(con, "FROM partner_summary('m', 'main')")
    for row, own in ((within, ceiling), (across, figure)):
        assert [row[name] for name in ("correlation", "one_to_one", "figure")] == pytest.approx([own] * 3)
        assert (row["ceiling"], row["floor"]) == pytest.approx((ceiling, 0.2))
        assert row["match_confidence"] == pytest.approx(0.1)
        assert row["place"] == pytest.approx((own - 0.2) / (ceiling - 0.2))
    assert within["place"] == pytest.approx(1)
    (other,) = rows(con, "FROM correspondence_summary('main')")
    assert (other["figure"], other["ceiling"]) == pytest.approx((figure, ceiling))
    assert other["place"] == pytest.approx(across["place"])


def test_subspace_stability_is_weighted_by_energy(con: duckdb.DuckDBPyConnection) -> None:
    (row,) = rows(con, "FROM subspace_stability('m', 'main')")  # only m = 1 has a floor
    assert (row["atoms"], row["projection"], row["floor_matched"]) == (1, pytest.approx(0.5), pytest.approx(0.2))
    con.execute("INSERT INTO nulls SELECT * REPLACE ('subspace_stability_2' AS statistic) FROM nulls "
                "WHERE statistic = 'subspace_stability_1'")  # fmt: skip
    _, row = rows(con, "FROM subspace_stability('m', 'main')")
    assert row["projection"] == pytest.approx(mean_by_energy([0.5, 0.6, 0.7, 0.8]))


def test_stability_by_energy_and_by_share(con: duckdb.DuckDBPyConnection) -> None:
    by_k = {row["k"]: row for row in rows(con, "FROM stability_by_energy('m', 'main')")}
    assert list(by_k) == [1, 2, 4]
    assert by_k[1]["stability"] == pytest.approx(0.9)  # of the concept with the largest energy in each seed
    assert by_k[2]["stability"] == pytest.approx(0.8)
    assert by_k[2]["energy_share"] == pytest.approx(0.8)
    by_share = {row["percent"]: row for row in rows(con, "FROM stability_by_energy_share('m', 'main')")}
    assert list(by_share) == list(range(10, 101, 10))
    assert by_share[50]["concepts"] == 1
    # 60 % of the energy takes concepts 0 and 1 of seed 0 (stability .8), but only concept 3 of seed 1 (stability .9).
    assert by_share[60]["concepts"] == pytest.approx(1.5)
    assert (by_share[60]["low"], by_share[60]["stability"], by_share[60]["high"]) == pytest.approx((0.8, 0.85, 0.9))
    assert by_share[100]["stability"] == pytest.approx(0.5)
    # The mean floor of these concepts is .05 + .1 in seed 0 and .3 + .1 in seed 1.
    assert by_share[60]["floor_matched"] == pytest.approx((0.15 + 0.4) / 2)


def test_diet_stability_separates_the_same_seed_from_others(con: duckdb.DuckDBPyConnection) -> None:
    other, same = rows(con, "FROM diet_stability('m', 'main') ORDER BY same_seed")
    assert (same["diet"], same["pairs"], other["pairs"]) == ("main-share0", 1, 1)
    assert (same["stability"], other["stability"]) == pytest.approx((0.25, 0.125))
    assert same["energy_weighted"] == pytest.approx(0.35)  # half of .7: the cosines are halved, the energies are equal
    assert same["alive"] == pytest.approx((0.9 + 0.7 + 0.3) / 6)
    assert same["floor_matched"] == pytest.approx(0.25)


def test_energy_concentration(con: duckdb.DuckDBPyConnection) -> None:
    one, two, four = rows(con, "FROM energy_concentration('m', 'main')")
    assert (one["k"], two["k"], four["k"]) == (1, 2, 4)
    assert (one["low"], one["energy_share"], one["high"]) == pytest.approx((0.5, 0.55, 0.6))
    assert two["energy_share"] == two["image_share"] == pytest.approx(0.8)
    assert (one["text_share"], one["even_share"], four["energy_share"]) == (None, 0.25, pytest.approx(1))


def test_bridge_figures_stand_beside_their_nulls(con: duckdb.DuckDBPyConnection) -> None:
    by_statistic = {row["statistic"]: row for row in rows(con, "FROM bridge_figures('m', 'main')")}
    figures = {name: row["figure"] for name, row in by_statistic.items()}
    assert figures["raw_total"] == pytest.approx(8)  # 7 + 1 + 2 - 2
    assert figures["raw_positive"] == pytest.approx(10)
    assert figures["raw_self_share"] == pytest.approx(0.1)
    assert figures["raw_opposite_share"] == pytest.approx(0.7)
    assert figures["covariance_self_share"] == pytest.approx(0.75)
    assert figures["raw_top_10_share"] == pytest.approx((4 + 3 + 1) / 10)  # a negative bridge has no share
    assert (figures["top_bridge"], figures["top_covariance_bridge"]) == (4, 2)
    assert figures["top_correlation_bridge"] == 0.9
    assert (figures["raw_opposite_total"], figures["covariance_opposite_total"]) == pytest.approx((7, 0))
    assert figures["covariance_opposite_positive"] == pytest.approx(1)
    opposite = by_statistic["raw_opposite_share"]
    assert (opposite["images_permuted"], opposite["images_permuted_sd"]) == pytest.approx((0.5, 0.1))
    assert by_statistic["raw_total"]["images_permuted"] is None


def test_matched_share(con: duckdb.DuckDBPyConnection) -> None:
    one, two, four = rows(con, "FROM matched_share('m', 'main')")
    assert [row["n"] for row in (one, two, four)] == [1, 2, 4]
    assert (one["carried"], two["carried"], four["carried"]) == (4, 7, 6)
    assert (two["of_matched"], two["of_positive"]) == pytest.approx((7 / 16, 0.7))
    # The two highest covariance bridges sum to 2 + 1 = 3. Matched minus shuffled similarity is 16 - 13 = 3, so the two
    # bridges carry a share of 1. All positive covariance bridges sum to 4, and the two bridges are .75 of this sum.
    assert (two["covariance_of_gain"], two["covariance_of_positive"]) == pytest.approx((1, 0.75))


def test_top_bridges_by_each_score(con: duckdb.DuckDBPyConnection) -> None:
    top = rows(con, "FROM top_bridges('m', 'main', 0, 2)")
    assert [(row["image_concept"], row["text_concept"]) for row in top] == [(0, 3), (1, 3)]
    assert (top[0]["image_score"], top[0]["text_score"]) == (1.0, 0.0)
    by = rows(con, "FROM top_bridges('m', 'main', 0, 4, by := 'correlation_bridge')")
    assert [row["correlation_bridge"] for row in by] == [0.9, 0.5, -0.2, None]
    with pytest.raises(duckdb.Error, match="by is bridge, covariance_bridge or correlation_bridge"):
        con.execute("FROM top_bridges('m', 'main', 0, 4, by := 'size')")


def test_concept_profile(con: duckdb.DuckDBPyConnection) -> None:
    (profile,) = rows(con, "FROM concept_profile('m', 'main', 0, 0)")
    assert (profile["energy_rank"], profile["strongest_text"], profile["strongest_text_bridge"]) == (1, 3, 4.0)
    assert profile["stability"] == 0.9  # a column of concepts, like all others
    assert profile["strongest_image"] is None


def test_sensitivity_compares_settings_that_differ_in_one_key(con: duckdb.DuckDBPyConnection) -> None:
    main = {"k": 3, "learning_rate": 0.005, "width": 8}
    for sae, seed, r2, settings in (
        ("main", 0, 0.70, main), ("main", 1, 0.74, main),
        ("main-share0", 0, 0.80, main | {"init": "random"}),  # a later key, which `main` leaves out at its default
        ("slow", 0, 0.62, main | {"learning_rate": 0.001}),
        ("slow-and-k", 0, 0.99, main | {"learning_rate": 0.001, "k": 6}),  # two keys: no neighbour of `main`
        ("wide", 0, 0.72, main | {"width": 16, "prefixes": [2, 16]}),  # nested widths follow the width
    ):  # fmt: skip
        insert_sae(con, sae, seed, r2, settings)
    insert_sae(con, "slow", 0, 0.1, main | {"k": 1}, model="another model")
    found = rows(con, "FROM sensitivity('m', 'main') WHERE statistic = 'r2'")
    assert [(row["varied"], row["value"], row["other"]) for row in found] == [
        ("init", "random", "main-share0"), ("learning_rate", "0.001", "slow"), ("width", "16", "wide"),
    ]  # fmt: skip
    one = found[1]
    assert (one["reference"], one["reference_low"], one["reference_high"]) == pytest.approx((0.72, 0.70, 0.74))
    assert (one["figure"], one["moved"], one["by_seeds"]) == pytest.approx((0.62, -0.10, 0.04))
    # All concepts fire 20 times. The scores of the four are 1, .95, .5 and 0, so three are unimodal in each setting.
    unimodal = rows(con, "FROM sensitivity('m', 'main') WHERE statistic = 'unimodal'")
    assert [(row["other"], row["reference"], row["moved"]) for row in unimodal] == [("main-share0", 0.75, 0)]
    # A setting with one seed has no stability, and only `main` has bridges.
    assert {row["statistic"] for row in rows(con, "FROM sensitivity('m', 'main')")} == {
        "r2", "r2_image", "r2_text", "l0", "dead_fraction", "unimodal",
    }  # fmt: skip
    backwards = rows(con, "FROM sensitivity('m', 'main-share0') WHERE statistic = 'r2'")
    assert [(row["varied"], row["value"], row["other"]) for row in backwards] == [("init", "within", "main")]


def test_sensitivity_counts_stability_and_bridges(con: duckdb.DuckDBPyConnection) -> None:
    for sae, seed, k in (("main", 0, 3), ("main", 1, 3), ("other", 0, 6), ("other", 1, 6)):
        insert_sae(con, sae, seed, 0.7, {"k": k})
    for i, cosine in enumerate((0.9, 0.9, 0.5, 0.5)):
        insert(con, "matches", ["m", "other", 0, "other", 1, i, i, cosine])
    for positive, a, b in ((3.0, "image", "text"), (1.0, "image", "image")):
        insert(con, "bridge_totals", ["m", "other", 0, "heldout", a, b, False, "covariance", positive, positive, 0.0])
    by = {row["statistic"]: row for row in rows(con, "FROM sensitivity('m', 'main')")}
    # main: the cosines .9, .7, .3 and .1; of the positive covariance bridges 1 is opposite and 3 are of one concept.
    assert (by["stability"]["reference"], by["stability"]["figure"]) == pytest.approx((0.5, 0.7))
    share = by["covariance_opposite_share"]
    assert (share["reference"], share["figure"], share["moved"]) == pytest.approx((0.25, 0.75, 0.5))
    # The opposite covariance bridges of main are 1 and -1. `other` has 3.
    total = by["covariance_opposite_total"]
    assert (total["reference"], total["figure"], total["moved"]) == pytest.approx((0, 3, 3))
    # Two seeds are one pair, and bridges are stored of one seed of each: one value has no range.
    for row in (by["stability"], share, total):
        assert [row[name] for name in ("reference_low", "reference_high", "low", "high", "by_seeds")] == [None] * 5


def test_sensitivity_compares_the_recall_of_reconstructions(con: duckdb.DuckDBPyConnection) -> None:
    for sae, settings, recalls in (("main", {"width": 8}, (0.5, 0.7)), ("wide", {"width": 16}, (0.4, 0.6, 0.8))):
        for seed, r1 in enumerate(recalls):
            insert_sae(con, sae, seed, 0.7, settings)
            insert(con, "retrieval", ["m", sae, seed, "heldout", "reconstructions", "image_to_text", 10, r1])
            insert(con, "retrieval", ["m", sae, seed, "heldout", "reconstructions", "text_to_image", 10, 0.1])
            insert(con, "retrieval", ["m", sae, seed, "heldout", "without_unimodal", "image_to_text", 10, 0.1])
    insert(con, "retrieval", ["m", None, None, "heldout", "embeddings", "image_to_text", 10, 0.9])
    (row,) = rows(con, "FROM sensitivity('m', 'main') WHERE statistic = 'retrieval_r1'")
    assert (row["reference"], row["figure"], row["moved"]) == pytest.approx((0.6, 0.6, 0))
    assert (row["by_seeds"], row["low"], row["high"]) == pytest.approx((0.2, 0.4, 0.8))


def test_noise_that_follows_the_epochs_is_no_second_difference(con: duckdb.DuckDBPyConnection) -> None:
    for sae, settings in (("main", {"epochs": 20, "noise": 0.1}), ("long", {"epochs": 60, "noise": 0.4})):
        insert_sae(con, sae, 0, 0.7, settings)
    insert_sae(con, "main-share0", 0, 0.7, {"epochs": 20})
    found = rows(con, "FROM sensitivity('m', 'main') WHERE statistic = 'r2'")
    assert {(row["other"], row["varied"], row["value"]) for row in found} == {
        ("long", "epochs", "60"),
        ("main-share0", "noise", "0.0"),
    }


def test_sensitivity_knows_no_range_of_a_single_seed(con: duckdb.DuckDBPyConnection) -> None:
    for sae, seed, r2, width in (("main", 0, 0.7, 8), ("main-share0", 0, 0.8, 16), ("main-share0", 1, 0.9, 16)):
        insert_sae(con, sae, seed, r2, {"width": width})
    (row,) = rows(con, "FROM sensitivity('m', 'main') WHERE statistic = 'r2'")
    assert (row["moved"], row["low"], row["high"]) == pytest.approx((0.15, 0.8, 0.9))
    assert (row["by_seeds"], row["reference_low"], row["reference_high"]) == (None, None, None)
    (row,) = rows(con, "FROM sensitivity('m', 'main-share0') WHERE statistic = 'r2'")
    assert (row["by_seeds"], row["low"], row["high"]) == (pytest.approx(0.1), None, None)


def test_sensitivity_compares_no_r2_at_another_l0(con: duckdb.DuckDBPyConnection) -> None:
    main = {"k": 3, "width": 8}
    for sae, settings in (("main", main), ("dense", main | {"k": 6}), ("wide", main | {"width": 9})):
        insert_sae(con, sae, 0, 0.7, settings)
    found = rows(con, "FROM sensitivity('m', 'main')")
    compared = {row["statistic"] for row in found if row["varied"] == "k"}
    assert compared == {row["statistic"] for row in found if row["varied"] == "width"} - {"r2", "r2_image", "r2_text"}
    assert {"l0", "dead_fraction"} <= compared


@pytest.mark.parametrize("name", [*sorted(Settings.model_fields), "data_half"])
def test_sensitivity_states_the_default_of_every_key(con: duckdb.DuckDBPyConnection, name: str) -> None:
    default = Settings(width=8, k=2).model_dump(mode="json")
    insert_sae(con, "main", 0, 0.7, default | {name: "another"})
    insert_sae(con, "main-share0", 0, 0.7, default)
    others = rows(con, "FROM sensitivity('m', 'main-share0') WHERE statistic = 'l0'")
    varied = [(row["varied"], row["value"]) for row in others]
    assert varied == ([] if name == "frozen" else [(name, "another")])  # a frozen SAE is compared elsewhere
    (row,) = rows(con, "FROM sensitivity('m', 'main') WHERE statistic = 'l0'")
    stated = {**default, **dict(Settings(width=8, k=2)), "noise": 0.0}.get(name)  # an SAE has a number
    if stated is None:  # a rule, or nothing, in words
        assert row["value"] not in (None, "", "default")
    else:
        assert row["value"] == (stated if isinstance(stated, str) else json.dumps(stated))
