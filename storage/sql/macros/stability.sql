-- Purpose: how alike two seeds of a setting are, beside what chance gives.
-- Inputs:  m (model), s (sae); matches, concepts, nulls.
-- Columns: seed_a, seed_b; stability (mean matched cosine); energy_weighted (mean over both directions); alive (without
--          concepts dead in either); floor_random, floor_random_sd, floor_matched, floor_matched_sd (means over both seeds).
-- Definition: DEFINITIONS "Stability".
CREATE MACRO stability(m, s) AS TABLE
WITH matched AS (
    SELECT matches.seed_a, matches.seed_b, matches.cosine, a.energy, NOT a.dead AND NOT b.dead AS alive
    FROM matches
    JOIN concepts AS a
        ON a.model = matches.model AND a.sae = matches.sae_a AND a.seed = matches.seed_a AND a.concept_id = matches.concept_a
    JOIN concepts AS b
        ON b.model = matches.model AND b.sae = matches.sae_b AND b.seed = matches.seed_b AND b.concept_id = matches.concept_b
    WHERE matches.model = m AND matches.sae_a = s AND matches.sae_b = s
),
directed AS (
    SELECT
        seed_a, seed_b, avg(cosine) AS stability,
        sum(cosine * energy) / nullif(sum(energy), 0) AS energy_weighted,
        avg(cosine) FILTER (alive) AS alive
    FROM matched
    GROUP BY seed_a, seed_b
),
floor_of AS (
    SELECT
        seed,
        max(mean) FILTER ("null" = 'floor_random') AS random, max(sd) FILTER ("null" = 'floor_random') AS random_sd,
        max(mean) FILTER ("null" = 'floor_matched') AS matched, max(sd) FILTER ("null" = 'floor_matched') AS matched_sd
    FROM nulls
    WHERE model = m AND sae = s AND statistic = 'stability'
    GROUP BY seed
)
SELECT
    ab.seed_a, ab.seed_b, ab.stability,
    (ab.energy_weighted + ba.energy_weighted) / 2 AS energy_weighted,
    ab.alive,
    (fa.random + fb.random) / 2 AS floor_random, (fa.random_sd + fb.random_sd) / 2 AS floor_random_sd,
    (fa.matched + fb.matched) / 2 AS floor_matched, (fa.matched_sd + fb.matched_sd) / 2 AS floor_matched_sd
FROM directed AS ab
JOIN directed AS ba ON ba.seed_a = ab.seed_b AND ba.seed_b = ab.seed_a
JOIN floor_of AS fa ON fa.seed = ab.seed_a
JOIN floor_of AS fb ON fb.seed = ab.seed_b
WHERE ab.seed_a < ab.seed_b
ORDER BY ab.seed_a, ab.seed_b;
