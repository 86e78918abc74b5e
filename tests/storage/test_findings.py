"""Findings: every verdict follows from the columns of its row, on tables small enough to check by hand."""

from __future__ import annotations

import math
from typing import Any

import duckdb
import polars as pl
import pytest
import scipy.stats

from analysis.findings import FINDINGS, STATISTIC
from analysis.joined import Twin, create_twins
from analysis.statistic import statistics
from analysis.tables import empty, fill
from storage.definitions import define

SCHEMAS = {name: schema for one in statistics() for name, schema in one.tables.items()}


def recomputed(row: dict[str, Any]) -> tuple[float | None, str]:
    """The bound and the verdict of a row of findings, from its other columns."""
    low, high, threshold = row["low"], row["high"], row["threshold"]
    if None in (row["null_low"], row["null_mean"], row["null_high"]):
        return None, "undecided"
    if row["rule"] == "below chance and threshold":
        bound = min(row["null_low"], threshold)
        return (
            bound,
            "undecided" if low is None else "holds" if high < bound else "fails" if low >= bound else "undecided",
        )
    bound = row["margin"] * row["null_mean"] if row["margin"] else max(row["null_high"], threshold or -math.inf)
    return bound, "undecided" if low is None else "holds" if low > bound else "fails" if high <= bound else "undecided"


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    """A connection with every table that the findings read, all without rows."""
    con = duckdb.connect(config={"threads": 1})
    define(con)
    for name in STATISTIC.needs:
        con.register("schema_of_table", empty(SCHEMAS[name]).to_arrow())
        con.execute(f"CREATE TABLE {name} AS FROM schema_of_table")
    return con


def insert(con: duckdb.DuckDBPyConnection, table: str, **columns: Any) -> None:
    """Insert rows: a list has one value per row, any other value is that of all rows. Other columns are NULL."""
    rows = max((len(column) for column in columns.values() if isinstance(column, list)), default=1)
    values = {name: column if isinstance(column, list) else [column] * rows for name, column in columns.items()}
    frame = pl.DataFrame({name: values.get(name, [None] * rows) for name in SCHEMAS[table]}, schema=SCHEMAS[table])
    con.register("rows", frame.to_arrow())
    con.execute(f"INSERT INTO {table} FROM rows")


def found(con: duckdb.DuckDBPyConnection, statistic: str, *twins: Twin, sae: str = "main") -> dict[str, Any]:
    """The row of one statistic of one SAE setting, whose verdict follows from its other columns."""
    con.execute("DROP TABLE IF EXISTS twins")
    create_twins(con, twins)
    fill(con, "findings")
    assert con.table("findings").pl().schema == pl.Schema(FINDINGS)
    rows = con.sql("FROM findings").pl().rows(named=True)
    assert [recomputed(row) for row in rows] == [(row["bound"], row["verdict"]) for row in rows]
    assert all(row["holds"] is {"holds": True, "fails": False, "undecided": None}[row["verdict"]] for row in rows)
    (row,) = [row for row in rows if (row["statistic"], row["sae"]) == (statistic, sae)]
    return row


def hits(con: duckdb.DuckDBPyConnection, intervention: str, seed: int | None, of_groups: list[int]) -> None:
    """Hits of 50 queries in each group, image to text."""
    sae = None if seed is None else "main"
    for group, hit in enumerate(of_groups):
        insert(con, "retrieval_groups", model="m", sae=sae, seed=seed, intervention=intervention,
               direction="image_to_text", jackknife_group=group, queries=50, hits=hit)  # fmt: skip


