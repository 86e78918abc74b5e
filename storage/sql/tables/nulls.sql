-- Purpose: the values that chance gives to every result, summarised over random draws.
-- Inputs:  floors (model, sae, seed, "null", draw, concept_id, cosine: the cosine of each concept of a dictionary with
--          its match among randomly drawn rows), concepts; null_draws (model, sae, seed, statistic, "null", draw,
--          value: results under a permutation); null_summaries (nulls that other code has already summarised, with the
--          columns of this table).
-- Columns: model, sae, seed;
--          statistic (for floors: 'stability'; 'stability_energy_weighted'; 'stability_alive' (of the concepts that
--          fire on a training row); 'stability_top_<K>' (of the K most energetic concepts, K = 1, 2, 4 ... and the
--          width); 'stability_share_<P>' (of the fewest concepts that hold P % of the energy); 'stability_rare' (of the
--          least energetic half of the concepts that fire on a training row); 'stability_common_over_rare'
--          ('stability_share_50' minus 'stability_rare'). For all other nulls: the name of the result);
--          "null" (how chance is made: 'floor_random', dictionaries of random directions; 'floor_matched', dictionaries with
--          the mean and covariance of the SAE's own; or the name of what is permuted); mean (value of the statistic by
--          chance, mean over the draws); sd (how much the draws differ: their standard deviation, which divides by n -
--          1); q025, q975 (bounds between which 95 % of the draws lie: their 2.5 % and 97.5 % quantiles); draws (number
--          of draws; 0 if the values have a closed form).
-- Definition: docs/definitions.md, "Nulls", "Floors of stability". All concepts are matched first. A statistic over
--          some of the concepts then uses only the matches of these concepts.
WITH run AS (
    SELECT
        floors.*, concepts.energy, concepts.dead,
        row_number() OVER ranking AS rank,
        sum(concepts.energy) OVER ranking AS energy_so_far,
        avg(cosine::DOUBLE) OVER ranking AS mean_so_far,
        sum(concepts.energy) OVER whole AS total,
        count(*) OVER whole AS width,
        NOT concepts.dead AND row_number() OVER of_life > count(*) FILTER (NOT concepts.dead) OVER whole // 2 AS rare
    FROM floors
    JOIN concepts USING (model, sae, seed, concept_id)
    WINDOW
        whole AS (PARTITION BY model, sae, seed, "null", draw),
        of_life AS (PARTITION BY model, sae, seed, "null", draw, dead ORDER BY concepts.energy DESC, concept_id),
        ranking AS (
            PARTITION BY model, sae, seed, "null", draw ORDER BY concepts.energy DESC, concept_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        )
),
by_share AS (
    SELECT model, sae, seed, "null", draw, percent, arg_min(mean_so_far, rank) AS value
    FROM run
    JOIN (SELECT unnest(range(10, 101, 10)) AS percent) AS shares
        ON energy_so_far >= total * percent / 100 * (1 - 1e-12) AND total > 0
    GROUP BY model, sae, seed, "null", draw, percent
),
whole_run AS (
    SELECT
        model, sae, seed, "null", draw,
        avg(cosine::DOUBLE) AS plain,
        sum(cosine * energy) / nullif(sum(energy), 0) AS weighted,
        avg(cosine::DOUBLE) FILTER (NOT dead) AS alive,
        avg(cosine::DOUBLE) FILTER (rare) AS rare
    FROM run
    GROUP BY model, sae, seed, "null", draw
),
drawn AS (
    SELECT model, sae, seed, "null", draw, 'stability' AS statistic, plain AS value FROM whole_run
    UNION ALL
    SELECT model, sae, seed, "null", draw, 'stability_energy_weighted', weighted FROM whole_run
    UNION ALL
    SELECT model, sae, seed, "null", draw, 'stability_alive', alive FROM whole_run
    UNION ALL
    SELECT model, sae, seed, "null", draw, 'stability_rare', rare FROM whole_run
    UNION ALL
    SELECT model, sae, seed, "null", draw, 'stability_top_' || rank, mean_so_far FROM run
    WHERE rank = width OR rank = 2 ** round(log2(rank))
    UNION ALL
    SELECT model, sae, seed, "null", draw, 'stability_share_' || percent, value FROM by_share
    UNION ALL
    SELECT model, sae, seed, "null", draw, 'stability_common_over_rare', by_share.value - rare
    FROM by_share JOIN whole_run USING (model, sae, seed, "null", draw)
    WHERE percent = 50
    UNION ALL
    SELECT model, sae, seed, "null", draw, statistic, value FROM null_draws
)
SELECT
    model, sae, seed, statistic, "null",
    avg(value) AS mean, stddev_samp(value) AS sd,
    quantile_cont(value, 0.025) AS q025, quantile_cont(value, 0.975) AS q975,
    count(*) AS draws
FROM drawn
WHERE NOT isnan(value)
GROUP BY model, sae, seed, statistic, "null"
UNION ALL
SELECT model, sae, seed, statistic, "null", mean, sd, q025, q975, draws FROM null_summaries
ORDER BY model, sae, seed, statistic, "null"
