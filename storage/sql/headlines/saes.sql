-- Purpose: headline results per model and SAE setting: means over the seeds.
-- Inputs:  saes, concepts.
-- Columns: model, sae; seeds (number of seeds); r2_image, r2_text, l0; k; dead (share of dead concepts); unimodal
--          (share of unimodal concepts among the counted concepts of all seeds; NULL if no concept is counted).
WITH shares AS (
    SELECT
        model, sae,
        avg(is_unimodal(modality_score)::INTEGER) FILTER (is_counted(firings, modality_score)) AS unimodal
    FROM concepts
    GROUP BY model, sae
)
SELECT
    model, sae, count(*) AS seeds, avg(r2_image) AS r2_image, avg(r2_text) AS r2_text, avg(l0) AS l0,
    any_value(k) AS k, avg(dead_fraction) AS dead, any_value(unimodal) AS unimodal
FROM saes
JOIN shares USING (model, sae)
GROUP BY model, sae
ORDER BY model, sae
