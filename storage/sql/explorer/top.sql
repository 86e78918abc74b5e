-- Purpose: for each concept of one SAE, the images and the captions of both splits with the highest activations.
-- Inputs:  activations; $model, $sae, $seed, $n (maximum number of items per concept and modality).
-- Columns: model, sae, seed; modality; concept_id; item_id; activation.
SELECT a.model, a.sae, a.seed, a.modality, a.concept_id, a.item_id, a.activation
FROM activations AS a
WHERE a.model = $model AND a.sae = $sae AND a.seed = $seed
QUALIFY row_number() OVER (PARTITION BY a.modality, a.concept_id ORDER BY a.activation DESC, a.item_id) <= $n
