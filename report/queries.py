"""The SQL of every figure, table and sentence of the page, and the function that runs it.

Statements hold their values as literals, and the page prints them as they were run, so that a reader can paste them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import duckdb

from storage.definitions import definitions
from storage.statements import literal

Row = dict[str, Any]
UNIMODAL, MIN_FIRINGS, TOP = definitions()
BINS = 20
BRIDGE_FIGURES = (
    "covariance_opposite_total", "covariance_opposite_positive", "raw_opposite_share", "covariance_opposite_share",
    "raw_self_share", "covariance_self_share",
    "top_bridge", "top_covariance_bridge", "top_correlation_bridge", "raw_total", "covariance_total",
)  # fmt: skip
LABELLED_BRIDGES = 100  # strongest bridges whose labels are compared
MOVING = (  # of the macro `sensitivity`, first to last
    "r2", "r2_image", "r2_text", "l0", "dead_fraction", "retrieval_r1", "unimodal", "stability",
)  # fmt: skip


class Answer(NamedTuple):
    """A statement and its result."""

    sql: str
    columns: list[str]
    rows: list[Row]

    def known(self, *names: str) -> Answer:
        """The answer without the rows in which one of these columns is NULL."""
        return self._replace(rows=[row for row in self.rows if None not in [row[name] for name in names]])

    def of(self, **values: Any) -> list[Row]:
        """The rows whose columns have these values, in the order of the answer."""
        return [row for row in self.rows if all(row[name] == value for name, value in values.items())]


def ask(con: duckdb.DuckDBPyConnection, sql: str) -> Answer:
    """Run one statement. Columns are named as in the statement. NaN and infinity become None, as NULL does."""
    cursor = con.execute(sql)
    columns = [column[0] for column in cursor.description or []]
    return Answer(sql, columns, [dict(zip(columns, map(known, row), strict=True)) for row in cursor.fetchall()])


def known(value: Any) -> Any:
    """A value of the catalog; None in place of NaN and infinity, which a ratio over an empty group can give."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def holds(con: duckdb.DuckDBPyConnection, *names: str) -> bool:
    """Whether the catalog has all of these views. A view is missing if no stage of the study wrote its data."""
    sql = f"SELECT count(DISTINCT table_name) FROM information_schema.tables WHERE table_name IN ({_listed(names)})"
    return con.execute(sql).fetchall() == [(len(set(names)),)]


def has_columns(con: duckdb.DuckDBPyConnection, view: str, *columns: str) -> bool:
    """Whether a view has all of these columns; a store of an older version may lack some."""
    sql = "SELECT list(column_name) FROM information_schema.columns WHERE table_name = ?"
    ((names,),) = con.execute(sql, [view]).fetchall()
    return set(columns) <= set(names or [])


def first_seed(con: duckdb.DuckDBPyConnection, model: str, sae: str) -> int:
    """The smallest seed of a setting; 0 where it has none."""
    ((seed,),) = con.execute("SELECT min(seed) FROM saes WHERE model = ? AND sae = ?", [model, sae]).fetchall()
    return int(seed) if seed is not None else 0


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(literal, values))


def of_each(runs: Iterable[tuple[str, str]], select: str) -> list[str]:
    """One SELECT per (model, sae), since a macro takes one model and one SAE. `{m}`, `{s}` become their literals."""
    # replace, not format: the statements contain other braces and percent signs
    return [select.replace("{m}", literal(model)).replace("{s}", literal(sae)) for model, sae in runs]


def for_each(runs: Iterable[tuple[str, str]], select: str, order: str) -> str:
    """The statements of `of_each` joined by UNION ALL and sorted."""
    return union(of_each(runs, select), order)


def union(selects: list[str], order: str) -> str:
    """SELECTs joined by UNION ALL and sorted; without SELECTs, a statement that returns no rows."""
    return "\nUNION ALL\n".join(selects) + f"\nORDER BY {order}" if selects else "SELECT NULL WHERE false"


COUNTS = """\
WITH items AS (
    SELECT split, 1 AS images, 0 AS captions FROM images
    UNION ALL
    SELECT split, 0, 1 FROM pairs
)
SELECT coalesce(split, 'all') AS split, sum(images)::BIGINT AS images, sum(captions)::BIGINT AS captions
FROM items
GROUP BY ROLLUP (split)
ORDER BY split = 'all', split DESC"""

