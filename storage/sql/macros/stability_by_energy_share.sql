-- Purpose: stability of the fewest concepts that hold 10 %, 20 % ... of the energy, and its floors (the stability that
--          chance reaches) for the same share.
-- Inputs:  m (model), s (sae); matches, concepts, nulls.
-- Columns: percent (of the energy); concepts (number of these concepts, mean over seeds); stability (mean over ordered pairs
--          of seeds; all concepts are matched, then these concepts of the first seed are kept); low, high (range over the
--          pairs); floor_random, floor_random_sd, floor_matched, floor_matched_sd (means over seeds).
-- Definition: docs/definitions.md, "Stability by energy".
CREATE MACRO stability_by_energy_share(m, s) AS TABLE
WITH ranked AS (
    SELECT
        seed, concept_id,
        coalesce(
            sum(energy) OVER (
                PARTITION BY seed ORDER BY energy DESC, concept_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ), 0
        ) AS energy_before,
        sum(energy) OVER (PARTITION BY seed) AS total
    FROM concepts
    WHERE model = m AND sae = s
),
chosen AS (
    SELECT percent, seed, concept_id
    FROM ranked
    -- the tolerance covers rounding: the total is summed in another order
    JOIN (SELECT unnest(range(10, 101, 10)) AS percent) AS shares
        ON energy_before < total * percent / 100 * (1 - 1e-12)
),
sizes AS (
    SELECT percent, count(*) / count(DISTINCT seed) AS concepts FROM chosen GROUP BY percent
),
pairs_of_seeds AS (
    SELECT percent, matches.seed_a, matches.seed_b, avg(matches.cosine::DOUBLE) AS stability
    FROM chosen
    JOIN matches ON matches.seed_a = chosen.seed AND matches.concept_a = chosen.concept_id
    WHERE matches.model = m AND matches.sae_a = s AND matches.sae_b = s
    GROUP BY percent, matches.seed_a, matches.seed_b
),
range_of AS (
    SELECT percent, avg(stability) AS stability, min(stability) AS low, max(stability) AS high
    FROM pairs_of_seeds
    GROUP BY percent
),
floor_of AS (
    SELECT
        replace(statistic, 'stability_share_', '')::BIGINT AS percent,
        avg(mean) FILTER ("null" = 'floor_random') AS floor_random, avg(sd) FILTER ("null" = 'floor_random') AS floor_random_sd,
        avg(mean) FILTER ("null" = 'floor_matched') AS floor_matched,
        avg(sd) FILTER ("null" = 'floor_matched') AS floor_matched_sd
    FROM nulls
    WHERE model = m AND sae = s AND statistic LIKE 'stability\_share\_%' ESCAPE '\'
    GROUP BY percent
)
SELECT
    percent, concepts, stability, low, high, floor_random, floor_random_sd, floor_matched, floor_matched_sd
FROM sizes
LEFT JOIN range_of USING (percent)
LEFT JOIN floor_of USING (percent)
ORDER BY percent;