def test_what_reconstructions_keep_of_retrieval(con: duckdb.DuckDBPyConnection) -> None:
    insert(con, "retrieval", model="m", intervention="embeddings", direction="image_to_text", gallery=100, r1=0.4)
    hits(con, "embeddings", None, [20, 20])
    hits(con, "reconstructions", 0, [15, 17])
    row = found(con, "retrieval_kept_image_to_text")
    # 32 of the 40 hits are kept; without one group, 17/20 and 15/20. Two values a, b have se^2 = 1/2 * 2 * .05^2.
    assert row["figure"] == pytest.approx(0.8)
    assert row["high"] - row["figure"] == pytest.approx(0.05 * scipy.stats.t.ppf(0.975, 1), rel=1e-4)
    assert (row["interval_over"], row["seeds"], row["rule"]) == ("image groups", 1, "above chance and threshold")
    assert row["null_mean"] == pytest.approx(0.01 / 0.4)
    assert row["null_high"] == pytest.approx((0.01 + 1.96 * math.sqrt(0.01 * 0.99 / 100)) / 0.4)
    assert (row["threshold"], row["verdict"], row["answer"]) == (0.5, "undecided", "above chance")
    hits(con, "reconstructions", 1, [17, 15])  # without a group, the mean over the two seeds is .8: no error is left
    row = found(con, "retrieval_kept_image_to_text")
    assert (row["interval_over"], row["seeds"]) == ("seeds and image groups", 2)
    assert (row["low"], row["high"], row["verdict"]) == (pytest.approx(0.8), pytest.approx(0.8), "holds")
    con.execute("UPDATE retrieval_groups SET hits = 5 WHERE intervention = 'reconstructions'")
    row = found(con, "retrieval_kept_image_to_text")
    assert (row["figure"], row["verdict"], row["answer"]) == (0.25, "fails", "above chance")


SEEDS = range(3)


def bridging(
    con: duckdb.DuckDBPyConnection, totals: list[float], high: list[float], classes: tuple[float, ...] = (1.0, 0.0)
) -> None:
    """Three seeds with these net totals and upper ends of their nulls; leaving out a group changes no total."""
    for seed, total, q975 in zip(SEEDS, totals, high, strict=True):
        keys = {"model": "m", "sae": "main", "seed": seed}
        for concept, score in enumerate(classes):
            insert(con, "concepts", **keys, concept_id=concept, modality_score=score, dead=False, energy=1.0, firings=5)
        for role in (("image", "text"), ("text", "image")):
            insert(con, "bridge_totals", **keys, class_image=role[0], class_text=role[1], self=False,
                   kind="covariance", total=total / 2, positive=total, negative=-total / 2)  # fmt: skip
        for group in (0, 1):
            insert(con, "bridge_groups", **keys, statistic="covariance_opposite_total", jackknife_group=group,
                   value=total)  # fmt: skip
        insert(con, "nulls", **keys, statistic="covariance_opposite_total", null="images_permuted", mean=0.0,
               q025=-q975, q975=q975, draws=200)  # fmt: skip


def test_each_seed_is_held_against_its_own_permutations(con: duckdb.DuckDBPyConnection) -> None:
    bridging(con, [1.0, 3.0, 5.0], [0.5, 2.9, 2.0])  # the smallest total, 1, lies under the largest null, 2.9
    row = found(con, "covariance_opposite_total")
    assert (row["verdict"], row["seeds"], row["rule"]) == ("holds", 3, "above chance in every seed")
    assert (row["figure"], row["null_high"]) == (3.0, 2.9)  # seed 1 is the nearest to its own null
    assert row["note"] == "seed 1 decides; the mean over seeds is 3; the positive part is 6"
    con.execute("UPDATE nulls SET q975 = 3.5 WHERE seed = 1")
    row = found(con, "covariance_opposite_total")
    assert (row["verdict"], row["answer"], row["figure"]) == ("fails", "as chance", 3.0)
    con.execute("UPDATE bridge_groups SET value = value + 0.1 * jackknife_group WHERE seed = 1")
    assert found(con, "covariance_opposite_total")["verdict"] == "undecided"  # 3 - 12.7 * .05 to 3 + 12.7 * .05


@pytest.mark.parametrize("classes", [(1.0, 1.0), (0.0, 0.5), (0.5, None)])
def test_a_class_without_concepts_decides_nothing(con: duckdb.DuckDBPyConnection, classes: tuple[float, ...]) -> None:
    bridging(con, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], classes)
    row = found(con, "covariance_opposite_total")
    assert (row["verdict"], row["note"]) == ("undecided", "seed 0 has no concepts in one of the two classes")


def unimodal(con: duckdb.DuckDBPyConnection, sae: str, shares: list[float]) -> None:
    """One seed per share, each with 100 concepts of which this share is unimodal. No concept depends on a group."""
    for seed, share in enumerate(shares):
        scores = [1.0 if concept < 100 * share else 0.5 for concept in range(100)]
        keys = {"model": "m", "sae": sae, "seed": seed, "concept_id": list(range(100))}
        insert(con, "concepts", **keys, modality_score=scores, dead=False, energy=1.0, firings=50)
        for group in (0, 1):
            insert(con, "concept_groups", **keys, jackknife_group=group, images=10, texts=10, image=scores,
                   text=[1 - score for score in scores], image_firings=10, text_firings=10)  # fmt: skip