DROPPED = "SELECT cause, count(*) AS items FROM ledger GROUP BY cause ORDER BY items DESC, cause"

SETTINGS = """\
SELECT
    sae, model, architecture, dim, width, k, decoder_bias, image_share, data_half,
    count(*) AS seeds, max(rows_seen) AS rows_seen, any_value(split) AS split
FROM saes
GROUP BY sae, model, architecture, dim, width, k, decoder_bias, image_share, data_half
ORDER BY sae, model"""

RECONSTRUCTION = """\
SELECT model, sae, seed, r2_image, r2_text, r2, cosine, l0_image, l0_text, l0, hoyer, dead_fraction, frozen
FROM saes
ORDER BY model, sae, seed"""

CONSENSUS = """\
SELECT
    c.model, c.sae, own.width, count(*) AS concepts, avg((c.seeds = own.seeds)::INTEGER) AS whole,
    avg(c.cosine) AS cosine,
    any_value(s.r2_image) AS r2_image, own.r2_image AS own_r2_image,
    any_value(s.r2_text) AS r2_text, own.r2_text AS own_r2_text, any_value(s.l0) AS l0, own.l0 AS own_l0
FROM consensus AS c
JOIN saes AS s USING (model, sae, seed)
JOIN (SELECT DISTINCT model, sae, of_sae FROM consensus_members) AS of USING (model, sae)
JOIN (
    SELECT
        model, sae, count(*) AS seeds, any_value(width) AS width, avg(r2_image) AS r2_image, avg(r2_text) AS r2_text,
        avg(l0) AS l0
    FROM saes
    GROUP BY model, sae
) AS own ON own.model = c.model AND own.sae = of.of_sae
GROUP BY ALL
ORDER BY c.sae, c.model"""

MODALITY_SHARES = """\
SELECT
    model, sae,
    count(*) FILTER (counted) AS counted,
    count(*) FILTER (NOT counted) AS left_out,
    count(*) FILTER (counted AND class = 'image') / count(*) FILTER (counted) AS image_share,
    count(*) FILTER (counted AND class = 'text') / count(*) FILTER (counted) AS text_share,
    coalesce(sum(energy) FILTER (counted AND class IN ('image', 'text')), 0)
        / nullif(sum(energy) FILTER (counted), 0) AS unimodal_energy
FROM (
    SELECT
        model, sae, energy, modality_class(modality_score) AS class, is_counted(firings, modality_score) AS counted
    FROM concepts
)
GROUP BY model, sae
ORDER BY model, sae"""

BRIDGE_TOTALS = """\
WITH sums AS (
    SELECT
        model, sae, seed, kind, class_image, class_text,
        sum(positive) AS positive, sum(negative) AS negative, sum(positive) FILTER (self) AS self
    FROM bridge_totals
    GROUP BY ALL
),
shares AS (
    SELECT
        *,
        positive / nullif(sum(positive) OVER run, 0) AS share,
        coalesce(self, 0) / nullif(sum(positive) OVER run, 0) AS own
    FROM sums
    WINDOW run AS (PARTITION BY model, sae, seed, kind)
)
SELECT
    model, sae, class_image, class_text,
    avg(share) FILTER (kind = 'raw') AS raw_share,
    min(share) FILTER (kind = 'raw') AS raw_low, max(share) FILTER (kind = 'raw') AS raw_high,
    avg(own) FILTER (kind = 'raw') AS raw_self,
    avg(negative) FILTER (kind = 'raw') AS raw_negative,
    avg(share) FILTER (kind = 'covariance') AS covariance_share,
    min(share) FILTER (kind = 'covariance') AS covariance_low,
    max(share) FILTER (kind = 'covariance') AS covariance_high,
    avg(own) FILTER (kind = 'covariance') AS covariance_self,
    avg(negative) FILTER (kind = 'covariance') AS covariance_negative
FROM shares
GROUP BY model, sae, class_image, class_text
HAVING max(positive) > 0 OR min(negative) < 0
ORDER BY sae, model, raw_share DESC NULLS LAST, class_image, class_text"""

GEOMETRY = """\
SELECT model, subspace, rank, heldout_accuracy
FROM geometry
ORDER BY model, list_position(['mean_gap', 'logistic', 'lda', 'inlp'], subspace), subspace"""

