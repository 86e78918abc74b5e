-- Purpose: the training curve of every SAE.
-- Inputs:  training.parquet of one SAE.
-- Columns: model, sae, seed; step (number of batches trained so far); epoch (how often the training has gone through
--          its rows so far); loss (what the training makes small: squared error of the reconstruction, and penalties
--          where the architecture has them; of the batches since the previous row of the curve, as r2 and l0); r2 (how
--          much of the differences between the drawn rows, with their noise, the reconstruction keeps: 1 is all); l0
--          (number of concepts that fire on a row, on average); dead_fraction (share of concepts that hardly fired in the last dead_after_epochs
--          epochs); rows_per_second (speed of the training).
-- Definition: docs/definitions.md, "Training curve".
-- Notes:   the catalog joins one such SELECT per SAE by UNION ALL.
SELECT $model AS model, $sae AS sae, $seed AS seed, step, epoch, loss, r2, l0, dead_fraction, rows_per_second
FROM read_parquet($files, hive_partitioning = false)
