-- Purpose: the jackknife group of every image and caption, as the macro concept_shift counts it.
-- Inputs:  images, pairs.
-- Columns: is_text; item_id; jackknife_group. Ordered by is_text and item_id.
WITH grouped AS (
    SELECT image_id, (floor(split_u * 2 ** 40)::BIGINT % 20)::INTEGER AS jackknife_group FROM images
)
SELECT false AS is_text, image_id AS item_id, jackknife_group FROM grouped
UNION ALL
SELECT true, pairs.pair_id, jackknife_group FROM pairs JOIN grouped USING (image_id)
ORDER BY is_text, item_id
