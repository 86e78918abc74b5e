"""SQL for figures that need more than one macro of the catalog. The values are literals in the statements."""

from __future__ import annotations

from collections.abc import Iterable

from report.figures.runs import Runs
from report.queries import for_each, of_each, place_of_statistic, union
from storage.statements import literal

MARKS = 500  # concepts in the alignment figure: with more, the marks overlap and the SVG takes megabytes
CELLS = 20  # concepts per side of the bridge matrix
SUBSPACES = ("mean_gap", "logistic", "lda", "inlp")

FRONTIER = """\
SELECT model, method, encoder, k, width, l0, r2_image, r2_text, r2, r2_image_at_k, r2_text_at_k
FROM frontier
ORDER BY model, encoder, method, width, l0, k"""

SIDE_BY_SIDE = """\
WITH values_by_seed AS (
    UNPIVOT (SELECT model, sae, seed, r2_image, r2_text, 1 - dead_fraction AS alive FROM saes)
    ON r2_image, r2_text, alive INTO NAME statistic VALUE value
    UNION ALL
    SELECT model, sae, seed, 'unimodal', avg(is_unimodal(modality_score)::INTEGER)
    FROM concepts
    WHERE is_counted(firings, modality_score)
    GROUP BY model, sae, seed
    UNION ALL
    SELECT model, sae, seed, 'top_energy', sum(energy) FILTER (rank <= top_concepts()) / nullif(sum(energy), 0)
    FROM (
        SELECT *, row_number() OVER (PARTITION BY model, sae, seed ORDER BY energy DESC, concept_id) AS rank
        FROM concepts
    )
    GROUP BY model, sae, seed
    UNION ALL
    SELECT model, sae_a, seed_a, 'stability', avg(cosine)
    FROM matches
    WHERE sae_a = sae_b
    GROUP BY model, sae_a, seed_a, seed_b
    UNION ALL
    SELECT
        model, sae, seed, kind || '_opposite',
        coalesce(sum(positive) FILTER (NOT self AND are_opposite(class_image, class_text)), 0)
            / nullif(sum(positive), 0)
    FROM bridge_totals
    GROUP BY model, sae, seed, kind
),
chance AS (
    SELECT
        model, sae,
        CASE
            WHEN statistic = 'stability' AND "null" = 'floor_matched' THEN 'stability'
            WHEN statistic = 'unimodal_share' AND "null" = 'modality_shuffled' THEN 'unimodal'
            WHEN statistic = 'raw_opposite_share' AND "null" = 'images_permuted' THEN 'raw_opposite'
            WHEN statistic = 'covariance_opposite_share' AND "null" = 'images_permuted' THEN 'covariance_opposite'
        END AS statistic,
        avg(mean) AS chance
    FROM nulls
    GROUP BY ALL
    HAVING statistic IS NOT NULL
)
SELECT
    model, sae, statistic,
    avg(value) AS value, min(value) AS low, max(value) AS high, any_value(chance) AS chance
FROM values_by_seed
LEFT JOIN chance USING (model, sae, statistic)
GROUP BY model, sae, statistic
HAVING avg(value) IS NOT NULL
ORDER BY sae, model, statistic"""

RETRIEVAL = """\
SELECT
    model, sae, intervention, direction, any_value(gallery) AS gallery, any_value(captions) AS captions,
    avg(r1) AS r1, min(r1) AS low, max(r1) AS high, avg(r10) AS r10
FROM retrieval
GROUP BY model, sae, intervention, direction
HAVING avg(r1) IS NOT NULL
ORDER BY sae NULLS FIRST, model, intervention, direction"""

ALIGNMENT_NULLS = """\
SELECT model, replace(statistic, 'align_', '') AS subspace, avg(mean) AS mean, avg(q025) AS low, avg(q975) AS high
FROM nulls
WHERE statistic LIKE 'align\\_%' ESCAPE '\\' AND "null" = 'floor_random'
GROUP BY model, statistic
ORDER BY model, statistic"""


def concentration(runs: Runs) -> str:
    """The share of the energy that the K most energetic concepts of every (model, sae) hold."""
    return for_each(runs, "SELECT {m} AS model, {s} AS sae, * FROM energy_concentration({m}, {s})", "sae, model, k")


