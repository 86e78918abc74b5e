-- Purpose: the best labels of the concepts of one SAE, best first.
-- Inputs:  concept_labels; $model, $sae, $seed.
-- Columns: concept_id, modality, name, label, auc, null_q975, above_null (as in concept_labels).
SELECT concept_id, modality, name, label, auc, null_q975, above_null
FROM concept_labels
WHERE model = $model AND sae = $sae AND seed = $seed
ORDER BY concept_id, auc DESC, name
