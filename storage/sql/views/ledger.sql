-- Purpose: the items of the source that are not in the study, each with its cause.
-- Inputs:  the run's ledger.
-- Columns: source_key; shard (NULL when the item has none); cause (a fixed phrase, so that items can be counted by
--          cause); detail.
CREATE VIEW ledger AS
SELECT source_key, shard, cause, detail
FROM read_parquet($ledger, hive_partitioning = false);
