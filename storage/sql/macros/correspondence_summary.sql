-- Purpose: how well the concepts of one model find their partners in another model, and where this lies between chance
--          (0) and what two seeds of one model reach (1).
-- Inputs:  s (sae); correspondence, correspondence_floors, partners, concepts.
-- Columns: model_a, model_b, seed, modality (as in correspondence); correlation (of concepts with their partners, over all
--          counted items), match_confidence, one_to_one (correlation in the one-to-one assignment); ceiling (of the
--          same concepts with their partners in the other seeds of model_a; NULL with one seed), figure (with their
--          partners in model_b), floor (the same with permuted images, mean over the draws), floor_sd, floor_high (97.5 %
--          point of the draws), all four on the same items unless a model could not embed one of them; place = (figure -
--          floor) / (ceiling - floor). All are means over the concepts of model_a, weighted by their energy in the
--          modality.
-- Definition: docs/definitions.md, "Correspondence".
CREATE MACRO correspondence_summary(s) AS TABLE
WITH energies AS (
    SELECT model, seed, concept_id, 'image' AS modality, energy_image AS energy FROM concepts WHERE sae = s
    UNION ALL
    SELECT model, seed, concept_id, 'text', energy_text FROM concepts WHERE sae = s
),
figures AS (
    SELECT
        c.model_a, c.model_b, c.seed, c.modality_a AS modality,
        sum(correlation * energy) / nullif(sum(energy) FILTER (correlation IS NOT NULL), 0) AS correlation,
        sum(match_confidence * energy) / nullif(sum(energy) FILTER (match_confidence IS NOT NULL), 0)
            AS match_confidence,
        sum(assigned_correlation * energy) / nullif(sum(energy) FILTER (assigned_correlation IS NOT NULL), 0)
            AS one_to_one,
        sum(sampled_correlation * energy) / nullif(sum(energy) FILTER (sampled_correlation IS NOT NULL), 0) AS figure
    FROM correspondence AS c
    JOIN energies AS e
        ON e.model = c.model_a AND e.seed = c.seed AND e.concept_id = c.concept_a AND e.modality = c.modality_a
    WHERE c.sae = s
    GROUP BY ALL
),
ceilings AS (
    SELECT
        p.model, p.seed_a AS seed, p.modality_a AS modality,
        sum(sampled_correlation * energy) / nullif(sum(energy) FILTER (sampled_correlation IS NOT NULL), 0) AS ceiling
    FROM partners AS p
    JOIN energies AS e
        ON e.model = p.model AND e.seed = p.seed_a AND e.concept_id = p.concept_a AND e.modality = p.modality_a
    WHERE p.sae = s AND p.modality_a = p.modality_b
    GROUP BY ALL
),
drawn AS (
    SELECT
        model_a, model_b, seed, modality_a AS modality, avg(value) AS floor, stddev_samp(value) AS floor_sd,
        quantile_cont(value, 0.975) AS floor_high
    FROM correspondence_floors
    WHERE sae = s
    GROUP BY ALL
)
SELECT
    f.model_a, f.model_b, f.seed, f.modality, f.correlation, f.match_confidence, f.one_to_one,
    c.ceiling, f.figure, d.floor, d.floor_sd, d.floor_high,
    (f.figure - d.floor) / nullif(c.ceiling - d.floor, 0) AS place
FROM figures AS f
JOIN drawn AS d USING (model_a, model_b, seed, modality)
LEFT JOIN ceilings AS c ON c.model = f.model_a AND c.seed = f.seed AND c.modality = f.modality
ORDER BY f.model_a, f.model_b, f.seed, f.modality;
