-- Purpose: the sparse activations of every SAE.
-- Inputs:  activation files of one SAE, one per shard, sorted by (modality, concept_id, item_id).
-- Columns: model, sae, seed; modality (whether the item is an image, 'image', or a caption, 'text'); item_id (number of the image, image_id, or of
--          the caption, pair_id); concept_id; activation (how strongly the concept fires on the item, always above 0;
--          items on which it does not fire have no row; z).
-- Notes:   the catalog joins one such SELECT per SAE by UNION ALL. model, sae and seed are constants in each SELECT, so
--          a query that filters by them opens only the files of one SAE. Every column is written with the name of its
--          table. Otherwise a macro with a parameter `modality`, such as top_items, would use this parameter in place
--          of the column.
SELECT
    $model AS model, $sae AS sae, $seed AS seed,
    file.modality, file.item_id, file.concept_id, file.activation
FROM read_parquet($files, hive_partitioning = false) AS file
