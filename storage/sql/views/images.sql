-- Purpose: every acquired image, and its side of the split.
-- Inputs:  pair shards; $heldout (share of the groups that are held out).
-- Columns: image_id; source_key (what the source itself calls the image); group_key (name of the image's group: all
--          images of a group are on the same side of the split); width, height (size in pixels, NULL without a
--          picture); sha256 (hash of the bytes of the picture file); split_u (hash of the group as a number from 0 to
--          below 1, uniform over groups); split (the image's side of the split: 'heldout' when split_u < heldout, else
--          'train').
CREATE VIEW images AS
SELECT
    image_id, source_key, group_key, width, height, sha256, split_u,
    CASE WHEN split_u < $heldout THEN 'heldout' ELSE 'train' END AS split
FROM read_parquet($images, hive_partitioning = false)
WHERE error IS NULL;
