-- Purpose: the codes of one SAE. Each code has the attributes of its item that the statistics use. All statistics read
--          this table.
-- Inputs:  activations, images, pairs; $model, $sae, $seed; $split ('heldout', 'train' or 'all').
-- Columns: is_image; item_id; concept_id; activation; jackknife_group (as in group_sizes); counted (the item is in $split);
--          training (the item is in the training split).
WITH of_images AS (
    SELECT
        image_id, (floor(split_u * 2 ** 40)::BIGINT % 20)::UTINYINT AS jackknife_group,
        $split = 'all' OR split = $split AS counted, split = 'train' AS training
    FROM images
),
of_texts AS (
    SELECT pair_id, jackknife_group, counted, training FROM pairs JOIN of_images USING (image_id)
)
SELECT true AS is_image, a.item_id, a.concept_id, a.activation, i.jackknife_group, i.counted, i.training
FROM activations AS a
JOIN of_images AS i ON i.image_id = a.item_id
WHERE a.model = $model AND a.sae = $sae AND a.seed = $seed AND a.modality = 'image'
UNION ALL
SELECT false, a.item_id, a.concept_id, a.activation, t.jackknife_group, t.counted, t.training
FROM activations AS a
JOIN of_texts AS t ON t.pair_id = a.item_id
WHERE a.model = $model AND a.sae = $sae AND a.seed = $seed AND a.modality = 'text'
