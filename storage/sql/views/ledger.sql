-- Purpose: the items of the source that are not in the study, and the cause.
-- Inputs:  the run's ledger.
-- Columns: source_key; shard (NULL when the item has none); cause (a fixed phrase to count by); detail.
CREATE VIEW ledger AS
SELECT source_key, shard, cause, detail
FROM read_parquet($ledger, hive_partitioning = false);
