-- Purpose: every firing of one SAE.
-- Inputs:  activations; $model, $sae, $seed.
-- Columns: concept_id; modality; item_id; activation. Ordered by concept, modality and item.
SELECT concept_id, modality, item_id, activation
FROM activations
WHERE model = $model AND sae = $sae AND seed = $seed
ORDER BY concept_id, modality, item_id