RETRIEVAL = """\
SELECT
    model, direction, any_value(gallery) AS gallery, any_value(captions) AS captions,
    any_value(r1) AS r1, max(chance) FILTER (k = 1) AS chance1,
    any_value(r5) AS r5, max(chance) FILTER (k = 5) AS chance5,
    any_value(r10) AS r10, max(chance) FILTER (k = 10) AS chance10
FROM retrieval
JOIN retrieval_chance() USING (direction)
WHERE intervention = 'embeddings'
GROUP BY model, direction
ORDER BY model, direction"""

TRAINING = "SELECT model, sae, seed, step, epoch, r2, dead_fraction FROM training ORDER BY model, sae, seed, step"


def histograms(runs: list[tuple[str, str]]) -> str:
    """The modality-score histogram of every (model, sae)."""
    select = f"SELECT {{m}} AS model, {{s}} AS sae, * FROM modality_histogram({{m}}, {{s}}, {BINS})"
    return for_each(runs, select, "sae, model, bin")


def stability_by_energy(runs: list[tuple[str, str]]) -> str:
    """Stability of the K most energetic concepts of every (model, sae), with both floors (the chance levels)."""
    return for_each(runs, "SELECT {m} AS model, {s} AS sae, * FROM stability_by_energy({m}, {s})", "sae, model, k")


def stability(runs: list[tuple[str, str]]) -> str:
    """Stability of every pair of seeds, with the levels that chance reaches (floors).

    sd_above = (stability - floor_matched) / floor_matched_sd.
    """
    select = """\
SELECT
    {m} AS model, {s} AS sae, seed_a, seed_b, stability, floor_random, floor_matched, floor_matched_sd,
    (stability - floor_matched) / nullif(floor_matched_sd, 0) AS sd_above,
    alive, energy_weighted,
    (
        SELECT avg(mean) FROM nulls_of({m}, {s}) AS n
        WHERE n.statistic = 'stability_energy_weighted' AND n."null" = 'floor_matched'
            AND n.seed IN (pair.seed_a, pair.seed_b)
    ) AS floor_energy_weighted
FROM stability({m}, {s}) AS pair"""
    return for_each(runs, select, "sae, model, seed_a, seed_b")


def partners(runs: list[tuple[str, str]]) -> str:
    """How well concepts find partners in another seed, between chance and the ceiling, as means over pairs of seeds."""
    select = """\
SELECT
    {m} AS model, {s} AS sae, modality_a, modality_b, avg(correlation) AS correlation,
    avg(match_confidence) AS match_confidence, avg(one_to_one) AS one_to_one, avg(ceiling) AS ceiling,
    avg(figure) AS figure, avg(floor) AS floor, avg(floor_sd) AS floor_sd, avg(place) AS place,
    min(place) AS low, max(place) AS high
FROM partner_summary({m}, {s})
GROUP BY modality_a, modality_b"""
    return for_each(runs, select, "sae, model, modality_a = modality_b DESC, modality_a, modality_b")


def correspondence(saes: list[str]) -> str:
    """How well concepts find partners in another model, between chance and the ceiling, as means over seeds."""
    select = """\
SELECT
    model_a, model_b, {s} AS sae, modality, avg(correlation) AS correlation,
    avg(match_confidence) AS match_confidence, avg(one_to_one) AS one_to_one, avg(ceiling) AS ceiling,
    avg(figure) AS figure, avg(floor) AS floor, avg(floor_sd) AS floor_sd, avg(place) AS place,
    min(place) AS low, max(place) AS high
FROM correspondence_summary({s})
GROUP BY model_a, model_b, modality"""
    return for_each([("", sae) for sae in saes], select, "sae, model_a, model_b, modality")


def subspace_stability(runs: list[tuple[str, str]]) -> str:
    """How much of a concept lies in the span of its most similar atoms of another seed, with both floors."""
    return for_each(runs, "SELECT {m} AS model, {s} AS sae, * FROM subspace_stability({m}, {s})", "sae, model, atoms")


