-- Purpose: the items of both splits with the highest activations of one concept.
-- Inputs:  m (model), s (sae), seed, concept, modality ('image' or 'text'), n (number of rows); activations, images, pairs.
-- Columns: item_id; activation; image_id (of the image, or of the caption's image); source_key; caption (NULL for an image);
--          split.
CREATE MACRO top_items(m, s, seed, concept, modality, n) AS TABLE
WITH top AS (
    SELECT activations.item_id, activations.activation
    FROM activations
    WHERE activations.model = m AND activations.sae = s AND activations.seed = seed
        AND activations.modality = modality AND activations.concept_id = concept
    ORDER BY activations.activation DESC, activations.item_id
    LIMIT n
)
SELECT
    top.item_id, top.activation,
    coalesce(images.image_id, pairs.image_id) AS image_id,
    coalesce(images.source_key, pairs.source_key) AS source_key,
    pairs.caption,
    coalesce(images.split, pairs.split) AS split
FROM top
LEFT JOIN images ON modality = 'image' AND images.image_id = top.item_id
LEFT JOIN pairs ON modality = 'text' AND pairs.pair_id = top.item_id
ORDER BY top.activation DESC, top.item_id;
