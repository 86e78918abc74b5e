-- Purpose: the items of the source that are not in the study, each with its cause.
-- Inputs:  the run's ledger; failures.parquet of the checks of embeddings, where there are such files.
-- Columns: source_key (what the source itself calls the item); shard (number of the shard that the item is listed in,
--          NULL when it is in none); cause (why the item is not in the study: a fixed phrase, so that items can be
--          counted by cause); detail (what else is known of the failure).
-- Notes:   an image that was acquired and not embedded has one row, unless models differ in its cause or detail.
CREATE VIEW ledger AS
SELECT source_key, shard, cause, detail
FROM read_parquet($ledger, hive_partitioning = false)
UNION ALL
SELECT DISTINCT source_key, shard, cause, detail
FROM read_parquet($failures, hive_partitioning = false)
WHERE $failed > 0;