def names(runs: list[tuple[str, str]]) -> str:
    """How many concepts of every (model, sae) have a name, and the scores of their words, as means over seeds."""
    select = """\
SELECT
    {m} AS model, {s} AS sae, modality, count(*) / count(DISTINCT seed) AS concepts,
    avg(coalesce(low > 0.5, false)::INTEGER) FILTER (is_scored) AS named, avg(score) AS score, avg(chance) AS chance
FROM concept_names
WHERE model = {m} AND sae = {s}
GROUP BY modality"""
    return for_each(runs, select, "sae, model, modality")


def names_of(model: str, sae: str, seed: int, concepts: list[int]) -> str:
    """The names of some concepts of one SAE, with their scores."""
    return f"""\
SELECT concept_id, name, name_score
FROM concepts
WHERE model = {literal(model)} AND sae = {literal(sae)} AND seed = {seed} AND concept_id IN ({_listed(concepts)})
ORDER BY concept_id"""


def bridge_figures(runs: list[tuple[str, str]]) -> str:
    """Statistics of the bridges of every (model, sae) and their values under three nulls, as means over the seeds."""
    select = f"""\
SELECT
    {{m}} AS model, {{s}} AS sae, statistic, avg(figure) AS figure,
    avg(images_permuted) AS images_permuted, avg(images_permuted_sd) AS images_permuted_sd,
    avg(dictionary_permuted) AS dictionary_permuted, avg(dictionary_permuted_sd) AS dictionary_permuted_sd,
    avg(both_permuted) AS both_permuted, avg(both_permuted_sd) AS both_permuted_sd
FROM bridge_figures({{m}}, {{s}})
WHERE statistic IN ({_listed(BRIDGE_FIGURES)})
GROUP BY statistic
HAVING avg(figure) IS NOT NULL"""
    return for_each(runs, select, f"sae, model, list_position([{_listed(BRIDGE_FIGURES)}], statistic)")


def sensitivity(runs: list[tuple[str, str]]) -> str:
    """The farthest that each headline result of every (model, sae) moves with each setting that varies.

    low, high = the range over the seeds of the setting that moves it farthest. times_seeds = how many times the range
    over the seeds of the SAE itself it moves; NULL where this range is 0 or not known.
    """
    select = """\
SELECT
    {m} AS model, {s} AS sae, statistic, reference, by_seeds, varied, value, figure, low, high, moved,
    abs(moved) / nullif(by_seeds, 0) AS times_seeds
FROM sensitivity({m}, {s})
WHERE moved IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY statistic, varied ORDER BY abs(moved) DESC, value, other) = 1"""
    return for_each(runs, select, f"sae, model, {place_of_statistic()}, varied")


def place_of_statistic() -> str:
    """The terms of ORDER BY that sort the statistics of the macro `sensitivity`."""
    return f"list_position([{_listed(MOVING)}], statistic) NULLS LAST, statistic"


def frozen(runs: list[tuple[str, str]]) -> str:
    """The results of every (model, sae) that has frozen twins, beside the results of the twins."""
    select = """\
SELECT {m} AS model, {s} AS sae, *, row_number() OVER () AS place
FROM frozen_figures({m}, {s})
WHERE best_frozen IS NOT NULL"""
    return for_each(runs, select, "sae, model, place")


def label_figures(runs: list[tuple[str, str]]) -> str:
    """Label AUC of every (model, sae), beside permuted labels and the best frozen twin."""
    return for_each(runs, "SELECT {m} AS model, {s} AS sae, * FROM label_figures({m}, {s})", "sae, model, name")


def bridge_precision(runs: list[tuple[str, str]], twins: list[tuple[str, str]]) -> str:
    """How often the strongest bridges of every (model, sae) join concepts of one label, as means over seeds.

    twins: the frozen twins of these SAEs; the highest share of a twin stands beside that of its SAE.
    """
    if not runs:
        return union([], "")
    select = f"""\
    SELECT
        {{m}} AS model, {{s}} AS sae, name, "by", avg(bridges)::BIGINT AS bridges, avg("precision") AS "precision",
        min("precision") AS low, max("precision") AS high, avg(chance) AS chance, avg(labelled) AS labelled
    FROM bridge_precision({{m}}, {{s}}, {LABELLED_BRIDGES})
    GROUP BY "by", name"""
    precise = "\n    UNION ALL\n".join(of_each([*runs, *twins], select))
    named = ", ".join(f"({literal(model)}, {literal(sae)})" for model, sae in runs)
    return f"""\
WITH precise AS (
{precise}
),
frozen AS (
    SELECT model, twin_of AS sae, name, "by", max("precision") AS best_frozen
    FROM precise
    JOIN (SELECT DISTINCT model, sae, twin_of FROM saes WHERE twin_of IS NOT NULL) USING (model, sae)
    GROUP BY ALL
)
SELECT *
FROM precise
LEFT JOIN frozen USING (model, sae, name, "by")
WHERE (model, sae) IN ({named})
ORDER BY sae, model, name, list_position(['bridge', 'covariance_bridge', 'correlation_bridge'], "by")"""


