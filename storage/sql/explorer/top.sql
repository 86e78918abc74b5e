-- Purpose: the top items of each concept of one SAE by activation, separate for images and captions, of both splits.
-- Inputs:  activations; $model, $sae, $seed, $n (maximum number of items per modality).
-- Columns: model, sae, seed; modality; concept_id; item_id; activation.
SELECT a.model, a.sae, a.seed, a.modality, a.concept_id, a.item_id, a.activation
FROM activations AS a
WHERE a.model = $model AND a.sae = $sae AND a.seed = $seed
QUALIFY row_number() OVER (PARTITION BY a.modality, a.concept_id ORDER BY a.activation DESC, a.item_id) <= $n