def test_unimodality_is_held_against_the_best_frozen_twin(con: duckdb.DuckDBPyConnection) -> None:
    unimodal(con, "main", [0.80, 0.82, 0.84])
    alone = found(con, "unimodal_share")
    assert (alone["verdict"], alone["null_name"]) == ("undecided", "frozen twin")
    assert alone["note"] == "the study has no frozen twin of this setting"
    unimodal(con, "main-fd", [0.50, 0.50, 0.50])
    unimodal(con, "main-fe", [0.60, 0.62, 0.64])
    twins = [Twin("m", "main-fd", "main", "frozen_decoder"), Twin("m", "main-fe", "main", "frozen_encoder")]
    row = found(con, "unimodal_share", *twins)
    # Leaving out one of three seeds gives .83, .82 and .81: se = sqrt(2/3 * 2 * .01^2) = .02 / sqrt(3).
    reach = scipy.stats.t.ppf(0.975, 2) * 0.02 / math.sqrt(3)
    assert (row["low"], row["high"]) == pytest.approx((0.82 - reach, 0.82 + reach), abs=1e-5)
    assert (row["null_name"], row["null_mean"]) == ("frozen_encoder", pytest.approx(0.62))
    assert (row["null_low"], row["null_high"]) == pytest.approx((0.62 - reach, 0.62 + reach), abs=1e-5)
    assert (row["verdict"], row["note"]) == ("holds", "the best frozen twin is main-fe")
    assert set(con.sql("SELECT DISTINCT sae FROM findings").fetchall()) == {("main",)}  # frozen settings have no rows
    con.execute("DELETE FROM concepts WHERE sae = 'main-fe' AND seed > 0")
    con.execute("DELETE FROM concept_groups WHERE sae = 'main-fe'")
    row = found(con, "unimodal_share", *twins)
    assert (row["verdict"], row["null_mean"]) == ("undecided", 0.6)
    assert row["note"] == "the best frozen twin is main-fe, which has no interval"


def test_common_and_rare_concepts_of_pairs_of_seeds(con: duckdb.DuckDBPyConnection) -> None:
    # Concept 0 has most energy, so it alone is common; concepts 2 and 3 are the rare half. Pairs differ by .01.
    for sae, common, rare in (("main", 0.9, 0.4), ("frozen", 0.5, 0.35)):
        for a in SEEDS:
            insert(con, "concepts", model="m", sae=sae, seed=a, concept_id=[0, 1, 2, 3], dead=False,
                   energy=[9.0, 3.0, 2.0, 1.0], firings=50)  # fmt: skip
            for b in set(SEEDS) - {a}:
                cosines = [cosine + 0.01 * (a + b) for cosine in (common, 0.5, rare, rare)]
                insert(con, "matches", model="m", sae_a=sae, seed_a=a, sae_b=sae, seed_b=b, concept_a=[0, 1, 2, 3],
                       concept_b=[0, 1, 2, 3], cosine=cosines)  # fmt: skip
            for statistic in ("stability_share_50", "stability_rare"):
                insert(con, "nulls", model="m", sae=sae, seed=a, statistic=statistic, null="floor_matched", mean=0.3,
                       sd=0.1, draws=20)  # fmt: skip
    row = found(con, "stability_share_50", Twin("m", "frozen", "main", "frozen_decoder"))
    assert row["figure"] == pytest.approx(0.92)
    # Leaving out seed 0, 1 or 2 leaves one pair, of cosine .93, .92 or .91.
    reach = scipy.stats.t.ppf(0.975, 2) * math.sqrt(2 / 3 * 2) * 0.01
    assert (row["low"], row["high"]) == pytest.approx((0.92 - reach, 0.92 + reach), abs=1e-5)
    assert (row["null_mean"], row["threshold"]) == pytest.approx((0.52, 0.3 + 1.96 * 0.1))
    assert (row["verdict"], row["interval_over"]) == ("holds", "seeds")
    assert row["note"] == "the best frozen twin is frozen; the threshold is the upper end of floor_matched, 0.496"
    rare = found(con, "stability_rare", Twin("m", "frozen", "main", "frozen_decoder"))
    assert (rare["figure"], rare["verdict"], rare["answer"]) == (pytest.approx(0.42), "fails", "open")  # under .496


