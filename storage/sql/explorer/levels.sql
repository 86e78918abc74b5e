-- Purpose: items of the concepts of one SAE at levels of their activation below the top items, the highest level first.
-- Inputs:  explorer_top; $model, $sae, $seed.
-- Columns: concept_id; level (see explorer/top.sql); modality; item_id; activation.
SELECT t.concept_id, t.level, t.modality, t.item_id, t.activation
FROM explorer_top AS t
WHERE t.model = $model AND t.sae = $sae AND t.seed = $seed AND t.level IS NOT NULL
ORDER BY t.concept_id, t.level DESC, t.modality, t.activation DESC, t.item_id
