-- Purpose: how well concepts find their partners in another seed, within a modality and across modalities, on one
--          footing: where the result lies between chance (0) and what two seeds reach within a modality (1).
-- Inputs:  m (model), s (sae); partners, partner_floors, concepts.
-- Columns: seed_a, seed_b, modality_a, modality_b (as in partners); correlation (of concepts with their partners, over all
--          counted items), match_confidence, one_to_one (correlation in the one-to-one assignment); ceiling (of
--          modality_a in both seeds), figure (of modality_a and modality_b), floor (the same with permuted images, mean
--          over the draws), floor_sd, floor_high (97.5 % point of the draws), all four on the same items; place =
--          (figure - floor) / (ceiling - floor). All are means over the concepts of seed_a, weighted by their energy in
--          modality_a.
-- Definition: docs/definitions.md, "Partners".
CREATE MACRO partner_summary(m, s) AS TABLE
WITH weighted AS (
    SELECT p.*, CASE p.modality_a WHEN 'image' THEN c.energy_image ELSE c.energy_text END AS energy
    FROM partners AS p
    JOIN concepts AS c
        ON c.model = p.model AND c.sae = p.sae AND c.seed = p.seed_a AND c.concept_id = p.concept_a
    WHERE p.model = m AND p.sae = s
),
figures AS (
    SELECT
        seed_a, seed_b, modality_a, modality_b,
        sum(correlation * energy) / nullif(sum(energy) FILTER (correlation IS NOT NULL), 0) AS correlation,
        sum(match_confidence * energy) / nullif(sum(energy) FILTER (match_confidence IS NOT NULL), 0)
            AS match_confidence,
        sum(assigned_correlation * energy) / nullif(sum(energy) FILTER (assigned_correlation IS NOT NULL), 0)
            AS one_to_one,
        sum(sampled_correlation * energy) / nullif(sum(energy) FILTER (sampled_correlation IS NOT NULL), 0) AS figure
    FROM weighted
    GROUP BY ALL
),
drawn AS (
    SELECT
        seed_a, seed_b, modality_a, modality_b, avg(value) AS floor, stddev_samp(value) AS floor_sd,
        quantile_cont(value, 0.975) AS floor_high
    FROM partner_floors
    WHERE model = m AND sae = s
    GROUP BY ALL
)
SELECT
    f.seed_a, f.seed_b, f.modality_a, f.modality_b, f.correlation, f.match_confidence, f.one_to_one,
    c.figure AS ceiling, f.figure, d.floor, d.floor_sd, d.floor_high,
    (f.figure - d.floor) / nullif(c.figure - d.floor, 0) AS place
FROM figures AS f
JOIN figures AS c
    ON c.seed_a = f.seed_a AND c.seed_b = f.seed_b AND c.modality_a = f.modality_a AND c.modality_b = f.modality_a
JOIN drawn AS d
    ON d.seed_a = f.seed_a AND d.seed_b = f.seed_b AND d.modality_a = f.modality_a AND d.modality_b = f.modality_b
ORDER BY f.seed_a, f.seed_b, f.modality_a, f.modality_b;
