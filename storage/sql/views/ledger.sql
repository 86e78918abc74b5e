-- Purpose: what the source holds and the study did not get, and why.
-- Inputs:  the run's ledger.
-- Columns: source_key; shard (NULL when it was never given one); cause (a fixed phrase to count by); detail.
CREATE VIEW ledger AS
SELECT source_key, shard, cause, detail
FROM read_parquet($ledger);