def diets(main: Runs, runs: Runs) -> str:
    """Mean cosine of matched concepts of two SAEs, for three kinds of pairs of settings.

    The kinds are: a main setting with itself (two seeds), a main setting with each of its data diets, and the two
    halves of the data. A data diet is the same setting trained on other data: another share of images, or one half
    of all images.
    Two SAEs with the same seed start from the same dictionary, which makes them similar whatever the data. The column
    same_seed therefore keeps such pairs in separate rows.
    """
    own = """\
SELECT
    {m} AS model, {s} AS sae_a, {s} AS sae_b, false AS same_seed, count(*) AS pairs, avg(stability) AS stability,
    min(stability) AS low, max(stability) AS high, avg(energy_weighted) AS energy_weighted,
    avg(floor_random) AS floor_random, avg(floor_matched) AS floor_matched
FROM stability({m}, {s})
HAVING count(*) > 0"""
    other = """\
SELECT
    {m} AS model, {s} AS sae_a, diet AS sae_b, same_seed, pairs, stability,
    low, high, energy_weighted, floor_random, floor_matched
FROM diet_stability({m}, {s})"""
    halves = f"""{other}
WHERE {{s}} < diet
    AND (SELECT count(DISTINCT data_half) FROM saes WHERE saes.model = {{m}} AND saes.sae IN ({{s}}, diet)) = 2"""
    rest = [run for run in runs if run not in main]
    parts = ((own, main), (other, main), (halves, rest))
    selects = [statement for select, settings in parts for statement in of_each(settings, select)]
    return union(selects, "model, sae_a <> sae_b, sae_a, sae_b, same_seed")


def sensitivity(main: Runs) -> str:
    """How far each headline result but L0, which has another scale, moves with each setting, and with the seeds."""
    select = "SELECT {m} AS model, {s} AS sae, * FROM sensitivity({m}, {s}) WHERE statistic <> 'l0'"
    return for_each(main, select, f"sae, model, {place_of_statistic()}, varied, value, other")


def alignments(sae: str, subspaces: Iterable[str]) -> str:
    """Modality score, energy and alignments of the concepts with most energy, for the first seed of a setting."""
    columns = ", ".join(f"align_{name} AS {name}" for name in subspaces)
    return f"""\
WITH counted AS (
    SELECT
        model, concept_id, energy, modality_score, {columns},
        row_number() OVER (PARTITION BY model ORDER BY energy DESC, concept_id) AS rank,
        count(*) OVER (PARTITION BY model) AS counted
    FROM concepts AS c
    WHERE sae = {literal(sae)} AND is_counted(firings, modality_score)
        AND seed = (SELECT min(seed) FROM saes WHERE saes.model = c.model AND saes.sae = c.sae)
)
SELECT model, concept_id, energy, modality_score, counted, subspace, alignment
FROM (
    UNPIVOT (FROM counted WHERE rank <= {MARKS})
    ON {", ".join(subspaces)} INTO NAME subspace VALUE alignment
)
ORDER BY model, subspace, energy DESC, concept_id"""


def bridge_matrix(model: str, sae: str, seed: int) -> str:
    """The bridges of one SAE between CELLS image concepts and CELLS text concepts: those with the largest bridges."""
    of_sae = f"model = {literal(model)} AND sae = {literal(sae)} AND seed = {seed}"
    return f"""\
WITH own AS (
    FROM bridges WHERE {of_sae}
),
rows_of AS (
    SELECT image_concept FROM own GROUP BY image_concept
    ORDER BY max(bridge) DESC, image_concept LIMIT {CELLS}
),
columns_of AS (
    SELECT text_concept FROM own GROUP BY text_concept
    ORDER BY max(bridge) DESC, text_concept LIMIT {CELLS}
)
SELECT
    image_concept, text_concept, bridge, correlation_bridge,
    i.modality_score AS image_score, t.modality_score AS text_score
FROM own
JOIN rows_of USING (image_concept)
JOIN columns_of USING (text_concept)
JOIN concepts AS i ON i.model = own.model AND i.sae = own.sae AND i.seed = own.seed AND i.concept_id = image_concept
JOIN concepts AS t ON t.model = own.model AND t.sae = own.sae AND t.seed = own.seed AND t.concept_id = text_concept
ORDER BY image_score DESC, image_concept, text_score DESC, text_concept"""
