-- Purpose: number of counted images and captions in each of the 20 groups that the jackknife omits one by one.
-- Inputs:  images, pairs; $split ('heldout', 'train' or 'all').
-- Columns: jackknife_group (0 to 19); images, texts (counted items; a caption is in the group of its image).
-- Definition: docs/definitions.md, "Uncertainty of per-concept sums". The jackknife group is made of the low bits of
--          split_u, a hash of the item's group key. The split depends on the high bits, so the low bits are uniform in
--          both splits.
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
