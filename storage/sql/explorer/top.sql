-- Purpose: the items on which each concept of one SAE fires most, images and captions apart, of both splits.
-- Inputs:  activations; $model, $sae, $seed, $n (items of a modality at most).
-- Columns: model, sae, seed; modality; concept_id; item_id; activation.
SELECT a.model, a.sae, a.seed, a.modality, a.concept_id, a.item_id, a.activation
FROM activations AS a
WHERE a.model = $model AND a.sae = $sae AND a.seed = $seed
QUALIFY row_number() OVER (PARTITION BY a.modality, a.concept_id ORDER BY a.activation DESC, a.item_id) <= $n
