-- Purpose: the codes (activations) of one SAE on the shown items of one modality. In a large study, items that are not
--          among the top items of any concept of this SAE are left out.
-- Inputs:  activations, shown_images, explorer_top, images, pairs; $model, $sae, $seed, $modality, $small (number of images
--          above which a study is large).
-- Columns: block (number of the data file that holds the item); item_id; concept_id; activation. Ordered by block and
--          item, then by falling activation.
SELECT s.block, a.item_id, a.concept_id, a.activation
FROM activations AS a
JOIN (
    SELECT image_id AS item_id, block FROM shown_images WHERE $modality = 'image'
    UNION ALL
    SELECT pairs.pair_id, block FROM shown_images JOIN pairs USING (image_id) WHERE $modality = 'text'
) AS s USING (item_id)
WHERE a.model = $model AND a.sae = $sae AND a.seed = $seed AND a.modality = $modality
    AND (
        (SELECT count(*) FROM images) <= $small
        OR a.item_id IN (
            SELECT t.item_id FROM explorer_top AS t
            WHERE t.model = $model AND t.sae = $sae AND t.seed = $seed AND t.modality = $modality
        )
    )
ORDER BY s.block, a.item_id, a.activation DESC, a.concept_id
