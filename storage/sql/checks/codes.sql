-- Purpose: find invalid activations, which are not finite numbers above 0. Shows the first shard that has any.
-- Inputs:  codes (of one SAE); $shard_rows (the id of an item is: number of its shard x $shard_rows + its row).
-- Columns: shard; rows (number of invalid activations in the shard); concept_id, item_id, activation (the first).
--          No row when all activations are valid.
SELECT
    item_id // $shard_rows AS shard, count(*) AS rows,
    arg_min(concept_id, (concept_id, item_id)) AS concept_id, arg_min(item_id, (concept_id, item_id)) AS item_id,
    arg_min(activation, (concept_id, item_id)) AS activation
FROM codes
WHERE activation IS NULL OR NOT isfinite(activation) OR activation <= 0
GROUP BY shard
ORDER BY shard
LIMIT 1
