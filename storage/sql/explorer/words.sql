-- Purpose: the words that distinguish the training captions of each concept of one SAE, the most distinctive first.
-- Inputs:  concept_words; $model, $sae, $seed.
-- Columns: concept_id; word; score.
SELECT concept_id, word, score
FROM concept_words
WHERE model = $model AND sae = $sae AND seed = $seed
ORDER BY concept_id, score DESC, word
