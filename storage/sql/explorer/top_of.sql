-- Purpose: the top items of one SAE, ordered by modality and concept, then by falling activation.
-- Inputs:  explorer_top; $model, $sae, $seed.
-- Columns: modality; concept_id; item_id; activation.
SELECT t.modality, t.concept_id, t.item_id, t.activation
FROM explorer_top AS t
WHERE t.model = $model AND t.sae = $sae AND t.seed = $seed AND t.level IS NULL
ORDER BY t.modality, t.concept_id, t.activation DESC, t.item_id
