-- Purpose: for each data diet of a setting, the stability between the SAEs of the setting and the SAEs of the diet, and
--          its floors. A data diet is the same setting trained on other data: another share of images, or half of the
--          images. A floor is the stability that chance reaches.
-- Inputs:  m (model), s (a setting or a data diet: a setting is compared with each of its diets, a diet with its
--          setting and with the other diets); matches, concepts, nulls.
-- Columns: diet (the other setting); same_seed (the two SAEs have the same seed: they share their initialisation, which
--          raises their stability independently of the data); pairs (number of pairs of SAEs); stability (mean matched
--          cosine, averaged over the pairs), low, high (range over the pairs); energy_weighted (mean of two weighted
--          stabilities: one with the energies of SAE a, one with the energies of SAE b); alive (stability without
--          concepts that are dead in either SAE); floor_random, floor_random_sd, floor_matched, floor_matched_sd (means
--          over the seeds of both settings).
-- Definition: docs/definitions.md, "Data diets". The macro stability(m, s) compares the seeds of one setting s with
--          each other.
CREATE MACRO diet_stability(m, s) AS TABLE
WITH matched AS (
    SELECT
        matches.sae_b, matches.seed_a, matches.seed_b, matches.cosine,
        a.energy AS energy_a, b.energy AS energy_b, NOT a.dead AND NOT b.dead AS alive
    FROM matches
    JOIN concepts AS a
        ON a.model = matches.model AND a.sae = matches.sae_a AND a.seed = matches.seed_a AND a.concept_id = matches.concept_a
    JOIN concepts AS b
        ON b.model = matches.model AND b.sae = matches.sae_b AND b.seed = matches.seed_b AND b.concept_id = matches.concept_b
    WHERE matches.model = m AND matches.sae_a = s AND matches.sae_b <> s
),
runs AS (
    SELECT
        sae_b AS diet, seed_a, seed_b, avg(cosine::DOUBLE) AS stability,
        (
            sum(cosine * energy_a) / nullif(sum(energy_a), 0) + sum(cosine * energy_b) / nullif(sum(energy_b), 0)
        ) / 2 AS energy_weighted,
        avg(cosine::DOUBLE) FILTER (alive) AS alive
    FROM matched
    GROUP BY sae_b, seed_a, seed_b
),
floor_of AS (
    SELECT sae, "null", avg(mean) AS mean, avg(sd) AS sd
    FROM nulls
    WHERE model = m AND statistic = 'stability'
    GROUP BY sae, "null"
),
diets AS (
    SELECT
        diet, seed_a = seed_b AS same_seed, count(*) AS pairs,
        avg(stability) AS stability, min(stability) AS low, max(stability) AS high,
        avg(energy_weighted) AS energy_weighted, avg(alive) AS alive
    FROM runs
    GROUP BY diet, same_seed
)
SELECT
    d.diet, d.same_seed, any_value(d.pairs) AS pairs, any_value(d.stability) AS stability,
    any_value(d.low) AS low, any_value(d.high) AS high,
    any_value(d.energy_weighted) AS energy_weighted, any_value(d.alive) AS alive,
    avg(f.mean) FILTER (f."null" = 'floor_random') AS floor_random,
    avg(f.sd) FILTER (f."null" = 'floor_random') AS floor_random_sd,
    avg(f.mean) FILTER (f."null" = 'floor_matched') AS floor_matched,
    avg(f.sd) FILTER (f."null" = 'floor_matched') AS floor_matched_sd
FROM diets AS d
JOIN floor_of AS f ON f.sae IN (s, d.diet)
GROUP BY d.diet, d.same_seed
ORDER BY d.diet, d.same_seed;
