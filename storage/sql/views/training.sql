-- Purpose: the training curve of every SAE.
-- Inputs:  training.parquet of one SAE.
-- Columns: model, sae, seed; step, epoch; loss, r2, l0 (of the batches since the previous row of the curve);
--          dead_fraction (share of concepts that did not fire in the last dead_after_epochs epochs); rows_per_second.
-- Definition: docs/definitions.md, "Training curve".
-- Notes:   the catalog joins one such SELECT per SAE by UNION ALL.
SELECT $model AS model, $sae AS sae, $seed AS seed, step, epoch, loss, r2, l0, dead_fraction, rows_per_second
FROM read_parquet($files, hive_partitioning = false)