def twins_of(con: duckdb.DuckDBPyConnection, runs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Each (model, sae) that is a frozen twin of one of these."""
    sql = "SELECT DISTINCT model, sae, twin_of FROM saes WHERE twin_of IS NOT NULL ORDER BY ALL"
    return [(model, sae) for model, sae, of in con.execute(sql).fetchall() if (model, of) in runs]


def probing(runs: list[tuple[str, str]]) -> str:
    """Probes on a few concepts of every (model, sae), beside all concepts, embeddings, components and frozen twins."""
    select = "SELECT {m} AS model, {s} AS sae, * FROM probing_figures({m}, {s})"
    return for_each(runs, select, "sae, model, modality, name, features")


def top_bridges(model: str, sae: str, seed: int, n: int, by: str) -> str:
    """The strongest bridges of one SAE."""
    return f"FROM top_bridges({literal(model)}, {literal(sae)}, {seed}, {n}, by := {literal(by)})"


def top_images(model: str, sae: str, seed: int, concepts: list[int], n: int) -> str:
    """The images on which each of these concepts fires most, with their first caption."""
    return f"""\
WITH top AS (
    SELECT concept_id, item_id AS image_id, activation
    FROM activations
    WHERE model = {literal(model)} AND sae = {literal(sae)} AND seed = {seed} AND modality = 'image'
        AND concept_id IN ({_listed(concepts)})
    QUALIFY row_number() OVER (PARTITION BY concept_id ORDER BY activation DESC, item_id) <= {n}
)
SELECT
    concept_id, image_id, activation, source_key,
    (SELECT arg_min(caption, pair_id) FROM pairs WHERE pairs.image_id = top.image_id) AS caption
FROM top
JOIN images USING (image_id)
ORDER BY concept_id, activation DESC, image_id"""


def top_captions(model: str, sae: str, seed: int, concepts: list[int], n: int) -> str:
    """The captions on which each of these concepts fires most."""
    return f"""\
SELECT concept_id, pair_id, activation, caption
FROM activations
JOIN pairs ON pairs.pair_id = item_id
WHERE model = {literal(model)} AND sae = {literal(sae)} AND seed = {seed} AND modality = 'text'
    AND concept_id IN ({_listed(concepts)})
QUALIFY row_number() OVER (PARTITION BY concept_id ORDER BY activation DESC, item_id) <= {n}
ORDER BY concept_id, activation DESC, pair_id"""


def pictures(images: list[int]) -> str:
    """The encoded bytes of these images."""
    return f"SELECT image_id, image FROM image_bytes WHERE image_id IN ({_listed(images)}) ORDER BY image_id"


def to_paste(model: str, sae: str, seed: int, concept: int) -> list[tuple[str, str]]:
    """Three example queries, as (title, SQL)."""
    m, s = literal(model), literal(sae)
    return [
        (
            f"Profile of concept {concept} of seed {seed}",
            f"FROM concept_profile({m}, {s}, {seed}, {concept})",
        ),
        (
            f"The captions on which concept {concept} fires most",
            f"SELECT activation, caption, source_key, split FROM top_items({m}, {s}, {seed}, {concept}, 'text', 20)",
        ),
        (
            "Concepts with a modality score near 0.5 that are stable over seeds, by energy",
            f"""\
SELECT concept_id, name, name_score, stability, energy, modality_score, firings
FROM concepts
WHERE model = {m} AND sae = {s} AND seed = {seed} AND modality_score BETWEEN 0.4 AND 0.6 AND stability > 0.7
ORDER BY energy DESC
LIMIT 20""",
        ),
    ]
