-- Purpose: the highest bridges of one SAE.
-- Inputs:  m (model), s (sae), seed, n (number of rows), by ('bridge', 'covariance_bridge' or 'correlation_bridge'); bridges,
--          concepts.
-- Columns: image_concept, text_concept; bridge, covariance_bridge, correlation_bridge; pairs (number of pairs on which
--          both concepts fire); coactivation; cosine; image_score, text_score (modality scores of the two concepts).
CREATE MACRO top_bridges(m, s, seed, n, "by" := 'bridge') AS TABLE
-- A run may have millions of bridges. So the query first finds the lowest score of the result, and reads only the
-- column of scores for this. It reads the other columns and joins the concepts only for bridges that reach this score.
-- A NULL score is ordered last.
WITH lowest AS (
    SELECT min(score) AS score
    FROM (
        SELECT
            coalesce(CASE "by"
                WHEN 'bridge' THEN bridges.bridge
                WHEN 'covariance_bridge' THEN bridges.covariance_bridge
                WHEN 'correlation_bridge' THEN bridges.correlation_bridge
                ELSE error('top_bridges: by is bridge, covariance_bridge or correlation_bridge')::DOUBLE
            END, '-infinity'::DOUBLE) AS score
        FROM bridges
        WHERE bridges.model = m AND bridges.sae = s AND bridges.seed = seed
        ORDER BY score DESC
        LIMIT n
    )
),
reached AS (
    SELECT
        bridges.*,
        coalesce(CASE "by"
            WHEN 'bridge' THEN bridges.bridge
            WHEN 'covariance_bridge' THEN bridges.covariance_bridge
            ELSE bridges.correlation_bridge
        END, '-infinity'::DOUBLE) AS score
    FROM bridges
    WHERE bridges.model = m AND bridges.sae = s AND bridges.seed = seed
        AND coalesce(CASE "by"
            WHEN 'bridge' THEN bridges.bridge
            WHEN 'covariance_bridge' THEN bridges.covariance_bridge
            ELSE bridges.correlation_bridge
        END, '-infinity'::DOUBLE) >= (SELECT lowest.score FROM lowest)
),
top AS (
    SELECT * FROM reached ORDER BY score DESC, image_concept, text_concept LIMIT n
)
SELECT
    top.image_concept, top.text_concept, top.bridge, top.covariance_bridge, top.correlation_bridge,
    top.pairs, top.coactivation, top.cosine, i.modality_score AS image_score, t.modality_score AS text_score
FROM top
JOIN concepts AS i
    ON i.model = top.model AND i.sae = top.sae AND i.seed = top.seed AND i.concept_id = top.image_concept
JOIN concepts AS t
    ON t.model = top.model AND t.sae = top.sae AND t.seed = top.seed AND t.concept_id = top.text_concept
ORDER BY top.score DESC, top.image_concept, top.text_concept;
