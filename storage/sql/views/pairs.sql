-- Purpose: every caption with its image. A caption is on its image's side of the split.
-- Inputs:  pair shards, the view images.
-- Columns: pair_id; image_id; caption (text of the caption); source_key (what the source itself calls the caption);
--          split (the side of the split of the caption's image: 'heldout' or 'train').
CREATE VIEW pairs AS
SELECT captions.pair_id, captions.image_id, captions.caption, captions.source_key, images.split
FROM read_parquet($captions, hive_partitioning = false) AS captions
JOIN images USING (image_id);
