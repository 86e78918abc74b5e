-- Purpose: the sparse activations of every SAE.
-- Inputs:  activation files of one SAE, one per shard, sorted by (modality, concept_id, item_id).
-- Columns: model, sae, seed; modality ('image' or 'text'); item_id (image_id or pair_id); concept_id; activation (> 0).
-- Notes:   the catalog joins one such SELECT per SAE by UNION ALL. model, sae and seed are constants, so that a query that
--          names them opens the files of that SAE only. Columns are qualified, since DuckDB would else take the macro
--          parameter `modality` for the column in this view.
SELECT
    $model AS model, $sae AS sae, $seed AS seed,
    file.modality, file.item_id, file.concept_id, file.activation
FROM read_parquet($files) AS file
