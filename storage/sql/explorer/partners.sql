-- Purpose: the partner of each concept of one SAE in the SAE of every other model, on images and on captions.
-- Inputs:  correspondence; $model, $sae, $seed.
-- Columns: concept_id; model (the other model); modality ('image' or 'text': the items whose codes are compared); concept
--          (the partner); correlation; floor (as in correspondence).
SELECT concept_a AS concept_id, model_b AS model, modality_a AS modality, concept_b AS concept, correlation, floor
FROM correspondence
WHERE model_a = $model AND sae = $sae AND seed = $seed AND correlation IS NOT NULL
ORDER BY concept_id, model, modality
