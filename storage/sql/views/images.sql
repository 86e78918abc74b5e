-- Purpose: every image that came through, and its side of the split.
-- Inputs:  pair shards; $heldout, the share of groups held out.
-- Columns: image_id; source_key (the source's own name); group_key (one group stays on one side); width, height (pixels,
--          NULL without a picture); sha256 (of the bytes as they came); split_u (uniform number of the group);
--          split ('heldout' when split_u < heldout, else 'train').
CREATE VIEW images AS
SELECT
    image_id, source_key, group_key, width, height, sha256, split_u,
    CASE WHEN split_u < $heldout THEN 'heldout' ELSE 'train' END AS split
FROM read_parquet($images)
WHERE error IS NULL;
