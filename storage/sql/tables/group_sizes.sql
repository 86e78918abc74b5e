-- Purpose: how many images and captions are counted, in each of the 20 groups that the jackknife leaves out one by one.
-- Inputs:  images, pairs; $split ('heldout', 'train' or 'all').
-- Columns: jackknife_group (0 to 19); images, texts (counted items of the group; captions go with their image).
-- Definition: DEFINITIONS "Uncertainty of per-concept sums". The group is taken from the low bits of split_u, a hash of
--             the item's group: its high bits decide the split, so that the low ones are even within either side.
WITH groups AS (
    SELECT unnest(range(20))::INTEGER AS jackknife_group
),
counted AS (
    SELECT image_id, (floor(split_u * 2 ** 40)::BIGINT % 20)::INTEGER AS jackknife_group
    FROM images
    WHERE $split = 'all' OR split = $split
),
counted_images AS (
    SELECT jackknife_group, count(*) AS images FROM counted GROUP BY jackknife_group
),
counted_texts AS (
    SELECT jackknife_group, count(*) AS texts FROM counted JOIN pairs USING (image_id) GROUP BY jackknife_group
)
SELECT jackknife_group, coalesce(images, 0) AS images, coalesce(texts, 0) AS texts
FROM groups
LEFT JOIN counted_images USING (jackknife_group)
LEFT JOIN counted_texts USING (jackknife_group)
ORDER BY jackknife_group