@pytest.mark.parametrize(
    ("times", "answer", "verdict"),
    [(3.0, "nearer than chance", "holds"), (1.1, "as chance", "fails"), (0.5, "farther than chance", "fails"),
     (1.25, "open", "undecided"), (0.8, "open", "fails")],
)  # fmt: skip
def test_the_modality_subspace_has_three_answers(
    con: duckdb.DuckDBPyConnection, times: float, answer: str, verdict: str
) -> None:
    # Chance is 4 of 64 dimensions. The seeds differ by 2 % of the figure, which gives an interval of about 3 %.
    for seed in SEEDS:
        insert(con, "saes", model="m", sae="main", seed=seed, dim=64)
        alive = math.sqrt(times * (1 + 0.01 * (seed - 1)) / 16)
        insert(con, "concepts", model="m", sae="main", seed=seed, concept_id=list(range(50)),
               dead=[concept >= 40 for concept in range(50)], energy=1.0, align_inlp=[alive] * 40 + [1.0] * 10,
               align_lda=-0.5)  # fmt: skip
    insert(con, "geometry", model="m", subspace="inlp", rank=4)
    insert(con, "geometry", model="m", subspace="lda", rank=1)
    row = found(con, "norm_share_inlp")
    assert (row["figure"], row["null_mean"], row["margin"]) == pytest.approx((times / 16, 1 / 16, 1.25))
    assert (row["answer"], row["verdict"]) == (answer, verdict)
    assert "close to, but not entirely within" in row["note"]
    assert "arXiv 2504.11695" in row["note"]
    # The share of a uniform unit vector has the distribution Beta(2, 30); the null is a mean of 120 of them.
    sd = scipy.stats.beta(2, 30).std() / math.sqrt(120)
    assert row["null_high"] == pytest.approx(1 / 16 + 1.96 * sd)
    assert found(con, "norm_share_lda")["figure"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("accuracy", "answer", "verdict"),
    [(1.0, "above chance", "fails"), (0.60, "as chance", "fails"), (0.52, "below chance", "holds"),
     (0.57, "below chance", "fails")],
)  # fmt: skip
def test_directions_are_held_against_means_of_random_directions(
    con: duckdb.DuckDBPyConnection, accuracy: float, answer: str, verdict: str
) -> None:
    # Matched directions, which hold the modality direction themselves, reach 1 and decide nothing.
    for seed in SEEDS:
        insert(con, "concepts", model="m", sae="main", seed=seed, concept_id=list(range(100)), dead=False,
               energy=1.0, direction_accuracy=accuracy)  # fmt: skip
        for name, mean in (("floor_random", 0.6), ("floor_matched", 1.0)):
            insert(con, "nulls", model="m", sae="main", seed=seed, statistic="direction_accuracy", null=name,
                   mean=mean, sd=0.1, q025=mean - 0.2, q975=mean + 0.2, draws=1000)  # fmt: skip
    row = found(con, "direction_accuracy")
    assert (row["null_mean"], row["threshold"]) == pytest.approx((0.6, 0.55))
    assert row["null_high"] - 0.6 == pytest.approx(1.96 * 0.1 * math.sqrt(1 / 300 + 1 / 3000))
    assert (row["answer"], row["verdict"]) == (answer, verdict)


def test_one_seed_without_groups_has_no_interval_and_no_verdict(con: duckdb.DuckDBPyConnection) -> None:
    insert(con, "concepts", model="m", sae="main", seed=0, concept_id=0, dead=False, energy=1.0, direction_accuracy=0.9)
    insert(con, "nulls", model="m", sae="main", seed=0, statistic="direction_accuracy", null="floor_random", mean=0.6,
           sd=0.1, draws=1000)  # fmt: skip
    row = found(con, "direction_accuracy")
    assert (row["low"], row["interval_over"], row["verdict"]) == (None, "none", "undecided")
    assert row["note"].endswith("there are too few seeds for an interval")
