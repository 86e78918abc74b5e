-- Purpose: the original bytes of the images.
-- Inputs:  pair shards.
-- Columns: image_id; image (bytes of the picture file, as the source has them).
CREATE VIEW image_bytes AS
SELECT image_id, image
FROM read_parquet($images, hive_partitioning = false)
WHERE error IS NULL AND image IS NOT NULL;
