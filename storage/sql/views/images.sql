-- Purpose: every acquired image, and its side of the split.
-- Inputs:  pair shards; $heldout (share of the groups that are held out).
-- Columns: image_id; source_key (the source's own key); group_key (all images of a group are on the same side of the
--          split); width, height (pixels, NULL without a picture); sha256 (of the original bytes); split_u (hash of the
--          group, uniform from 0 to below 1); split ('heldout' when split_u < heldout, else 'train').
CREATE VIEW images AS
SELECT
    image_id, source_key, group_key, width, height, sha256, split_u,
    CASE WHEN split_u < $heldout THEN 'heldout' ELSE 'train' END AS split
FROM read_parquet($images, hive_partitioning = false)
WHERE error IS NULL;
