-- Purpose: all concepts of one SAE, in the order of concept_id.
-- Inputs:  concepts, matches; $model, $sae, $seed.
-- Columns: concept_id; the columns of concepts that the explorer shows; stability (mean cosine to the matched
--          concepts in the other seeds of the same model and SAE, NULL with one seed).
SELECT
    c.concept_id, c.energy, c.energy_image, c.energy_text, c.rate_image, c.rate_text, c.firings,
    c.modality_score, c.modality_auc, c.direction_accuracy,
    c.align_mean_gap, c.align_logistic, c.align_lda, c.align_inlp, c.monosemanticity,
    m.stability
FROM concepts AS c
LEFT JOIN (
    SELECT concept_a, avg(cosine::DOUBLE) AS stability
    FROM matches
    WHERE model = $model AND sae_a = $sae AND sae_b = $sae AND seed_a = $seed
    GROUP BY concept_a
) AS m ON m.concept_a = c.concept_id
WHERE c.model = $model AND c.sae = $sae AND c.seed = $seed
ORDER BY c.concept_id
