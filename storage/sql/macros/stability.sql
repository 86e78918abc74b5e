-- Purpose: for each pair of seeds of a setting, the stability between the two seeds and its floors (the stability that
--          chance reaches).
-- Inputs:  m (model), s (sae); matches, concepts, nulls.
-- Columns: seed_a, seed_b; stability (mean matched cosine); energy_weighted (mean of two weighted stabilities: one with
--          the energies of seed_a, one with the energies of seed_b); alive (stability without concepts that are dead in
--          either seed); floor_random, floor_random_sd, floor_matched, floor_matched_sd (of stability, means over both
--          seeds); energy_weighted_floor_random ... alive_floor_matched_sd (the same four floors of energy_weighted and
--          of alive).
-- Definition: docs/definitions.md, "Stability".
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
        seed_a, seed_b, avg(cosine::DOUBLE) AS stability,
        sum(cosine * energy) / nullif(sum(energy), 0) AS energy_weighted,
        avg(cosine::DOUBLE) FILTER (alive) AS alive
    FROM matched
    GROUP BY seed_a, seed_b
),
pairs_of_seeds AS (
    SELECT
        ab.seed_a, ab.seed_b, ab.stability, (ab.energy_weighted + ba.energy_weighted) / 2 AS energy_weighted, ab.alive
    FROM directed AS ab
    JOIN directed AS ba ON ba.seed_a = ab.seed_b AND ba.seed_b = ab.seed_a
    WHERE ab.seed_a < ab.seed_b
)
SELECT
    p.seed_a, p.seed_b, any_value(p.stability) AS stability,
    any_value(p.energy_weighted) AS energy_weighted, any_value(p.alive) AS alive,
    avg(n.mean) FILTER (n.statistic = 'stability' AND n."null" = 'floor_random') AS floor_random,
    avg(n.sd) FILTER (n.statistic = 'stability' AND n."null" = 'floor_random') AS floor_random_sd,
    avg(n.mean) FILTER (n.statistic = 'stability' AND n."null" = 'floor_matched') AS floor_matched,
    avg(n.sd) FILTER (n.statistic = 'stability' AND n."null" = 'floor_matched') AS floor_matched_sd,
    avg(n.mean) FILTER (n.statistic = 'stability_energy_weighted' AND n."null" = 'floor_random')
        AS energy_weighted_floor_random,
    avg(n.sd) FILTER (n.statistic = 'stability_energy_weighted' AND n."null" = 'floor_random')
        AS energy_weighted_floor_random_sd,
    avg(n.mean) FILTER (n.statistic = 'stability_energy_weighted' AND n."null" = 'floor_matched')
        AS energy_weighted_floor_matched,
    avg(n.sd) FILTER (n.statistic = 'stability_energy_weighted' AND n."null" = 'floor_matched')
        AS energy_weighted_floor_matched_sd,
    avg(n.mean) FILTER (n.statistic = 'stability_alive' AND n."null" = 'floor_random') AS alive_floor_random,
    avg(n.sd) FILTER (n.statistic = 'stability_alive' AND n."null" = 'floor_random') AS alive_floor_random_sd,
    avg(n.mean) FILTER (n.statistic = 'stability_alive' AND n."null" = 'floor_matched') AS alive_floor_matched,
    avg(n.sd) FILTER (n.statistic = 'stability_alive' AND n."null" = 'floor_matched') AS alive_floor_matched_sd
FROM pairs_of_seeds AS p
JOIN nulls AS n ON n.model = m AND n.sae = s AND n.seed IN (p.seed_a, p.seed_b)
GROUP BY p.seed_a, p.seed_b
ORDER BY p.seed_a, p.seed_b;
