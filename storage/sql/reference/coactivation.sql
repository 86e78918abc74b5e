-- Purpose: co-activation in plain SQL. Tests compare this query with the faster kernel that fills the table bridges.
-- Inputs:  activations, pairs; $model, $sae, $seed; $split ('heldout', 'train' or 'all').
-- Columns: image_concept, text_concept; pairs (number of pairs on which both concepts fire); coactivation =
--          E_P[z_i(image) z_j(text)].
-- Definition: docs/definitions.md, "Bridge Score". E_P: mean over the counted pairs; z_i, z_j: codes of the two
--          concepts.
WITH counted AS (
    SELECT pair_id, image_id FROM pairs WHERE $split = 'all' OR split = $split
),
codes AS (
    SELECT modality, item_id, concept_id, activation::DOUBLE AS activation
    FROM activations
    WHERE model = $model AND sae = $sae AND seed = $seed
)
SELECT
    image.concept_id AS image_concept,
    text.concept_id AS text_concept,
    count(*) AS pairs,
    sum(image.activation * text.activation) / (SELECT count(*) FROM counted) AS coactivation
FROM counted
JOIN codes AS image ON image.modality = 'image' AND image.item_id = counted.image_id
JOIN codes AS text ON text.modality = 'text' AND text.item_id = counted.pair_id
GROUP BY image_concept, text_concept
ORDER BY image_concept, text_concept
