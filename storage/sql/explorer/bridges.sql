-- Purpose: the bridges of one SAE that the explorer shows: the $most bridges with the largest absolute values.
-- Inputs:  bridges; $model, $sae, $seed, $most (maximum number of rows).
-- Columns: the columns of bridges, without model, sae, seed and split.
SELECT image_concept, text_concept, pairs, coactivation, cosine, bridge, covariance_bridge, correlation_bridge
FROM bridges
WHERE model = $model AND sae = $sae AND seed = $seed
ORDER BY abs(bridge) DESC, image_concept, text_concept
LIMIT $most
