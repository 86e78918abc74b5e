-- Purpose: the row of every acquired item in the embeddings of its shard, which is the same for all models.
-- Inputs:  pair shards.
-- Columns: modality ('image' or 'text': what the item is); item_id (number of the item: the image_id of an image, the
--          pair_id of a caption); shard (number of the shard of pairs, item_id // 2^20); place (number of the row in the
--          shard, from 0: it lies in the chunk place // 1024 of embedding_chunks).
CREATE VIEW embedding_rows AS
SELECT 'image' AS modality, image_id AS item_id, image_id >> 20 AS shard, file_row_number AS place
FROM read_parquet($images, hive_partitioning = false, file_row_number = true)
WHERE error IS NULL
UNION ALL
SELECT 'text', pair_id, pair_id >> 20, file_row_number
FROM read_parquet($captions, hive_partitioning = false, file_row_number = true);
