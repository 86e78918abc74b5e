-- Purpose: the concepts of the seeds from which each concept of a consensus SAE was made, one row per concept and seed.
-- Inputs:  consensus.parquet of one consensus SAE.
-- Columns: model, sae, seed, concept_id; of_sae (the setting whose seeds were
--          joined); of_seed (a seed that holds the concept); of_concept (the concept of that seed); cosine (of the
--          direction of that concept with the merged direction).
-- Definition: docs/definitions.md, "Consensus SAE".
-- Notes:   the catalog joins one such SELECT per consensus SAE by UNION ALL.
SELECT
    $model AS model, $sae AS sae, $seed AS seed, concept_id, regexp_replace($sae, '-consensus$', '') AS of_sae,
    of_seed, of_concept, cosine
FROM read_parquet($files, hive_partitioning = false)
