-- Purpose: find invalid activations: those that are not finite numbers above 0. Shows the first file that has any.
-- Inputs:  $files (activation files).
-- Columns: filename; rows (number of such activations in the file); concept_id, item_id, activation (of the first of them).
--          No row when all activations are valid.
SELECT
    filename, count(*) AS rows,
    arg_min(concept_id, (concept_id, item_id)) AS concept_id, arg_min(item_id, (concept_id, item_id)) AS item_id,
    arg_min(activation, (concept_id, item_id)) AS activation
FROM read_parquet($files, filename = true)
WHERE activation IS NULL OR NOT isfinite(activation) OR activation <= 0
GROUP BY filename
ORDER BY filename
LIMIT 1
