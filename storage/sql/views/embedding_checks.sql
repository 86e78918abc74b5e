-- Purpose: checks of the embeddings of every model and shard, for both modalities.
-- Inputs:  checks.parquet of the shards of one model.
-- Columns: model, shard, modality ('image' or 'text'); rows; failed (images without an embedding, which are known to have
--          failed); nan (rows without an embedding that never failed: 0 in sound embeddings); norm_min, norm_mean, norm_max
--          (of the rows as stored); equal_share (share of the rows that equal another row of the shard, bit by bit).
--          The others are of the shard, the same for both modalities, and NULL with fewer than two images that have
--          captions: images_with_captions; matched (mean cosine of these images to their captions); shuffled (to the
--          captions of another image of the shard); difference (matched less shuffled), with its 95 % interval
--          difference_low, difference_high (normal, over images).
-- Notes:   the catalog joins one such SELECT per model by UNION ALL.
SELECT
    $model AS model, shard, modality, rows, failed, nan, norm_min, norm_mean, norm_max, equal_share,
    images_with_captions, matched, shuffled, difference, difference_low, difference_high
FROM read_parquet($files, hive_partitioning = false)
