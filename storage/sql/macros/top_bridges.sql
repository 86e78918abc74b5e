-- Purpose: the strongest bridges of one SAE.
-- Inputs:  m (model), s (sae), seed, n (rows), by ('bridge', 'covariance_bridge' or 'correlation_bridge'); bridges, concepts.
-- Columns: image_concept, text_concept; bridge, covariance_bridge, correlation_bridge; pairs (on which both fire);
--          coactivation; cosine; image_score, text_score (modality scores of the two concepts).
CREATE MACRO top_bridges(m, s, seed, n, "by" := 'bridge') AS TABLE
SELECT
    bridges.image_concept, bridges.text_concept,
    bridges.bridge, bridges.covariance_bridge, bridges.correlation_bridge,
    bridges.pairs, bridges.coactivation, bridges.cosine,
    i.modality_score AS image_score, t.modality_score AS text_score
FROM bridges
JOIN concepts AS i
    ON i.model = bridges.model AND i.sae = bridges.sae AND i.seed = bridges.seed AND i.concept_id = bridges.image_concept
JOIN concepts AS t
    ON t.model = bridges.model AND t.sae = bridges.sae AND t.seed = bridges.seed AND t.concept_id = bridges.text_concept
WHERE bridges.model = m AND bridges.sae = s AND bridges.seed = seed
ORDER BY
    CASE "by"
        WHEN 'bridge' THEN bridges.bridge
        WHEN 'covariance_bridge' THEN bridges.covariance_bridge
        WHEN 'correlation_bridge' THEN bridges.correlation_bridge
        ELSE error('top_bridges: by is bridge, covariance_bridge or correlation_bridge')::DOUBLE
    END DESC NULLS LAST,
    bridges.image_concept, bridges.text_concept
LIMIT n;
