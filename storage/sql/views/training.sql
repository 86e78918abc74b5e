-- Purpose: the training curve of one SAE; the catalog puts one such SELECT an SAE together.
-- Inputs:  training.parquet of one SAE.
-- Columns: model, sae, seed; step, epoch; loss, r2, l0 (of the batches since the last row); dead_fraction (concepts silent
--          for the dead window); rows_per_second.
SELECT $model AS model, $sae AS sae, $seed AS seed, step, epoch, loss, r2, l0, dead_fraction, rows_per_second
FROM read_parquet($files)
