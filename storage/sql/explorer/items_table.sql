-- Purpose: one row per item that a model embedded, with its place, picture, caption and strongest concepts.
-- Inputs:  images, pairs, activations; the tables table_places (item_id, modality, projection_x, projection_y),
--          table_thumbs (image_id, path, bytes) and table_names (concept_id, name) of the program; $model, $sae, $seed
--          (of the SAE), $top (concepts per item).
-- Columns: item_id; modality; image_id (of the image, or of the caption's image); source_key; split; caption (of an
--          image, its first); image (bytes and path of the thumbnail; NULL for captions, and without a thumbnail);
--          projection_x, projection_y; top_concept (name of the concept with the highest activation); concepts (names,
--          in descending order of activation); concept_ids, activations (in the same order).
WITH top AS (
    SELECT
        modality, item_id,
        arg_max(concept_id, activation, $top) AS concept_ids,
        max(activation, $top) AS activations
    FROM activations
    WHERE model = $model AND sae = $sae AND seed = $seed
    GROUP BY modality, item_id
), firsts AS (
    SELECT image_id, arg_min(caption, pair_id) AS caption FROM pairs GROUP BY image_id
), items AS (
    SELECT image_id AS item_id, 'image' AS modality, image_id, source_key, split, caption
    FROM images
    LEFT JOIN firsts USING (image_id)
    UNION ALL
    SELECT pair_id, 'text', image_id, source_key, split, caption FROM pairs
), names AS (
    SELECT map(list(concept_id), list(name)) AS of_concept FROM table_names
)
SELECT
    item_id, modality, image_id, source_key, split, caption,
    CASE WHEN modality = 'image' AND bytes IS NOT NULL THEN {'bytes': bytes, 'path': path} END AS image,
    projection_x, projection_y,
    of_concept[concept_ids[1]] AS top_concept,
    list_transform(concept_ids, lambda c: of_concept[c]) AS concepts,
    concept_ids, activations
FROM items
JOIN table_places USING (item_id, modality)
LEFT JOIN top USING (item_id, modality)
LEFT JOIN table_thumbs USING (image_id)
CROSS JOIN names
ORDER BY modality, item_id
