-- Purpose: the items of the source that are not in the study, each with its cause.
-- Inputs:  the run's ledger; failures.parquet of the checks of embeddings, where there are such files.
-- Columns: source_key; shard (NULL when the item has none); cause (a fixed phrase, so that items can be counted by
--          cause); detail.
-- Notes:   an image that was acquired and not embedded has one row, unless models differ in its cause or detail.
CREATE VIEW ledger AS
SELECT source_key, shard, cause, detail
FROM read_parquet($ledger, hive_partitioning = false)
UNION ALL
SELECT DISTINCT source_key, shard, cause, detail
FROM read_parquet($failures, hive_partitioning = false)
WHERE $failed > 0;
