-- Purpose: the codes of the items that the explorer shows, of one SAE and one modality.
-- Inputs:  activations, shown_images, pairs; $model, $sae, $seed, $modality.
-- Columns: block; item_id; concept_id; activation. An item's codes lie together, the largest first.
SELECT s.block, a.item_id, a.concept_id, a.activation
FROM activations AS a
JOIN (
    SELECT image_id AS item_id, block FROM shown_images WHERE $modality = 'image'
    UNION ALL
    SELECT pairs.pair_id, block FROM shown_images JOIN pairs USING (image_id) WHERE $modality = 'text'
) AS s USING (item_id)
WHERE a.model = $model AND a.sae = $sae AND a.seed = $seed AND a.modality = $modality
ORDER BY s.block, a.item_id, a.activation DESC, a.concept_id
