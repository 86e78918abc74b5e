-- Purpose: the bridges of one SAE that the explorer shows: the largest, either sign.
-- Inputs:  bridges; $model, $sae, $seed, $most (rows at most).
-- Columns: those of bridges, without the SAE's and the split.
SELECT image_concept, text_concept, pairs, coactivation, cosine, bridge, covariance_bridge, correlation_bridge
FROM bridges
WHERE model = $model AND sae = $sae AND seed = $seed
ORDER BY abs(bridge) DESC, image_concept, text_concept
LIMIT $most
