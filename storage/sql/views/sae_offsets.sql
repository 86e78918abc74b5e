-- Purpose: what every SAE adds to the decoded code of an item: its bias and, with per-modality centring, a mean.
-- Inputs:  offsets.parquet of one SAE.
-- Columns: model, sae, seed; modality ('image' or 'text': the items to which the row applies); bias (the d numbers of the decoder bias b, the same for both
--          modalities, 0 without a decoder bias); mean (the d numbers of the training mean of the modality, which is
--          subtracted before encoding; NULL without per-modality centring).
-- Notes:   the catalog joins one such SELECT per SAE by UNION ALL.
SELECT $model AS model, $sae AS sae, $seed AS seed, file.modality, file.bias, file.mean
FROM read_parquet($files, hive_partitioning = false) AS file
