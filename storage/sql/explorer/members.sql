-- Purpose: the concepts of the seeds from which each concept of one consensus SAE was made.
-- Inputs:  consensus_members; $model, $sae, $seed.
-- Columns: concept_id; of_sae, of_seed and concept (the concept of a seed that holds it); cosine (of the directions of
--          the two).
SELECT concept_id, of_sae, of_seed, of_concept AS concept, cosine
FROM consensus_members
WHERE model = $model AND sae = $sae AND seed = $seed
ORDER BY concept_id, of_seed
