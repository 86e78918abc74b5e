-- Purpose: all concepts of one SAE, in the order of concept_id.
-- Inputs:  concepts; $model, $sae, $seed.
-- Columns: concept_id; the columns of concepts that the explorer shows. name is '' where a concept has no name.
SELECT
    concept_id, coalesce(name, '') AS name, name_score, name_score_low, name_chance, energy, energy_image, energy_text,
    rate_image, rate_text, firings, modality_score, modality_auc, direction_accuracy,
    align_mean_gap, align_logistic, align_lda, align_inlp, monosemanticity, stability
FROM concepts
WHERE model = $model AND sae = $sae AND seed = $seed
ORDER BY concept_id
