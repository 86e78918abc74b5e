-- Purpose: the codes of one SAE on the items of one modality; on a fixed sample of them where there are many.
-- Inputs:  activations; $model, $sae, $seed, $modality, $most (maximum number of items).
-- Columns: item_id; concept_id; activation.
WITH sample AS (
    SELECT item_id
    FROM (
        SELECT DISTINCT a.item_id FROM activations AS a
        WHERE a.model = $model AND a.sae = $sae AND a.seed = $seed AND a.modality = $modality
    )
    ORDER BY hash(item_id), item_id
    LIMIT $most
)
SELECT a.item_id, a.concept_id, a.activation
FROM activations AS a
SEMI JOIN sample ON sample.item_id = a.item_id
WHERE a.model = $model AND a.sae = $sae AND a.seed = $seed AND a.modality = $modality
ORDER BY a.item_id, a.concept_id
