-- Purpose: the sparse activations of one SAE; the catalog puts one such SELECT an SAE together.
--          Constants, so that a query that names model, sae and seed opens that SAE's files only. Columns are qualified,
--          or DuckDB takes the macro parameter `modality` for the column inside this view.
-- Inputs:  activation files of one SAE, one a shard, sorted by (modality, concept_id, item_id).
-- Columns: model, sae, seed; modality ('image' or 'text'); item_id (image_id or pair_id); concept_id; activation (> 0).
SELECT
    $model AS model, $sae AS sae, $seed AS seed,
    file.modality, file.item_id, file.concept_id, file.activation
FROM read_parquet($files) AS file
