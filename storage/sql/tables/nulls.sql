-- Purpose: what chance gives for every stability figure, from the draws of both floors.
-- Inputs:  floors (model, sae, seed, "null", draw, concept_id, cosine: the matched cosine of each concept of a dictionary
--          against drawn rows), concepts.
-- Columns: model, sae, seed; statistic ('stability', 'stability_energy_weighted', 'stability_top_<K>' for K = 1, 2, 4 ...
--          and the width); "null" ('floor_random' or 'floor_matched'); mean, sd, q025, q975 over the draws; draws.
-- Definition: DEFINITIONS "Stability".
WITH ranked AS (
    SELECT
        floors.*, concepts.energy,
        row_number() OVER (PARTITION BY model, sae, seed, "null", draw ORDER BY concepts.energy DESC, concept_id) AS rank,
        count(*) OVER (PARTITION BY model, sae, seed, "null", draw) AS width
    FROM floors
    JOIN concepts USING (model, sae, seed, concept_id)
),
tops AS (
    SELECT DISTINCT width, unnest(list_distinct([least(2 ** i, width) FOR i IN range(25)]))::BIGINT AS k
    FROM ranked
),
drawn AS (
    SELECT model, sae, seed, "null", draw, 'stability' AS statistic, avg(cosine) AS value
    FROM ranked GROUP BY ALL
    UNION ALL
    SELECT model, sae, seed, "null", draw, 'stability_energy_weighted', sum(cosine * energy) / nullif(sum(energy), 0)
    FROM ranked GROUP BY ALL
    UNION ALL
    SELECT model, sae, seed, "null", draw, 'stability_top_' || k, avg(cosine)
    FROM ranked JOIN tops ON tops.width = ranked.width AND ranked.rank <= tops.k
    GROUP BY model, sae, seed, "null", draw, k
)
SELECT
    model, sae, seed, statistic, "null",
    avg(value) AS mean, stddev_samp(value) AS sd,
    quantile_cont(value, 0.025) AS q025, quantile_cont(value, 0.975) AS q975,
    count(*) AS draws
FROM drawn
GROUP BY ALL
ORDER BY model, sae, seed, statistic, "null"
