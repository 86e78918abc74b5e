-- Purpose: stability of the K most energetic concepts, for K = 1, 2, 4 ... width, and its floors (the stability that
--          chance reaches) for the same K.
-- Inputs:  m (model), s (sae); matches, concepts, nulls.
-- Columns: k; energy_share (of the top K, mean over seeds); stability (mean over ordered pairs of seeds; all concepts are
--          matched, then the top K of the first seed are kept); low, high (range over the pairs); floor_random,
--          floor_random_sd, floor_matched, floor_matched_sd (means over seeds).
-- Definition: docs/definitions.md, "Stability by energy".
CREATE MACRO stability_by_energy(m, s) AS TABLE
WITH ranked AS (
    SELECT
        seed, concept_id, energy,
        row_number() OVER (PARTITION BY seed ORDER BY energy DESC, concept_id) AS rank,
        sum(energy) OVER (PARTITION BY seed) AS total
    FROM concepts
    WHERE model = m AND sae = s
),
floor_of AS (
    SELECT
        replace(statistic, 'stability_top_', '')::BIGINT AS k,
        avg(mean) FILTER ("null" = 'floor_random') AS random, avg(sd) FILTER ("null" = 'floor_random') AS random_sd,
        avg(mean) FILTER ("null" = 'floor_matched') AS matched, avg(sd) FILTER ("null" = 'floor_matched') AS matched_sd
    FROM nulls
    WHERE model = m AND sae = s AND statistic LIKE 'stability\_top\_%' ESCAPE '\'
    GROUP BY ALL
),
shares AS (
    SELECT k, sum(energy / nullif(total, 0)) / count(DISTINCT seed) AS energy_share
    FROM floor_of JOIN ranked ON ranked.rank <= floor_of.k
    GROUP BY k
),
pairs_of_seeds AS (
    SELECT k, matches.seed_a, matches.seed_b, avg(matches.cosine) AS stability
    FROM floor_of
    JOIN ranked ON ranked.rank <= floor_of.k
    JOIN matches ON matches.seed_a = ranked.seed AND matches.concept_a = ranked.concept_id
    WHERE matches.model = m AND matches.sae_a = s AND matches.sae_b = s
    GROUP BY ALL
)
SELECT
    k, any_value(energy_share) AS energy_share,
    avg(stability) AS stability, min(stability) AS low, max(stability) AS high,
    any_value(random) AS floor_random, any_value(random_sd) AS floor_random_sd,
    any_value(matched) AS floor_matched, any_value(matched_sd) AS floor_matched_sd
FROM floor_of
JOIN shares USING (k)
LEFT JOIN pairs_of_seeds USING (k)
GROUP BY k
ORDER BY k;
