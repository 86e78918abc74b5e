-- Purpose: the matched concept of each concept of one SAE, in every other seed of the same model and SAE.
-- Inputs:  matches; $model, $sae, $seed.
-- Columns: concept_id; seed (the other seed); concept (the matched concept in the other seed); cosine (of the two).
SELECT concept_a AS concept_id, seed_b AS seed, concept_b AS concept, cosine
FROM matches
WHERE model = $model AND sae_a = $sae AND sae_b = $sae AND seed_a = $seed AND seed_b <> $seed
ORDER BY concept_id, seed
