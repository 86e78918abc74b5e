-- Purpose: the dictionary of every SAE: the direction of each concept in the embedding space.
-- Inputs:  atoms.parquet of one SAE.
-- Columns: model, sae, seed; concept_id (number of the concept in its SAE, from 0); direction (the d numbers of D_i, of
--          norm 1; the norms of an imported SAE's atoms are part of its activations).
-- Notes:   the catalog joins one such SELECT per SAE by UNION ALL. The cosine of two concepts is
--          list_dot_product(a.direction, b.direction).
SELECT $model AS model, $sae AS sae, $seed AS seed, file.concept_id, file.direction
FROM read_parquet($files, hive_partitioning = false) AS file
