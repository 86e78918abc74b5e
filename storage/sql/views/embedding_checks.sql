-- Purpose: checks of the embeddings of every model and shard, for both modalities.
-- Inputs:  checks.parquet of the shards of one model.
-- Columns: model; shard (number of the shard: a part of the pairs that is embedded at once); modality ('image' or
--          'text': the rows that are described); rows (number of rows of this modality in the shard); failed (number of
--          images that could not be read, and therefore have no embedding); nan (number of rows that have no embedding
--          although they did not fail: 0 in sound embeddings); norm_min, norm_mean, norm_max (smallest, mean and
--          largest length of the rows as they are stored); equal_share (share of the rows that equal another row of the
--          shard, bit by bit); images_with_captions (number of images that have captions); matched (how similar these
--          images are to their own captions: mean cosine); shuffled (how similar they are to the captions of another
--          image of the shard: mean cosine); difference (how much nearer an image is to its own caption than to
--          another; matched minus shuffled); difference_low, difference_high (bounds of the 95 % interval of the
--          difference: normal, over images).
-- Definition: docs/definitions.md, "Checks of embeddings".
-- Notes:   images_with_captions and the columns after it describe the whole shard, so they are the same for both
--          modalities. They are NULL with fewer than two images that have captions. The catalog joins one such SELECT
--          per model by UNION ALL.
SELECT
    $model AS model, shard, modality, rows, failed, nan, norm_min, norm_mean, norm_max, equal_share,
    images_with_captions, matched, shuffled, difference, difference_low, difference_high
FROM read_parquet($files, hive_partitioning = false)
