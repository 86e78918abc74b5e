-- Purpose: where each concept of one SAE is found in the other seeds of its setting.
-- Inputs:  matches; $model, $sae, $seed.
-- Columns: concept_id; seed (the other one); concept (there); cosine.
SELECT concept_a AS concept_id, seed_b AS seed, concept_b AS concept, cosine
FROM matches
WHERE model = $model AND sae_a = $sae AND sae_b = $sae AND seed_a = $seed AND seed_b <> $seed
ORDER BY concept_id, seed
